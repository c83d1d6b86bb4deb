//! What root in a sandbox cannot do, and what the helper needs for its part.

use crate::cases::files::busybox_root;
use crate::world::*;
use caps::{CapSet, Capability, CapsHashSet};
use mossnet_helper::namespace::IdMapping;
use mossnet_helper::request::{ExitStatus, SandboxNetns};
use mossnet_helper::sandbox::Sandboxes;
use mossnet_helper::sandbox::seal;
use nix::mount::{MsFlags, mount};
use std::fs;
use std::io;

/// Everything that could lead to the helper and its network namespaces. `HELPER` is its pid.
const ATTACKS: &str = "
    kill -0 $HELPER 2>/dev/null && echo signals
    for n in net mnt user pid; do
        readlink /proc/$HELPER/ns/$n 2>/dev/null
        nsenter --$n=/proc/$HELPER/ns/$n true 2>/dev/null && echo enters $n
    done
    readlink /proc/$HELPER/fd/* /proc/$HELPER/root /proc/$HELPER/exe 2>/dev/null
    head -c 1 /proc/$HELPER/environ 2>/dev/null
    nsenter --net=/proc/self/ns/net true && echo own
    # NS_GET_PARENT: the user namespace above.
    python3 -c 'import fcntl,os; fcntl.ioctl(os.open(\"/proc/self/ns/user\", 0), 0xb702)' 2>&1 | tail -1";

/// The attacks with every capability that a sandbox can be given, on the caller's file system.
fn attack(netns: SandboxNetns) -> String {
    let mut spec = script(1, ATTACKS);
    spec.netns = netns;
    spec.capabilities = caps::all().iter().map(ToString::to_string).collect();
    let helper = std::process::id().to_string();
    spec.process
        .as_mut()
        .unwrap()
        .env
        .push(("HELPER".to_owned(), helper));
    run(spec).1
}

pub fn no_power() {
    let text = attack(SandboxNetns::Own);
    assert!(text.starts_with("own\nPermissionError"), "{text}");
    let text = attack(SandboxNetns::Host);
    assert!(text.contains("\nPermissionError"), "{text}");
    assert!(
        !text.contains("enters") && !text.contains("signals"),
        "{text}"
    );
}

pub fn hidden_proc() {
    // As container engines hide parts from their containers.
    let hide = |what: &str, path: &str, kind: &str, flags: MsFlags| {
        mount(Some(what), path, Some(kind), flags, None::<&str>).unwrap();
    };
    hide("/dev/null", "/proc/timer_list", "", MsFlags::MS_BIND);
    hide("tmpfs", "/sys/kernel", "tmpfs", MsFlags::MS_RDONLY);
    let text = attack(SandboxNetns::Own);
    assert!(text.starts_with("own\nPermissionError"), "{text}");
    let shown = "ls -d /proc/$HELPER; cat /proc/self/comm; ls /sys/class/net | grep -c .";
    let scratch = Scratch::new();
    busybox_root(scratch.path());
    for rootfs in [None, Some(scratch.path().to_owned())] {
        let mut spec = script(1, shown);
        let helper = std::process::id();
        spec.process
            .as_mut()
            .unwrap()
            .env
            .push(("HELPER".to_owned(), helper.to_string()));
        spec.rootfs = rootfs;
        let text = output(spec);
        assert!(
            text.starts_with(&format!("/proc/{helper}\ncat\n")),
            "{text}"
        );
    }
}

pub fn few_capabilities() {
    let needed = [
        Capability::CAP_SETUID,
        Capability::CAP_SETGID,
        Capability::CAP_SETFCAP,
    ];
    let needed: CapsHashSet = needed.into_iter().collect();
    caps::set(None, CapSet::Effective, &needed).unwrap();
    caps::set(None, CapSet::Permitted, &needed).unwrap();
    let mut all = sandboxes();
    let (pid, _out) = running(&mut all, spec(1, &["sleep", "1000"]));
    exec(&mut all, exec_spec(2, 1, &["true"])).unwrap();
    let mut joined = script(3, "grep ^CapEff /proc/self/status");
    joined.netns = SandboxNetns::Join(id(1));
    let (status, text) = run_in(&mut all, joined);
    assert_eq!(status, ExitStatus::Code(0), "{text}");
    assert_eq!(text, format!("CapEff:\t{CAPABILITY_BITS}\n"));
    all.signal(&id(1), libc::SIGKILL).unwrap();
    wait(&mut all, pid);
    no_children();
}

pub fn sealed() {
    assert!(seal::is_sealed());
    let refused = crate::change_program().unwrap_err();
    assert_eq!(refused.kind(), io::ErrorKind::ReadOnlyFilesystem);
    // The program in the sandbox's hands. It needs the host's loader.
    let scratch = Scratch::new();
    let trap = scratch.path().join("trap");
    fs::write(&trap, "#!/proc/self/exe\n").unwrap();
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    fs::set_permissions(&trap, mode).unwrap();
    let mut spec = spec(1, &[trap.to_str().unwrap()]);
    spec.rootfs = Some("/".into());
    let case = (crate::CASE.to_owned(), crate::WRITE_SELF.to_owned());
    spec.process.as_mut().unwrap().env.push(case);
    assert_eq!(output(spec), "ReadOnlyFilesystem\n");
}

pub fn many_ids() {
    let mapping = IdMapping::current().unwrap();
    // Those of our own user namespace, which the kernel shows in mount options.
    let tty = mapping.gids[1].outside + 4;
    let mut all = Sandboxes::new(mapping);
    let text = "awk '{print $1, $2, $3}' /proc/self/uid_map /proc/self/gid_map; id -G; \
        f=$(mktemp); chown 33:44 $f; stat -c '%u %g' $f; rm $f; \
        setpriv --reuid 33 --regid 44 --groups 44,45 id -G; \
        cat /proc/sys/net/ipv4/ping_group_range";
    let expected = "0 0 1\n1 1 65536\n0 0 1\n1 1 65536\n0\n33 44\n44 45\n0\t65536\n";
    let (status, seen) = run_in(&mut all, script(1, text));
    assert_eq!((status, seen.as_str()), (ExitStatus::Code(0), expected));
    let (pid, _out) = running(&mut all, spec(1, &["sleep", "1000"]));
    let (_, seen) = exec(&mut all, exec_spec(2, 1, &["sh", "-c", text])).unwrap();
    assert_eq!(seen, expected);
    let mut joined = script(3, text);
    joined.netns = SandboxNetns::Join(id(1));
    assert_eq!(run_in(&mut all, joined).1, expected);
    all.signal(&id(1), libc::SIGKILL).unwrap();
    wait(&mut all, pid);
    let scratch = Scratch::new();
    busybox_root(scratch.path());
    // The kernel shows the id of the initial user namespace.
    let mut elsewhere = script(
        4,
        &format!("grep -o 'gid={tty},mode=620,ptmxmode=666' /proc/self/mounts"),
    );
    elsewhere.rootfs = Some(scratch.path().to_owned());
    assert_eq!(
        run_in(&mut all, elsewhere).1,
        format!("gid={tty},mode=620,ptmxmode=666\n")
    );
}
