//! From the command that makes a container with a way out to the first byte from outside.

use crate::TARGET;
use crate::contender::{
    Kind, Product, guarded, obstacle, one_line, peer_command, rootlesskit_command,
};
use crate::results::Results;
use crate::rounds::add;
use crate::world::{Cmd, World, ip, seconds};
use std::time::{Duration, Instant};

const ROW: &str = "start-up to the first byte";
const COLD: &str = "start-up to the first byte, nothing runs before";
/// While the kernel takes the namespaces of one contender apart, the next one waits for it.
const PAUSE: Duration = Duration::from_millis(500);
/// A world of mossnet's own for the cold start.
const COLD_ROOT: &str = "/run/world/cold";

/// Once of each; the peers have nothing that could run before.
pub fn measure(world: &World, kinds: &[Kind], results: &mut Results) {
    for kind in kinds.iter().filter(|kind| !kind.streams_only) {
        let warm = guarded(|| once(world, *kind, &kind.root()));
        let cold = if kind.product == Product::Mossnet {
            let cold = guarded(|| once(world, *kind, COLD_ROOT));
            let _ = kind.mossnet(world, COLD_ROOT, &["shutdown", "--all"]).run();
            cold
        } else {
            warm.clone()
        };
        add(results, ROW, "ms", *kind, warm);
        add(results, COLD, "ms", *kind, cold);
    }
}

/// Words of the load generator that asks for the first byte.
const fn first(target: &str) -> [&str; 6] {
    ["/run/world/bin/itself", "load", "first", target, "0", "8"]
}

fn once(world: &World, kind: Kind, root: &str) -> Result<f64, String> {
    std::thread::sleep(PAUSE);
    match kind.product {
        Product::Native => native(),
        Product::Mossnet => {
            let command = kind.mossnet(world, root, &["run", "--rm", "--"]);
            timed(command.then(first(TARGET)))
        }
        Product::Pasta => {
            if let Some(obstacle) = obstacle(world, "pasta") {
                return Err(obstacle);
            }
            // It makes the namespaces itself.
            let line = peer_command(kind, 0);
            let options = line.split_whitespace();
            let options: Vec<_> = options
                .filter(|word| *word != "0" && *word != "-f")
                .collect();
            timed(world.user(options).then(["--"]).then(first(TARGET)))
        }
        Product::Slirp4netns => slirp4netns(world, kind),
        Product::Rootlesskit => timed(rootlesskit_command(kind).then(first(TARGET))),
        Product::Bypass4netns => Err("cannot be started".to_owned()),
    }
}

/// Milliseconds to the word `first` on stdout.
fn timed(cmd: Cmd) -> Result<f64, String> {
    let begin = Instant::now();
    let mut running = cmd.timeout(seconds(10)).start();
    running.expect("first");
    let took = begin.elapsed().as_secs_f64() * 1e3;
    let output = running.wait();
    if output.code != 0 {
        return Err(one_line(&output.stderr));
    }
    Ok(took)
}

fn native() -> Result<f64, String> {
    let begin = Instant::now();
    ip(
        None,
        "netns add first\nlink add first type veth peer name bench netns first\n\
         link set first netns server\n",
    );
    ip(
        Some("server"),
        "addr add 198.18.3.2/24 dev first\nlink set first up\n",
    );
    ip(
        Some("first"),
        "addr add 198.18.3.1/24 dev bench\nlink set bench up\nlink set lo up\n",
    );
    let made = begin.elapsed().as_secs_f64() * 1e3;
    let asked =
        timed(Cmd::new(first("198.18.3.2")).under(["nsenter", "--net=/run/netns/first", "--"]));
    ip(Some("server"), "link del first\n");
    ip(None, "netns del first\n");
    Ok(made + asked?)
}

/// It takes a netns that is there: made by unshare(1), whose command asks until there is a way out.
fn slirp4netns(world: &World, kind: Kind) -> Result<f64, String> {
    if let Some(obstacle) = obstacle(world, "slirp4netns") {
        return Err(obstacle);
    }
    let begin = Instant::now();
    let script = "echo made; exec \"$@\"";
    let holder = world.user(["unshare", "-Urn", "sh", "-c", script, "-"]);
    let mut holder = holder.then(first(TARGET)).timeout(seconds(10)).start();
    holder.expect("made");
    let line = peer_command(kind, holder.pid());
    let _peer = world.user(line.split_whitespace()).start();
    holder.expect("first");
    Ok(begin.elapsed().as_secs_f64() * 1e3)
}
