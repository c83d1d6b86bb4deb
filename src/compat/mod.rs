//! Foreign dialects: programs that other runtimes call, and that this one can stand in for.
//!
//! Place: `main` looks here for the name that it was started by, and for the first word. `cni` and `oci_hook`
//! translate to requests of the API; `running` finds the daemon for them, `resolv_conf`
//! gives a container the name server of its networks. `netavark` and `aardvark` live in
//! namespaces of another runtime, without our daemon, helper or relay (see ARCHITECTURE.md): they do their
//! work through the helper's library (netlink, ruleset), and answer names with the relay's name server. So does
//! `rootlessport`, with the relay's published ports. `pasta` gives a namespace its way
//! out, with a router and a relay that serve it alone. `podman` makes podman find them.

pub mod aardvark;
mod cni;
mod digest;
pub mod netavark;
mod oci_hook;
pub mod pasta;
pub mod podman;
mod resolv_conf;
pub mod rootlessport;
mod running;

use std::ffi::OsString;
use std::path::Path;
use std::process::ExitCode;

/// What becomes of the arguments after the name.
pub type Main = fn(Vec<OsString>) -> ExitCode;

/// Every name that the program answers to, besides its own.
const DIALECTS: &[(&str, Main)] = &[
    ("cni", cni::main),
    ("mossnet-cni", cni::main),
    ("oci-hook", oci_hook::main),
    ("mossnet-oci-hook", oci_hook::main),
    ("netavark", netavark::main),
    ("aardvark-dns", aardvark::main),
    ("pasta", pasta::main),
    ("rootlessport", rootlessport::main),
];

/// First words whose help is the command line's.
const HELPLESS: [&str; 2] = ["cni", "oci-hook"];

/// The dialect in which the program was called: by the name that it was started by, or by its first
/// argument; with the arguments that are left.
pub fn find(mut argv: impl Iterator<Item = OsString>) -> Option<(Main, Vec<OsString>)> {
    let called = argv.next()?;
    let named = |name: &Path| {
        let found = DIALECTS.iter().find(|(known, _)| name == Path::new(known));
        found.map(|(_, main)| *main)
    };
    if let Some(main) = Path::new(&called)
        .file_name()
        .and_then(|n| named(n.as_ref()))
    {
        return Some((main, argv.collect()));
    }
    let word = argv.next()?;
    let main = named(Path::new(&word))?;
    let words: Vec<OsString> = argv.collect();
    // Some have nothing to say of themselves; the command line's own help does.
    let asks = words.iter().any(|word| word == "--help" || word == "-h");
    (!(asks && HELPLESS.iter().any(|name| word == *name))).then_some((main, words))
}

/// The dialect of this name, with its arguments.
pub fn speak(name: &str, arguments: Vec<OsString>) -> ExitCode {
    match DIALECTS.iter().find(|(known, _)| *known == name) {
        Some((_, main)) => main(arguments),
        None => ExitCode::FAILURE,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn left(words: &[&str]) -> Option<Vec<OsString>> {
        find(words.iter().map(OsString::from)).map(|(_, left)| left)
    }

    #[test]
    fn by_name_or_by_first_word() {
        assert_eq!(left(&["/x/mossnet-cni"]), Some(vec![]));
        assert_eq!(left(&["mossnet", "cni", "x"]), Some(vec!["x".into()]));
        assert_eq!(
            left(&["/x/netavark", "setup", "y"]),
            Some(vec!["setup".into(), "y".into()])
        );
        assert_eq!(
            left(&["mossnet", "aardvark-dns", "run"]),
            Some(vec!["run".into()])
        );
        assert_eq!(left(&["netavark"]), Some(vec![]));
        assert_eq!(left(&["rootlessport"]), Some(vec![]));
        for words in [
            &["mossnet", "run", "cni"][..],
            &["mossnet", "run", "netavark"],
            &["mossnet", "cni", "--help"],
            &["mossnet", "oci-hook", "-h"],
            &["mossnet"],
            &[],
            &["/cni/x"],
            &["/netavark/x"],
        ] {
            assert_eq!(left(words), None, "{words:?}");
        }
    }
}
