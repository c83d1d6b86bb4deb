//! Programs under test: started with nothing inherited by accident, always under a deadline.
//!
//! Invariant: whoever leaves a pipe of ours open after the program ended is reported, since a
//! daemon that keeps its starter's stdout hangs every script that reads it.

use super::PATIENCE;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::ffi::{OsStr, OsString};
use std::io::{Read, Write};
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

/// What a program left behind.
#[derive(Debug, Clone)]
pub struct Output {
    /// As a shell reports it: the code, or 128 + the signal.
    pub code: i32,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
    /// From start to end.
    pub elapsed: Duration,
    line: String,
}

impl Output {
    /// Fails the test unless the program ended with `code`.
    #[track_caller]
    pub fn expect_code(self, code: i32) -> Self {
        assert!(self.code == code, "expected exit code {code} of {self}");
        self
    }

    /// Fails the test unless `text` is found in stdout or stderr.
    #[track_caller]
    pub fn expect_text(self, text: &str) -> Self {
        assert!(
            self.stdout.contains(text) || self.stderr.contains(text),
            "expected '{text}' from {self}"
        );
        self
    }

    /// Fails the test unless the program took less than `limit`, or the multiple of it that others who keep
    /// the machine busy are allowed to cost.
    #[track_caller]
    pub fn expect_within(self, limit: Duration) -> Self {
        let limit = limit * PATIENCE;
        assert!(self.elapsed < limit, "expected {limit:?} at most of {self}");
        self
    }

    /// Fails the test unless stderr is one line that says enough, or two where the second is a
    /// hint.
    #[track_caller]
    pub fn expect_one_clear_line(self) -> Self {
        let lines: Vec<_> = self.stderr.lines().collect();
        assert!(
            lines.len() == 1 || lines.len() == 2 && lines[1].trim_start().starts_with("hint"),
            "expected one clear line on stderr of {self}"
        );
        assert!(
            lines[0].starts_with("mossnet: ") && lines[0].len() > 20,
            "expected a sentence from {self}"
        );
        self
    }

    /// Fails the test if a panic, a backtrace or raw debug output shows on stderr.
    #[track_caller]
    pub fn expect_clear(self) -> Self {
        let raw = ["panicked", "RUST_BACKTRACE", "Error {", "Some(", "Os {"];
        assert!(
            !raw.iter().any(|word| self.stderr.contains(word)),
            "raw text from {self}"
        );
        assert!(
            !self.stderr.trim().is_empty() && self.stderr.lines().count() <= 8,
            "unclear: {self}"
        );
        self
    }
}

impl std::fmt::Display for Output {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "`{}`: exit code {} after {:?}\n--- stdout\n{}\n--- stderr\n{}\n---",
            self.line, self.code, self.elapsed, self.stdout, self.stderr
        )
    }
}

enum Input {
    Nothing,
    Bytes(Vec<u8>),
    Open,
    Written(Box<dyn FnOnce(ChildStdin) + Send>),
}

/// A program to be run.
pub struct Cmd {
    argv: Vec<OsString>,
    env: Vec<(OsString, OsString)>,
    directory: OsString,
    input: Input,
    timeout: Duration,
}

/// Programs are looked up here, whatever the caller's PATH is.
pub const PATH: &str =
    "/run/world/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

impl Cmd {
    /// Runs `argv` with an environment of PATH, HOME and TERM only.
    pub fn new<S: AsRef<OsStr>>(argv: impl IntoIterator<Item = S>) -> Self {
        let argv = argv.into_iter().map(|arg| arg.as_ref().to_owned());
        let command = Self {
            argv: argv.collect(),
            env: Vec::new(),
            directory: "/run/world/home".into(),
            input: Input::Nothing,
            timeout: Duration::from_secs(30),
        }
        .env("PATH", PATH)
        .env("HOME", "/run/world/home")
        .env("TERM", "xterm");
        // For whoever looks into a failure: MOSSNET_LOG=debug cargo test …
        match std::env::var_os("MOSSNET_LOG") {
            Some(filter) => command.env("MOSSNET_LOG", filter),
            None => command,
        }
    }

    /// Sets an environment variable.
    pub fn env(mut self, name: impl AsRef<OsStr>, value: impl AsRef<OsStr>) -> Self {
        let name = name.as_ref().to_owned();
        self.env.push((name, value.as_ref().to_owned()));
        self
    }

    /// Starts in `directory`.
    pub fn directory(mut self, directory: impl AsRef<OsStr>) -> Self {
        self.directory = directory.as_ref().to_owned();
        self
    }

    /// Gives these bytes, then end of file, on stdin.
    pub fn stdin(mut self, bytes: impl Into<Vec<u8>>) -> Self {
        self.input = Input::Bytes(bytes.into());
        self
    }

    /// Leaves stdin open for [`Running::write`].
    pub fn open_stdin(mut self) -> Self {
        self.input = Input::Open;
        self
    }

    /// Lets `writer` feed stdin from a thread.
    pub fn feed(mut self, writer: impl FnOnce(ChildStdin) + Send + 'static) -> Self {
        self.input = Input::Written(Box::new(writer));
        self
    }

    /// Changes the deadline (30 s).
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// Puts `prefix` before the program, such as `strace -f`.
    pub fn under<S: AsRef<OsStr>>(mut self, prefix: impl IntoIterator<Item = S>) -> Self {
        let prefix = prefix.into_iter().map(|arg| arg.as_ref().to_owned());
        self.argv = prefix.chain(self.argv).collect();
        self
    }

    /// Adds arguments.
    pub fn then<S: AsRef<OsStr>>(mut self, args: impl IntoIterator<Item = S>) -> Self {
        self.argv
            .extend(args.into_iter().map(|arg| arg.as_ref().to_owned()));
        self
    }

    /// Runs it to its end.
    #[track_caller]
    pub fn run(self) -> Output {
        self.start().wait()
    }

    /// Runs it to its end and gives its stdout; fails the test unless it succeeds.
    #[track_caller]
    pub fn ok(self) -> String {
        self.run().expect_code(0).stdout
    }

    /// Runs it to its end; fails the test unless it ends with `code`.
    #[track_caller]
    pub fn fails(self, code: i32) -> Output {
        self.run().expect_code(code)
    }

    /// Starts it.
    #[track_caller]
    pub fn start(self) -> Running {
        let line = self.argv.join(OsStr::new(" "));
        let line = line.to_string_lossy().into_owned();
        let mut command = Command::new(&self.argv[0]);
        command
            .args(&self.argv[1..])
            .env_clear()
            .envs(self.env)
            .current_dir(&self.directory)
            .stdin(match self.input {
                Input::Nothing => Stdio::null(),
                _ => Stdio::piped(),
            })
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = match command.spawn() {
            Ok(child) => child,
            Err(error) => panic!("start `{line}`: {error}"),
        };
        let mut stdin = child.stdin.take();
        match (self.input, stdin.take()) {
            (Input::Bytes(bytes), Some(mut pipe)) => {
                std::thread::spawn(move || pipe.write_all(&bytes));
            }
            (Input::Written(writer), Some(pipe)) => {
                std::thread::spawn(move || writer(pipe));
            }
            (_, pipe) => stdin = pipe,
        }
        Running {
            line,
            stdout: Collected::from(child.stdout.take().expect("piped")),
            stderr: Collected::from(child.stderr.take().expect("piped")),
            stdin,
            started: Instant::now(),
            deadline: Instant::now() + self.timeout,
            child: Some(child),
        }
    }
}

#[derive(Default)]
struct Text {
    bytes: Vec<u8>,
    ended: bool,
}

/// What a stream brought so far.
#[derive(Clone, Default)]
struct Collected(Arc<(Mutex<Text>, Condvar)>);

impl Collected {
    fn from(mut stream: impl Read + Send + 'static) -> Self {
        let collected = Self::default();
        let writer = collected.clone();
        std::thread::spawn(move || {
            let mut buffer = vec![0; 1 << 16];
            loop {
                let count = stream.read(&mut buffer).unwrap_or(0);
                let (text, changed) = &*writer.0;
                let mut text = text.lock().expect("collector");
                text.bytes.extend_from_slice(&buffer[..count]);
                text.ended = count == 0;
                changed.notify_all();
                if count == 0 {
                    return;
                }
            }
        });
        collected
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(&self.0.0.lock().expect("collector").bytes).into_owned()
    }

    /// Waits until `found` accepts what came so far, or the stream ends.
    fn wait(&self, deadline: Instant, found: impl Fn(&str, bool) -> bool) -> bool {
        let (text, changed) = &*self.0;
        let mut text = text.lock().expect("collector");
        loop {
            if found(&String::from_utf8_lossy(&text.bytes), text.ended) {
                return true;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if text.ended || left.is_zero() {
                return false;
            }
            text = changed.wait_timeout(text, left).expect("collector").0;
        }
    }
}

/// A program that runs; killed when dropped.
pub struct Running {
    line: String,
    stdout: Collected,
    stderr: Collected,
    stdin: Option<ChildStdin>,
    started: Instant,
    deadline: Instant,
    child: Option<Child>,
}

impl Running {
    /// Its process id.
    pub fn pid(&self) -> i32 {
        let child = self.child.as_ref().expect("runs");
        i32::try_from(child.id()).expect("a pid")
    }

    /// Stdout so far.
    pub fn stdout(&self) -> String {
        self.stdout.text()
    }

    /// Sends a signal.
    pub fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.pid()), signal).expect("signal a child of ours");
    }

    /// Writes to the stdin that was left open.
    pub fn write(&mut self, bytes: &[u8]) {
        let stdin = self.stdin.as_mut().expect("open stdin");
        stdin.write_all(bytes).expect("write to a child of ours");
    }

    /// Waits until stdout has brought `text`; fails the test if it never does.
    #[track_caller]
    pub fn expect(&mut self, text: &str) {
        let found = self
            .stdout
            .wait(self.deadline, |seen, _| seen.contains(text));
        if !found {
            panic!("'{text}' never came: {}", self.finish());
        }
    }

    /// The same of stderr.
    #[track_caller]
    pub fn expect_error(&mut self, text: &str) {
        let found = self
            .stderr
            .wait(self.deadline, |seen, _| seen.contains(text));
        if !found {
            panic!("'{text}' never came on stderr: {}", self.finish());
        }
    }

    /// True while it runs.
    pub fn is_alive(&mut self) -> bool {
        let child = self.child.as_mut().expect("runs");
        child.try_wait().expect("wait").is_none()
    }

    /// Waits for its end; fails the test if the deadline passes, or if something that it left
    /// behind holds its stdout or stderr.
    #[track_caller]
    pub fn wait(mut self) -> Output {
        self.finish()
    }

    #[track_caller]
    fn finish(&mut self) -> Output {
        self.stdin = None;
        let mut child = self.child.take().expect("runs");
        let pid = Pid::from_raw(i32::try_from(child.id()).expect("a pid"));
        let (sender, receiver) = std::sync::mpsc::channel();
        std::thread::spawn(move || sender.send(child.wait()));
        let left = self.deadline.saturating_duration_since(Instant::now());
        let Ok(status) = receiver.recv_timeout(left) else {
            let _ = kill(pid, Signal::SIGKILL);
            let (stdout, stderr) = (self.stdout.text(), self.stderr.text());
            panic!(
                "`{}` was not over after {:?}\n--- stdout\n{stdout}\n--- stderr\n{stderr}\n---",
                self.line,
                self.started.elapsed()
            );
        };
        let status = status.expect("wait");
        let elapsed = self.started.elapsed();
        let grace = Instant::now() + Duration::from_secs(12);
        let closed = |stream: &Collected| stream.wait(grace, |_, ended| ended);
        assert!(
            closed(&self.stdout) && closed(&self.stderr),
            "`{}` ended, but something that it left behind holds its output",
            self.line
        );
        Output {
            code: status
                .code()
                .unwrap_or_else(|| 128 + status.signal().unwrap_or(0)),
            stdout: self.stdout.text(),
            stderr: self.stderr.text(),
            elapsed,
            line: std::mem::take(&mut self.line),
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}
