//! Where podman looks for the programs that it calls: `helper_binaries_dir` of containers.conf(5).
//!
//! Read as podman reads it: each file after the other, the last list counts, `append=true` adds to it.
//! Invariant: only the one key is looked at, and nothing is an error: what podman refuses, podman tells.
//! Sources: containers.conf(5), containers-common `pkg/config` (0.50: drop-in directories beside
//! /etc/containers/containers.conf and the user's own file).

use std::fs;
use std::path::{Path, PathBuf};

/// Where podman looks when no file says it.
const USUAL: [&str; 4] = [
    "/usr/local/libexec/podman",
    "/usr/local/lib/podman",
    "/usr/libexec/podman",
    "/usr/lib/podman",
];

/// Directories, in order.
pub type Places = Vec<PathBuf>;

/// Where podman looks, by the files below `root` (`/`), and the user's own in `user`.
pub fn places(root: &Path, user: Option<&Path>, left_out: &Path) -> Places {
    let mut places: Places = USUAL.iter().map(PathBuf::from).collect();
    for file in files(root, user).iter().filter(|file| *file != left_out) {
        if let Ok(text) = fs::read_to_string(file) {
            apply(&mut places, &text);
        }
    }
    places
}

/// containers.conf and its drop-ins, in the order in which podman reads them.
fn files(root: &Path, user: Option<&Path>) -> Vec<PathBuf> {
    let mut files = vec![root.join("usr/share/containers/containers.conf")];
    let admin = root.join("etc/containers/containers.conf");
    for file in std::iter::once(admin.as_path()).chain(user) {
        files.push(file.to_owned());
        files.extend(drop_ins(&drop_in_directory(file)));
    }
    files
}

/// `containers.conf.d` beside a `containers.conf`.
pub fn drop_in_directory(file: &Path) -> PathBuf {
    let mut name = file.as_os_str().to_owned();
    name.push(".d");
    name.into()
}

fn drop_ins(directory: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    let is_conf = |path: &PathBuf| {
        path.extension()
            .is_some_and(|extension| extension == "conf")
    };
    let mut files: Vec<PathBuf> = entries.map(|entry| entry.path()).filter(is_conf).collect();
    files.sort();
    files
}

/// What one file makes of the places.
fn apply(places: &mut Places, text: &str) {
    let mut section = String::new();
    let mut lines = text.lines().map(without_comment);
    while let Some(line) = lines.next() {
        let line = line.trim();
        if let Some(name) = line
            .strip_prefix('[')
            .and_then(|rest| rest.strip_suffix(']'))
        {
            section = name.trim().to_owned();
            continue;
        }
        let (key, value) = match line.split_once('=') {
            Some((key, value)) => (key.trim(), value),
            None => continue,
        };
        if section != "engine" || key.trim_matches('"') != "helper_binaries_dir" {
            continue;
        }
        let mut list = value.to_owned();
        while !list.contains(']') {
            match lines.next() {
                Some(more) => list.push_str(more),
                None => return,
            }
        }
        // Only newer versions know it, and to them it means this.
        if !list.replace(' ', "").contains("append=true") {
            places.clear();
        }
        places.extend(strings(&list));
    }
}

/// Up to a `#` that is in no string.
fn without_comment(line: &str) -> &str {
    let mut quote = None;
    for (at, c) in line.char_indices() {
        match (quote, c) {
            (None, '#') => return &line[..at],
            (None, '"' | '\'') => quote = Some(c),
            (Some(open), c) if c == open => quote = None,
            _ => {}
        }
    }
    line
}

fn strings(list: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut rest = list;
    while let Some(at) = rest.find(['"', '\'']) {
        let quote = &rest[at..=at];
        let Some((word, after)) = rest[at + 1..].split_once(quote) else {
            break;
        };
        found.push(PathBuf::from(word));
        rest = after;
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(text: &str) -> Vec<String> {
        let mut places = vec![PathBuf::from("/usual")];
        apply(&mut places, text);
        places
            .iter()
            .map(|place| place.display().to_string())
            .collect()
    }

    #[test]
    fn the_last_list_counts() {
        assert_eq!(
            after("[engine]\nhelper_binaries_dir = [\"/a\", '/b']"),
            ["/a", "/b"]
        );
        assert_eq!(
            after("[engine]\nhelper_binaries_dir = [ # x\n  \"/a\", # \"/no\"\n  \"/b\",\n]\n"),
            ["/a", "/b"]
        );
        assert_eq!(
            after("[engine]\nhelper_binaries_dir=[\"/a\", {append=true}]"),
            ["/usual", "/a"]
        );
        for nothing in [
            "",
            "[network]\nhelper_binaries_dir = [\"/a\"]",
            "[engine]\n#helper_binaries_dir = [\"/a\"]",
            "[engine]\nhelper_binaries_dir = [\"/a\"",
            "[engine]\nhelper_binaries_dirs = [\"/a\"]\nx",
        ] {
            assert_eq!(after(nothing), ["/usual"], "{nothing}");
        }
    }

    #[test]
    fn files_are_read_in_podmans_order() {
        let root = tempfile::tempdir().unwrap();
        let user = root.path().join("home/containers.conf");
        let write = |name: &str, place: &str| {
            let path = root.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(
                &path,
                format!("[engine]\nhelper_binaries_dir=[\"{place}\"]\n"),
            )
            .unwrap();
            path
        };
        let now = |left_out: &Path| places(root.path(), Some(&user), left_out);
        assert_eq!(now(Path::new("")).len(), USUAL.len());
        let mut last = PathBuf::new();
        for (name, place) in [
            ("usr/share/containers/containers.conf", "/1"),
            ("etc/containers/containers.conf", "/2"),
            ("etc/containers/containers.conf.d/a.conf", "/3"),
            ("home/containers.conf", "/4"),
            ("home/containers.conf.d/10.conf", "/5"),
            ("home/containers.conf.d/20.conf", "/6"),
        ] {
            last = write(name, place);
            assert_eq!(now(Path::new("")), [PathBuf::from(place)], "{name}");
        }
        write("home/containers.conf.d/30.other", "/7");
        assert_eq!(now(Path::new("")), [PathBuf::from("/6")]);
        assert_eq!(now(&last), [PathBuf::from("/5")], "without one of them");
    }
}
