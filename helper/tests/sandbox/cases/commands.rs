//! What a command finds around it, and what is said when it cannot be run.

use crate::world::*;
use mossnet_helper::request::{ExitStatus, FailureKind, ProcessState, SandboxNetns};
use nix::sys::signal::Signal;
use std::fs::{self, File};

pub fn exit_status() {
    assert_eq!(run(spec(1, &["true"])).0, ExitStatus::Code(0));
    assert_eq!(run(spec(1, &["false"])).0, ExitStatus::Code(1));
    assert_eq!(run(script(1, "exit 7")).0, ExitStatus::Code(7));
    // Process 1 of a pid namespace cannot kill itself, so a child reports.
    assert_eq!(
        run(script(1, "sh -c 'kill -TERM $$'; exit $?")).0,
        ExitStatus::Code(143)
    );
    assert_eq!(output(script(1, "echo out; echo err >&2")), "out\nerr\n");
}

pub fn command_errors() {
    let scratch = Scratch::new();
    let text = scratch.path().join("text");
    fs::write(&text, "no program").unwrap();
    let orphan = scratch.path().join("orphan");
    fs::write(&orphan, "#!/no/such/interpreter\n").unwrap();
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    fs::set_permissions(&orphan, mode).unwrap();
    let (text, orphan) = (text.to_str().unwrap(), orphan.to_str().unwrap());
    let mut all = sandboxes();
    for (command, errno, code, says) in [
        (
            "nosuch",
            2,
            127,
            "exec \"nosuch\": executable file not found in PATH",
        ),
        ("/no/such", 2, 127, "/no/such"),
        (text, 13, 126, text),
        ("/etc", 13, 126, "/etc"),
        (orphan, 2, 127, "interpreter"),
    ] {
        let (fds, _output) = stdio();
        all.create(spec(1, &[command]), fds).unwrap();
        let failure = all.start(&id(1)).unwrap_err();
        assert_eq!(failure.kind, FailureKind::Exec, "{failure}");
        assert_eq!(failure.errno, Some(errno), "{failure}");
        assert!(failure.what.contains(says), "{failure}");
        assert_eq!(
            all.list()[0].state,
            ProcessState::Exited(ExitStatus::Code(code))
        );
        all.forget(&id(1)).unwrap();
        no_children();
    }
}

pub fn setup_failures() {
    let mut all = sandboxes();
    let scratch = Scratch::new();
    let mut broken = vec![spec(1, &["true"]), spec(1, &["true"]), spec(1, &["true"])];
    broken[0].rootfs = Some("/no/such/root".into());
    broken[1].binds = vec![scratch.bind("gone", "", "/etc/hosts")];
    fs::remove_file(scratch.path().join("gone")).unwrap();
    broken[2].process.as_mut().unwrap().tty = true;
    for (spec, says) in broken
        .into_iter()
        .zip(["/no/such/root", "gone", "terminal"])
    {
        let (fds, _output) = stdio();
        let failure = all.create(spec, fds).unwrap_err();
        assert_eq!(failure.kind, FailureKind::Setup, "{failure}");
        assert!(failure.what.contains(says), "{failure}");
        assert!(all.list().is_empty());
        no_children();
    }
}

pub fn malformed() {
    let mut all = sandboxes();
    let mut broken = vec![
        spec(1, &[]),
        spec(1, &["true"]),
        spec(1, &["true"]),
        spec(1, &["true"]),
    ];
    broken[1].hostname = "x".repeat(65);
    broken[2].capabilities.push("NET_RAW".to_owned());
    broken[3].rootfs = Some("relative".into());
    for spec in broken {
        let failure = all.create(spec, stdio().0).unwrap_err();
        assert_eq!(failure.kind, FailureKind::Invalid, "{failure}");
    }
    let unknown = all.start(&id(9)).unwrap_err();
    assert_eq!(unknown.kind, FailureKind::NotFound);
    assert_eq!(all.forget(&id(9)).unwrap_err().kind, FailureKind::NotFound);
    all.create(spec(1, &["true"]), stdio().0).unwrap();
    let twice = all.create(spec(1, &["true"]), stdio().0).unwrap_err();
    assert_eq!(twice.kind, FailureKind::Exists);
    all.forget(&id(1)).unwrap();
    no_children();
}

pub fn identity() {
    let text = output(script(
        1,
        "echo $$; id -u; id -g; uname -n; grep -h ^Cap /proc/self/status; cat /proc/self/uid_map; \
         cat /proc/self/setgroups; ls -d /proc/[0-9]*; ps -o sid= -p $$ | tr -d ' '",
    ));
    let lines: Vec<_> = text.lines().collect();
    assert_eq!(lines[..4], ["1", "0", "0", "mossy"]);
    assert_eq!(lines[4], "CapInh:\t0000000000000000");
    for (line, set) in lines[5..8].iter().zip(["Prm", "Eff", "Bnd"]) {
        assert_eq!(*line, format!("Cap{set}:\t{CAPABILITY_BITS}"));
    }
    assert_eq!(lines[8], "CapAmb:\t0000000000000000");
    assert_eq!(
        lines[9].split_whitespace().collect::<Vec<_>>(),
        ["0", "0", "1"]
    );
    assert_eq!(lines[10], "deny");
    assert_eq!(lines[11], "/proc/1");
    assert_eq!(*lines.last().unwrap(), "1");
    let mut none = script(1, "grep -h ^CapBnd /proc/self/status");
    none.capabilities.clear();
    assert_eq!(output(none), "CapBnd:\t0000000000000000\n");
    for name in ["user", "mnt", "pid", "uts", "ipc", "net"] {
        let path = format!("/proc/self/ns/{name}");
        let inside = output(spec(1, &["readlink", &path]));
        let outside = fs::read_link(&path).unwrap();
        assert_ne!(inside.trim(), outside.to_str().unwrap());
    }
}

pub fn inheritance() {
    assert_eq!(
        output(spec(1, &["env"])),
        "PATH=/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin\nONLY=this\n"
    );
    let mut there = spec(1, &["pwd"]);
    there.process.as_mut().unwrap().workdir = Some("/usr/share".into());
    assert_eq!(output(there), "/usr/share\n");
    let mut nowhere = spec(1, &["pwd"]);
    nowhere.process.as_mut().unwrap().workdir = Some("/no/such".into());
    let mut all = sandboxes();
    all.create(nowhere, stdio().0).unwrap();
    let failure = all.start(&id(1)).unwrap_err();
    assert_eq!((failure.kind, failure.errno), (FailureKind::Exec, Some(2)));
    // The helper blocks and ignores signals, and has another umask.
    let mut blocked = nix::sys::signal::SigSet::empty();
    blocked.add(Signal::SIGCHLD);
    blocked.add(Signal::SIGTERM);
    blocked.thread_block().unwrap();
    nix::sys::stat::umask(nix::sys::stat::Mode::from_bits_truncate(0o077));
    let text = output(script(
        1,
        "umask; grep -hE '^Sig(Blk|Ign)' /proc/self/status",
    ));
    assert_eq!(
        text,
        "0022\nSigBlk:\t0000000000000000\nSigIgn:\t0000000000000000\n"
    );
}

pub fn descriptors() {
    // Without CLOEXEC, as a library might open one.
    let stray = File::open("/dev/null").unwrap();
    nix::fcntl::fcntl(&stray, nix::fcntl::FcntlArg::F_DUPFD(30)).unwrap();
    // No pipeline: the shell would hold its descriptors for a moment. The second command keeps the
    // shell from becoming the first.
    let listing = "ls -l /proc/$$/fd; true";
    let shows_three = |text: &str| {
        let links = text.lines().filter_map(|line| line.split_once(" -> "));
        let fds: Vec<_> = links
            .map(|(before, target)| {
                let number = before.split_whitespace().next_back().unwrap();
                format!("{number} {target}")
            })
            .collect();
        assert_eq!(fds.len(), 3, "{text}");
        assert_eq!(fds[0], "0 /dev/null");
        assert!(
            fds[1].starts_with("1 pipe:") && fds[2].starts_with("2 pipe:"),
            "{text}"
        );
    };
    let mut all = sandboxes();
    let (pid, _output) = running(&mut all, spec(1, &["sleep", "1000"]));
    shows_three(&run_in(&mut all, script(2, listing)).1);
    let mut joined = script(2, listing);
    joined.netns = SandboxNetns::Join(id(1));
    shows_three(&run_in(&mut all, joined).1);
    let exec_spec = exec_spec(3, 1, &["sh", "-c", listing]);
    shows_three(&exec(&mut all, exec_spec).unwrap().1);
    all.signal(&id(1), libc::SIGKILL).unwrap();
    wait(&mut all, pid);
}

pub fn network() {
    let text = output(script(
        1,
        "ls /sys/class/net; cat /sys/class/net/lo/operstate; \
         cat /proc/sys/net/ipv4/ping_group_range /proc/sys/net/ipv4/ip_unprivileged_port_start \
         /proc/sys/net/ipv4/tcp_congestion_control; ip -o -4 addr show lo | grep -o 127.0.0.1/8; \
         ping -c1 -W1 127.0.0.1 >/dev/null 2>&1 && echo pong; touch /sys/x 2>&1 | grep -o Read-only",
    ));
    assert!(
        text.starts_with("lo\nunknown\n0\t0\n0\nreno\n127.0.0.1/8\n"),
        "{text}"
    );
    assert!(text.ends_with("Read-only\n"), "{text}");
    let mut all = sandboxes();
    all.create(spec(1, &["true"]), stdio().0).unwrap();
    let host = fs::metadata("/proc/self/ns/net").unwrap();
    let netns = File::from(all.netns(&id(1)).unwrap().try_clone_to_owned().unwrap());
    use std::os::unix::fs::MetadataExt;
    assert_ne!(netns.metadata().unwrap().ino(), host.ino());
    all.forget(&id(1)).unwrap();
}
