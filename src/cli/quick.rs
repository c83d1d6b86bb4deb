//! A short way through the table of words, for the commands that runtimes call by the thousand.
//!
//! To build all of the table takes clap longer than some commands take altogether, so for these only
//! their own part is built. Invariant: what is understood here means what it means to the whole table
//! (a test compares them); what is not, for whatever reason, is left to that, with its help and errors.

use super::args::{Cli, Command, Root};
use super::netns::NetnsCommand;
use super::network_args::NetworkCommand;
use clap::{ArgMatches, Args, FromArgMatches};
use std::ffi::OsString;

/// The command line, where it is one of these and nothing about it is odd.
pub(super) fn parse(words: &[OsString]) -> Option<Cli> {
    let mut path = subcommands(words);
    match (path.next()?, path.next()) {
        ("run", _) => one(words, &["run"], |args| Command::Run(Box::new(args))),
        ("exec", _) => one(words, &["exec"], Command::Exec),
        ("ps", _) => one(words, &["ps"], Command::Ps),
        ("start", _) => one(words, &["start"], Command::Start),
        ("stop", _) => one(words, &["stop"], Command::Stop),
        ("rm", _) => one(words, &["rm"], Command::Rm),
        ("network", Some("connect")) => one(words, &["network", "connect"], |args| {
            of_network(NetworkCommand::Connect(args))
        }),
        ("network", Some("disconnect")) => one(words, &["network", "disconnect"], |args| {
            of_network(NetworkCommand::Disconnect(args))
        }),
        ("netns", Some("create")) => one(words, &["netns", "create"], |args| {
            of_netns(NetnsCommand::Create(args))
        }),
        ("netns", Some("rm")) => one(words, &["netns", "rm"], |args| {
            of_netns(NetnsCommand::Rm(args))
        }),
        _ => None,
    }
}

fn of_network(command: NetworkCommand) -> Command {
    Command::Network { command }
}

fn of_netns(command: NetnsCommand) -> Command {
    Command::Netns { command }
}

/// Words behind the program's name and `--root`.
fn subcommands(words: &[OsString]) -> impl Iterator<Item = &str> {
    let mut words = words.iter().skip(1).map(|word| word.to_str().unwrap_or(""));
    let mut first = words.next();
    while let Some(word) = first.filter(|word| word.starts_with("--root")) {
        if word == "--root" {
            words.next();
        }
        first = words.next();
    }
    first.into_iter().chain(words)
}

/// Parses by the part of the table that the path leads to.
fn one<A: Args>(
    words: &[OsString],
    path: &[&'static str],
    wrap: impl FnOnce(A) -> Command,
) -> Option<Cli> {
    let (last, parents) = path.split_last()?;
    let mut table = A::augment_args(clap::Command::new(*last));
    for parent in parents.iter().rev() {
        table = clap::Command::new(*parent).subcommand(table);
    }
    let mut table = Root::augment_args(clap::Command::new("mossnet")).subcommand(table);
    let whole = table.try_get_matches_from_mut(words).ok()?;
    let mut matches: &ArgMatches = &whole;
    for name in path {
        matches = matches.subcommand_matches(name)?;
    }
    let args = A::from_arg_matches(matches).ok()?;
    let root = Root::from_arg_matches(&whole).ok()?;
    Some(Cli {
        root,
        command: wrap(args),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    fn words(line: &str) -> Vec<OsString> {
        line.split_whitespace().map(OsString::from).collect()
    }

    #[test]
    fn the_short_way_leads_to_the_same_place() {
        for line in [
            "mossnet run -- sh -c x",
            "mossnet --root /r run -dit --rm --name web -p 8080:80 --network a --network b sh --root /s",
            "mossnet run --root /r -e A=1 -w / --dns 1.1.1.1 sh",
            "mossnet --root=/r exec -d web ls -l",
            "mossnet ps -a -q --format json",
            "mossnet ps --root /r",
            "mossnet start -a web",
            "mossnet stop -t 3 web db",
            "mossnet --root /r rm -f web",
            "mossnet rm -f --root /r web",
            "mossnet network connect --ip 10.0.0.2 --alias db mynet web",
            "mossnet network disconnect --root /r -f mynet web",
            "mossnet netns create x --network mynet",
            "mossnet netns rm x y",
        ] {
            let words = words(line);
            let whole = Cli::try_parse_from(&words).unwrap();
            let short = parse(&words).unwrap_or_else(|| panic!("not understood: {line}"));
            assert_eq!(format!("{short:?}"), format!("{whole:?}"), "{line}");
        }
    }

    #[test]
    fn what_is_odd_is_left_to_the_whole_table() {
        for line in [
            "mossnet",
            "mossnet --root",
            "mossnet --version",
            "mossnet rm",
            "mossnet rm --help",
            "mossnet rm -V",
            "mossnet rm --no-such-flag web",
            "mossnet network",
            "mossnet network connect",
            "mossnet network ls",
            "mossnet network --root /r disconnect -f mynet web",
            "mossnet run --help",
            "mossnet run -p nonsense sh",
            "mossnet help rm",
            "mossnet doctor",
            "mossnet --rooted /r rm web",
        ] {
            assert!(parse(&words(line)).is_none(), "{line}");
        }
    }
}
