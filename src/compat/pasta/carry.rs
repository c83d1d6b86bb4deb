//! Connections and datagrams from one socket to another, copied.
//!
//! The namespace's loopback and the host's are both at hand, so that there is nothing to translate.
//! Invariant: a client's end is its service's end, and the other way round; there are never more than
//! [`MOST`] of either kind at a port.

use socket2::SockRef;
use std::cell::Cell;
use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::Semaphore;
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::{sleep, timeout};

/// Connections, or clients that send datagrams, at one port.
const MOST: usize = 1024;
/// A client that has neither sent nor heard anything for so long is forgotten (RFC 4787 section 4.3).
const IDLE: Duration = Duration::from_secs(180);
/// After an accept that failed: out of descriptors, say.
const PAUSE: Duration = Duration::from_millis(100);
/// Largest datagram.
const DATAGRAM: usize = 65_536;

/// Where the service listens may be IPv4 alone.
async fn connect(to: SocketAddr) -> io::Result<TcpStream> {
    match TcpStream::connect(to).await {
        Err(_) if to.is_ipv6() => TcpStream::connect(of_ipv4(to)).await,
        result => result,
    }
}

fn of_ipv4(to: SocketAddr) -> SocketAddr {
    SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), to.port())
}

/// Carries every connection of `listener` to `to`, for ever; they end with the task.
pub async fn connections(listener: TcpListener, to: SocketAddr) {
    let room = Arc::new(Semaphore::new(MOST));
    let mut all = JoinSet::new();
    loop {
        while all.try_join_next().is_some() {}
        let Ok(place) = Arc::clone(&room).acquire_owned().await else {
            return;
        };
        match listener.accept().await {
            Ok((client, _)) => {
                all.spawn_local(async move {
                    let _place = place;
                    carry(client, to).await;
                });
            }
            Err(_) => sleep(PAUSE).await,
        }
    }
}

async fn carry(mut client: TcpStream, to: SocketAddr) {
    let Ok(mut service) = connect(to).await else {
        // The client is to see that nobody is there.
        let _ = SockRef::from(&client).set_linger(Some(Duration::ZERO));
        return;
    };
    let _ = client.set_nodelay(true);
    let _ = service.set_nodelay(true);
    let _ = copy_bidirectional(&mut client, &mut service).await;
}

/// One client.
struct Client {
    service: Rc<UdpSocket>,
    seen: Rc<Cell<Instant>>,
    answers: AbortHandle,
}

/// Carries every datagram of `socket` to `to`, and the answers back, for ever.
pub async fn datagrams(socket: UdpSocket, to: SocketAddr) {
    let socket = Rc::new(socket);
    let mut clients: HashMap<SocketAddr, Client> = HashMap::new();
    let mut all = JoinSet::new();
    let mut buffer = vec![0; DATAGRAM];
    loop {
        // Also fails with what became of an answer.
        let Ok((length, client)) = socket.recv_from(&mut buffer).await else {
            continue;
        };
        while all.try_join_next().is_some() {}
        clients.retain(|_, client| !client.answers.is_finished());
        if !clients.contains_key(&client) {
            if clients.len() >= MOST {
                continue;
            }
            let Ok(service) = towards(to).await else {
                continue;
            };
            let service = Rc::new(service);
            let seen = Rc::new(Cell::new(Instant::now()));
            let back = answers(
                Rc::clone(&service),
                Rc::clone(&socket),
                client,
                Rc::clone(&seen),
            );
            let answers = all.spawn_local(back);
            clients.insert(
                client,
                Client {
                    service,
                    seen,
                    answers,
                },
            );
        }
        if let (Some(client), Some(bytes)) = (clients.get(&client), buffer.get(..length)) {
            client.seen.set(Instant::now());
            // Nobody there: as on a network.
            let _ = client.service.send(bytes).await;
        }
    }
}

async fn towards(to: SocketAddr) -> io::Result<UdpSocket> {
    let socket = UdpSocket::bind(SocketAddr::new(to.ip(), 0)).await?;
    socket.connect(to).await?;
    Ok(socket)
}

/// Until neither side has said anything for a while.
async fn answers(
    service: Rc<UdpSocket>,
    socket: Rc<UdpSocket>,
    client: SocketAddr,
    seen: Rc<Cell<Instant>>,
) {
    let mut buffer = vec![0; DATAGRAM];
    loop {
        match timeout(IDLE, service.recv(&mut buffer)).await {
            Ok(Ok(length)) => {
                seen.set(Instant::now());
                if let Some(bytes) = buffer.get(..length) {
                    let _ = socket.send_to(bytes, client).await;
                }
            }
            // Refused: the service may come.
            Ok(Err(_)) => {}
            Err(_) if seen.get().elapsed() < IDLE => {}
            Err(_) => return,
        }
    }
}
