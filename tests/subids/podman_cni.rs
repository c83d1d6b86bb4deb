//! podman with its CNI backend inside `mossnet unshare`, where it is root of many users: the plugin under a real
//! runtime. The only traffic outside of its namespaces is one connection over the machine's loopback.

use super::Machine;
use crate::world::{Cmd, enter, eventually, seconds};
use serde_json::json;
use std::fs;
use std::io::Read;
use std::net::TcpStream;
use std::os::unix::fs::symlink;
use std::path::Path;

/// On the machine's loopback.
const PORT: u16 = 38_097;

/// Places that root has on a machine, and control groups of a kind that podman understands.
const PREPARE: &str = "mount -t cgroup2 none /sys/fs/cgroup
for place in /run /var/lib /var/cache /dev/shm; do mount -t tmpfs none $place; done
cd $PLACE
exec sh -ec \"$1\"";

const SCRIPT: &str = "podman import image.tar bb >/dev/null
podman run -d --name web -p 127.0.0.1:$PORT:80 --network lab bb timeout 100 sh -c 'while :; do echo served | nc -l -p 80; done'
podman run --rm --network lab bb sh -c 'ip addr; ping -c1 -W5 web; cat /etc/resolv.conf'
mossnet netns ls --format '{{.Networks}} {{.Name}}'
box=$(mossnet netns create box --network lab:ip=172.31.11.77)
podman run --rm --network ns:$box --dns 172.31.11.1 bb sh -c 'ip addr show eth0; ping -c1 -W5 web && echo joined'
mossnet netns rm box >/dev/null
echo ready
read line
podman rm -f -t0 web >/dev/null
mossnet netns ls -q
echo removed";

/// Everything that podman needs, in one directory.
fn prepare(place: &Path) {
    let write = |name: &str, text: String| fs::write(place.join(name), text).expect("a file");
    for directory in [
        "plugins",
        "configs",
        "xdg",
        "root",
        "rootfs/bin",
        "rootfs/etc",
        "rootfs/proc",
    ] {
        fs::create_dir_all(place.join(directory)).expect("a directory");
    }
    let binary = env!("CARGO_BIN_EXE_mossnet");
    symlink(binary, place.join("plugins/mossnet-cni")).expect("a link");
    // podman clears the environment of what cleans up behind a container.
    let plugin = json!({
        "type": "mossnet-cni", "root": place.join("root"),
        "ranges": [[{"subnet": "172.31.11.0/24"}]],
        "capabilities": {"portMappings": true, "ips": true, "mac": true, "aliases": true},
    });
    let list = json!({"cniVersion": "1.0.0", "name": "lab", "plugins": [plugin]});
    write("configs/lab.conflist", list.to_string());
    let shown = place.display();
    write(
        "containers.conf",
        format!(
            "[network]\nnetwork_backend=\"cni\"\ncni_plugin_dirs=[\"{shown}/plugins\"]\n\
             network_config_dir=\"{shown}/configs\"\ndefault_network=\"lab\"\n\
             [engine]\ncgroup_manager=\"cgroupfs\"\nevents_logger=\"file\"\nruntime=\"crun\"\n\
             tmp_dir=\"{shown}/tmp\"\n\
             [containers]\ncgroups=\"disabled\"\n\
             default_ulimits=[\"nofile=1024:1024\",\"nproc=1024:1024\"]\n"
        ),
    );
    write(
        "storage.conf",
        format!(
            "[storage]\ndriver=\"vfs\"\nrunroot=\"{shown}/run\"\ngraphroot=\"{shown}/graph\"\n"
        ),
    );
    fs::copy("/bin/busybox", place.join("rootfs/bin/busybox")).expect("busybox");
    for applet in ["sh", "ip", "ping", "nc", "cat", "echo", "timeout"] {
        symlink("busybox", place.join("rootfs/bin").join(applet)).expect("a link");
    }
}

/// The script in mossnet's namespaces, with podman's files in the machine's directory.
fn inside(machine: &Machine) -> Cmd {
    let place = machine.directory.path();
    let words = [
        "unshare", "unshare", "--mount", "--cgroup", "sh", "-c", PREPARE, "sh", SCRIPT,
    ];
    let binary = Path::new(env!("CARGO_BIN_EXE_mossnet"));
    let directory = binary.parent().expect("a directory").display();
    machine
        .mossnet(words)
        .env("PLACE", place)
        .env("PORT", PORT.to_string())
        .env("HOME", place)
        .env("XDG_RUNTIME_DIR", place.join("xdg"))
        .env("CONTAINERS_CONF", place.join("containers.conf"))
        .env("CONTAINERS_STORAGE_CONF", place.join("storage.conf"))
        .env(
            "PATH",
            format!("{directory}:{}", crate::world::command::PATH),
        )
        .timeout(seconds(120))
}

#[test]
fn podman_with_its_cni_backend() {
    let name = "subids::podman_cni::podman_with_its_cni_backend";
    let Some(machine) = Machine::find(name) else {
        return;
    };
    let there = |program: &str| Path::new("/usr/bin").join(program).exists();
    if !["podman", "crun", "conmon"].into_iter().all(there) {
        enter::skip_outside(name, "podman, crun or conmon is not installed");
        return;
    }
    if super::podman::Podman::find("podman_cni::podman_with_its_cni_backend").is_none() {
        return;
    }
    let place = machine.directory.path();
    prepare(place);
    let tar = [
        "tar",
        "--owner=0",
        "--group=0",
        "-C",
        "rootfs",
        "-cf",
        "image.tar",
        ".",
    ];
    Cmd::new(tar).directory(place).ok();
    let mut running = inside(&machine).open_stdin().start();
    running.expect("ready");
    let seen = running.stdout();
    for word in [
        "172.31.11.",
        "1 packets received",
        "nameserver 172.31.11.1",
        "[lab] cni-",
        // A namespace that mossnet made, for a container of podman's.
        "inet 172.31.11.77/24",
        "joined",
    ] {
        assert!(seen.contains(word), "{word}: {seen}");
    }
    let mut served = String::new();
    eventually(seconds(20), "the published port answers", || {
        let stream = TcpStream::connect(("127.0.0.1", PORT));
        stream.is_ok_and(|mut stream| stream.read_to_string(&mut served).is_ok())
            && served.contains("served")
    });
    running.write(b"go on\n");
    let output = running.wait().expect_code(0);
    // Nothing but the last word after the first: no sandbox is listed.
    let after = output.stdout.split("ready\n").nth(1).unwrap_or_default();
    assert_eq!(after, "removed\n", "{output}");
    // Its files belong to users whom only the same namespace can remove.
    let inside = ["unshare", "rm", "-rf", "graph", "run", "tmp", "xdg"];
    machine.mossnet(inside).directory(place).ok();
}
