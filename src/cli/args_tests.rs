use super::*;
use clap::CommandFactory;

fn parse(words: &[&str]) -> Command {
    let words = std::iter::once("mossnet").chain(words.iter().copied());
    Cli::try_parse_from(words).unwrap().command
}

fn refused(words: &[&str]) -> bool {
    let words = std::iter::once("mossnet").chain(words.iter().copied());
    Cli::try_parse_from(words).is_err()
}

#[test]
fn the_table_is_sound() {
    Cli::command().debug_assert();
}

#[test]
fn stop_takes_names_or_all() {
    let Command::Stop(args) = parse(&["stop", "-t", "3", "a", "b"]) else {
        panic!("not stop");
    };
    assert_eq!((args.seconds, args.names.len(), args.all), (3, 2, false));
    let Command::Stop(args) = parse(&["stop", "--all"]) else {
        panic!("not stop");
    };
    assert_eq!((args.seconds, args.all), (10, true));
    assert!(refused(&["stop"]));
    assert!(refused(&["stop", "--all", "a"]));
    assert!(refused(&["stop", "-t", "-1", "a"]));
    assert!(refused(&["stop", ""]));
}

#[test]
fn kill_takes_a_signal() {
    let Command::Kill(args) = parse(&["kill", "-s", "hup", "a"]) else {
        panic!("not kill");
    };
    assert_eq!(args.signal, 1);
    let Command::Kill(args) = parse(&["kill", "a"]) else {
        panic!("not kill");
    };
    assert_eq!(args.signal, 9);
    assert!(refused(&["kill", "-s", "nothing", "a"]));
    assert!(refused(&["kill"]));
}

#[test]
fn listings_take_formats() {
    let Command::Ps(args) = parse(&["ps", "-aq", "--format", "json"]) else {
        panic!("not ps");
    };
    assert!(args.all && args.list.quiet);
    assert_eq!(args.list.format, listing::Format::Json);
    assert!(refused(&["ps", "--format", "yaml"]));
    assert!(refused(&["ps", "--format", "{{.ID"]));
    assert!(matches!(
        parse(&["ps", "--format", "table {{.ID}}"]),
        Command::Ps(_)
    ));
    assert!(refused(&["network"]));
}

#[test]
fn logs_take_a_tail() {
    let Command::Logs(args) = parse(&["logs", "-f", "--tail", "5", "a"]) else {
        panic!("not logs");
    };
    assert!(args.follow);
    assert_eq!(args.tail, value::Tail::Lines(5));
    assert!(refused(&["logs", "--tail", "x", "a"]));
}

#[test]
fn the_root_is_global() {
    for words in [["--root", "/x", "ps"], ["ps", "--root", "/x"]] {
        let words = std::iter::once("mossnet").chain(words);
        assert_eq!(
            Cli::try_parse_from(words).unwrap().root.root,
            Some("/x".into())
        );
    }
}

#[test]
fn the_daemon_is_quiet_after_a_while() {
    let Command::Daemon(args) = parse(&["daemon", "--background"]) else {
        panic!("not daemon");
    };
    assert_eq!((args.idle, args.background), (30, true));
    assert!(refused(&["daemon", "--idle", "soon"]));
}
