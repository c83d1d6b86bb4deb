//! What the tests stand on: a helper in a directory of its own, and requests that are easy to make.

use crate::client::Client;
use mossnet_helper::request::{
    BridgeSpec, EndpointSpec, Inventory, NetworkRules, ProcessSpec, Reply, Request, SandboxNetns,
    SandboxSpec, UplinkKind,
};
use mossnet_helper::{IfName, SandboxId};
use std::fs::{self, File};
use std::io::{BufRead, BufReader, PipeReader, Read};
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

pub const BRIDGE: &str = "br-0123456789ab";

/// A helper that runs.
pub struct World {
    pub directory: PathBuf,
    pub socket: PathBuf,
    pub child: Child,
}

impl World {
    pub fn new() -> Self {
        let directory = std::env::temp_dir().join(format!("mossnet-helper-{}", std::process::id()));
        let _ = fs::remove_dir_all(&directory);
        fs::create_dir(&directory).unwrap();
        let socket = directory.join("helper.sock");
        let (child, line) = start(&socket);
        assert_eq!(line, "ready\n");
        Self {
            directory,
            socket,
            child,
        }
    }

    pub fn connect(&self) -> Client {
        Client::connect(&self.socket)
    }

    /// Wait for the helper's end; nothing of it may be left.
    pub fn ended(mut self) {
        assert!(self.child.wait().unwrap().success());
        assert!(!self.socket.exists());
        fs::remove_dir_all(&self.directory).unwrap();
    }
}

impl Drop for World {
    /// A test that fails leaves no helper behind.
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Start a helper; what it says first.
pub fn start(socket: &std::path::Path) -> (Child, String) {
    let mut command = Command::new("/proc/self/exe");
    command.arg("helper").arg("--socket").arg(socket);
    command.stdin(Stdio::null()).stdout(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap())
        .read_line(&mut line)
        .unwrap();
    (child, line)
}

pub fn id(number: u8) -> SandboxId {
    SandboxId::from([number; 32])
}

pub fn name(text: &str) -> IfName {
    text.parse().unwrap()
}

pub fn bridge() -> BridgeSpec {
    BridgeSpec {
        name: name(BRIDGE),
        mac: "02:6d:00:00:00:01".parse().unwrap(),
        mtu: 1500,
        addresses: vec![
            "10.89.0.1/24".parse().unwrap(),
            "fd00:89::1/64".parse().unwrap(),
        ],
        icc: true,
        vlan: None,
    }
}

pub fn network(internal: bool) -> NetworkRules {
    NetworkRules {
        bridge: name(BRIDGE),
        subnets: vec![
            "10.89.0.0/24".parse().unwrap(),
            "fd00:89::/64".parse().unwrap(),
        ],
        gateways: vec!["10.89.0.1".parse().unwrap(), "fd00:89::1".parse().unwrap()],
        internal,
        uplink: UplinkKind::Relay,
    }
}

pub fn sandbox(number: u8, argv: &[&str]) -> SandboxSpec {
    let path = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
    SandboxSpec {
        id: id(number),
        hostname: "mossy".to_owned(),
        netns: SandboxNetns::Own,
        rootfs: None,
        binds: Vec::new(),
        masks: Vec::new(),
        capabilities: ["CAP_NET_RAW", "CAP_NET_BIND_SERVICE"]
            .map(str::to_owned)
            .to_vec(),
        process: Some(ProcessSpec {
            argv: argv.iter().map(|&word| word.to_owned()).collect(),
            env: vec![("PATH".to_owned(), path.to_owned())],
            workdir: None,
            tty: false,
        }),
    }
}

pub fn endpoint(number: u8) -> EndpointSpec {
    EndpointSpec {
        sandbox: id(number),
        bridge: name(BRIDGE),
        router_ifname: name(&format!("ve-{number:012x}")),
        ifname: name("eth0"),
        mac: [2, 0x42, 10, 89, 0, number].try_into().unwrap(),
        mtu: 1500,
        addresses: vec![
            format!("10.89.0.{number}/24").parse().unwrap(),
            format!("fd00:89::{number:x}/64").parse().unwrap(),
        ],
        default_routes: vec!["10.89.0.1".parse().unwrap(), "fd00:89::1".parse().unwrap()],
        bandwidth: mossnet_helper::bandwidth::Bandwidth::default(),
    }
}

/// Nothing on stdin, a pipe for the rest.
pub fn stdio() -> ([OwnedFd; 3], PipeReader) {
    let (reader, writer) = std::io::pipe().unwrap();
    let stdin = File::open("/dev/null").unwrap();
    let stderr = writer.try_clone().unwrap();
    ([stdin.into(), writer.into(), stderr.into()], reader)
}

/// Make a sandbox; its output.
pub fn create(client: &mut Client, spec: SandboxSpec) -> PipeReader {
    let (fds, output) = stdio();
    match client.ask_with(Request::CreateSandbox(Box::new(spec)), &fds) {
        Ok(Reply::Created { pid }) => assert!(fs::exists(format!("/proc/{pid}")).unwrap()),
        other => panic!("{other:?}"),
    }
    output
}

/// Make a bare sandbox; the number of its netns descriptor in the helper.
pub fn create_bare(client: &mut Client, id: SandboxId) -> i32 {
    let spec = SandboxSpec {
        id,
        process: None,
        ..sandbox(1, &[])
    };
    match client.ask(Request::CreateSandbox(Box::new(spec))) {
        Ok(Reply::Bare { netns_fd }) => netns_fd,
        other => panic!("{other:?}"),
    }
}

/// Run a script in the network of another sandbox, to its end; its output.
pub fn run_joined(client: &mut Client, other: SandboxId, script: &str) -> String {
    let mut spec = sandbox(250, &["sh", "-c", script]);
    spec.netns = SandboxNetns::Join(other);
    let mut output = create(client, spec);
    client.done(Request::StartSandbox { id: id(250) });
    let mut text = String::new();
    output.read_to_string(&mut text).unwrap();
    client.done(Request::Forget { id: id(250) });
    text
}

/// A path to the router netns: the first one that the helper has opened.
pub fn router(world: &World) -> String {
    let helper = world.child.id();
    let number = |entry: &fs::DirEntry| entry.file_name().to_string_lossy().parse::<u32>().ok();
    let is_netns = |entry: &fs::DirEntry| {
        fs::read_link(entry.path()).is_ok_and(|path| path.to_string_lossy().starts_with("net:["))
    };
    let fds = fs::read_dir(format!("/proc/{helper}/fd"))
        .unwrap()
        .flatten();
    let first = fds
        .filter(is_netns)
        .filter_map(|entry| number(&entry))
        .min()
        .unwrap();
    format!("/proc/{helper}/fd/{first}")
}

/// Run a command in the router netns.
pub fn in_router(world: &World, command: &str) -> String {
    let helper = world.child.id();
    let output = Command::new("nsenter")
        .arg(format!("--user=/proc/{helper}/ns/user"))
        .arg(format!("--net={}", router(world)))
        .args(["--preserve-credentials", "sh", "-c", command])
        .output()
        .unwrap();
    assert!(output.status.success(), "{command}: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}

/// Make a sandbox on the bridge, and let it run to its end; its output.
pub fn run(client: &mut Client, number: u8, script: &str) -> String {
    let mut output = create(client, sandbox(number, &["sh", "-c", script]));
    client.done(Request::Attach(endpoint(number)));
    client.done(Request::StartSandbox { id: id(number) });
    let mut text = String::new();
    output.read_to_string(&mut text).unwrap();
    text
}

pub fn inventory(client: &mut Client) -> Inventory {
    match client.ask(Request::Inventory) {
        Ok(Reply::Inventory(inventory)) => *inventory,
        other => panic!("{other:?}"),
    }
}
