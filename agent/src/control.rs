//! The control socket: what the running agent tells its own user, over a Unix socket in the state directory.
//!
//! One request a connection: a line of JSON ([`Request`]); the answer is lines of JSON ([`Reply`]), the last of which
//! ends it. Prompts never pass here: `chat` talks to the endpoint, whose address the status tells.

use std::io;
use std::path::Path;
use std::sync::Arc;

use muster_proto::{AgentStatus, Benchmark, BenchmarkKind, Bytes, MachineId, MemoryNeed, ModelDigest, Observed};
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt as _, AsyncRead, AsyncWrite, AsyncWriteExt as _, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::address::ControllerAddress;
use crate::serving::{ServedState, Serving};
use crate::survey::{BenchUpdate, SurveyRequest};
use crate::uplink::LinkStatus;

/// Longest request.
const REQUEST_MAX: u64 = 4096;
/// Connections at once.
const CONNECTIONS: usize = 16;

/// What may be asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "ask", rename_all = "snake_case")]
pub enum Request {
    /// How the agent is doing.
    Status,
    /// Which models run.
    Ps,
    /// Measure this desk.
    Bench {
        /// A few seconds only.
        quick: bool,
        /// With minutes of load.
        #[serde(default)]
        full: bool,
    },
}

/// What is answered.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "reply", rename_all = "snake_case")]
pub enum Reply {
    /// To [`Request::Status`].
    Status(Box<AgentStatus>),
    /// To [`Request::Ps`].
    Ps {
        /// Every model by its name.
        models: Vec<ModelProcess>,
    },
    /// A benchmark goes on.
    Progress {
        /// What is being done.
        step: String,
        /// Share of the steps that are done, 0 to 1.
        fraction: f32,
    },
    /// A benchmark ended.
    Bench(Box<Benchmark>),
    /// It cannot be answered.
    Failed {
        /// Why.
        reason: String,
    },
}

/// One model of this desk and its process.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ModelProcess {
    /// The name that clients use.
    pub model: String,
    /// What it is for.
    pub role: String,
    /// Its quantization.
    pub quantization: String,
    /// Its file.
    pub digest: ModelDigest,
    /// `ready`, `loading` or `failed`.
    pub state: String,
    /// Why it is not ready.
    pub reason: Option<String>,
    /// The engine worker.
    pub pid: Option<u32>,
    /// Context of each sequence, in tokens.
    pub context: Option<u32>,
    /// Buffers that llama.cpp allocated.
    pub memory: Option<MemoryNeed>,
    /// Resident memory of the worker after loading.
    pub resident: Option<Bytes>,
}

/// What the control socket tells of.
#[derive(Clone, Debug)]
pub struct Control {
    /// Who this machine is.
    pub machine: MachineId,
    /// Where its controller is.
    pub controller: ControllerAddress,
    /// Where it answers.
    pub endpoint: String,
    /// Whether the link is up.
    pub link: watch::Receiver<LinkStatus>,
    /// What runs.
    pub observed: watch::Receiver<Observed>,
    /// What answers.
    pub serving: watch::Receiver<Arc<Serving>>,
    /// Does benchmarks.
    pub survey: mpsc::Sender<SurveyRequest>,
}

/// Opens the socket, for its owner alone. A socket that is there is left over: the state directory is locked.
///
/// # Errors
/// What the system says.
pub fn bind(path: &Path) -> io::Result<UnixListener> {
    match std::fs::remove_file(path) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    // The directory is private, so that nobody gets in before the mode is set.
    let listener = UnixListener::bind(path)?;
    std::fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(0o600))?;
    Ok(listener)
}

impl Control {
    /// Answers until `shutdown`.
    pub async fn run(self, listener: UnixListener, shutdown: CancellationToken) {
        let mut connections = JoinSet::new();
        loop {
            // Cancel-safe: accepting and joining lose nothing.
            tokio::select! {
                biased;
                () = shutdown.cancelled() => return,
                Some(_) = connections.join_next() => {}
                accepted = listener.accept(), if connections.len() < CONNECTIONS => match accepted {
                    Ok((stream, _)) => {
                        let control = self.clone();
                        connections.spawn(async move {
                            // Whoever asked is gone; there is nobody to tell.
                            let _ = control.answer(stream).await;
                        });
                    }
                    Err(error) => {
                        tracing::warn!(%error, "the control socket cannot accept");
                        tokio::time::sleep(std::time::Duration::from_secs(1)).await;
                    }
                }
            }
        }
    }

    async fn answer<S: AsyncRead + AsyncWrite + Unpin>(&self, stream: S) -> io::Result<()> {
        let mut stream = BufReader::new(stream);
        let mut line = String::new();
        tokio::io::AsyncReadExt::take(&mut stream, REQUEST_MAX).read_line(&mut line).await?;
        match serde_json::from_str(&line) {
            Ok(Request::Status) => write(&mut stream, &Reply::Status(Box::new(self.status()))).await,
            Ok(Request::Ps) => write(&mut stream, &Reply::Ps { models: self.processes() }).await,
            Ok(Request::Bench { quick, full }) => {
                let kind = match (quick, full) {
                    (true, _) => BenchmarkKind::Quick,
                    (false, true) => BenchmarkKind::Full,
                    (false, false) => BenchmarkKind::Standard,
                };
                self.bench(kind, &mut stream).await
            }
            Err(error) => write(&mut stream, &Reply::Failed { reason: format!("not a request: {error}") }).await,
        }
    }

    fn status(&self) -> AgentStatus {
        let link = self.link.borrow().clone();
        let observed = self.observed.borrow().clone();
        AgentStatus {
            machine_id: Some(self.machine),
            controller: Some(self.controller.to_string()),
            online: link.online,
            last_error: link.last_error,
            generation: observed.generation,
            endpoint: Some(self.endpoint.clone()),
            observed: Some(observed),
        }
    }

    fn processes(&self) -> Vec<ModelProcess> {
        let serving = self.serving.borrow().clone();
        serving
            .models
            .iter()
            .map(|(name, served)| {
                let (state, reason, loaded) = match &served.state {
                    ServedState::Ready(running) => ("ready", None, Some(running.loaded.as_ref())),
                    ServedState::Loading { what } => ("loading", Some(what.clone()), None),
                    ServedState::Failed { reason } => ("failed", Some(reason.clone()), None),
                };
                ModelProcess {
                    model: name.clone(),
                    role: served.role.clone(),
                    quantization: served.quantization.clone(),
                    digest: served.digest,
                    state: state.into(),
                    reason,
                    pid: loaded.map(|loaded| loaded.pid),
                    context: loaded.map(|loaded| loaded.context_per_sequence),
                    memory: loaded.map(|loaded| loaded.memory.clone()),
                    resident: loaded.and_then(|loaded| loaded.resident),
                }
            })
            .collect()
    }

    async fn bench<S: AsyncWrite + Unpin>(&self, kind: BenchmarkKind, stream: &mut S) -> io::Result<()> {
        let (updates, mut inbox) = mpsc::channel(16);
        if self.survey.send(SurveyRequest::Benchmark { kind, updates: Some(updates) }).await.is_err() {
            return write(stream, &Reply::Failed { reason: "the agent is stopping".into() }).await;
        }
        while let Some(update) = inbox.recv().await {
            match update {
                BenchUpdate::Progress { step, fraction } => write(stream, &Reply::Progress { step, fraction }).await?,
                BenchUpdate::Done(benchmark) => {
                    return write(stream, &Reply::Bench(Box::new((*benchmark).clone()))).await;
                }
                BenchUpdate::Failed(reason) => return write(stream, &Reply::Failed { reason }).await,
            }
        }
        write(stream, &Reply::Failed { reason: "the agent is stopping".into() }).await
    }
}

async fn write<S: AsyncWrite + Unpin>(stream: &mut S, reply: &Reply) -> io::Result<()> {
    stream.write_all(&line_of(reply)).await?;
    stream.flush().await
}

fn line_of<T: Serialize>(value: &T) -> Vec<u8> {
    let mut line = serde_json::to_vec(value).expect("plain data serializes");
    line.push(b'\n');
    line
}

/// Asks the running agent; `progress` hears of what comes before the last reply.
///
/// # Errors
/// No agent runs on this state directory, or it went away.
pub async fn ask(path: &Path, request: Request, mut progress: impl FnMut(&str, f32)) -> io::Result<Reply> {
    let mut stream = BufReader::new(UnixStream::connect(path).await?);
    stream.write_all(&line_of(&request)).await?;
    loop {
        let mut line = String::new();
        if stream.read_line(&mut line).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        match serde_json::from_str(&line)? {
            Reply::Progress { step, fraction } => progress(&step, fraction),
            reply => return Ok(reply),
        }
    }
}

#[cfg(test)]
mod tests {
    use muster_proto::Timestamp;

    use super::*;

    fn control() -> (Control, watch::Sender<LinkStatus>, mpsc::Receiver<SurveyRequest>) {
        let (link, link_receiver) = watch::channel(LinkStatus::default());
        let observed = Observed {
            at: Timestamp::from_unix_millis(0),
            generation: 7,
            deployments: vec![],
            endpoint: None,
            store_used: Bytes::ZERO,
        };
        let (survey, requests) = mpsc::channel(1);
        let control = Control {
            machine: MachineId::from_bytes([1; 16]),
            controller: "127.0.0.1:7433".parse().expect("an address"),
            endpoint: "http://127.0.0.1:1/v1".into(),
            link: link_receiver,
            observed: watch::channel(observed).1,
            serving: watch::channel(Arc::default()).1,
            survey,
        };
        (control, link, requests)
    }

    #[tokio::test]
    async fn status_and_ps_are_answered_to_the_owner() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let path = directory.path().join("control.sock");
        std::fs::write(&path, "left over").expect("written");
        let listener = bind(&path).expect("bound");
        let mode = std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(&path).expect("there").permissions());
        assert_eq!(mode & 0o777, 0o600);
        let (control, link, _requests) = control();
        link.send_replace(LinkStatus { online: true, ..LinkStatus::default() });
        let shutdown = CancellationToken::new();
        let server = tokio::spawn(control.run(listener, shutdown.clone()));
        match ask(&path, Request::Status, |_, _| {}).await.expect("answered") {
            Reply::Status(status) => assert!(status.online && status.generation == 7),
            other => panic!("{other:?}"),
        }
        assert_eq!(ask(&path, Request::Ps, |_, _| {}).await.expect("answered"), Reply::Ps { models: vec![] });
        shutdown.cancel();
        server.await.expect("no panic");
    }

    #[tokio::test]
    async fn a_benchmark_tells_its_progress_and_end() {
        let (control, _link, mut requests) = control();
        let (client, server) = tokio::io::duplex(4096);
        tokio::spawn(async move { control.answer(server).await });
        tokio::spawn(async move {
            let Some(SurveyRequest::Benchmark { kind: BenchmarkKind::Quick, updates: Some(updates) }) =
                requests.recv().await
            else {
                panic!("another request");
            };
            let progress = BenchUpdate::Progress { step: "half".into(), fraction: 0.5 };
            updates.send(progress).await.expect("listens");
            updates.send(BenchUpdate::Failed("too hot".into())).await.expect("listens");
        });
        let mut client = BufReader::new(client);
        client.write_all(b"{\"ask\":\"bench\",\"quick\":true}\n").await.expect("written");
        let mut lines = client.lines();
        let mut next = async || -> Reply {
            serde_json::from_str(&lines.next_line().await.expect("read").expect("a line")).expect("a reply")
        };
        assert_eq!(next().await, Reply::Progress { step: "half".into(), fraction: 0.5 });
        assert_eq!(next().await, Reply::Failed { reason: "too hot".into() });
    }
}
