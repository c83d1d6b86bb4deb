//! Usage errors in our own form: one line, one hint, exit code 125 as Docker's.

use crate::error::EXIT_FAILURE;
use clap::error::ErrorKind;
use std::process::ExitCode;

/// Prints help, version, or what is wrong with the command line.
pub(super) fn explain(error: &clap::Error) -> ExitCode {
    match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => {
            // A reader that went away is no failure.
            let _ = error.print();
            ExitCode::SUCCESS
        }
        ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => {
            let _ = error.print();
            ExitCode::from(EXIT_FAILURE)
        }
        _ => {
            let (line, hint) = condensed(&error.to_string());
            eprintln!("mossnet: {line}");
            eprintln!("hint: {hint}");
            ExitCode::from(EXIT_FAILURE)
        }
    }
}

/// clap's paragraphs as one line of what is wrong and one of what to do.
fn condensed(text: &str) -> (String, String) {
    let mut wrong = Vec::new();
    let mut tips = Vec::new();
    let mut usage = None;
    for line in text.lines().map(str::trim).filter(|line| !line.is_empty()) {
        if let Some(rest) = line.strip_prefix("error: ") {
            wrong.push(rest);
        } else if let Some(rest) = line.strip_prefix("tip: ") {
            tips.push(rest);
        } else if let Some(rest) = line.strip_prefix("Usage: ") {
            usage = Some(rest);
        } else if !line.starts_with("For more information") && usage.is_none() {
            wrong.push(line);
        }
    }
    let similar = tips.iter().find(|tip| !tip.starts_with("to pass"));
    let mut hint = similar.copied().unwrap_or_default().to_owned();
    if hint.is_empty() {
        // `mossnet run [OPTIONS] <CMD>...` → `mossnet run`, whatever the program is called.
        let words = usage.into_iter().flat_map(|usage| usage.split(' ').skip(1));
        let words = words.take_while(|word| word.bytes().all(|b| b.is_ascii_lowercase()));
        let command: String = words.flat_map(|word| [" ", word]).collect();
        hint = format!("see 'mossnet{command} --help'");
    }
    (wrong.join(" "), hint)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::Cli;
    use clap::Parser;

    fn of(words: &[&str]) -> (String, String) {
        condensed(&Cli::try_parse_from(words).unwrap_err().to_string())
    }

    #[test]
    fn usage_errors_are_one_line_and_a_hint() {
        assert_eq!(
            of(&["mossnet", "run", "--ip", "10.0.0.256", "sh"]),
            (
                "invalid value '10.0.0.256' for '--ip <ADDRESS>': invalid IPv4 address syntax"
                    .into(),
                "see 'mossnet --help'".into()
            )
        );
        assert_eq!(
            of(&["mossnet", "run"]),
            (
                "the following required arguments were not provided: <CMD>...".into(),
                "see 'mossnet run --help'".into()
            )
        );
        let (line, hint) = of(&["mossnet", "run", "--nme", "x", "sh"]);
        assert_eq!(line, "unexpected argument '--nme' found");
        assert_eq!(hint, "a similar argument exists: '--name'");
        let (line, _) = of(&["mossnet", "kill", "-s", "NONE", "x"]);
        assert!(line.contains("no such signal"), "{line}");
    }
}
