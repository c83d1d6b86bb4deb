//! The file system of a sandbox.

use crate::world::*;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

pub fn binds() {
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

pub fn binds_missing() {
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

pub fn real_etc() {
    let scratch = Scratch::new();
    let listing = "ls -A /etc; find /etc -type l 2>/dev/null | wc -l; id -un; stat -c %a /etc";
    let before = output(script(1, listing));
    let mut spec = script(1, &format!("cat /etc/mossnet-test && {listing}"));
    spec.binds = vec![
        scratch.bind("a", "first line\n", "/etc/mossnet-test"),
        scratch.bind("b", "x", "/etc/mossnet-test-2"),
    ];
    let after = output(spec);
    let after = after.strip_prefix("first line\n").unwrap();
    assert_eq!(after.replace("mossnet-test\nmossnet-test-2\n", ""), before);
    assert!(!Path::new("/etc/mossnet-test").exists());
}

pub fn masks() {
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

pub fn busybox_root(root: &Path) {
    fs::create_dir_all(root.join("bin")).unwrap();
    fs::copy("/bin/busybox", root.join("bin/busybox")).expect("busybox-static is installed");
    for name in [
        "sh", "ls", "cat", "pwd", "ps", "readlink", "mount", "grep", "touch", "tty", "head",
    ] {
        symlink("busybox", root.join("bin").join(name)).unwrap();
    }
}

pub fn rootfs() {
    let scratch = Scratch::new();
    let root = scratch.path().join("root");
    busybox_root(&root);
    let mut spec = script(
        1,
        "pwd; ls /; ls /dev; cat /etc/hosts; echo x > /dev/null; head -c 4 /dev/zero | wc -c; ls /sys/class/net; \
         echo $$; ls -l /proc/1/root | grep -c tmp; grep -c ' / ' /proc/self/mounts; ls /dev/pts; touch /dev/shm/x && echo shm",
    );
    symlink("busybox", root.join("bin/wc")).unwrap();
    spec.rootfs = Some(root.clone());
    spec.binds = vec![scratch.bind("hosts", "10.1.2.3 moss\n", "/etc/hosts")];
    spec.process.as_mut().unwrap().workdir = Some("/made/for/it".into());
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
            "1",
            "0",
            "1",
            "ptmx",
            "shm"
        ],
        "{text}"
    );
    assert_eq!(fs::read_to_string(root.join("etc/hosts")).unwrap(), "");
}

pub fn hostile_rootfs() {
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
