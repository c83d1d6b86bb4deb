//! `logs`: the daemon says where the file is; we, of the same user, read it, and follow it by
//! inotify(7) until the sandbox has ended.

use super::args::LogsArgs;
use super::connect;
use super::error::CliError;
use super::value::Tail;
use crate::api::client::{Client, ClientError, Waiting};
use crate::api::paths::Paths;
use rustix::fs::inotify::{self, CreateFlags, WatchFlags};
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use tokio::sync::mpsc::{self, error::TrySendError};

/// Bytes read at once.
const BLOCK: usize = 64 << 10;

pub(super) async fn logs(paths: Paths, args: LogsArgs) -> Result<u8, CliError> {
    let client = connect(paths).await?;
    let path = client.log_path(&args.name).await?;
    let mut log = Log::open(path)?;
    if let Tail::Lines(lines) = args.tail {
        log.skip_to_last(lines)?;
    }
    if args.follow {
        follow(&client, &args.name, log).await?;
    } else {
        log.copy()?;
    }
    Ok(0)
}

/// Prints what comes after the first `written` bytes, until the sandbox ends.
pub(super) async fn follow_from(
    client: &Client,
    name: &str,
    path: PathBuf,
    written: u64,
) -> Result<(), CliError> {
    let mut log = Log::open(path)?;
    log.file
        .seek(SeekFrom::Start(written))
        .map_err(|error| log.failed("read log", error))?;
    follow(client, name, log).await
}

async fn follow(client: &Client, name: &str, mut log: Log) -> Result<(), CliError> {
    let mut changes = log.watch()?;
    let waiting = client.begin_wait(name).await;
    let mut end = std::pin::pin!(ended(client, waiting));
    loop {
        log.copy()?;
        tokio::select! {
            end = &mut end => {
                // Written between the last look and the end.
                log.copy()?;
                return Ok(end?);
            }
            Some(()) = changes.recv() => {}
        }
    }
}

/// Resolves when the sandbox has ended or is gone.
async fn ended(client: &Client, waiting: Result<Waiting, ClientError>) -> Result<(), ClientError> {
    let end = match waiting {
        Ok(waiting) => client.finish_wait(waiting).await.map(drop),
        Err(error) => Err(error),
    };
    match end {
        Err(error) if error.is_not_found() => Ok(()),
        end => end,
    }
}

struct Log {
    path: PathBuf,
    file: File,
}

impl Log {
    fn open(path: PathBuf) -> Result<Self, CliError> {
        match File::open(&path) {
            Ok(file) => Ok(Self { path, file }),
            Err(source) => Err(CliError::File {
                what: "read log",
                path,
                source,
            }),
        }
    }

    fn failed(&self, what: &'static str, source: io::Error) -> CliError {
        CliError::File {
            what,
            path: self.path.clone(),
            source,
        }
    }

    /// Tells of every change, from a thread that nobody waits for.
    fn watch(&self) -> Result<mpsc::Receiver<()>, CliError> {
        let made = || -> io::Result<OwnedFd> {
            let watch = inotify::init(CreateFlags::CLOEXEC)?;
            inotify::add_watch(&watch, &self.path, WatchFlags::MODIFY)?;
            Ok(watch)
        };
        let mut watch = made()
            .map(File::from)
            .map_err(|error| self.failed("watch log", error))?;
        // One unread change is as good as many.
        let (changes, changed) = mpsc::channel(1);
        std::thread::spawn(move || {
            let mut events = [0; 4096];
            while watch.read(&mut events).is_ok() {
                if let Err(TrySendError::Closed(())) = changes.try_send(()) {
                    break;
                }
            }
        });
        Ok(changed)
    }

    /// Copies the rest to standard output.
    fn copy(&mut self) -> Result<(), CliError> {
        let mut block = vec![0; BLOCK];
        let mut stdout = io::stdout().lock();
        loop {
            let length = match self.file.read(&mut block) {
                Ok(0) => return stdout.flush().map_err(CliError::Output),
                Ok(length) => length,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(self.failed("read log", error)),
            };
            let part = block.get(..length).unwrap_or_default();
            stdout.write_all(part).map_err(CliError::Output)?;
        }
    }

    /// Moves to the beginning of the last `lines` lines.
    fn skip_to_last(&mut self, lines: usize) -> Result<(), CliError> {
        last_lines(&mut self.file, lines)
            .and_then(|start| self.file.seek(SeekFrom::Start(start)))
            .map(drop)
            .map_err(|error| self.failed("read log", error))
    }
}

/// Where the last `lines` lines begin; reads backwards, block by block.
fn last_lines(file: &mut (impl Read + Seek), lines: usize) -> io::Result<u64> {
    let end = file.seek(SeekFrom::End(0))?;
    if lines == 0 {
        return Ok(end);
    }
    let mut found = 0;
    let mut block_end = end;
    while block_end > 0 {
        let start = block_end.saturating_sub(BLOCK as u64);
        let mut block = Vec::new();
        file.seek(SeekFrom::Start(start))?;
        file.by_ref()
            .take(block_end - start)
            .read_to_end(&mut block)?;
        for (index, _) in block.iter().enumerate().rev().filter(|(_, b)| **b == b'\n') {
            let next = start + index as u64 + 1;
            // The newline at the very end closes the last line; it does not begin one.
            found += usize::from(next != end);
            if found == lines {
                return Ok(next);
            }
        }
        block_end = start;
    }
    Ok(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Cursor;

    fn tail(text: &str, lines: usize) -> String {
        let mut file = Cursor::new(text.as_bytes());
        let start = usize::try_from(last_lines(&mut file, lines).unwrap()).unwrap();
        text[start..].to_owned()
    }

    #[test]
    fn the_last_lines_are_found() {
        assert_eq!(tail("a\nb\nc\n", 2), "b\nc\n");
        assert_eq!(tail("a\nb\nc", 2), "b\nc");
        assert_eq!(tail("a\nb\nc\n", 0), "");
        assert_eq!(tail("a\nb\nc\n", 9), "a\nb\nc\n");
        assert_eq!(tail("", 3), "");
        assert_eq!(tail("\n\n\n", 2), "\n\n");
        let long = format!("{}\n{}\n", "x".repeat(3 * BLOCK), "y".repeat(BLOCK));
        assert_eq!(tail(&long, 1).len(), BLOCK + 1);
        assert_eq!(tail(&long, 2).len(), long.len());
    }
}
