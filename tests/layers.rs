//! The direction of dependencies (lib.rs, style.md), read from the `use` lines of the sources.

use std::fs;
use std::path::{Path, PathBuf};

/// Longest file that is let pass, in lines.
const MAX_LINES: usize = 500;

fn sources(directory: &str) -> Vec<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join(directory);
    let mut found = Vec::new();
    let mut todo: Vec<PathBuf> = root.exists().then_some(root).into_iter().collect();
    while let Some(directory) = todo.pop() {
        // A layer may not exist yet.
        let entries = fs::read_dir(&directory).into_iter().flatten();
        for entry in entries.flatten() {
            let path = entry.path();
            if path.is_dir() {
                todo.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                found.push(path);
            }
        }
    }
    found
}

/// Modules of the crate that `path` names outside its unit tests, each with its line number.
fn modules_used(path: &Path) -> Vec<(usize, String)> {
    let text = fs::read_to_string(path).expect("a source");
    let mut used = Vec::new();
    for (index, line) in text.lines().enumerate() {
        if line.trim_start().starts_with("#[cfg(test)]") {
            break;
        }
        let code = line.split("//").next().unwrap_or(line);
        let mut rest = code;
        while let Some(at) = rest.find("crate::") {
            let word = rest[at..].trim_start_matches("crate::");
            rest = word;
            if let Some(group) = word.strip_prefix('{') {
                for part in group.split(&[',', '}'][..]) {
                    used.push((index + 1, first_word(part)));
                }
            } else {
                used.push((index + 1, first_word(word)));
            }
        }
    }
    used
}

fn first_word(text: &str) -> String {
    let end = |c: char| !c.is_alphanumeric() && c != '_';
    text.trim_start().split(end).next().unwrap_or("").to_owned()
}

fn check(layer: &str, allowed: &[&str]) -> Vec<String> {
    let mut wrong = Vec::new();
    for path in sources(&format!("src/{layer}")) {
        for (line, module) in modules_used(&path) {
            let own = module == layer || module.is_empty();
            if !own && !allowed.contains(&module.as_str()) {
                wrong.push(format!(
                    "{}:{line}: {layer} must not see {module}",
                    path.display()
                ));
            }
        }
    }
    wrong
}

#[test]
fn dependencies_point_one_way() {
    let models = ["network", "ipam", "ports"];
    let mut wrong = Vec::new();
    wrong.extend(check("cli", &["api", "error", "log"]));
    // What other runtimes start lives in their namespaces, without a daemon: `netavark` works through the
    // helper's library alone (of the model it has only the calendar); `aardvark` is the relay's name server,
    // with a snapshot of its own making; `pasta` the relay and the sockets of published ports, likewise.
    wrong.extend(check(
        "compat",
        &[
            "api", "error", "log", "network", "ports", "relay", "kernel", "sys",
        ],
    ));
    wrong.extend(check("compat/netavark", &["compat", "network"]));
    for model in models {
        wrong.extend(check(model, &models));
    }
    wrong.extend(check(
        "kernel",
        &["network", "ipam", "ports", "sys", "error", "log"],
    ));
    wrong.extend(check(
        "relay",
        &["network", "ipam", "ports", "sys", "wire", "error", "log"],
    ));
    wrong.extend(check(
        "api",
        &["network", "ipam", "ports", "sys", "wire", "error", "log"],
    ));
    wrong.extend(check("wire", &[]));
    wrong.extend(check("state", &["network", "ipam", "ports"]));
    wrong.extend(check("sys", &[]));
    assert!(sources("src").len() > 20, "the sources are read");
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn models_are_pure() {
    let impure = [
        "std::fs",
        "std::env",
        "std::net::Tcp",
        "std::net::Udp",
        "std::process",
        "std::os::fd",
        "Instant::now",
        "SystemTime::now",
        "tokio::",
        "nix::",
        "libc::",
    ];
    let mut wrong = Vec::new();
    for model in ["network", "ipam", "ports"] {
        for path in sources(&format!("src/{model}")) {
            let text = fs::read_to_string(&path).expect("a source");
            let code = text.split("#[cfg(test)]").next().unwrap_or(&text);
            let code = code
                .lines()
                .map(|line| line.split("//").next().unwrap_or(line));
            for (index, line) in code.enumerate() {
                for word in impure.iter().filter(|word| line.contains(**word)) {
                    wrong.push(format!("{}:{}: {word}", path.display(), index + 1));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn unsafe_code_lives_in_sys_only() {
    let mut wrong = Vec::new();
    let crates = ["src", "helper/src", "netlink/src", "setuid/src"];
    for path in crates.into_iter().flat_map(sources) {
        let text = fs::read_to_string(&path).expect("a source");
        let in_sys = path.components().any(|part| part.as_os_str() == "sys")
            || path.file_name().is_some_and(|name| name == "sys.rs");
        if text.contains("unsafe {") && !in_sys {
            wrong.push(path);
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// What the program that runs with privilege may link; each has its reason in setuid/Cargo.toml.
const PRIVILEGED: [&str; 8] = [
    "caps",
    "ipnet",
    "libc",
    "mossnet-netlink",
    "nix",
    "serde",
    "thiserror",
    "toml",
];

#[test]
fn the_privileged_program_depends_on_little() {
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR")).join("setuid/Cargo.toml");
    let text = fs::read_to_string(manifest).expect("a manifest");
    let (_, rest) = text.split_once("\n[dependencies]\n").expect("dependencies");
    let section = rest.split("\n[").next().expect("a section");
    let mut names = Vec::new();
    let mut reason = false;
    for line in section.lines().filter(|line| !line.trim().is_empty()) {
        if line.starts_with('#') {
            reason = true;
            continue;
        }
        let name = line.split_once(" = ").expect("a dependency").0;
        assert!(reason, "{name} has no reason");
        reason = false;
        names.push(name);
    }
    assert_eq!(names, PRIVILEGED);
}

/// It starts no program and no thread, and asks no name service: nothing in its sources could. The
/// client is what other programs link.
#[test]
fn the_privileged_program_stays_alone() {
    let forbidden = [
        "thread::spawn",
        "thread::Builder",
        "process::Command",
        "execve",
        "fork(",
        "getpwnam",
        "User::from",
        "Group::from",
        "setlocale",
        "env::var",
        "ToSocketAddrs",
        "tokio",
    ];
    let mut wrong = Vec::new();
    let all = sources("setuid/src").into_iter();
    for path in all.filter(|path| !path.ends_with("setuid/src/client.rs")) {
        let text = fs::read_to_string(&path).expect("a source");
        for word in forbidden.iter().filter(|word| text.contains(**word)) {
            wrong.push(format!("{}: {word}", path.display()));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn files_stay_readable() {
    let mut wrong = Vec::new();
    let directories = [
        "src",
        "helper/src",
        "netlink/src",
        "setuid/src",
        "setuid/tests",
        "tests",
        "benches",
    ];
    for directory in directories {
        for path in sources(directory) {
            let lines = fs::read_to_string(&path).expect("a source").lines().count();
            if lines > MAX_LINES {
                wrong.push(format!("{}: {lines} lines", path.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}
