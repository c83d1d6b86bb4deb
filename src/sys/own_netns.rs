//! Tests that need a network namespace of their own.
//!
//! A process with threads cannot leave its user namespace, so such a test runs its program again, by
//! util-linux's unshare(1), with itself as the only test.

use std::process::Command;

/// Set in the process inside.
const INSIDE: &str = "MOSSNET_OWN_NETNS";

/// What there is: the loopback, with packets as on other interfaces, and a pair of interfaces.
const SET_UP: &str = "ip link set lo up mtu 1500 && ip link add tap-a type veth peer name tap-b \
    && ip link set tap-a up && ip link set tap-b up";

/// Runs `body` as root of a user and a network namespace that were just made. `module` (`module_path!()`) and `test`
/// name the test that calls this. It is skipped, with a message, where the namespaces are not to be had.
pub fn in_own_netns(module: &str, test: &str, body: impl FnOnce()) {
    if std::env::var_os(INSIDE).is_some() {
        return body();
    }
    let unshare = || {
        let mut command = Command::new("unshare");
        command.args(["--user", "--map-root-user", "--net", "--", "sh", "-c"]);
        command
    };
    let possible = unshare().arg(SET_UP).output();
    match possible {
        Ok(output) if output.status.success() => {}
        Ok(output) => {
            let reason = String::from_utf8_lossy(&output.stderr);
            eprintln!("SKIP: {test}: no namespaces: {}", reason.trim());
            return;
        }
        Err(error) => {
            eprintln!("SKIP: {test}: no unshare(1): {error}");
            return;
        }
    }
    // Names of tests have no crate before them.
    let module = module.split_once("::").map_or("", |(_, module)| module);
    let output = unshare()
        .arg(format!("{SET_UP} && exec \"$@\""))
        .arg("sh")
        .arg(std::env::current_exe().unwrap())
        .args([&format!("{module}::{test}"), "--exact", "--nocapture"])
        .env(INSIDE, "1")
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    let complained = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}{complained}");
    assert!(said.contains("1 passed"), "ran nothing: {said}");
}
