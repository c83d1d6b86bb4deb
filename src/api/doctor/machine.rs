//! The machine's own texts: /proc, /sys and /etc, below a root that tests choose.
//!
//! Invariant: what is absent or unreadable is `None`, never an error: a missing file is a finding.

use std::io;
use std::path::{Path, PathBuf};

/// Where the machine's files are.
#[derive(Debug, Clone)]
pub struct Machine {
    root: PathBuf,
}

impl Machine {
    /// This one.
    pub fn here() -> Self {
        Self::at("/")
    }

    /// A tree of files that stands for one.
    pub fn at(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }

    /// The text of a file, given by its absolute path.
    pub fn text(&self, path: &str) -> Option<String> {
        std::fs::read_to_string(self.path(path)).ok()
    }

    /// Whether there is such a file.
    pub fn has(&self, path: &str) -> bool {
        self.path(path).exists()
    }

    /// Where the file is below the root.
    pub fn path(&self, path: &str) -> PathBuf {
        self.root.join(path.trim_start_matches('/'))
    }

    /// The numbers of a sysctl, given as `user.max_user_namespaces`.
    pub fn sysctl(&self, name: &str) -> Option<Vec<u64>> {
        let text = self.text(&format!("/proc/sys/{}", name.replace('.', "/")))?;
        text.split_whitespace()
            .map(|word| word.parse().ok())
            .collect()
    }

    /// The first number of a sysctl.
    pub fn number(&self, name: &str) -> Option<u64> {
        self.sysctl(name)?.first().copied()
    }

    /// The value of a line `NAME: VALUE` in /proc/self/status.
    pub fn own_status(&self, name: &str) -> Option<String> {
        let text = self.text("/proc/self/status")?;
        let line = text
            .lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        line.map(|value| value.trim().to_owned())
    }

    /// Kernel version, major and minor.
    pub fn kernel_version(&self) -> Option<(u32, u32)> {
        let release = self.text("/proc/sys/kernel/osrelease")?;
        let mut numbers = release.trim().split(|c: char| !c.is_ascii_digit());
        Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
    }

    /// The command that installs a package here, by the distribution that os-release(5) names.
    /// `names` are the package's names on Debian, Fedora, Arch, openSUSE and Alpine.
    pub fn install(&self, names: [&str; 5]) -> String {
        let text = self.text("/etc/os-release").unwrap_or_default();
        let words: String = text
            .lines()
            .filter_map(|line| line.strip_prefix("ID=").or(line.strip_prefix("ID_LIKE=")))
            .map(|value| format!(" {} ", value.trim_matches('"')))
            .collect();
        let like = |id: &str| words.split_whitespace().any(|word| word == id);
        let [debian, fedora, arch, suse, alpine] = names;
        if like("fedora") || like("rhel") || like("centos") {
            format!("sudo dnf install {fedora}")
        } else if like("arch") {
            format!("sudo pacman -S {arch}")
        } else if like("suse") || like("opensuse") {
            format!("sudo zypper install {suse}")
        } else if like("alpine") {
            format!("sudo apk add {alpine}")
        } else {
            format!("sudo apt-get install {debian}")
        }
    }

    /// A program, looked for where `path` (the variable) says.
    pub fn program(&self, name: &str, path: &str) -> Option<PathBuf> {
        path.split(':')
            .filter(|directory| directory.starts_with('/'))
            .map(|directory| Path::new(directory).join(name))
            .find(|program| is_executable(&self.path(&program.to_string_lossy())))
    }

    /// The interface of the IPv4 default route with the lowest metric (/proc/net/route).
    pub fn ipv4_default(&self) -> Option<String> {
        let table = self.text("/proc/net/route")?;
        let routes = table.lines().skip(1).filter_map(|line| {
            let words: Vec<_> = line.split_whitespace().collect();
            let [interface, destination, _, _, _, _, metric, mask, ..] = words[..] else {
                return None;
            };
            let default = destination == "00000000" && mask == "00000000";
            default.then_some((metric.parse::<u32>().ok()?, interface.to_owned()))
        });
        routes.min().map(|(_, interface)| interface)
    }

    /// The same for IPv6 (/proc/net/ipv6_route); the kernel's own reject route is none.
    pub fn ipv6_default(&self) -> Option<String> {
        const REJECT: u32 = 0x0200;
        let table = self.text("/proc/net/ipv6_route")?;
        let routes = table.lines().filter_map(|line| {
            let words: Vec<_> = line.split_whitespace().collect();
            let [destination, length, _, _, _, metric, _, _, flags, interface] = words[..] else {
                return None;
            };
            let flags = u32::from_str_radix(flags, 16).ok()?;
            let any = destination.bytes().all(|digit| digit == b'0') && length == "00";
            let usable = any && flags & REJECT == 0 && interface != "lo";
            usable.then_some((u32::from_str_radix(metric, 16).ok()?, interface.to_owned()))
        });
        routes.min().map(|(_, interface)| interface)
    }

    /// Ids that /etc/subuid or /etc/subgid gives a user, known by name or number (subuid(5)).
    pub fn subordinate_ids(&self, file: &str, user: &str, uid: u32) -> u64 {
        let number = uid.to_string();
        let text = self.text(file).unwrap_or_default();
        let counts = text.lines().filter_map(|line| {
            let mut fields = line.trim().split(':');
            let owner = fields.next()?;
            let _first = fields.next()?;
            let count: u64 = fields.next()?.parse().ok()?;
            (owner == user || owner == number).then_some(count)
        });
        counts.fold(0, u64::saturating_add)
    }
}

fn is_executable(path: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt;
    let metadata: io::Result<_> = path.metadata();
    metadata.is_ok_and(|metadata| metadata.is_file() && metadata.permissions().mode() & 0o111 != 0)
}
