//! The tests.

use crate::world::*;
use mossnet_helper::request::{ExitStatus, FailureKind, ProcessState, SandboxNetns};
use nix::pty::openpty;
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{ForkResult, Pid, fork};
use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::unix::fs::symlink;
use std::path::Path;

/// Name and body.
type Case = (&'static str, fn());

/// Every test.
pub const ALL: &[Case] = &[
    ("exit_status", exit_status),
    ("command_not_found_or_not_executable", command_errors),
    ("set_up_failures_name_the_step", setup_failures),
    ("malformed_specs", malformed),
    ("namespaces_identity_and_capabilities", identity),
    ("environment_workdir_umask_and_signals", inheritance),
    ("no_descriptor_leaks", descriptors),
    ("network_of_its_own", network),
    ("files_laid_over_existing_ones", binds),
    ("files_laid_over_links_and_nothing", binds_missing),
    ("masked_directories", masks),
    ("root_directory", rootfs),
    ("root_directory_with_hostile_links", hostile_rootfs),
    ("exec_in_a_sandbox", exec_enters),
    ("exec_failures", exec_failures),
    ("join_another_sandbox", join),
    ("host_network", host),
    ("terminal", terminal),
    ("signals_and_forget", signals),
    ("death_of_the_helper", parent_death),
    ("no_power_over_the_helper", no_power),
];

fn exit_status() {
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

fn command_errors() {
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

fn setup_failures() {
    let mut all = sandboxes();
    let scratch = Scratch::new();
    let mut broken = vec![spec(1, &["true"]), spec(1, &["true"]), spec(1, &["true"])];
    broken[0].rootfs = Some("/no/such/root".into());
    broken[1].binds = vec![scratch.bind("gone", "", "/etc/hosts")];
    fs::remove_file(scratch.path().join("gone")).unwrap();
    broken[2].process.tty = true;
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

fn malformed() {
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

fn identity() {
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

fn inheritance() {
    assert_eq!(
        output(spec(1, &["env"])),
        "PATH=/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin\nONLY=this\n"
    );
    let mut there = spec(1, &["pwd"]);
    there.process.workdir = Some("/usr/share".into());
    assert_eq!(output(there), "/usr/share\n");
    let mut nowhere = spec(1, &["pwd"]);
    nowhere.process.workdir = Some("/no/such".into());
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

fn descriptors() {
    // Without CLOEXEC, as a library might open one.
    let stray = File::open("/dev/null").unwrap();
    nix::fcntl::fcntl(&stray, nix::fcntl::FcntlArg::F_DUPFD(30)).unwrap();
    let listing = "ls -l /proc/$$/fd | awk '{print $9, $11}'";
    let shows_three = |text: &str| {
        let fds: Vec<_> = text.lines().filter(|line| line.len() > 1).collect();
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

fn network() {
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

fn binds() {
    let scratch = Scratch::new();
    let before = fs::read("/etc/hosts").unwrap();
    let mut spec = script(1, "cat /etc/hosts /etc/hostname; echo more >> /etc/hosts");
    spec.binds = vec![
        scratch.bind("hosts", "10.1.2.3 moss\n", "/etc/hosts"),
        scratch.bind("hostname", "mossy\n", "/etc/hostname"),
    ];
    // Their directory is hidden, and they are there all the same.
    spec.masks = vec![scratch.path().to_owned()];
    assert_eq!(output(spec), "10.1.2.3 moss\nmossy\n");
    assert_eq!(fs::read("/etc/hosts").unwrap(), before);
    let kept = fs::read_to_string(scratch.path().join("hosts")).unwrap();
    assert_eq!(kept, "10.1.2.3 moss\nmore\n");
}

fn binds_missing() {
    let scratch = Scratch::new();
    // An /etc like that of a machine with systemd-resolved, with links and directories.
    let etc = scratch.path().join("etc");
    let run = scratch.path().join("run");
    fs::create_dir(&run).unwrap();
    fs::create_dir_all(etc.join("deep/er")).unwrap();
    fs::write(etc.join("deep/er/file"), "deep\n").unwrap();
    fs::write(etc.join("passwd"), "passwd\n").unwrap();
    fs::write(run.join("stub"), "stub\n").unwrap();
    symlink("../run/stub", etc.join("resolv.conf")).unwrap();
    symlink("../run/gone", etc.join("dangling")).unwrap();
    symlink("passwd", etc.join("shadow")).unwrap();
    let at = |name: &str| etc.join(name).to_str().unwrap().to_owned();
    let mut spec = script(
        1,
        &format!(
            "cd {}; cat hosts resolv.conf dangling ../run/stub deep/er/file passwd shadow; \
             readlink resolv.conf shadow; ls; stat -c %a .",
            etc.display()
        ),
    );
    spec.binds = vec![
        scratch.bind("a", "new hosts\n", &at("hosts")),
        scratch.bind("b", "new resolv\n", &at("resolv.conf")),
        scratch.bind("c", "new dangling\n", &at("dangling")),
    ];
    fs::set_permissions(&etc, std::os::unix::fs::PermissionsExt::from_mode(0o751)).unwrap();
    assert_eq!(
        output(spec),
        "new hosts\nnew resolv\nnew dangling\nnew resolv\ndeep\npasswd\npasswd\n../run/stub\n\
         passwd\ndangling\ndeep\nhosts\npasswd\nresolv.conf\nshadow\n751\n"
    );
    assert!(!etc.join("hosts").exists() && !run.join("gone").exists());
    assert_eq!(fs::read_to_string(run.join("stub")).unwrap(), "stub\n");
}

fn masks() {
    let scratch = Scratch::new();
    let secret = scratch.path().join("secret");
    fs::create_dir(&secret).unwrap();
    fs::write(secret.join("token"), "x").unwrap();
    let shown = secret.display();
    let mut spec = script(
        1,
        &format!(
            "ls -A {shown} | wc -l; touch {shown}/x 2>/dev/null; umount {shown} 2>/dev/null; ls {shown}"
        ),
    );
    spec.masks = vec![secret.clone(), "/no/such/dir".into()];
    assert_eq!(run(spec.clone()).1, "0\n");
    // The same directory, seen through another root.
    spec.rootfs = Some("/".into());
    assert_eq!(run(spec).1, "0\n");
}

/// A root directory that holds busybox.
fn busybox_root(root: &Path) {
    fs::create_dir_all(root.join("bin")).unwrap();
    fs::copy("/bin/busybox", root.join("bin/busybox")).expect("busybox-static is installed");
    for name in [
        "sh", "ls", "cat", "pwd", "ps", "readlink", "mount", "grep", "touch", "tty", "head",
    ] {
        symlink("busybox", root.join("bin").join(name)).unwrap();
    }
}

fn rootfs() {
    let scratch = Scratch::new();
    let root = scratch.path().join("root");
    busybox_root(&root);
    let mut spec = script(
        1,
        "pwd; ls /; ls /dev; cat /etc/hosts; echo x > /dev/null; head -c 4 /dev/zero | wc -c; ls /sys/class/net; \
         ps | grep -c sh; ls -l /proc/1/root | grep -c tmp; grep -c ' / ' /proc/self/mounts; ls /dev/pts; touch /dev/shm/x && echo shm",
    );
    symlink("busybox", root.join("bin/wc")).unwrap();
    spec.rootfs = Some(root.clone());
    spec.binds = vec![scratch.bind("hosts", "10.1.2.3 moss\n", "/etc/hosts")];
    spec.process.workdir = Some("/made/for/it".into());
    let text = output(spec);
    assert_eq!(
        text.lines().collect::<Vec<_>>(),
        [
            "/made/for/it",
            "bin",
            "dev",
            "etc",
            "made",
            "proc",
            "sys",
            "fd",
            "full",
            "mqueue",
            "null",
            "ptmx",
            "pts",
            "random",
            "shm",
            "stderr",
            "stdin",
            "stdout",
            "tty",
            "urandom",
            "zero",
            "10.1.2.3 moss",
            "4",
            "lo",
            "3",
            "0",
            "1",
            "ptmx",
            "shm"
        ],
        "{text}"
    );
    assert_eq!(fs::read_to_string(root.join("etc/hosts")).unwrap(), "");
}

fn hostile_rootfs() {
    let scratch = Scratch::new();
    let root = scratch.path().join("root");
    let outside = scratch.path().join("outside");
    busybox_root(&root);
    fs::create_dir(&outside).unwrap();
    fs::write(outside.join("hosts"), "host's\n").unwrap();
    // Links that lead out of the root when followed in the wrong one.
    symlink(&outside, root.join("etc")).unwrap();
    symlink(outside.join("dev"), root.join("dev")).unwrap();
    let mut spec = script(1, "cat /etc/hosts; ls /dev/null");
    spec.rootfs = Some(root.clone());
    spec.binds = vec![scratch.bind("hosts", "new\n", "/etc/hosts")];
    let mut all = sandboxes();
    // Either refused or laid inside; never outside.
    let (fds, output) = stdio();
    if let Ok(pid) = all.create(spec, fds) {
        all.start(&id(1)).unwrap();
        assert_eq!(read_all(output), "new\n/dev/null\n");
        wait(&mut all, pid);
    }
    assert_eq!(fs::read_dir(&outside).unwrap().count(), 1);
    assert_eq!(
        fs::read_to_string(outside.join("hosts")).unwrap(),
        "host's\n"
    );
}

fn exec_enters() {
    let mut all = sandboxes();
    let scratch = Scratch::new();
    let mut first = spec(1, &["sleep", "1000"]);
    first.binds = vec![scratch.bind("hosts", "laid over\n", "/etc/hosts")];
    first.process.workdir = Some("/usr".into());
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

fn exec_failures() {
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

fn join() {
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

fn host() {
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

fn terminal() {
    let scratch = Scratch::new();
    busybox_root(scratch.path());
    for rootfs in [None, Some(scratch.path().to_owned())] {
        let mut all = sandboxes();
        let pty = openpty(None, None).unwrap();
        let end = || pty.slave.try_clone().unwrap();
        let mut spec = script(
            1,
            "tty; echo here > /dev/tty; read line; echo got $line; read line",
        );
        let own_root = rootfs.is_some();
        spec.rootfs = rootfs;
        spec.process.tty = true;
        let pid = all.create(spec, [end(), end(), end()]).unwrap();
        drop(pty.slave);
        all.start(&id(1)).unwrap();
        let mut master = File::from(pty.master);
        let tty = wait_for(&mut master, "here");
        assert!(
            tty.contains(if own_root {
                "/dev/console"
            } else {
                "/dev/pts/"
            }),
            "{tty}"
        );
        master.write_all(b"hello\n").unwrap();
        wait_for(&mut master, "got hello");
        // ^D: end of file, and the shell ends.
        master.write_all(b"\x04").unwrap();
        assert_eq!(wait(&mut all, pid), ExitStatus::Code(1));
    }
}

/// Read a terminal until it shows `word`.
fn wait_for(master: &mut File, word: &str) -> String {
    let mut text = String::new();
    while !text.contains(word) {
        let mut chunk = [0; 256];
        let count = master.read(&mut chunk).expect("the sandbox talks");
        text += std::str::from_utf8(&chunk[..count]).unwrap();
    }
    text
}

fn signals() {
    let mut all = sandboxes();
    let (pid, mut out) = running(
        &mut all,
        script(
            1,
            "trap 'echo term; exit 5' TERM; echo ready; while :; do sleep 0.05; done",
        ),
    );
    out.read_exact(&mut [0; 6]).unwrap();
    for bad in [0, 65, -1] {
        assert_eq!(
            all.signal(&id(1), bad).unwrap_err().kind,
            FailureKind::Invalid
        );
    }
    all.signal(&id(1), libc::SIGTERM).unwrap();
    assert_eq!(read_all(out), "term\n");
    assert_eq!(wait(&mut all, pid), ExitStatus::Code(5));
    assert_eq!(
        all.list()[0].state,
        ProcessState::Exited(ExitStatus::Code(5))
    );
    assert_eq!(
        all.signal(&id(1), 15).unwrap_err().kind,
        FailureKind::NotFound
    );
    assert_eq!(all.netns(&id(1)).unwrap_err().kind, FailureKind::NotFound);
    all.forget(&id(1)).unwrap();
    assert!(all.list().is_empty());
    // Forgetting kills the whole sandbox: the pipe has no writer left.
    let (_, out) = running(&mut all, script(2, "sleep 1000 & sleep 1000"));
    all.forget(&id(2)).unwrap();
    assert_eq!(read_all(out), "");
    no_children();
    // With a process exec'd in it, which is still reported.
    let (pid, _out) = running(&mut all, spec(3, &["sleep", "1000"]));
    let exec_pid = all
        .exec(exec_spec(4, 3, &["sleep", "1000"]), stdio().0)
        .unwrap();
    all.forget(&id(3)).unwrap();
    assert_eq!(wait(&mut all, exec_pid), ExitStatus::Signal(libc::SIGKILL));
    let pid = Pid::from_raw(i32::try_from(pid).unwrap());
    waitpid(pid, None).unwrap();
    assert_eq!(all.exited(pid, ExitStatus::Signal(9)), None);
    no_children();
}

fn parent_death() {
    // A second helper dies, once with a sandbox that runs and once with one that is only made.
    let (fds, out) = stdio();
    let (made_fds, made_out) = stdio();
    let (joined_fds, joined_out) = stdio();
    let (exec_fds, exec_out) = stdio();
    // SAFETY: this process has one thread.
    #[allow(unsafe_code)]
    let fork = unsafe { fork() }.unwrap();
    if let ForkResult::Parent { child } = fork {
        drop((fds, made_fds, joined_fds, exec_fds));
        assert!(matches!(
            waitpid(child, None),
            Ok(WaitStatus::Signaled(_, Signal::SIGKILL, _))
        ));
        for out in [out, made_out, joined_out, exec_out] {
            assert_eq!(read_all(out), "");
        }
        return;
    }
    let mut all = sandboxes();
    all.create(spec(1, &["sleep", "1000"]), fds).unwrap();
    all.start(&id(1)).unwrap();
    all.create(spec(2, &["sleep", "1000"]), made_fds).unwrap();
    let mut joined = spec(3, &["sleep", "1000"]);
    joined.netns = SandboxNetns::Join(id(1));
    all.create(joined, joined_fds).unwrap();
    all.start(&id(3)).unwrap();
    all.exec(exec_spec(4, 1, &["sleep", "1000"]), exec_fds)
        .unwrap();
    kill(Pid::this(), Signal::SIGKILL).unwrap();
}

fn no_power() {
    // With every capability that a sandbox can be given, on the caller's file system.
    let mut spec = script(
        1,
        "nsenter --net=/proc/1/ns/net true && echo own; \
         for p in /proc/[0-9]*; do case $p in /proc/1|/proc/$$) ;; *) echo $p;; esac; done | head -1 >/dev/null; \
         kill -0 $HELPER 2>/dev/null && echo sees the helper; \
         python3 -c 'import fcntl,os; f=os.open(\"/proc/self/ns/user\",0); fcntl.ioctl(f,0xb702)' 2>&1 | tail -1",
    );
    spec.capabilities = caps::all().iter().map(ToString::to_string).collect();
    spec.process
        .env
        .push(("HELPER".to_owned(), std::process::id().to_string()));
    let text = output(spec);
    assert!(text.starts_with("own\nPermissionError"), "{text}");
}
