//! A test re-executes itself inside a world of its own.
//!
//! Stages, each the test binary run again for one test only: *outside* (started by cargo) drops to
//! an unprivileged uid and starts `unshare`; *init* is process 1 of the new pid namespace, reaps
//! whatever is orphaned, and takes everything with it when it ends; *inside* runs the test body.
//! Invariants: every stage is under a deadline; a test whose body did not run to its end fails.
//!
//! Sources: user_namespaces(7), pid_namespaces(7), unshare(1), setpriv(1).

use super::turn::Turn;
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::Pid;
use std::ffi::OsString;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc;
use std::time::Duration;

const STAGE: &str = "MOSSNET_TEST_STAGE";
const FINISHED: &str = "WORLD: the test body ran to its end";
/// Where the inside finds the program under test.
pub const PRODUCT: &str = "MOSSNET_TEST_PRODUCT";
/// The same of what an administrator installs, for a test that runs as root.
pub const HELPER: &str = "MOSSNET_TEST_HELPER";
/// A usable tun device node, made by the outside where it is root.
pub const TUN: &str = "MOSSNET_TEST_TUN";
/// Set where a skip is a failure (CI has installed every peer).
pub const STRICT: &str = "MOSSNET_TEST_STRICT";
/// A file that collects the skips of a whole run.
const SKIPS: &str = "MOSSNET_TEST_SKIPS";
/// The uid that tests run as when cargo runs as root.
const UNPRIVILEGED: &str = "MOSSNET_TEST_UID";
const SKIP: &str = "SKIP: ";

/// Who the test is in its world.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Powers {
    /// An unprivileged user who may do everything in a user namespace of its own.
    User,
    /// The machine's root, in the machine's user namespace: what an administrator has installed works
    /// as it would there.
    Root,
}

/// Runs `body` in a world, or re-executes the test to get there.
pub fn enter<F: FnOnce()>(deadline: Duration, name: &str, alone: bool, powers: Powers, body: F) {
    // Only the outside takes its turn; the stages within run in it.
    let outside = std::env::var_os(STAGE).is_none();
    if outside && powers == Powers::Root && !nix::unistd::geteuid().is_root() {
        skip_outside(name, "it takes root to play the administrator");
        return;
    }
    if outside && powers == Powers::Root && !on_the_machine() {
        skip_here(name, "root is not the machine's own here");
        return;
    }
    let _turn = outside.then(|| Turn::take(alone));
    let text = stage(deadline, name, powers, body, false);
    print!("{text}");
}

impl Powers {
    /// Flags of unshare(1).
    fn user_namespace(self) -> &'static [&'static str] {
        match self {
            Self::User => &[
                "--user",
                "--map-user=1000",
                "--map-group=1000",
                "--keep-caps",
            ],
            Self::Root => &[],
        }
    }
}

/// The same, showing what the body prints while it runs; gives it back, too.
#[allow(dead_code)] // Only the benchmarks want it.
pub fn enter_live<F: FnOnce()>(deadline: Duration, name: &str, powers: Powers, body: F) -> String {
    stage(deadline, name, powers, body, true)
}

fn stage<F: FnOnce()>(
    deadline: Duration,
    name: &str,
    powers: Powers,
    body: F,
    live: bool,
) -> String {
    match std::env::var(STAGE).as_deref() {
        Ok("init") => init(name),
        Ok("inside") => inside(deadline, body),
        _ => return outside(deadline, name, powers, live),
    }
    String::new()
}

/// Says, beyond libtest's capture, that a test proves nothing here, and why.
pub fn skip(reason: &str) {
    println!("{SKIP}{reason}");
}

/// The same for a test outside of any world.
pub fn skip_outside(test: &str, reason: &str) {
    let strict = std::env::var_os(STRICT).is_some();
    assert!(!strict, "{STRICT} is set and {test} is skipped: {reason}");
    report_skip(test, &format!("{SKIP}{reason}"));
}

/// The same for what the machine lacks and nobody can install: no failure where skips are failures.
pub fn skip_here(test: &str, reason: &str) {
    report_skip(test, &format!("{SKIP}{reason}"));
}

/// In the machine's own user namespace, where file capabilities are about the machine.
fn on_the_machine() -> bool {
    let own = fs::read_link("/proc/self/ns/user");
    // PROC_USER_INIT_INO, linux/proc_ns.h.
    own.is_ok_and(|link| link.as_os_str() == "user:[4026531837]")
}

/// The test's name as libtest knows it, from the type of a closure that was written in it.
pub fn test_name<F>() -> String {
    let path = std::any::type_name::<F>();
    let path = path.split_once("::").map_or(path, |(_crate, rest)| rest);
    path.split("::{{closure}}")
        .next()
        .unwrap_or(path)
        .to_owned()
}

fn outside(deadline: Duration, name: &str, powers: Powers, live: bool) -> String {
    let test = reachable(&std::env::current_exe().expect("own path"));
    let product = reachable(Path::new(env!("CARGO_BIN_EXE_mossnet")));
    let mut command = Command::new("setpriv");
    command
        .args(["--pdeathsig", "KILL", "unshare"])
        .args(powers.user_namespace())
        .args(["--mount", "--net", "--pid", "--fork"])
        .args(["--kill-child", "--mount-proc", "--"])
        .arg(&test)
        .args(["--exact", name, "--nocapture", "--include-ignored"])
        .env(STAGE, "init")
        .env(PRODUCT, product)
        .env(HELPER, beside(Path::new(env!("CARGO_BIN_EXE_mossnet"))))
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    if powers == Powers::User && nix::unistd::geteuid().is_root() {
        let uid = std::env::var(UNPRIVILEGED).map_or(1000, |uid| uid.parse().expect("a uid"));
        command.uid(uid).gid(uid);
        if let Some(tun) = tun_node() {
            command.env(TUN, tun);
        }
    }
    let mut child = command
        .spawn()
        .expect("setpriv and unshare (util-linux) are installed");
    let stdout = drain(child.stdout.take().expect("piped"), live);
    let stderr = drain(child.stderr.take().expect("piped"), live);
    let status = wait_until(&mut child, deadline);
    let output = [stdout, stderr].map(|reader| reader.join().unwrap_or_default());
    let text = output.concat();
    for line in text.lines().filter(|line| line.starts_with(SKIP)) {
        report_skip(name, line);
    }
    let finished = output[0].lines().any(|line| line == FINISHED);
    match status {
        Some(status) if status.success() && finished => text,
        Some(status) if status.success() => panic!("the child of {name} ran nothing\n{text}"),
        Some(status) => panic!("{name} failed in its world ({status})\n{text}"),
        None => panic!("{name} was not over after {deadline:?}\n{text}"),
    }
}

fn drain(stream: impl Read + Send + 'static, live: bool) -> std::thread::JoinHandle<String> {
    std::thread::spawn(move || {
        let mut text = String::new();
        let mut stream = BufReader::new(stream);
        let mut line = Vec::new();
        while stream
            .read_until(b'\n', &mut line)
            .is_ok_and(|count| count > 0)
        {
            let part = String::from_utf8_lossy(&line);
            if live {
                print!("{part}");
            }
            text.push_str(&part);
            line.clear();
        }
        text
    })
}

/// The child's status, or nothing when it had to be killed at the deadline.
fn wait_until(child: &mut Child, deadline: Duration) -> Option<ExitStatus> {
    let pid = Pid::from_raw(i32::try_from(child.id()).expect("a pid"));
    let (over, is_over) = mpsc::channel::<()>();
    std::thread::scope(|scope| {
        // The inside ends itself a little earlier, and can tell more about it.
        let guard = scope.spawn(move || {
            let late = is_over.recv_timeout(deadline + Duration::from_secs(10));
            let late = late == Err(mpsc::RecvTimeoutError::Timeout);
            if late {
                let _ = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL);
            }
            late
        });
        let status = child.wait().expect("wait for the world");
        let _ = over.send(());
        (!guard.join().expect("deadline thread")).then_some(status)
    })
}

fn report_skip(test: &str, line: &str) {
    let line = format!("{SKIP}{test}: {}\n", &line[SKIP.len()..]);
    let _ = std::io::stderr().write_all(line.as_bytes());
    if let Some(path) = std::env::var_os(SKIPS) {
        let file = fs::OpenOptions::new().create(true).append(true).open(path);
        let _ = file.and_then(|mut file| file.write_all(line.as_bytes()));
    }
}

/// Process 1: starts the inside, reaps every orphan, ends with the inside's status.
#[allow(clippy::zombie_processes)] // Every child is waited for, this one too, by the loop.
fn init(name: &str) {
    let exe = std::env::current_exe().expect("own path");
    let child = Command::new(exe)
        .args(["--exact", name, "--nocapture", "--include-ignored"])
        .env(STAGE, "inside")
        .spawn()
        .expect("start the inside");
    let child = i32::try_from(child.id()).expect("a pid");
    loop {
        match waitpid(None, None) {
            Ok(WaitStatus::Exited(pid, code)) if pid.as_raw() == child => std::process::exit(code),
            Ok(WaitStatus::Signaled(pid, signal, _)) if pid.as_raw() == child => {
                println!("the inside was killed by {signal}");
                std::process::exit(1);
            }
            Ok(_) | Err(nix::errno::Errno::EINTR) => {}
            Err(error) => panic!("wait for the inside: {error}"),
        }
    }
}

fn inside<F: FnOnce()>(deadline: Duration, body: F) {
    std::thread::spawn(move || {
        std::thread::sleep(deadline);
        println!("not over after {deadline:?}");
        super::inspect::print_state();
        std::process::exit(1);
    });
    if catch_unwind(AssertUnwindSafe(body)).is_err() {
        super::inspect::print_state();
        std::process::exit(1);
    }
    println!("\n{FINISHED}");
}

/// `mossnet-helper`, which cargo builds beside us.
fn beside(product: &Path) -> PathBuf {
    product.with_file_name("mossnet-helper")
}

/// `file`, or a copy of it that an unprivileged uid can reach and execute.
fn reachable(file: &Path) -> PathBuf {
    let open = |path: &Path| path.metadata().is_ok_and(|m| m.mode() & 0o001 != 0);
    if !nix::unistd::geteuid().is_root() || file.ancestors().all(open) {
        return file.to_path_buf();
    }
    let metadata = file.metadata().expect("a built program");
    let place = std::env::temp_dir().join("mossnet-test-programs");
    fs::create_dir_all(&place).expect("make a directory for copies");
    fs::set_permissions(&place, fs::Permissions::from_mode(0o755)).expect("open it");
    let mut name = OsString::from(file.file_name().expect("a file name"));
    name.push(format!("-{}-{}", metadata.ino(), metadata.mtime()));
    let copy = place.join(&name);
    if !copy.exists() {
        // Renamed into place whole: tests that run beside this one may want it too.
        name.push(format!(".{}", std::process::id()));
        let partial = place.join(&name);
        fs::copy(file, &partial).expect("copy the program");
        fs::set_permissions(&partial, fs::Permissions::from_mode(0o755)).expect("open it");
        fs::rename(&partial, &copy).expect("move the copy");
    }
    copy
}

/// Makes a tun device node that every uid may open, for the peers that need one (pasta, slirp).
fn tun_node() -> Option<PathBuf> {
    use nix::sys::stat::{Mode, SFlag, makedev, mknod};
    let place = Path::new(env!("CARGO_TARGET_TMPDIR"));
    fs::create_dir_all(place).ok()?;
    let node = place.join("tun");
    let partial = place.join(format!("tun.{:?}", std::thread::current().id()));
    if !node.exists() {
        let mode = Mode::from_bits_truncate(0o666);
        mknod(&partial, SFlag::S_IFCHR, mode, makedev(10, 200)).ok()?;
        fs::set_permissions(&partial, fs::Permissions::from_mode(0o666)).ok()?;
        fs::rename(&partial, &node).ok()?;
    }
    Some(node)
}
