//! A world as an administrator has prepared it: `mossnet-helper` installed with real file capabilities,
//! and a file of grants. For tests that run as root; nobody outside of the world's mounts sees any of it.
//!
//! Sources: capabilities(7) (file capabilities), contrib/ (how it is installed).

use super::enter::HELPER;
use super::{Cmd, Powers, World};
use nix::mount::{MsFlags, mount};
use std::fs::{self, File, Permissions};
use std::os::unix::fs::{PermissionsExt, chown};

/// Where an administrator installs it.
pub const PROGRAM: &str = "/usr/libexec/mossnet-helper";

/// A group without members.
const GROUP: u32 = 64_321;
/// What of the machine is written over.
const OVERLAID: [&str; 2] = ["/etc", "/usr/libexec"];
const LAYERS: &str = "/run/layers";

/// The program that was built, opened before the world's directories hide it.
pub(super) fn program(powers: Powers) -> Option<File> {
    if powers == Powers::User {
        return None;
    }
    let path = std::env::var_os(HELPER).expect("path of mossnet-helper");
    let built = File::open(&path);
    Some(built.unwrap_or_else(|error| {
        panic!(
            "{}: {error} (cargo build --workspace builds it)",
            path.display()
        )
    }))
}

/// As `contrib/` says.
pub(super) fn install(mut program: File) {
    fs::create_dir_all(LAYERS).expect("make a directory");
    mount(
        Some("tmpfs"),
        LAYERS,
        Some("tmpfs"),
        MsFlags::empty(),
        Some("mode=0755"),
    )
    .expect("mount a tmpfs on which capabilities count");
    for (number, place) in OVERLAID.iter().enumerate() {
        let [upper, work] = ["upper", "work"].map(|name| format!("{LAYERS}/{name}{number}"));
        for directory in [&upper, &work] {
            fs::create_dir(directory).expect("make a layer");
            fs::set_permissions(directory, Permissions::from_mode(0o755)).expect("open it");
        }
        let options = format!("lowerdir={place},upperdir={upper},workdir={work}");
        mount(
            Some("overlay"),
            *place,
            Some("overlay"),
            MsFlags::empty(),
            Some(options.as_str()),
        )
        .unwrap_or_else(|error| panic!("write over {place}: {error}"));
    }
    let mut installed = File::create(PROGRAM).expect("install mossnet-helper");
    std::io::copy(&mut program, &mut installed).expect("install mossnet-helper");
    drop(installed);
    chown(PROGRAM, Some(0), Some(GROUP)).expect("give it its group");
    fs::set_permissions(PROGRAM, Permissions::from_mode(0o2755)).expect("setgid");
    let capabilities = "cap_net_admin,cap_net_bind_service+ep";
    Cmd::new(["setcap", capabilities, PROGRAM]).ok();
    fs::create_dir("/run/mossnet").expect("make its directory");
    chown("/run/mossnet", Some(0), Some(GROUP)).expect("give it its group");
    fs::set_permissions("/run/mossnet", Permissions::from_mode(0o770)).expect("close it");
    fs::create_dir_all("/etc/mossnet").expect("make the directory of the grants");
}

impl World {
    /// The administrator writes this into `/etc/mossnet/grants.toml`.
    pub fn grant(&self, text: &str) {
        fs::write("/etc/mossnet/grants.toml", text).expect("write the grants");
    }

    /// The administrator makes a router of the host.
    pub fn forward(&self) {
        for name in ["net/ipv4/ip_forward", "net/ipv6/conf/all/forwarding"] {
            super::sysctl(name, "1");
        }
    }

    /// What `nft` lists of the tables of `mossnet-helper` in the host.
    pub fn host_tables(&self) -> String {
        let listed = self.host(["nft", "list", "tables"]).ok();
        let ours = listed.lines().filter(|line| line.contains("mossnet"));
        ours.collect::<Vec<_>>().join("\n")
    }

    /// Interfaces of uplinks in the host.
    pub fn host_uplinks(&self) -> Vec<String> {
        let links = self.host(["ip", "-o", "link", "show"]).ok();
        let names = links.lines().filter_map(|line| line.split(": ").nth(1));
        let names = names.map(|name| name.split('@').next().unwrap_or(name).to_owned());
        names.filter(|name| name.starts_with("mnu")).collect()
    }
}
