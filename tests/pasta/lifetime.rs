//! How long it serves, and what is left.

use super::sh;
use crate::world::World;

#[test]
fn it_ends_with_the_file_of_the_namespace() {
    World::test(|world| {
        let script = r#"
            podmans $quiet_ports
            pid=$(cat /run/p/pid)
            tr '\0' ' ' <"/proc/$pid/cmdline" | grep -q pasta
            ls "/proc/$pid/cwd" | grep -q proc
            relay=$(cat "/proc/$pid/task/$pid/children")
            [ -n "$relay" ]
            # Nothing holds it but the mount.
            umount /run/p/ns; rm /run/p/ns
            until_true gone "$pid"
            for child in $relay; do until_true gone "$child"; done"#;
        sh(world, script).ok();
    });
}

#[test]
fn it_stays_if_told_so() {
    World::test(|world| {
        let script = r#"
            pasta $quiet_ports --no-netns-quit -P /run/p/pid --netns /run/p/ns
            pid=$(cat /run/p/pid)
            umount /run/p/ns; rm /run/p/ns; sleep 1.5
            if gone "$pid"; then exit 9; fi
            kill "$pid"; until_true gone "$pid""#;
        sh(world, script).ok();
    });
}

#[test]
fn it_ends_with_the_process() {
    World::test(|world| {
        let script = r#"
            unshare -U -r -n sleep 100 & child=$!
            until_true sh -c "! [ /proc/$child/ns/net -ef /proc/self/ns/net ]"
            pasta $quiet_ports -P /run/p/pid $child
            pid=$(cat /run/p/pid)
            kill -9 $child; until_true gone "$pid""#;
        sh(world, script).ok();
    });
}

/// No interface, no process, no port.
#[test]
fn a_kill_leaves_nothing() {
    World::test(|world| {
        let script = r#"
            podmans -t 8085 -u none -T 8086 -U none
            pid=$(cat /run/p/pid)
            children=$(cat "/proc/$pid/task/$pid/children")
            inside ip link show eth0 >/dev/null
            kill -9 "$pid"
            for each in $pid $children; do until_true gone "$each"; done
            bare() { ! inside ip link show eth0; }
            until_true bare
            free() { [ -z "$(ss -Hltn 'sport = :8085'; inside ss -Hltn)" ]; }
            until_true free
            # And again.
            podmans -t 8085 -u none -T 8086 -U none
            inside ip link show eth0 >/dev/null"#;
        sh(world, script).ok();
    });
}

/// The relay is started again with what it had.
#[test]
fn a_relay_that_ends_is_replaced() {
    World::test(|world| {
        let script = r#"
            podmans $quiet_ports
            pid=$(cat /run/p/pid)
            relay=$(cat "/proc/$pid/task/$pid/children")
            # One that ends at once again and again is given up.
            sleep 6
            kill -9 $relay
            works() { inside ping -c 1 -W 2 203.0.113.1; }
            until_true works
            if gone "$pid"; then exit 9; fi"#;
        sh(world, script).ok();
    });
}

#[test]
fn confined() {
    World::test(|world| {
        let script = r#"
            podmans -t none -u none -T 8086 -U none
            pid=$(cat /run/p/pid)
            for child in $(cat "/proc/$pid/task/$pid/children"); do
                grep -h -e '^Seccomp:' -e '^NoNewPrivs:' -e '^CapEff:' -e '^CapBnd:' "/proc/$child/status"
            done"#;
        let text = sh(world, script).ok();
        let count = |line: &str| text.lines().filter(|found| *found == line).count();
        assert_eq!(count("Seccomp:\t2"), 2, "{text}");
        assert_eq!(count("NoNewPrivs:\t1"), 2, "{text}");
        assert_eq!(count("CapEff:\t0000000000000000"), 2, "{text}");
        assert_eq!(count("CapBnd:\t0000000000000000"), 2, "{text}");
    });
}
