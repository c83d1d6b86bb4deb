//! `info` and `shutdown`: the daemon's own life.

use super::args::{Format, ShutdownArgs};
use super::error::CliError;
use super::{connect, table};
use crate::api::client::Client;
use crate::api::paths::Paths;
use crate::api::types::Info;
use std::fmt::Write as _;

pub(super) async fn info(paths: Paths, format: Format) -> Result<u8, CliError> {
    let info = connect(paths).await?.info().await?;
    match format {
        Format::Json => table::json(&info)?,
        Format::Table => table::print(&described(&info))?,
    }
    Ok(0)
}

fn described(info: &Info) -> String {
    let process = |pid: Option<u32>| pid.map_or_else(|| "none".to_owned(), |pid| pid.to_string());
    let mut text = String::new();
    for (what, value) in [
        ("Version", info.version.clone()),
        ("Daemon", info.pid.to_string()),
        ("Helper", process(info.helper_pid)),
        ("Relay", process(info.relay_pid)),
        ("Running", info.running.to_string()),
        ("Data", info.data_dir.display().to_string()),
        ("Runtime", info.runtime_dir.display().to_string()),
    ] {
        let _ = writeln!(text, "{:<9}{value}", format!("{what}:"));
    }
    text
}

/// Without `--all` there is nothing to do where no daemon runs; with it, sandboxes may go on
/// without one, so that one is started to end them.
pub(super) async fn shutdown(paths: Paths, args: ShutdownArgs) -> Result<u8, CliError> {
    if args.all {
        connect(paths).await?.shutdown(true).await?;
    } else if let Some(client) = Client::connect_running(paths).await? {
        client.shutdown(false).await?;
    }
    Ok(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_daemon_describes_itself() {
        let info = Info {
            version: "0.1.0".to_owned(),
            pid: 7,
            helper_pid: Some(8),
            relay_pid: None,
            data_dir: "/d".into(),
            runtime_dir: "/r".into(),
            running: 2,
            router_netns: None,
        };
        let expected = "Version: 0.1.0\nDaemon:  7\nHelper:  8\nRelay:   none\n\
                        Running: 2\nData:    /d\nRuntime: /r\n";
        assert_eq!(described(&info), expected);
    }
}
