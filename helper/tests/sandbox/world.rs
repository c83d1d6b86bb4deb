//! What the tests stand on: the helper's user namespace, specs, and a sandbox that is run to its
//! end with its output caught.

use mossnet_helper::SandboxId;
use mossnet_helper::namespace::IdMapping;
use mossnet_helper::request::{
    Bind, ExecSpec, ExitStatus, Failure, ProcessSpec, SandboxNetns, SandboxSpec,
};
use mossnet_helper::sandbox::Sandboxes;
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{Pid, getgid, getuid};
use std::fs::{self, File};
use std::io::Read;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

/// Docker's default set.
pub const CAPABILITIES: [&str; 14] = [
    "CAP_AUDIT_WRITE",
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_FOWNER",
    "CAP_FSETID",
    "CAP_KILL",
    "CAP_MKNOD",
    "CAP_NET_BIND_SERVICE",
    "CAP_NET_RAW",
    "CAP_SETFCAP",
    "CAP_SETGID",
    "CAP_SETPCAP",
    "CAP_SETUID",
    "CAP_SYS_CHROOT",
];

/// The same as the bits of /proc/PID/status.
pub const CAPABILITY_BITS: &str = "00000000a80425fb";

/// A user and mount namespace with one id, as the helper makes it.
pub fn become_helper() {
    let (uid, gid) = (getuid(), getgid());
    become_helper_mapped_by(|| {
        fs::write("/proc/self/setgroups", "deny").unwrap();
        fs::write("/proc/self/uid_map", format!("0 {uid} 1")).unwrap();
        fs::write("/proc/self/gid_map", format!("0 {gid} 1")).unwrap();
    });
}

/// The same, with whatever `map` maps.
pub fn become_helper_mapped_by(map: impl FnOnce()) {
    unshare(CloneFlags::CLONE_NEWUSER | CloneFlags::CLONE_NEWNS).expect("user namespaces");
    map();
    let flags = MsFlags::MS_REC | MsFlags::MS_SLAVE;
    mount(None::<&str>, "/", None::<&str>, flags, None::<&str>).unwrap();
}

/// A registry for the namespace of [`become_helper`].
pub fn sandboxes() -> Sandboxes {
    Sandboxes::new(IdMapping::single(1000, 1000))
}

/// Ids that are easy to tell apart.
pub fn id(number: u8) -> SandboxId {
    SandboxId::from([number; 32])
}

/// A process with a plain environment.
pub fn process(argv: &[&str]) -> ProcessSpec {
    ProcessSpec {
        argv: argv.iter().map(|&word| word.to_owned()).collect(),
        env: vec![
            (
                "PATH".to_owned(),
                "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin".to_owned(),
            ),
            ("ONLY".to_owned(), "this".to_owned()),
        ],
        workdir: None,
        tty: false,
    }
}

/// A sandbox in its own network, on the caller's file system.
pub fn spec(number: u8, argv: &[&str]) -> SandboxSpec {
    SandboxSpec {
        id: id(number),
        hostname: "mossy".to_owned(),
        netns: SandboxNetns::Own,
        rootfs: None,
        binds: Vec::new(),
        masks: Vec::new(),
        capabilities: CAPABILITIES.map(str::to_owned).to_vec(),
        process: Some(process(argv)),
    }
}

/// A shell script in a sandbox.
pub fn script(number: u8, text: &str) -> SandboxSpec {
    spec(number, &["sh", "-c", text])
}

/// A process in a sandbox.
pub fn exec_spec(number: u8, sandbox: u8, argv: &[&str]) -> ExecSpec {
    ExecSpec {
        id: id(number),
        sandbox: id(sandbox),
        process: process(argv),
    }
}

/// stdin empty, stdout and stderr one pipe, whose other end comes along.
pub fn stdio() -> ([OwnedFd; 3], File) {
    let (reader, writer) = std::io::pipe().unwrap();
    let stdin = File::open("/dev/null").unwrap();
    let stderr = writer.try_clone().unwrap();
    (
        [stdin.into(), writer.into(), stderr.into()],
        File::from(OwnedFd::from(reader)),
    )
}

/// Everything until the last writer is gone.
pub fn read_all(mut output: File) -> String {
    let mut text = String::new();
    output.read_to_string(&mut text).unwrap();
    text
}

/// Wait for a child, and tell the registry as the helper's event loop does.
pub fn wait(all: &mut Sandboxes, pid: u32) -> ExitStatus {
    let pid = Pid::from_raw(i32::try_from(pid).unwrap());
    let status = match waitpid(pid, None).unwrap() {
        WaitStatus::Exited(_, code) => ExitStatus::Code(code),
        WaitStatus::Signaled(_, signal, _) => ExitStatus::Signal(signal as i32),
        other => panic!("{other:?}"),
    };
    assert!(all.exited(pid, status).is_some(), "{pid} is recorded");
    assert!(all.exited(pid, status).is_none(), "{pid} ends once");
    status
}

/// Run a sandbox to its end.
pub fn run(spec: SandboxSpec) -> (ExitStatus, String) {
    let mut all = sandboxes();
    let outcome = run_in(&mut all, spec);
    no_children();
    outcome
}

/// The same in a registry that goes on.
pub fn run_in(all: &mut Sandboxes, spec: SandboxSpec) -> (ExitStatus, String) {
    let id = spec.id.clone();
    let (fds, output) = stdio();
    let pid = all.create(spec, fds).unwrap();
    all.start(&id).unwrap();
    let text = read_all(output);
    let status = wait(all, pid);
    all.forget(&id).unwrap();
    (status, text)
}

/// The output of a sandbox that must succeed.
pub fn output(spec: SandboxSpec) -> String {
    let (status, text) = run(spec);
    assert_eq!(status, ExitStatus::Code(0), "{text}");
    text
}

/// Start a sandbox that stays.
pub fn running(all: &mut Sandboxes, spec: SandboxSpec) -> (u32, File) {
    let id = spec.id.clone();
    let (fds, output) = stdio();
    let pid = all.create(spec, fds).unwrap();
    all.start(&id).unwrap();
    (pid, output)
}

/// Run a process in a sandbox to its end.
pub fn exec(all: &mut Sandboxes, spec: ExecSpec) -> Result<(ExitStatus, String), Failure> {
    let id = spec.id.clone();
    let (fds, output) = stdio();
    let pid = all.exec(spec, fds)?;
    let text = read_all(output);
    let status = wait(all, pid);
    all.forget(&id)?;
    Ok((status, text))
}

/// No child is left, not even unreaped.
pub fn no_children() {
    assert_eq!(
        waitpid(None, Some(WaitPidFlag::WNOHANG)),
        Err(nix::errno::Errno::ECHILD)
    );
}

/// A directory that goes with the test.
pub struct Scratch(PathBuf);

impl Scratch {
    /// A new one.
    pub fn new() -> Self {
        let path = std::env::temp_dir().join(format!("mossnet-sandbox-{}", std::process::id()));
        fs::create_dir(&path).unwrap();
        Self(path)
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// A file in it, to be laid over `target`.
    pub fn bind(&self, name: &str, text: &str, target: &str) -> Bind {
        let source = self.0.join(name);
        fs::write(&source, text).unwrap();
        Bind {
            source,
            target: target.into(),
        }
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // Left-overs in /tmp are no reason to fail.
        let _ = fs::remove_dir_all(&self.0);
    }
}
