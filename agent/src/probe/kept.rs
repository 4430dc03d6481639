//! Probes whose process is kept, because opening their driver costs more than asking it: [`KeptProbe`] asks with a line of JSON
//! and is answered with one, [`serve`] is the loop of the process.
//!
//! A driver that does not answer in time is killed with its process; whoever asked decides whether to start another. It does
//! not know what is asked.

use std::io::{self, BufRead as _, Write as _};
use std::path::Path;
use std::process::{ExitCode, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio::time::timeout;

use super::child;

/// A probe's process that is there; dropped, it is killed.
#[derive(Debug)]
pub struct KeptProbe {
    _child: Child,
    input: ChildStdin,
    lines: Lines<BufReader<ChildStdout>>,
}

impl KeptProbe {
    /// Starts the probe `name` of `program`; `None` where that cannot be.
    pub fn start(program: &Path, name: &str) -> Option<Self> {
        let mut command = Command::new(program);
        command.arg(child::ARGUMENT).arg(name).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        command.kill_on_drop(true);
        #[cfg(unix)]
        command.process_group(0);
        let mut child = command.spawn().ok()?;
        let (input, output) = (child.stdin.take()?, child.stdout.take()?);
        Some(Self { _child: child, input, lines: BufReader::new(output).lines() })
    }

    /// Asks once; `None` where it ended, said nonsense, or said nothing within `deadline`. Then it is of no more use.
    pub async fn ask<T: DeserializeOwned>(&mut self, question: &impl Serialize, deadline: Duration) -> Option<T> {
        let mut line = serde_json::to_vec(question).ok()?;
        line.push(b'\n');
        let answered = async {
            self.input.write_all(&line).await.ok()?;
            serde_json::from_str(&self.lines.next_line().await.ok()??).ok()
        };
        timeout(deadline, answered).await.ok().flatten()
    }
}

/// Answers each line on standard input until it ends, which ends the process in the middle of a driver's call too. `None` ends
/// it as well: the question was none.
pub fn serve<T: Serialize>(mut answer: impl FnMut(&str) -> Option<T>) -> ExitCode {
    let (ask, asked) = mpsc::channel();
    std::thread::spawn(move || {
        let mut input = io::stdin().lock();
        let mut line = String::new();
        while matches!(input.read_line(&mut line), Ok(length) if length > 0) && ask.send(line.clone()).is_ok() {
            line.clear();
        }
        child::end_now();
    });
    while let Ok(question) = asked.recv() {
        let Some(mut line) = answer(&question).and_then(|answer| serde_json::to_vec(&answer).ok()) else {
            return ExitCode::FAILURE;
        };
        line.push(b'\n');
        let mut stdout = io::stdout().lock();
        if stdout.write_all(&line).and_then(|()| stdout.flush()).is_err() {
            return ExitCode::FAILURE;
        }
    }
    ExitCode::SUCCESS
}
