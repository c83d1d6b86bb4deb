//! Other runtimes' containers on our networks: `adopt`, through the command line; `cni`, the plugin; `oci`, the
//! hooks.

mod adopt;
mod cni;
mod oci;

use crate::world::{Cmd, Running, World, eventually, inspect, seconds, within};
use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::symlink;

/// The host's own address, as the world outside knows it.
const HOST: &str = "203.0.113.2";

/// Who owns a container's network namespace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Owner {
    /// The user namespace that `unshare` enters.
    Ours,
    /// One below.
    Below,
    /// One beside.
    Sibling,
}

/// A container of another runtime: a process in a network namespace of its own, which the test knows as
/// `/run/netns/NAME`, too.
struct Guest {
    name: String,
    process: Running,
}

impl Guest {
    #[track_caller]
    fn start(world: &World, name: &str, owner: Owner) -> Self {
        let sleep = ["sleep", "100000"];
        let process = match owner {
            Owner::Ours => world.mossnet(["unshare", "unshare", "--net"]).then(sleep),
            Owner::Below => world
                .mossnet(["unshare", "unshare", "--net", "--user", "--map-root-user"])
                .then(sleep),
            Owner::Sibling => world
                .user(["unshare", "--net", "--user", "--map-root-user"])
                .then(sleep),
        };
        let process = process.timeout(seconds(85)).start();
        let pid = process.pid();
        eventually(seconds(20), "a container's process runs", || {
            let all = inspect::processes();
            all.iter().any(|p| p.pid == pid && p.line == "sleep 100000")
        });
        let place = format!("/run/netns/{name}");
        let _ = fs::remove_file(&place);
        symlink(format!("/proc/{pid}/ns/net"), place).expect("a name for a netns");
        Self {
            name: name.to_owned(),
            process,
        }
    }

    fn netns(&self) -> String {
        format!("/proc/{}/ns/net", self.process.pid())
    }

    /// A program in its network.
    fn run(&self, line: &str) -> Cmd {
        let netns = format!("--net=/run/netns/{}", self.name);
        Cmd::new(["nsenter", &netns, "--"]).then(line.split(' '))
    }

    fn pings(&self, target: &str) -> bool {
        self.run(&format!("ping -c1 -W2 -n {target}")).run().code == 0
    }

    fn end(self) {
        inspect::kill_hard(&[self.process.pid()]);
        drop(self.process);
        fs::remove_file(format!("/run/netns/{}", self.name)).expect("its name");
    }
}

/// Tells each client whom it is taken for.
fn tell_peer(mut stream: TcpStream) {
    let peer = stream.peer_addr().expect("a peer");
    let canonical = SocketAddr::new(peer.ip().to_canonical(), peer.port());
    let _ = write!(stream, "{canonical}");
}

/// What a server tells a client in netns `from`, and the client's own address; `None`: refused.
fn ask(from: &str, to: &str) -> Option<(String, String)> {
    within(from, || {
        let to: SocketAddr = to.parse().expect("an address");
        let mut stream = TcpStream::connect_timeout(&to, seconds(5)).ok()?;
        let own = stream.local_addr().expect("an address").to_string();
        let mut text = String::new();
        stream.read_to_string(&mut text).ok()?;
        Some((text, own))
    })
}
