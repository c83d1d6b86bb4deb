//! Terminals, signals and ends.

use crate::cases::files::busybox_root;
use crate::world::*;
use mossnet_helper::request::{ExitStatus, FailureKind, ProcessState, SandboxNetns};
use nix::pty::openpty;
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::waitpid;
use nix::unistd::Pid;
use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, Stdio};

pub fn terminal() {
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
        spec.process.as_mut().unwrap().tty = true;
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

fn wait_for(master: &mut File, word: &str) -> String {
    let mut text = String::new();
    while !text.contains(word) {
        let mut chunk = [0; 256];
        let count = master.read(&mut chunk).expect("the sandbox talks");
        text += std::str::from_utf8(&chunk[..count]).unwrap();
    }
    text
}

pub fn signals() {
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
    assert_eq!(all.start(&id(1)).unwrap_err().kind, FailureKind::Invalid);
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
    assert_eq!(all.start(&id(1)).unwrap_err().kind, FailureKind::NotFound);
    all.forget(&id(1)).unwrap();
    assert!(all.list().is_empty());
    // Killed before it was started.
    let pid = all.create(spec(1, &["true"]), stdio().0).unwrap();
    all.signal(&id(1), libc::SIGKILL).unwrap();
    wait(&mut all, pid);
    assert_eq!(all.start(&id(1)).unwrap_err().kind, FailureKind::NotFound);
    all.forget(&id(1)).unwrap();
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

pub fn parent_death() {
    let mut helper = Command::new("/proc/self/exe")
        .env(crate::CASE, crate::DYING_HELPER)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut text = String::new();
    // Ends when the last sandbox is gone: each holds the pipe.
    let mut output = helper.stdout.take().unwrap();
    output.read_to_string(&mut text).unwrap();
    assert_eq!(text, "made\n");
    assert_eq!(helper.wait().unwrap().signal(), Some(libc::SIGKILL));
}

/// A helper that is killed, with sandboxes that run, that are only made, that joined another, and
/// that have a process exec'd in them.
pub fn dying_helper() {
    let end = || std::io::stdout().as_fd().try_clone_to_owned().unwrap();
    let stdio = || [end(), end(), end()];
    let mut all = sandboxes();
    for number in 1..=2 {
        all.create(spec(number, &["sleep", "1000"]), stdio())
            .unwrap();
    }
    all.start(&id(1)).unwrap();
    let mut joined = spec(3, &["sleep", "1000"]);
    joined.netns = SandboxNetns::Join(id(1));
    all.create(joined, stdio()).unwrap();
    all.start(&id(3)).unwrap();
    all.exec(exec_spec(4, 1, &["sleep", "1000"]), stdio())
        .unwrap();
    println!("made");
    kill(Pid::this(), Signal::SIGKILL).unwrap();
}

pub fn many() {
    let open_fds = || fs::read_dir("/proc/self/fd").unwrap().count();
    let mut all = sandboxes();
    let (pid, _out) = running(&mut all, spec(1, &["sleep", "1000"]));
    let before = open_fds();
    let started = std::time::Instant::now();
    for round in 0..50 {
        assert_eq!(run_in(&mut all, spec(2, &["true"])).0, ExitStatus::Code(0));
        exec(&mut all, exec_spec(3, 1, &["true"])).unwrap();
        let mut joined = spec(4, &["true"]);
        joined.netns = SandboxNetns::Join(id(1));
        run_in(&mut all, joined);
        let mut broken = spec(5, &["nosuch"]);
        broken.process.as_mut().unwrap().tty = round % 2 == 0;
        if all.create(broken, stdio().0).is_ok() {
            all.start(&id(5)).unwrap_err();
            all.forget(&id(5)).unwrap();
        }
    }
    println!("50 rounds of four in {:?}", started.elapsed());
    assert_eq!(open_fds(), before);
    all.signal(&id(1), libc::SIGKILL).unwrap();
    wait(&mut all, pid);
    no_children();
}
