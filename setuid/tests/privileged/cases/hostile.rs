//! Callers who set traps: what they start the program with, and what they send.

use crate::user::{Netns, as_user, asking, connected, expect_denied, helper, release};
use crate::world::{ALICE, BOB, PROGRAM, World, eventually, set_mode};
use mossnet_setuid::channel;
use mossnet_setuid::request::{Bind, Protocol, Reply, Request};
use nix::sys::signal::{Signal, kill};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};
use nix::unistd::Pid;
use std::fs;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::process::{Command, Stdio};

/// Send bytes and descriptors as a user; the answer, and what standard error says.
fn send(kind: SockType, bytes: &[u8], fds: &[BorrowedFd<'_>]) -> (Option<Reply>, String) {
    as_user(ALICE, &[], || {
        let (ours, theirs) =
            socketpair(AddressFamily::Unix, kind, None, SockFlag::SOCK_CLOEXEC).expect("a pair");
        channel::send(ours.as_fd(), bytes, fds).expect("sent");
        let mut command = Command::new(PROGRAM);
        command.arg("serve").stdin(theirs);
        let output = command.output().expect("the program");
        drop(command);
        let answer = channel::receive(ours.as_fd()).ok();
        let answer = answer.and_then(|answer| Reply::decode(&answer.bytes).ok());
        (answer, String::from_utf8_lossy(&output.stderr).into_owned())
    })
}

pub fn requests(world: &World) {
    let denied = (Some(Reply::Denied), "mossnet-helper: denied\n".to_owned());
    let null = fs::File::open("/dev/null").expect("a file");
    let many = vec![null.as_fd(); 253];
    let query = Request::Query.encode();
    let seq = SockType::SeqPacket;
    assert!(matches!(send(seq, &query, &[]).0, Some(Reply::Grants(_))));
    for (bytes, fds, words) in [
        (&b"\x01"[..], &[][..], "malformed: truncated"),
        (b"\x02\x00", &[], "malformed: version 2"),
        (b"\x01\x63", &[], "malformed: unknown verb 99"),
        (b"\x01\x00\x00", &[], "malformed: trailing bytes"),
        (&[0; 4096], &[], "malformed: version 0"),
        (&[1; 5000], &[], "system: "),
        (&query, &many[..1], "1 descriptors instead of 0"),
        (&query, &many, "253 descriptors instead of 0"),
        (
            b"GET / HTTP/1.0\r\n\r\n",
            &many[..2],
            "malformed: version 71",
        ),
    ] {
        assert_eq!(send(seq, bytes, fds), denied, "{words}");
        world.expect_logged(words);
    }
    // Whoever is refused sees the same, whatever the reason.
    let other = Netns::of(BOB);
    let refused = Request::Uplink(crate::user::uplink(&["10.89.0.0/24"])).encode();
    assert_eq!(send(seq, &refused, &[other.fd()]), denied);
    let refused = Request::Bridge(crate::user::bridge("no-such", &[])).encode();
    assert_eq!(send(seq, &refused, &[other.fd()]), denied);
    // A stream has no bounds.
    assert_eq!(send(SockType::Stream, &query, &[]).1, denied.1);
    let mut command = Command::new(PROGRAM);
    let output = command
        .arg("serve")
        .stdin(null)
        .output()
        .expect("the program");
    assert_eq!(String::from_utf8_lossy(&output.stderr), denied.1);
    // A caller that is gone.
    let (ours, theirs) =
        socketpair(AddressFamily::Unix, seq, None, SockFlag::SOCK_CLOEXEC).expect("a pair");
    drop(ours);
    let mut command = Command::new(PROGRAM);
    let output = command
        .arg("serve")
        .stdin(theirs)
        .output()
        .expect("the program");
    assert_eq!(String::from_utf8_lossy(&output.stderr), denied.1);
}

/// A shell line that runs the program, as a user; `$P` is the program.
fn shell(line: &str) -> (bool, String) {
    as_user(ALICE, &[], || {
        let mut command = Command::new("bash");
        command.args(["-c", line]).env("P", PROGRAM);
        let output = command.output().expect("bash");
        let text = [output.stdout, output.stderr].concat();
        (
            output.status.success(),
            String::from_utf8_lossy(&text).into_owned(),
        )
    })
}

pub fn starts(world: &World) {
    let usual = shell("$P check");
    assert!(
        usual.0 && usual.1.contains("grants.toml, grant 1"),
        "{usual:?}"
    );
    // Nothing of this makes a difference.
    for line in [
        "LD_PRELOAD=/mnt/evil.so LD_LIBRARY_PATH=/mnt LD_AUDIT=/mnt/evil.so $P check",
        "IFS=/ PATH=/mnt:. HOME=/nowhere TMPDIR=/nowhere $P check",
        "LC_ALL=xx_XX.EVIL LANG=../../mnt LANGUAGE=% LOCPATH=/mnt $P check",
        "RUST_BACKTRACE=full RUST_LOG=trace RUST_MIN_STACK=1 MALLOC_CHECK_=3 $P check",
        "for n in $(seq 1 200); do export V$n=$(printf %0100d 0); done; $P check",
        "cd /run; umask 777; $P check",
        "exec 5</dev/null 9</etc/passwd; $P check",
        "ulimit -f 0; $P check",
        "exec -a ../../evil $P check",
        "exec -a '' $P check",
        "trap '' HUP INT QUIT PIPE CHLD; $P check",
    ] {
        // An instrumented program writes a file in the end, and says that it could not.
        if !(line.starts_with("ulimit -f") && crate::world::is_instrumented()) {
            assert_eq!(shell(line), usual, "{line}");
        }
    }
    // Denied, and nothing else happens.
    for line in [
        "$P check $(printf %0100000d 0)",
        "$P $(seq 1 20000)",
        "$P serve extra",
        "$P ''",
        "$P $'\\xff'",
    ] {
        assert_eq!(
            shell(line),
            (false, "mossnet-helper: denied\n".to_owned()),
            "{line}"
        );
    }
    assert!(!shell("ulimit -n 3; $P check").0);
    // With standard descriptors closed, nothing that is opened takes their place.
    for line in ["$P check <&- >&- 2>&-", "$P check >&-", "$P serve <&-"] {
        let (_, text) = shell(line);
        assert!(
            text.is_empty() || text == "mossnet-helper: denied\n",
            "{line}: {text}"
        );
    }
    assert!(shell("$P check <&-").0);
    // No privilege: refused at the start, not in the middle.
    let (done, text) = shell("setpriv --no-new-privs $P check");
    assert_eq!((done, text.as_str()), (false, "mossnet-helper: denied\n"));
    world.expect_logged("not installed with its capabilities");
    // A limit of file sizes is no way around the record.
    let bound = as_user(ALICE, &[], || {
        let limit = nix::sys::resource::Resource::RLIMIT_FSIZE;
        let (soft, hard) = nix::sys::resource::getrlimit(limit).expect("a limit");
        nix::sys::resource::setrlimit(limit, 0, hard).expect("a limit");
        let address = "127.0.0.1:80".parse().expect("an address");
        let protocol = Protocol::Tcp;
        let bound = helper().bind(Bind { protocol, address });
        nix::sys::resource::setrlimit(limit, soft, hard).expect("a limit");
        bound
    });
    expect_denied(bound);
    world.expect_logged("record: write the record");
}

pub fn not_in_a_container(world: &World) {
    // In a user namespace of the caller the file's capabilities are the caller's own.
    let (done, text) = shell("unshare --user --map-root-user --net $P check");
    assert_eq!((done, text.as_str()), (false, "mossnet-helper: denied\n"));
    world.expect_logged("outside of the host's own namespaces");
    let (done, _) = shell("unshare --user --map-current-user $P check");
    assert!(!done);
    // Root in a network namespace that is a user's.
    let netns = Netns::of(ALICE);
    let output = netns
        .enter(PROGRAM)
        .arg("check")
        .output()
        .expect("the program");
    assert!(!output.status.success(), "{output:?}");
    world.expect_logged("outside of the host's own namespaces");
}

pub fn setuid_root_is_the_same(world: &World) {
    world.install_setuid_root();
    let grants = asking(ALICE, |helper| helper.query()).expect("grants");
    assert_eq!(grants.verbs.len(), 4);
    let router = Netns::of(ALICE);
    let made = connected(ALICE, &router, &["10.89.1.0/24"], &["10.89.1.2/32"]);
    let wanted = Bind {
        protocol: Protocol::Tcp,
        address: "127.0.0.1:80".parse().expect("an address"),
    };
    let socket: OwnedFd = asking(ALICE, |helper| helper.bind(wanted)).expect("a socket");
    drop(socket);
    expect_denied(release(BOB, &made.host));
    release(ALICE, &made.host).expect("released");
    let owner =
        std::os::unix::fs::MetadataExt::uid(&fs::metadata("/run/mossnet/lock").expect("a lock"));
    assert_eq!(owner, 0);
    assert!(shell("LD_PRELOAD=/mnt/evil.so $P check").0);
    // Its caller can neither stop nor kill it.
    as_user(ALICE, &[], || {
        let kind = SockType::SeqPacket;
        let pair = socketpair(AddressFamily::Unix, kind, None, SockFlag::SOCK_CLOEXEC);
        let (ours, theirs) = pair.expect("a pair");
        let mut command = Command::new(PROGRAM);
        command
            .arg("serve")
            .stdin(theirs)
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        let mut child = command.spawn().expect("the program");
        drop(command);
        let pid = Pid::from_raw(child.id().cast_signed());
        // It has become root entirely once it waits for its request.
        eventually("it is root's", || kill(pid, None).is_err());
        for signal in [Signal::SIGSTOP, Signal::SIGKILL] {
            assert_eq!(kill(pid, signal), Err(nix::errno::Errno::EPERM));
        }
        drop(ours);
        child.wait().expect("its end");
    });
    set_mode(PROGRAM, 0o755);
    expect_denied(asking(ALICE, |helper| helper.query()));
}
