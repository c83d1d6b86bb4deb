//! Load generator of the benchmarks, and the servers that it talks to.
//!
//! The program of a benchmark is its own load generator: `itself load KIND ADDRESS NUMBER SECONDS` runs
//! in a container, `itself serve` wherever the servers shall be. A client prints one line of
//! `name=value` and ends; what keeps it from an answer it says in one line on stderr. Invariant: no
//! client outlives its time by more than [`GRACE`], whatever the path does to it.
//!
//! * `exchange`: requests and connections. `stream`: bulk. `datagrams`: UDP. `names`: DNS.
//! * `idle`, `churn`, `flows`: many flows that do nothing, or come and go, or are counted as they come. `first`: the first byte.

mod churn;
mod datagrams;
mod exchange;
mod first;
mod flows;
mod idle;
mod names;
mod stream;

pub use datagrams::PORT as UDP_PORT;

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use socket2::{Domain, Protocol, Socket, Type};
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::net::{IpAddr, Ipv6Addr, SocketAddr, TcpListener, TcpStream};
use std::process::ExitCode;
use std::time::Duration;

/// How long a client may take beyond the seconds that it was given.
pub const GRACE: Duration = Duration::from_secs(12);

/// No single step of a client takes longer.
const PATIENCE: Duration = Duration::from_secs(5);

/// What a client measured, or why it could not.
pub type Measured = Result<BTreeMap<String, f64>, String>;

/// What a client is asked for.
struct Order {
    address: IpAddr,
    /// Connections, streams, bytes: as the kind of load has it.
    number: usize,
    duration: Duration,
}

/// `load KIND ADDRESS NUMBER SECONDS`: see [`kinds`].
pub fn client(args: &[String]) -> ExitCode {
    let measured = order(args).and_then(|(kind, order)| {
        let kind = kinds(kind).ok_or(format!("unknown load {kind}"))?;
        watch(order.duration + GRACE);
        raise_limit();
        kind(&order)
    });
    match measured {
        Ok(values) => {
            let mut line = String::new();
            for (name, value) in values {
                let _ = write!(line, "{name}={value} ");
            }
            println!("{line}");
            ExitCode::SUCCESS
        }
        Err(reason) => {
            eprintln!("{reason}");
            ExitCode::FAILURE
        }
    }
}

fn kinds(name: &str) -> Option<fn(&Order) -> Measured> {
    Some(match name {
        "requests" => exchange::requests,
        "connections" => exchange::connections,
        "stream-out" => stream::out,
        "stream-in" => stream::inward,
        "flood-out" => datagrams::flood_out,
        "flood-in" => datagrams::flood_in,
        "paced-out" => datagrams::paced_out,
        "segments-out" => datagrams::segments_out,
        "echo" => datagrams::echo,
        "echoes" => exchange::echoes,
        "names" => names::ask,
        "idle" => idle::hold,
        "churn" => churn::churn,
        "first" => first::first_byte,
        "flows-short" => flows::short,
        "flows-long" => flows::long,
        _ => return None,
    })
}

fn order(args: &[String]) -> Result<(&str, Order), String> {
    let [kind, address, number, seconds] = args else {
        return Err("load KIND ADDRESS NUMBER SECONDS".to_owned());
    };
    let wrong = |text: &String| format!("not understood: {text}");
    let seconds: f64 = seconds.parse().map_err(|_| wrong(seconds))?;
    let order = Order {
        address: address.parse().map_err(|_| wrong(address))?,
        number: number.parse().map_err(|_| wrong(number))?,
        duration: Duration::from_secs_f64(seconds),
    };
    Ok((kind, order))
}

/// Ends the process when `limit` has passed: it is stuck.
fn watch(limit: Duration) {
    std::thread::spawn(move || {
        std::thread::sleep(limit);
        eprintln!("stalled: not over after {limit:?}");
        std::process::exit(1);
    });
}

/// What a client printed.
pub fn parse(line: &str) -> BTreeMap<String, f64> {
    let words = line.split_whitespace();
    let pairs = words.filter_map(|word| word.split_once('='));
    pairs
        .filter_map(|(name, value)| Some((name.to_owned(), value.parse().ok()?)))
        .collect()
}

/// Starts every server in the netns of this process, says `serves`, and stays.
pub fn serve() -> ! {
    raise_limit();
    exchange::serve();
    stream::serve();
    datagrams::serve();
    names::serve();
    println!("serves");
    loop {
        std::thread::park();
    }
}

/// Every descriptor that this process may have.
fn raise_limit() {
    if let Ok((_, hard)) = getrlimit(Resource::RLIMIT_NOFILE) {
        let _ = setrlimit(Resource::RLIMIT_NOFILE, hard, hard);
    }
}

/// A listener for IPv4 and IPv6.
fn listener(port: u16) -> TcpListener {
    let socket = Socket::new(Domain::IPV6, Type::STREAM, Some(Protocol::TCP)).expect("socket");
    socket.set_only_v6(false).expect("dual stack");
    socket.set_reuse_address(true).expect("reuse");
    let address = SocketAddr::from((Ipv6Addr::UNSPECIFIED, port));
    socket.bind(&address.into()).expect("bind a server");
    socket.listen(8192).expect("listen");
    socket.into()
}

/// A connection whose steps are all bounded in time.
fn connect(address: IpAddr, port: u16) -> Result<TcpStream, String> {
    let failed = |error| format!("connect: {error}");
    let stream =
        TcpStream::connect_timeout(&SocketAddr::from((address, port)), PATIENCE).map_err(failed)?;
    stream.set_nodelay(true).map_err(failed)?;
    stream.set_read_timeout(Some(PATIENCE)).map_err(failed)?;
    stream.set_write_timeout(Some(PATIENCE)).map_err(failed)?;
    Ok(stream)
}

fn values<const N: usize>(pairs: [(&str, f64); N]) -> BTreeMap<String, f64> {
    pairs.map(|(name, value)| (name.to_owned(), value)).into()
}
