//! A process that calls others and times them, started where the callers of a contender live.
//!
//! Without it, what is measured would hold the `nsenter` or `setpriv` that gets there. One JSON
//! request a line on stdin, one JSON answer a line on stdout.

use serde::{Deserialize, Serialize};
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

#[derive(Serialize, Deserialize)]
struct Call {
    argv: Vec<String>,
    stdin: String,
}

#[derive(Serialize, Deserialize)]
struct Answer {
    nanoseconds: u64,
    success: bool,
    output: String,
}

/// Answers calls until stdin ends.
pub fn serve() {
    for line in std::io::stdin().lines() {
        let call: Call = serde_json::from_str(&line.expect("a line")).expect("a call");
        let answer = perform(&call);
        println!("{}", serde_json::to_string(&answer).expect("JSON"));
        std::io::stdout().flush().expect("answer");
    }
}

fn perform(call: &Call) -> Answer {
    let mut command = Command::new(&call.argv[0]);
    command
        .args(&call.argv[1..])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let begin = Instant::now();
    let mut child = command.spawn().expect("start a contender");
    let mut stdin = child.stdin.take().expect("piped");
    // Who does not read its input may be gone by now.
    let _ = stdin.write_all(call.stdin.as_bytes());
    drop(stdin);
    let status = child.wait().expect("wait for a contender");
    let elapsed = begin.elapsed();
    let output = child.wait_with_output().expect("read a contender's output");
    let text = [output.stdout, output.stderr].concat();
    Answer {
        nanoseconds: u64::try_from(elapsed.as_nanos()).expect("a short time"),
        success: status.success(),
        output: String::from_utf8_lossy(&text).into_owned(),
    }
}

/// The other end.
pub struct Caller {
    child: Child,
    stdin: ChildStdin,
    stdout: BufReader<ChildStdout>,
}

impl Caller {
    /// Starts one under `prefix`, which ends with the program that starts others.
    pub fn start(prefix: &[&str]) -> Self {
        let mut command = Command::new(prefix[0]);
        command
            .args(&prefix[1..])
            .args(["/run/world/bin/itself", "caller"])
            .env_clear()
            .env("PATH", crate::world::command::PATH)
            .env("HOME", "/run/world/home")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped());
        let mut child = command.spawn().expect("start a caller");
        let stdin = child.stdin.take().expect("piped");
        let stdout = BufReader::new(child.stdout.take().expect("piped"));
        Self {
            child,
            stdin,
            stdout,
        }
    }

    /// Has `argv` run with `stdin`; fails the benchmark unless it succeeds.
    pub fn call(&mut self, argv: &[&str], stdin: &str) -> Duration {
        let call = Call {
            argv: argv.iter().map(|&arg| arg.to_owned()).collect(),
            stdin: stdin.to_owned(),
        };
        let call = serde_json::to_string(&call).expect("JSON");
        writeln!(self.stdin, "{call}").expect("ask the caller");
        let mut line = String::new();
        self.stdout.read_line(&mut line).expect("hear the caller");
        let answer: Answer = serde_json::from_str(&line).expect("an answer");
        assert!(answer.success, "{}: {}", argv.join(" "), answer.output);
        Duration::from_nanos(answer.nanoseconds)
    }
}

impl Drop for Caller {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
