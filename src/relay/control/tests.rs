//! The helper's side of the line, with rules and endpoints to look at.

use super::*;
use crate::network::snapshot::PublishView;
use crate::ports::{PublishSpec, SourceAddress};
use nix::sys::memfd::{MFdFlags, memfd_create};
use socket2::Socket;
use std::io::{Read as _, Seek as _, Write as _};
use std::net::TcpListener;
use std::os::fd::BorrowedFd;

struct World {
    helper: OwnedFd,
    rules: Arc<SharedRules>,
    endpoints: Arc<Endpoints>,
    relay: Option<std::thread::JoinHandle<io::Result<()>>>,
}

impl World {
    fn new() -> Self {
        let (helper, relay) = Socket::pair(Domain::UNIX, Type::SEQPACKET, None).unwrap();
        let control = Control::new(relay.into()).unwrap();
        let rules = Arc::new(SharedRules::default());
        let endpoints = Arc::new(Endpoints::default());
        let shared = (Arc::clone(&rules), Arc::clone(&endpoints));
        Self {
            helper: helper.into(),
            rules,
            endpoints,
            relay: Some(std::thread::spawn(move || {
                control.serve(&shared.0, &FdBudget::new(8), &shared.1)
            })),
        }
    }

    fn send(&self, json: &str, length: u64) -> String {
        self.send_with(json, &length.to_le_bytes())
    }

    fn send_with(&self, json: &str, message: &[u8]) -> String {
        let memfd = memfd_create(c"snapshot", MFdFlags::MFD_CLOEXEC).unwrap();
        let mut file = File::from(memfd);
        file.write_all(json.as_bytes()).unwrap();
        sys::descriptors::send(self.helper.as_fd(), message, &[file.as_fd()]).unwrap();
        self.answer()
    }

    fn answer(&self) -> String {
        let mut buffer = [0; 512];
        let message = sys::descriptors::receive(self.helper.as_fd(), &mut buffer).unwrap();
        String::from_utf8(buffer[..message.length].to_vec()).unwrap()
    }
}

#[test]
fn snapshots_replace_the_rules_and_bad_ones_do_not() {
    let mut world = World::new();
    let mut snapshot = Snapshot {
        generation: 3,
        ..Snapshot::default()
    };
    let json = serde_json::to_string(&snapshot).unwrap();
    assert_eq!(world.send(&json, json.len() as u64), "ok");
    assert_eq!(world.rules.load().snapshot().generation, 3);
    assert!(world.send("{}", 2).contains("understand the snapshot"));
    assert!(world.send("{}", 3).contains("read the snapshot"));
    assert!(world.send("{}", u64::MAX).contains("at most"));
    SockRef::from(&world.helper).send(b"hello").unwrap();
    assert!(world.answer().contains("5 bytes and 0 descriptors"));
    assert_eq!(world.rules.load().snapshot().generation, 3);
    snapshot.generation = 4;
    let json = serde_json::to_string(&snapshot).unwrap();
    assert_eq!(world.send(&json, json.len() as u64), "ok");
    assert_eq!(world.rules.load().snapshot().generation, 4);
    let relay = world.relay.take().unwrap();
    drop(world);
    relay.join().unwrap().unwrap();
}

#[test]
fn lists_of_endpoints_replace_each_other_and_bad_ones_do_not() {
    let world = World::new();
    let tell =
        |json: &str, length: &str| world.send_with(json, format!("endpoints {length}").as_bytes());
    let port = || {
        let place = world.endpoints.find("10.89.0.2".parse().unwrap());
        place.map(|place| place.port)
    };
    let list = |port: u32| {
        format!(
            r#"[{{"port":{port},"mac":"02:42:0a:59:00:02","addresses":["10.89.0.2","fd00::2"]}}]"#
        )
    };
    let json = list(7);
    assert_eq!(tell(&json, &json.len().to_string()), "ok");
    assert_eq!(port(), Some(7));
    assert!(tell("{}", "2").contains("understand the list of endpoints"));
    let strange = list(8).replace("port", "ports");
    assert!(tell(&strange, &strange.len().to_string()).contains("understand"));
    let multicast = list(8).replace("02:42", "01:42");
    assert!(tell(&multicast, &multicast.len().to_string()).contains("understand"));
    assert!(tell("[]", "3").contains("read the list of endpoints"));
    assert!(tell("[]", &u64::MAX.to_string()).contains("at most"));
    for malformed in ["", "x", "+2", "2 ", "-2", "18446744073709551616"] {
        let answer = tell("[]", malformed);
        assert!(answer.contains("1 descriptors"), "{malformed}: {answer}");
    }
    assert!(tell("[]", &"1".repeat(LONGEST_MESSAGE)).contains("cut short"));
    SockRef::from(&world.helper).send(b"endpoints 2").unwrap();
    assert!(world.answer().contains("11 bytes and 0 descriptors"));
    assert_eq!(port(), Some(7));
    assert_eq!(tell("[]", "2"), "ok");
    assert_eq!(port(), None);
    assert_eq!(world.rules.load().snapshot().generation, 0);
}

impl World {
    fn listeners(&self, sockets: &[BorrowedFd<'_>]) -> String {
        sys::descriptors::send(self.helper.as_fd(), b"listeners", sockets).unwrap();
        self.answer()
    }

    fn publish(&self, ports: &[u16]) -> usize {
        let publish = |port: &u16| PublishView {
            sandbox: "web".into(),
            publish: format!("127.0.0.1:{port}:80")
                .parse::<PublishSpec>()
                .unwrap()
                .fixed(SourceAddress::Keep)
                .unwrap(),
            targets: vec!["10.89.0.2".parse().unwrap()],
            inside: false,
            either_family: false,
        };
        let snapshot = Snapshot {
            publishes: ports.iter().map(publish).collect(),
            ..Snapshot::default()
        };
        let json = serde_json::to_string(&snapshot).unwrap();
        assert_eq!(self.send(&json, json.len() as u64), "ok");
        self.rules.load().publishes().iter().count()
    }
}

fn listening() -> (TcpListener, u16) {
    let socket = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = socket.local_addr().unwrap().port();
    (socket, port)
}

#[test]
fn listeners_are_kept_for_as_long_as_snapshots_name_them() {
    let world = World::new();
    let (one, first) = listening();
    let (other, second) = listening();
    assert_eq!(world.listeners(&[one.as_fd(), other.as_fd()]), "ok");
    // A port without a socket is not served, the others are.
    assert_eq!(world.publish(&[first, second, 1]), 2);
    let before = Arc::clone(world.rules.load().publishes());
    assert_eq!(world.publish(&[first, second]), 2);
    assert!(Arc::ptr_eq(&before, world.rules.load().publishes()));
    assert_eq!(world.publish(&[second]), 1);
    // The first was closed: naming it again does not bring it back.
    assert_eq!(world.publish(&[first, second]), 1);
    drop((one, before));
    assert!(TcpListener::bind(("127.0.0.1", first)).is_ok());
    // Six of eight descriptors may be taken.
    let more: Vec<_> = (0..6).map(|_| listening().0).collect();
    let more: Vec<_> = more.iter().map(AsFd::as_fd).collect();
    assert!(world.listeners(&more).contains("no room for 6"));
    assert_eq!(world.listeners(&more[..5]), "ok");
    let unix = world.helper.as_fd();
    assert!(world.listeners(&[unix]).contains("published port's socket"));
}

#[test]
fn counters_are_written_where_the_asker_wants_them() {
    let world = World::new();
    let (socket, port) = listening();
    world.listeners(&[socket.as_fd()]);
    world.publish(&[port]);
    let rules = world.rules.load();
    let published = rules.publishes().iter().next().unwrap();
    published.listener().counters.accept();
    published.listener().counters.carry(3, 4);
    let memfd = memfd_create(c"counters", MFdFlags::MFD_CLOEXEC).unwrap();
    sys::descriptors::send(world.helper.as_fd(), b"counters", &[memfd.as_fd()]).unwrap();
    let answer = world.answer();
    let mut text = String::new();
    let mut file = File::from(memfd);
    file.rewind().unwrap();
    file.read_to_string(&mut text).unwrap();
    assert_eq!(answer, format!("counted {}", text.len()));
    let expected = format!(
        r#"[{{"listener":"127.0.0.1:{port}/tcp","sandbox":"web","accepted":1,"refused":0,"bytes_in":3,"bytes_out":4}}]"#
    );
    assert_eq!(text, expected);
}

#[test]
fn other_sockets_are_refused() {
    let (stream, _) = std::os::unix::net::UnixStream::pair().unwrap();
    assert!(Control::new(stream.into()).is_err());
}
