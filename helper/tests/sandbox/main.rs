//! Sandboxes on the real kernel. Each test is a process of its own: uid 1000 (or the caller's, if
//! that is not root) as the helper is, in a fresh user and mount namespace. `cargo test -p
//! mossnet-helper --test sandbox -- WORD` runs those whose name contains WORD.

// Nothing but tests here, though clippy cannot know.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod cases;
#[path = "../harness/mod.rs"]
mod harness;
mod world;

use mossnet_helper::sandbox::seal;
use std::ffi::CString;
use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};

/// Names the test that this process is to run.
const CASE: &str = "MOSSNET_SANDBOX_CASE";

/// Instead of a test: try to change the program, and say what came of it.
const WRITE_SELF: &str = "write self";

/// Instead of a test: be a helper that is killed.
const DYING_HELPER: &str = "dying helper";

/// How many further ids, as useradd(8) gives them.
const IDS: &str = "65536";

/// Whom root becomes.
const UNPRIVILEGED: u32 = 1000;

fn main() -> ExitCode {
    if let Ok(name) = std::env::var(CASE) {
        return run_case(&name);
    }
    harness::run_all(cases::ALL.iter().map(|(name, _)| *name), in_process)
}

/// Run one test in a process of its own.
fn in_process(name: &str) -> bool {
    let root = nix::unistd::geteuid().is_root();
    let maps = match name == cases::MANY_IDS {
        true => Maps::find(root),
        false => None,
    };
    if name == cases::MANY_IDS && maps.is_none() {
        harness::skip(name, "the user has no subordinate ids (subuid(5))");
        return true;
    }
    let copy = (name == cases::SEALED).then(own_copy);
    let mut command = Command::new(copy.as_deref().unwrap_or(Path::new("/proc/self/exe")));
    command.env(CASE, name).current_dir("/");
    if root {
        // For root, std also drops the supplementary groups.
        command.uid(UNPRIVILEGED).gid(UNPRIVILEGED);
    }
    let Some(maps) = maps else {
        let success = command.status().unwrap().success();
        if let Some(copy) = copy {
            fs::remove_file(copy).unwrap();
        }
        return success;
    };
    let (mut unshared, tell_unshared) = std::io::pipe().unwrap();
    command.stdin(Stdio::piped()).stdout(tell_unshared);
    let mut child = command.spawn().unwrap();
    drop(command);
    unshared.read_exact(&mut [0]).unwrap();
    maps.write(child.id());
    // End of file is the sign to go on.
    drop(child.stdin.take());
    let success = child.wait().unwrap().success();
    std::io::copy(&mut unshared, &mut std::io::stdout()).unwrap();
    success
}

/// Further ids for a user namespace, and who may map them.
enum Maps {
    /// Root may map any.
    Root,
    /// newuidmap(1) maps what /etc/subuid and /etc/subgid give: the first of each.
    Subordinate([u32; 2]),
}

impl Maps {
    fn find(root: bool) -> Option<Self> {
        if root {
            return Some(Self::Root);
        }
        let user = nix::unistd::User::from_uid(nix::unistd::getuid()).ok()??;
        let first = |file: &str| {
            let text = fs::read_to_string(file).ok()?;
            let line = text
                .lines()
                .find_map(|l| l.strip_prefix(&format!("{}:", user.name)))?;
            let (first, count) = line.split_once(':')?;
            (count == IDS).then(|| first.parse().ok())?
        };
        Some(Self::Subordinate([
            first("/etc/subuid")?,
            first("/etc/subgid")?,
        ]))
    }

    fn write(&self, pid: u32) {
        let (uid, gid) = (nix::unistd::getuid(), nix::unistd::getgid());
        match self {
            Self::Root => {
                for map in ["uid_map", "gid_map"] {
                    let text = format!("0 {UNPRIVILEGED} 1\n1 100000 {IDS}\n");
                    fs::write(format!("/proc/{pid}/{map}"), text).unwrap();
                }
            }
            Self::Subordinate(first) => {
                let own = [uid.as_raw(), gid.as_raw()];
                for (at, program) in ["newuidmap", "newgidmap"].into_iter().enumerate() {
                    let words = format!("{pid} 0 {} 1 1 {} {IDS}", own[at], first[at]);
                    let mut command = Command::new(program);
                    assert!(command.args(words.split(' ')).status().unwrap().success());
                }
            }
        }
    }
}

/// A copy of this program that the one who runs the tests may write to.
fn own_copy() -> PathBuf {
    let path = std::env::temp_dir().join(format!("mossnet-sandbox-exe-{}", std::process::id()));
    fs::copy("/proc/self/exe", &path).unwrap();
    if nix::unistd::geteuid().is_root() {
        std::os::unix::fs::chown(&path, Some(UNPRIVILEGED), Some(UNPRIVILEGED)).unwrap();
    }
    path
}

/// Change the program's file. Opening it for writing fails in any case while it runs (ETXTBSY), so
/// its mode is changed.
pub fn change_program() -> std::io::Result<()> {
    fs::set_permissions("/proc/self/exe", PermissionsExt::from_mode(0o755))
}

/// Be the helper, and run one test.
fn run_case(name: &str) -> ExitCode {
    if name == WRITE_SELF {
        println!("{:?}", change_program().unwrap_err().kind());
        return ExitCode::SUCCESS;
    }
    if name == DYING_HELPER {
        cases::dying_helper();
    }
    let (_, case) = cases::ALL
        .iter()
        .find(|(known, _)| *known == name)
        .expect("an existing test");
    if name == cases::MANY_IDS {
        world::become_helper_mapped_by(|| {
            std::io::stdout().write_all(b"u").unwrap();
            std::io::stdout().flush().unwrap();
            std::io::stdin().read_to_end(&mut Vec::new()).unwrap();
        });
    } else if name != cases::SEALED || !seal::is_sealed() {
        assert!(!nix::unistd::geteuid().is_root());
        world::become_helper();
    }
    if name == cases::SEALED && !seal::is_sealed() {
        // It is our own file: without the seal we can change it.
        change_program().unwrap();
        let argv = [c"sandbox".to_owned()];
        let env = [CString::new(format!("{CASE}={name}")).unwrap()];
        let Err(failure) = seal::execute_sealed(&argv, &env);
        panic!("{failure}");
    }
    case();
    ExitCode::SUCCESS
}
