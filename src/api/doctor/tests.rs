//! Rows from trees of files that stand for machines. The real probe is tried by `tests/doctor.rs`,
//! since it must be alone in its process.

use super::probe::{Probe, Try};
use super::*;
use nix::errno::Errno;
use std::path::Path;

#[test]
fn the_doctor_reads_what_the_probe_says() {
    let place = tempfile::tempdir().unwrap();
    let paths = Paths::resolve(Some(&place.path().join("root")));
    let says = |text: &str| {
        use std::os::unix::fs::PermissionsExt;
        let program = place.path().join("program");
        std::fs::write(&program, format!("#!/bin/sh\necho '{text}'\n")).unwrap();
        std::fs::set_permissions(&program, PermissionsExt::from_mode(0o755)).unwrap();
        let attempts = Attempts::make(&paths, &Machine::here(), &program);
        Report::new(rows(&Machine::here(), &attempts))
    };
    let report = says(&serde_json::to_string(&working()).unwrap());
    assert_eq!(report.checks.len(), 21);
    assert_eq!(row(&report, "user namespaces").status, Status::Ok);
    let json = serde_json::to_string(&report).unwrap();
    assert_eq!(serde_json::from_str::<Report>(&json).unwrap(), report);
    let report = says("nothing of use");
    assert_eq!(row(&report, "user namespaces").status, Status::Missing);
    assert!(!report.works);
}

fn working() -> Probe {
    let works = || Try::Works;
    Probe {
        user_namespace: works(),
        id_map: works(),
        net_namespace: works(),
        bridge: works(),
        veth: works(),
        nft_tproxy: works(),
        packet_socket: works(),
        bandwidth: works(),
        nested_user_namespace: works(),
    }
}

fn fails(what: &str, errno: Errno) -> Try {
    Try::Fails {
        what: what.into(),
        errno: Some(errno as i32),
    }
}

/// A machine of these files.
struct Fixture {
    tree: tempfile::TempDir,
}

impl Fixture {
    fn new(files: &[(&str, &str)]) -> Self {
        let fixture = Self {
            tree: tempfile::tempdir().unwrap(),
        };
        for (path, text) in files {
            fixture.write(path, text);
        }
        fixture
    }

    /// One where everything is as it should be.
    fn good() -> Self {
        let fixture = Self::new(&[
            ("/proc/sys/kernel/osrelease", "6.18.4-generic\n"),
            ("/proc/self/ns/user", ""),
            (
                "/proc/self/status",
                "Name:\tmossnet\nCapEff:\t0000000000000000\nSeccomp:\t0\n",
            ),
            ("/proc/sys/user/max_user_namespaces", "96365\n"),
            ("/proc/sys/user/max_net_namespaces", "96365\n"),
            ("/proc/sys/net/ipv4/ping_group_range", "0\t2147483647\n"),
            ("/proc/sys/net/ipv4/ip_unprivileged_port_start", "80\n"),
            ("/proc/sys/net/ipv6/conf/all/disable_ipv6", "0\n"),
            ("/proc/net/route", ROUTES),
            ("/proc/net/ipv6_route", IPV6_ROUTES),
            ("/sys/class/net/eth0/mtu", "1500\n"),
            ("/etc/resolv.conf", "nameserver 127.0.0.53\n"),
            ("/etc/os-release", "ID=ubuntu\nID_LIKE=debian\n"),
            ("/etc/subuid", "alice:100000:65536\n"),
            ("/etc/subgid", "1000:100000:65536\n"),
            ("/dev/net/tun", ""),
        ]);
        for program in ["newuidmap", "newgidmap", "pasta", "slirp4netns"] {
            fixture.program(program);
        }
        fixture
    }

    fn write(&self, path: &str, text: &str) {
        let path = self.tree.path().join(path.trim_start_matches('/'));
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }

    fn remove(&self, path: &str) {
        std::fs::remove_file(self.tree.path().join(path.trim_start_matches('/'))).unwrap();
    }

    fn program(&self, name: &str) {
        use std::os::unix::fs::PermissionsExt;
        let path = format!("/usr/bin/{name}");
        self.write(&path, "#!/bin/sh\n");
        let path = self.tree.path().join(path.trim_start_matches('/'));
        std::fs::set_permissions(path, PermissionsExt::from_mode(0o755)).unwrap();
    }

    fn machine(&self) -> Machine {
        Machine::at(self.tree.path())
    }

    fn report(&self, attempts: &Attempts) -> Report {
        Report::new(rows(&self.machine(), attempts))
    }
}

const ROUTES: &str = "Iface\tDestination\tGateway\tFlags\tRefCnt\tUse\tMetric\tMask\tMTU\tWindow\tIRTT\n\
    wlan0\t00000000\t0102000A\t0003\t0\t0\t600\t00000000\t0\t0\t0\n\
    eth0\t00000000\t010200C0\t0003\t0\t0\t100\t00000000\t0\t0\t0\n\
    eth0\t000200C0\t00000000\t0001\t0\t0\t100\t00FFFFFF\t0\t0\t0\n";

const IPV6_ROUTES: &str = "\
    fd000000000000000000000000000000 40 00000000000000000000000000000000 00 \
    00000000000000000000000000000000 00000100 00000001 00000000 00000001     eth0\n\
    00000000000000000000000000000000 00 00000000000000000000000000000000 00 \
    fd000000000000000000000000000001 00000400 00000002 00000000 00000003     eth0\n\
    00000000000000000000000000000000 00 00000000000000000000000000000000 00 \
    00000000000000000000000000000000 ffffffff 00000001 00000000 00200200       lo\n";

fn attempts() -> Attempts {
    Attempts {
        probe: working(),
        ping: Try::Works,
        tun: Try::Works,
        directories: Ok(()),
        resolvers: vec![("127.0.0.53".parse().unwrap(), true)],
        fd_limit: 1_048_576,
        uid: 1000,
        user: "alice".into(),
        gids: vec![1000],
        granted: None,
        search_path: "/usr/local/bin:relative:/usr/bin".into(),
    }
}

fn row<'a>(report: &'a Report, check: &str) -> &'a Row {
    report.checks.iter().find(|row| row.check == check).unwrap()
}

#[test]
fn a_good_machine_is_well() {
    let report = Fixture::good().report(&attempts());
    for row in &report.checks {
        assert_eq!((row.status, &row.mend), (Status::Ok, &None), "{row:?}");
    }
    assert!(report.works);
    assert!(
        report
            .to_string()
            .ends_with("mossnet runs here, with everything.\n")
    );
    assert_eq!(row(&report, "IPv4").found, "default route by eth0");
}

#[test]
fn each_reason_against_user_namespaces_has_its_own_command() {
    type Change = fn(&Fixture);
    let cases: [(Change, Errno, &str, &str); 6] = [
        (
            |tree| tree.write("/proc/sys/user/max_user_namespaces", "0"),
            Errno::ENOSPC,
            "user.max_user_namespaces = 0",
            "sudo sysctl -w user.max_user_namespaces=65536",
        ),
        (
            |tree| tree.write("/proc/sys/kernel/unprivileged_userns_clone", "0"),
            Errno::EPERM,
            "kernel.unprivileged_userns_clone = 0",
            "sudo sysctl -w kernel.unprivileged_userns_clone=1",
        ),
        (
            |tree| {
                tree.write(
                    "/proc/sys/kernel/apparmor_restrict_unprivileged_userns",
                    "1",
                )
            },
            Errno::EACCES,
            "AppArmor",
            "sudo sysctl -w kernel.apparmor_restrict_unprivileged_userns=0",
        ),
        (
            |tree| tree.write("/proc/self/status", "Seccomp:\t2\n"),
            Errno::EPERM,
            "seccomp",
            "podman run --security-opt seccomp=unconfined IMAGE",
        ),
        (
            |tree| tree.remove("/proc/self/ns/user"),
            Errno::EINVAL,
            "built without",
            "sudo apt-get install linux-image-$(dpkg --print-architecture)",
        ),
        (
            |_| {},
            Errno::ENOSPC,
            "all 96365 are in use",
            "sudo sysctl -w user.max_user_namespaces=192730",
        ),
    ];
    for (change, errno, found, mend) in cases {
        let fixture = Fixture::good();
        change(&fixture);
        let mut attempts = attempts();
        attempts.probe = Probe {
            user_namespace: fails("unshare the user namespace", errno),
            ..Probe::default()
        };
        let report = fixture.report(&attempts);
        let row = row(&report, "user namespaces");
        assert!(!report.works);
        assert!(row.found.contains(found), "{}", row.found);
        assert_eq!(row.mend.as_deref(), Some(mend));
        assert!(row.one_line().ends_with(&format!("mend it with: {mend}")));
    }
}

#[test]
fn apparmor_is_given_a_profile_for_the_program_that_runs() {
    let restrict = "/proc/sys/kernel/apparmor_restrict_unprivileged_userns";
    for (program, profiled) in [("/opt/moss-1.0/mossnet", true), ("/opt/a b/mossnet", false)] {
        let fixture = Fixture::good();
        fixture.write(restrict, "1");
        let exe = fixture.machine().path("/proc/self/exe");
        std::os::unix::fs::symlink(program, exe).unwrap();
        let mut attempts = attempts();
        attempts.probe.id_map = fails("write /proc/self/uid_map", Errno::EPERM);
        let report = fixture.report(&attempts);
        let mend = row(&report, "user namespaces").mend.clone().unwrap();
        assert_eq!(
            mend.contains(&format!("profile mossnet {program} flags")),
            profiled,
            "{mend}"
        );
        assert_eq!(mend.contains("sysctl"), !profiled, "{mend}");
    }
}

#[test]
fn apparmor_that_lets_us_is_no_finding() {
    let fixture = Fixture::good();
    fixture.write(
        "/proc/sys/kernel/apparmor_restrict_unprivileged_userns",
        "1",
    );
    assert!(fixture.report(&attempts()).works);
}

#[test]
fn what_the_kernel_lacks_is_named_with_its_module() {
    let mut attempts = attempts();
    attempts.probe.veth = fails("make a veth pair", Errno::EOPNOTSUPP);
    attempts.probe.nft_tproxy = fails("nftables: rule with tproxy", Errno::ENOENT);
    let report = Fixture::good().report(&attempts);
    assert_eq!(
        row(&report, "veth").mend.as_deref(),
        Some("sudo modprobe veth")
    );
    assert_eq!(
        row(&report, "nft tproxy").mend.as_deref(),
        Some("sudo modprobe -a nf_tables nft_tproxy")
    );
    assert!(report.to_string().ends_with("mossnet cannot run here.\n"));
}

#[test]
fn kernels_are_judged_by_age() {
    let status = |release: &str| {
        let fixture = Fixture::good();
        fixture.write("/proc/sys/kernel/osrelease", release);
        row(&fixture.report(&attempts()), "kernel").status
    };
    assert_eq!(status("4.19.0-25-amd64\n"), Status::Missing);
    assert_eq!(status("5.10.0\n"), Status::Degraded);
    assert_eq!(status("6.1.0-18-amd64\n"), Status::Degraded);
    assert_eq!(status("6.13-rc1\n"), Status::Ok);
    assert_eq!(status("7.0.1\n"), Status::Ok);
    assert_eq!(status("strange\n"), Status::Degraded);
}

#[test]
fn a_bare_machine_is_degraded_but_works() {
    let fixture = Fixture::new(&[
        ("/proc/sys/kernel/osrelease", "6.18.0\n"),
        ("/proc/self/ns/user", ""),
        ("/proc/sys/net/ipv4/ping_group_range", "1\t0\n"),
        ("/etc/os-release", "ID=\"fedora\"\n"),
    ]);
    let bare = Attempts {
        ping: fails("open a ping socket", Errno::EACCES),
        tun: fails("open /dev/net/tun", Errno::ENOENT),
        resolvers: vec![("127.0.0.1".parse().unwrap(), false)],
        fd_limit: 4096,
        ..attempts()
    };
    let report = fixture.report(&bare);
    assert!(report.works);
    let text = report.to_string();
    let golden = include_str!("tests/bare.txt");
    assert_eq!(text, golden, "{text}");
}

#[test]
fn ping_needs_one_of_our_groups_in_the_range() {
    let fixture = Fixture::good();
    fixture.write("/proc/sys/net/ipv4/ping_group_range", "100\t200\n");
    let mut attempts = attempts();
    attempts.ping = fails("open a ping socket", Errno::EACCES);
    let outside = fixture.report(&attempts);
    let mend = "sudo sysctl -w net.ipv4.ping_group_range='0 2147483647'";
    assert_eq!(row(&outside, "ping sockets").mend.as_deref(), Some(mend));
    attempts.gids.push(150);
    let inside = fixture.report(&attempts);
    assert!(
        row(&inside, "ping sockets")
            .found
            .contains("but open a ping socket")
    );
}

#[test]
fn subordinate_ids_count_by_name_and_number() {
    let fixture = Fixture::good();
    fixture.write(
        "/etc/subuid",
        "bob:1:9\nalice:100000:1000\n1000:200000:24\nmalformed\na:b:c\n",
    );
    assert_eq!(
        fixture
            .machine()
            .subordinate_ids("/etc/subuid", "alice", 1000),
        1024
    );
    fixture.write("/etc/subgid", "");
    let report = fixture.report(&attempts());
    let row = row(&report, "newuidmap");
    assert_eq!(row.status, Status::Degraded);
    assert_eq!(
        row.mend.as_deref(),
        Some("sudo usermod --add-subuids 100000-165535 --add-subgids 100000-165535 alice")
    );
}

#[test]
fn directories_that_cannot_be_used_stop_everything() {
    let mut attempts = attempts();
    let place = tempfile::tempdir().unwrap();
    let file = place.path().join("file");
    std::fs::write(&file, "").unwrap();
    let paths = Paths::resolve(Some(Path::new(&file)));
    attempts.directories = paths
        .prepare()
        .map_err(|error| (error.to_string(), "hint".into()));
    let report = Fixture::good().report(&attempts);
    assert_eq!(row(&report, "directories").status, Status::Missing);
}
