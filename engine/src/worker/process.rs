//! [`Process`]: one running worker with its pipes. Dropping it kills the worker.

use std::process::{ExitStatus, Stdio};
use std::sync::Arc;
use std::time::Duration;

use tokio::io::AsyncWriteExt as _;
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::log::Log;
use super::{WorkerCommand, WorkerError};
use crate::frame;
use crate::wire::{FromWorker, ToWorker, to_worker::Request};

/// How long a worker that was told to end may take, and how long its last words are waited for.
pub(super) const GRACE: Duration = Duration::from_secs(2);
/// How long a worker that was killed may take to be gone: freeing a hundred GiB takes seconds. One that a driver or a
/// network disk holds in the kernel may never go; it is reaped whenever it does.
const KILL_GRACE: Duration = Duration::from_secs(10);

pub(super) struct Process {
    child: Child,
    pub stdin: Option<ChildStdin>,
    pub stdout: Option<ChildStdout>,
    pub log: Log,
    log_reader: JoinHandle<()>,
    pub pid: u32,
}

impl Process {
    pub fn spawn(command: &WorkerCommand) -> Result<Self, WorkerError> {
        let mut start = Command::new(&command.program);
        start.args(&command.args);
        if command.niceness != 0 {
            start.arg(format!("--nice={}", command.niceness));
        }
        if let Some(limit) = command.memory_limit {
            start.arg(format!("--memory-limit={}", limit.get()));
        }
        start.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
        // ggml would load a plugin from there, whatever folder it is told.
        start.env_remove("GGML_BACKEND_PATH");
        // Ctrl-C in a terminal is for the program, which ends its workers in good order.
        #[cfg(unix)]
        start.process_group(0);
        let spawn_error = |source| WorkerError::Spawn { program: command.program.clone(), source: Arc::new(source) };
        let mut child = start.spawn().map_err(spawn_error)?;
        let log = Log::default();
        let stderr = child.stderr.take().expect("asked for a pipe");
        let log_reader = tokio::spawn(log.clone().follow(stderr));
        let pid = child.id().expect("not waited for yet");
        Ok(Self { stdin: child.stdin.take(), stdout: child.stdout.take(), child, log, log_reader, pid })
    }

    /// Sends a request. A pipe that is closed is no error here: how the worker died comes from [`died`](Self::died).
    pub async fn send(&mut self, id: u64, request: Request) -> Result<(), WorkerError> {
        let frame = Self::frame(id, request)?;
        if let Some(stdin) = &mut self.stdin {
            let _ = stdin.write_all(&frame).await;
        }
        Ok(())
    }

    /// The frame of a request.
    pub fn frame(id: u64, request: Request) -> Result<Vec<u8>, WorkerError> {
        frame::encode(&ToWorker { id, request: Some(request) })
            .map_err(|error| WorkerError::Refused { reason: error.to_string() })
    }

    /// The next message; `None` when the worker has closed its side or talks nonsense.
    pub async fn receive(&mut self) -> Option<FromWorker> {
        frame::read_async(self.stdout.as_mut()?).await.ok().flatten()
    }

    /// Ends it: closes its input, and kills it when that does not help. Returns when it is gone.
    pub async fn end(mut self) {
        drop(self.stdin.take());
        if timeout(GRACE, self.child.wait()).await.is_err() {
            self.kill().await;
        }
    }

    /// Kills it: its work is done or in vain, and nothing in it needs an orderly end. Returns when it is gone, or does not
    /// go.
    pub async fn kill(mut self) {
        let _ = timeout(KILL_GRACE, self.child.kill()).await;
    }

    /// Kills one that has been silent for too long, and says so.
    pub async fn hung(self, after: Duration) -> WorkerError {
        let (_, log_tail) = self.log.take();
        self.kill().await;
        WorkerError::TimedOut { after, log_tail }
    }

    /// How it died; kills it if it only stopped talking.
    pub async fn died(mut self) -> WorkerError {
        drop(self.stdin.take());
        let Ok(status) = timeout(GRACE, self.child.wait()).await else {
            self.kill().await;
            return WorkerError::Protocol { detail: "it sent no frame and did not exit".into() };
        };
        let _ = timeout(GRACE, &mut self.log_reader).await;
        let (assertion, log_tail) = self.log.take();
        let status = status.map_or_else(|error| error.to_string(), describe);
        WorkerError::Died { status, assertion, log_tail }
    }
}

/// `exit code 1`, or the name of a signal.
fn describe(status: ExitStatus) -> String {
    #[cfg(unix)]
    if let Some(signal) = std::os::unix::process::ExitStatusExt::signal(&status) {
        // Linux's numbers of the signals that end a process by mistake or on purpose.
        let name = match signal {
            1 => "SIGHUP",
            2 => "SIGINT",
            3 => "SIGQUIT",
            4 => "SIGILL",
            5 => "SIGTRAP",
            6 => "SIGABRT",
            7 => "SIGBUS",
            8 => "SIGFPE",
            9 => "SIGKILL",
            11 => "SIGSEGV",
            15 => "SIGTERM",
            24 => "SIGXCPU",
            25 => "SIGXFSZ",
            31 => "SIGSYS",
            other => return format!("signal {other}"),
        };
        return name.to_owned();
    }
    status.code().map_or_else(|| status.to_string(), |code| format!("exit code {code}"))
}
