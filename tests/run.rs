//! `mossnet run`: the command, its streams, its terminal, its signals, its surroundings.

use crate::world::{Cmd, World, eventually, inspect, installed, seconds};
use nix::sys::signal::Signal;
use std::fs;
use std::path::Path;

#[test]
fn the_exit_status_is_the_commands_own() {
    World::test(|world| {
        world.sh("exit 0").fails(0);
        world.sh("exit 7").fails(7);
        world.sh("sh -c 'kill -9 $$'; exit $?").fails(137);
        let denied = world.run(["/etc/hostname"]).fails(126);
        denied.expect_text("/etc/hostname").expect_one_clear_line();
        let absent = world.run(["no-such-command"]).fails(127);
        absent
            .expect_text("no-such-command")
            .expect_one_clear_line();
        world
            .mossnet(["run", "--no-such-option", "--", "true"])
            .fails(125);
        world.mossnet(["run"]).fails(125);
        assert_eq!(
            world.mossnet(["ps", "-a", "-q"]).ok(),
            "",
            "nothing stays behind"
        );
    });
}

#[test]
fn the_three_streams_pass_through() {
    World::test(|world| {
        let output = world.sh("echo out; echo err >&2").run().expect_code(0);
        assert_eq!(output.stdout, "out\n");
        assert_eq!(output.stderr, "err\n");
        let upper = world.mossnet(["run", "--rm", "-i", "--", "tr", "a-z", "A-Z"]);
        assert_eq!(upper.stdin("hello\n").ok(), "HELLO\n");
        let nothing = world.mossnet(["run", "--rm", "--", "cat"]);
        assert_eq!(
            nothing.stdin("unseen").ok(),
            "",
            "without -i stdin is empty"
        );
        let size = 30_000_000;
        let through = world.mossnet(["run", "--rm", "-i", "--", "cat"]);
        let through = through.stdin(vec![b'x'; size]).ok();
        assert_eq!(through.len(), size);
    });
}

/// `mossnet ARGS` on a terminal, by script(1), after `setup` has been run on that terminal.
pub fn on_terminal(world: &World, setup: &str, args: &str) -> Cmd {
    let line = format!("{setup}; mossnet --root /run/world/root {args}");
    world.user(["script", "-qec", &line, "/dev/null"])
}

#[test]
fn a_terminal_passes_through() {
    World::test(|world| {
        let size = on_terminal(
            world,
            "stty rows 33 cols 77",
            "run --rm -it -- sh -c 'stty size; tty'",
        );
        let size = size.ok();
        assert!(size.contains("33 77"), "{size}");
        assert!(size.contains("/dev/"), "a terminal with a name: {size}");

        let loops = "run --rm -it -- sh -c 'trap \"echo interrupted; exit 9\" INT; echo ready; \
                     while :; do sleep 0.1; done'";
        let mut interrupted = on_terminal(world, "true", loops).open_stdin().start();
        interrupted.expect("ready");
        interrupted.write(b"\x03");
        interrupted.expect("interrupted");
        let output = interrupted.wait().expect_code(9);
        assert!(
            output.stdout.contains("\r\n"),
            "the terminal makes line ends of it: {output}"
        );

        let plain = world.mossnet(["run", "--rm", "-t", "--", "true"]).run();
        assert!(plain.code == 0 || plain.code == 125, "{plain}");
    });
}

#[test]
fn nobody_need_be_at_the_other_end() {
    World::test(|world| {
        let run = |options: &str, name: &str, script: &str| {
            let words = ["run", options, "--name", name, "--", "sh", "-c", script];
            world.mossnet(words).ok()
        };
        let said = |name: &str, what: &str, times: usize| {
            eventually(seconds(10), what, || {
                let log = world.mossnet(["logs", name]).ok();
                log.matches(what).count() == times
            });
        };
        // A shell without input ends at once; with -i it waits for ever.
        run("-d", "ends", "exec sh");
        assert_eq!(world.mossnet(["wait", "ends"]).ok().trim(), "0");
        run("-di", "waits", "exec sh");
        run("-dit", "shell", "tty; stty size; echo ready; exec sh");
        said("shell", "ready", 1);
        said("shell", "24 80\r\n", 1);
        said("shell", "/dev/", 1);
        let script = "test -t 0 && test -t 1 && exec sleep 1000";
        let exec = ["exec", "-dit", "shell", "sh", "-c", script];
        world.mossnet(exec).ok();
        let keepers = || inspect::mossnet_processes("terminal").len();
        assert_eq!(keepers(), 2);

        // A terminal does not go with the daemon, and comes again with its sandbox.
        inspect::kill_hard(&[inspect::the("daemon")]);
        let live = world.mossnet(["ps", "-q"]).ok();
        assert_eq!(live.lines().count(), 2, "{live}");
        world.mossnet(["restart", "-t", "0", "shell"]).ok();
        said("shell", "24 80\r\n", 2);
        world.mossnet(["rm", "-f", "shell", "waits", "ends"]).ok();
        eventually(seconds(10), "no keeper is left", || keepers() == 0);
    });
}

#[test]
fn signals_reach_the_command() {
    World::test(|world| {
        for (name, signal) in [
            ("TERM", Signal::SIGTERM),
            ("INT", Signal::SIGINT),
            ("HUP", Signal::SIGHUP),
            ("USR1", Signal::SIGUSR1),
        ] {
            let script = format!(
                "trap 'echo {name}; exit 5' {name}; echo ready; while :; do sleep 0.05; done"
            );
            let mut running = world.sh(&script).start();
            running.expect("ready");
            running.signal(signal);
            running.expect(name);
            running.wait().expect_code(5);
        }
    });
}

#[test]
fn the_sandbox_is_as_asked_for() {
    World::test(|world| {
        let options = "run --rm --hostname mossy --env A=1 --env B=two --workdir /usr \
                       --add-host cache:192.0.2.7 --add-host six:2001:db8::7 \
                       --dns-search example.org --mac-address 02:00:00:00:00:07 --";
        let argv: Vec<_> = options.split_whitespace().collect();
        let sh = |script: &str| world.mossnet(&argv).then(["sh", "-c", script]).ok();
        assert_eq!(sh("hostname; echo $A/$B; pwd"), "mossy\n1/two\n/usr\n");
        let hosts = sh("cat /etc/hosts");
        let line = |address: &str, name: &str| {
            hosts.lines().any(|line| {
                let mut words = line.split_whitespace();
                words.next() == Some(address) && words.any(|word| word == name)
            })
        };
        assert!(line("192.0.2.7", "cache"), "{hosts}");
        assert!(line("2001:db8::7", "six"), "{hosts}");
        assert!(line("127.0.0.1", "localhost"), "{hosts}");
        assert!(line("::1", "localhost"), "{hosts}");
        assert!(hosts.contains("mossy"), "its own name: {hosts}");
        let resolv = sh("cat /etc/resolv.conf");
        assert!(resolv.contains("search example.org"), "{resolv}");
        assert!(
            resolv.contains("nameserver 10.89.0.1"),
            "the gateway answers names: {resolv}"
        );
        let links = sh("ip -o link");
        assert!(links.contains("02:00:00:00:00:07"), "{links}");
        assert_eq!(links.lines().count(), 2, "lo and eth0: {links}");
        assert!(links.contains("lo: <LOOPBACK,UP"), "{links}");
    });
}

#[test]
fn a_bare_variable_takes_the_callers_value() {
    World::test(|world| {
        let argv = [
            "run",
            "--rm",
            "--env",
            "FROM_HERE",
            "--env",
            "B=two words",
            "--",
        ];
        let script = "echo \"$FROM_HERE,$B\"";
        let echo = world
            .mossnet(argv)
            .then(["sh", "-c", script])
            .env("FROM_HERE", "yes");
        assert_eq!(echo.ok(), "yes,two words\n");
    });
}

#[test]
fn namespaces_are_its_own() {
    World::test(|world| {
        let list = "for n in net mnt pid uts ipc user; do readlink /proc/self/ns/$n; done";
        let inside = world.sh(list).ok();
        let outside = world.user(["sh", "-c", list]).ok();
        for (inside, outside) in inside.lines().zip(outside.lines()) {
            assert_ne!(inside, outside);
        }
        assert_eq!(world.sh("echo $$").ok(), "1\n", "the command is process 1");
        let seen = world.sh("ls -d /proc/[0-9]*").ok();
        assert!(seen.lines().count() <= 3, "only its own processes: {seen}");
        assert_eq!(world.sh("id -u").ok(), "0\n");
        let directory = world.run(["pwd"]).directory("/usr/share").ok();
        assert_eq!(directory, "/usr/share\n", "the caller's directory");
        world
            .sh("mount -t tmpfs none /mnt && touch /mnt/inside; hostname other")
            .run();
        assert!(!Path::new("/mnt/inside").exists());
    });
}

#[test]
fn the_hosts_etc_is_never_written() {
    World::test(|world| {
        let files = ["/etc/hosts", "/etc/resolv.conf", "/etc/hostname"];
        let state = || {
            files.map(|f| {
                (
                    fs::read(f).ok(),
                    fs::metadata(f).and_then(|m| m.modified()).ok(),
                )
            })
        };
        let before = state();
        world
            .sh("echo 192.0.2.9 inside >> /etc/hosts; echo nameserver 192.0.2.9 > /etc/resolv.conf")
            .run();
        assert!(state() == before);
    });
}

#[test]
fn network_none_host_and_container() {
    World::test(|world| {
        let net = |mode: &str, script: &str| {
            world.mossnet(["run", "--rm", "--network", mode, "--", "sh", "-c", script])
        };
        assert_eq!(net("none", "ip -o link | wc -l").ok().trim(), "1");
        let started = net("none", "ip -o addr show lo").ok();
        assert!(started.contains("127.0.0.1"), "lo is up: {started}");
        net("none", "nc -z -w2 198.51.100.10 80")
            .run()
            .expect_within(seconds(2));

        let own = fs::read_link("/proc/self/ns/net").unwrap();
        let host = net("host", "readlink /proc/self/ns/net; cat /etc/resolv.conf").ok();
        assert!(
            host.starts_with(&own.to_string_lossy().into_owned()),
            "{host}"
        );
        assert!(
            host.contains("nameserver 198.51.100.10"),
            "the host's resolvers: {host}"
        );

        world.detached(
            "web",
            [
                "sh",
                "-c",
                "while :; do echo hi | nc -l -N 127.0.0.1 8080; done",
            ],
        );
        let joined = net("container:web", "hostname; readlink /proc/self/ns/net").ok();
        let first = world
            .mossnet([
                "exec",
                "web",
                "--",
                "sh",
                "-c",
                "hostname; readlink /proc/self/ns/net",
            ])
            .ok();
        assert_eq!(joined, first, "the netns and its host name are the other's");
        eventually(seconds(5), "reach the other's loopback", || {
            net("container:web", "nc -w1 127.0.0.1 8080 </dev/null")
                .run()
                .stdout
                == "hi\n"
        });
        assert_eq!(
            world
                .mossnet(["run", "--rm", "--net", "none", "--", "true"])
                .fails(0)
                .stderr,
            ""
        );
        let unknown = net("container:nobody", "true").fails(125);
        unknown.expect_text("nobody").expect_one_clear_line();
        world.mossnet(["rm", "-f", "web"]).ok();
    });
}

#[test]
fn a_root_file_system_of_its_own() {
    World::test(|world| {
        if !installed("busybox") {
            return;
        }
        let busybox = ["/usr/bin/busybox", "/bin/busybox"]
            .into_iter()
            .find(|p| Path::new(p).exists());
        let busybox = busybox.expect("busybox from the package busybox-static");
        let root = Path::new("/run/world/home/rootfs");
        for directory in ["bin", "etc", "proc", "dev", "sys", "tmp"] {
            fs::create_dir_all(root.join(directory)).unwrap();
        }
        fs::copy(busybox, root.join("bin/busybox")).unwrap();
        for name in ["sh", "cat", "ls", "hostname", "pwd", "nslookup", "id"] {
            std::os::unix::fs::symlink("busybox", root.join("bin").join(name)).unwrap();
        }
        let path = root.to_str().unwrap();
        let sh = |script: &str| {
            world.mossnet([
                "run",
                "--rm",
                "--rootfs",
                path,
                "--hostname",
                "bb",
                "--",
                "sh",
                "-c",
                script,
            ])
        };
        assert_eq!(
            sh("pwd; hostname; ls /; echo $PATH").ok().lines().next(),
            Some("/")
        );
        let seen = sh("ls /").ok();
        assert!(
            !seen.contains("usr"),
            "the caller's file system is out of sight: {seen}"
        );
        assert!(sh("cat /etc/resolv.conf").ok().contains("nameserver"));
        assert!(sh("cat /etc/hosts").ok().contains("bb"));
        assert!(
            sh("cat /proc/self/status; ls -l /dev/null")
                .ok()
                .contains("NoNewPrivs")
        );
        sh("echo written > /tmp/inside").ok();
        assert!(
            root.join("tmp/inside").exists(),
            "the root file system is kept"
        );
        let absent = world
            .mossnet(["run", "--rm", "--rootfs", "/no/such/dir", "--", "sh"])
            .fails(125);
        absent.expect_text("/no/such/dir").expect_one_clear_line();
    });
}
