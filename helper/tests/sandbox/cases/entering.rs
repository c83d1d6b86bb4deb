//! Processes that share namespaces with others.

use crate::cases::files::busybox_root;
use crate::world::*;
use mossnet_helper::request::{ExitStatus, FailureKind, SandboxNetns};
use std::fs;
use std::io::Read;

pub fn exec_enters() {
    let mut all = sandboxes();
    let scratch = Scratch::new();
    let mut first = spec(1, &["sleep", "1000"]);
    first.binds = vec![scratch.bind("hosts", "laid over\n", "/etc/hosts")];
    first.process.as_mut().unwrap().workdir = Some("/usr".into());
    let (pid, _output) = running(&mut all, first);
    for name in ["user", "mnt", "pid", "uts", "ipc", "net"] {
        let path = format!("/proc/1/ns/{name}");
        let own = format!("/proc/self/ns/{name}");
        let (_, text) = exec(&mut all, exec_spec(2, 1, &["readlink", &path, &own])).unwrap();
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(lines.len(), 2, "{text}");
        assert_eq!(lines[0], lines[1]);
    }
    let script = "pwd; uname -n; cat /etc/hosts; grep -h -e ^CapEff -e ^CapBnd /proc/self/status; \
                  test $$ -gt 1 && test -d /proc/$$ && echo pid; exit 3";
    let (status, text) = exec(&mut all, exec_spec(2, 1, &["sh", "-c", script])).unwrap();
    assert_eq!(status, ExitStatus::Code(3));
    assert_eq!(
        text,
        format!(
            "/usr\nmossy\nlaid over\nCapEff:\t{CAPABILITY_BITS}\nCapBnd:\t{CAPABILITY_BITS}\npid\n"
        )
    );
    // An exec'd process is listed and signalled by its own id, and ends with its sandbox.
    let (fds, output) = stdio();
    let exec_pid = all.exec(exec_spec(3, 1, &["sleep", "1000"]), fds).unwrap();
    let listed = all.list();
    assert_eq!(listed.len(), 2);
    assert_eq!(listed[1].exec_in, Some(id(1)));
    assert_eq!(listed[1].pid, exec_pid);
    all.signal(&id(1), libc::SIGKILL).unwrap();
    assert_eq!(read_all(output), "");
    assert_eq!(wait(&mut all, exec_pid), ExitStatus::Signal(libc::SIGKILL));
    assert_eq!(wait(&mut all, pid), ExitStatus::Signal(libc::SIGKILL));
    no_children();
}

pub fn exec_failures() {
    let mut all = sandboxes();
    assert_eq!(
        exec(&mut all, exec_spec(2, 1, &["true"])).unwrap_err().kind,
        FailureKind::NotFound
    );
    let (fds, _output) = stdio();
    all.create(spec(1, &["sleep", "1000"]), fds).unwrap();
    assert_eq!(
        exec(&mut all, exec_spec(2, 1, &["true"])).unwrap_err().kind,
        FailureKind::NotFound
    );
    all.start(&id(1)).unwrap();
    let failure = exec(&mut all, exec_spec(2, 1, &["nosuch"])).unwrap_err();
    assert_eq!((failure.kind, failure.errno), (FailureKind::Exec, Some(2)));
    let failure = exec(&mut all, exec_spec(2, 1, &["/etc/passwd"])).unwrap_err();
    assert_eq!((failure.kind, failure.errno), (FailureKind::Exec, Some(13)));
    assert_eq!(all.list().len(), 1);
    all.forget(&id(1)).unwrap();
    no_children();
}

pub fn join() {
    let mut all = sandboxes();
    let (pid, _output) = running(&mut all, spec(1, &["sleep", "1000"]));
    let namespaces = "for n in user net mnt pid uts ipc; do readlink /proc/self/ns/$n; done";
    let (_, first) = exec(&mut all, exec_spec(2, 1, &["sh", "-c", namespaces])).unwrap();
    let first: Vec<_> = first.lines().map(str::to_owned).collect();
    let mut joined = script(
        3,
        &format!(
            "{namespaces}; echo $$; uname -n; ls /sys/class/net; id -u; grep ^CapEff /proc/self/status"
        ),
    );
    joined.netns = SandboxNetns::Join(id(1));
    joined.hostname = "second".to_owned();
    let (status, text) = run_in(&mut all, joined.clone());
    assert_eq!(status, ExitStatus::Code(0), "{text}");
    let lines: Vec<_> = text.lines().collect();
    assert_eq!(lines[..2], first[..2]);
    for (inside, other) in lines[2..6].iter().zip(&first[2..]) {
        assert_ne!(inside, other);
    }
    assert_eq!(lines[6..10], ["1", "second", "lo", "0"]);
    assert_eq!(lines[10], format!("CapEff:\t{CAPABILITY_BITS}"));
    all.signal(&id(1), libc::SIGKILL).unwrap();
    wait(&mut all, pid);
    assert_eq!(
        all.create(joined, stdio().0).unwrap_err().kind,
        FailureKind::NotFound
    );
    no_children();
}

pub fn host() {
    let mut all = sandboxes();
    let mut first = script(1, "readlink /proc/self/ns/net; sleep 1000");
    first.netns = SandboxNetns::Host;
    let (pid, mut out) = running(&mut all, first);
    let netns = fs::read_link("/proc/self/ns/net").unwrap();
    let netns = format!("{}\n", netns.display());
    let mut seen = vec![0; netns.len()];
    out.read_exact(&mut seen).unwrap();
    assert_eq!(String::from_utf8(seen).unwrap(), netns);
    let (_, text) = exec(
        &mut all,
        exec_spec(2, 1, &["readlink", "/proc/self/ns/net"]),
    )
    .unwrap();
    assert_eq!(text, netns);
    assert_eq!(all.netns(&id(1)).unwrap_err().kind, FailureKind::Invalid);
    let mut joined = spec(3, &["readlink", "/proc/self/ns/net"]);
    joined.netns = SandboxNetns::Join(id(1));
    assert_eq!(run_in(&mut all, joined).1, netns);
    let scratch = Scratch::new();
    busybox_root(scratch.path());
    let mut elsewhere = spec(4, &["ls", "/sys/class/net"]);
    elsewhere.netns = SandboxNetns::Host;
    elsewhere.rootfs = Some(scratch.path().to_owned());
    assert!(run_in(&mut all, elsewhere).1.contains("lo\n"));
    all.signal(&id(1), libc::SIGKILL).unwrap();
    wait(&mut all, pid);
}
