//! [`Generator`]: a worker that holds a loaded model and answers.

use std::collections::HashMap;
use std::path::PathBuf;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use futures_util::Stream;
use muster_proto::{Bytes, EngineSettings, MemoryNeed, TokensPerSecond};
use tokio::io::AsyncWriteExt as _;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep_until, timeout};

use super::process::Process;
use super::{ChatRequest, GenerateError, GenerationEvent, Layout, WorkerCommand, WorkerError, convert};
use crate::frame;
use crate::wire::{self, FromWorker, from_worker::Reply, to_worker::Request};

/// A model to load.
#[derive(Clone, Debug, PartialEq)]
pub struct LoadRequest {
    /// The file.
    pub path: PathBuf,
    /// How to run it: what it was sized with.
    pub settings: EngineSettings,
    /// CPU threads; `None` takes all physical cores.
    pub threads: Option<u32>,
    /// What goes where beyond the number of layers, as its sizing found it; the default leaves it to llama.cpp.
    pub layout: Layout,
}

/// A model that was loaded.
#[derive(Clone, Debug, PartialEq)]
pub struct Loaded {
    /// Buffers that llama.cpp allocated.
    pub memory: MemoryNeed,
    /// How long loading took.
    pub load_time: Duration,
    /// Longest prompt and answer together, per sequence, as llama.cpp allocated it.
    pub context_per_sequence: u32,
    /// Whether the file carries a chat template; without one, llama.cpp's default is taken.
    pub has_template: bool,
    /// Resident memory of the worker after loading.
    pub resident: Option<Bytes>,
    /// Layers on GPU devices.
    pub gpu_layers: u32,
    /// The worker's process.
    pub pid: u32,
}

/// A handle on a worker with a loaded model. Clones share it; when the last one is dropped the worker is killed.
#[derive(Clone, Debug)]
pub struct Generator {
    // Unbounded, because dropping a stream must be able to cancel; the worker bounds what waits.
    commands: mpsc::UnboundedSender<Command>,
    exited: watch::Receiver<Option<WorkerError>>,
    pid: u32,
}

/// The events of one answer. Dropping it cancels the answer.
#[derive(Debug)]
pub struct GenerationStream {
    replies: mpsc::UnboundedReceiver<Route>,
    cancel: Option<Cancel>,
}

/// What one request gets back: replies, and at most one error, the last.
type Route = Result<Reply, WorkerError>;

#[derive(Debug)]
enum Command {
    Request { request: Request, route: mpsc::UnboundedSender<Route>, id: oneshot::Sender<u64> },
    Cancel { id: u64 },
    Stop { done: oneshot::Sender<()> },
    Abort,
}

/// Cancels a request when dropped. Weak, so that a forgotten stream does not keep a worker alive.
#[derive(Debug)]
struct Cancel {
    commands: mpsc::WeakUnboundedSender<Command>,
    id: oneshot::Receiver<u64>,
}

impl Drop for Cancel {
    fn drop(&mut self) {
        let Some(commands) = self.commands.upgrade() else { return };
        // Where the id has not come yet, the task notices by itself that nobody listens any more.
        if let Ok(id) = self.id.try_recv() {
            let _ = commands.send(Command::Cancel { id });
        }
    }
}

impl Generator {
    /// Starts a worker and loads the model; `progress` gets the share that is loaded, 0 to 1. Dropping the future kills
    /// the worker.
    ///
    /// # Errors
    /// `Refused` with llama.cpp's words when the file or the memory does not do.
    pub async fn start(
        command: &WorkerCommand,
        request: LoadRequest,
        mut progress: impl FnMut(f32) + Send,
    ) -> Result<(Self, Loaded), WorkerError> {
        const LOAD: u64 = 0;
        let mut process = Process::spawn(command)?;
        let load = wire::Load {
            path: convert::path(&request.path),
            settings: Some(convert::settings(&request.settings)),
            threads: request.threads.unwrap_or(0),
            layout: Some(convert::layout(&request.layout)),
        };
        process.send(LOAD, Request::Load(load)).await?;
        let loaded = loop {
            match timeout(command.silence_limit, process.receive()).await {
                Ok(Some(message)) => match message.reply {
                    Some(Reply::Progress(step)) => progress(step.fraction),
                    Some(Reply::Loaded(loaded)) => break loaded,
                    Some(Reply::Refused(refused)) => {
                        process.kill().await;
                        return Err(WorkerError::Refused { reason: refused.reason });
                    }
                    _ => {}
                },
                Ok(None) => return Err(process.died().await),
                Err(_) => return Err(process.hung(command.silence_limit).await),
            }
        };
        let pid = process.pid;
        let loaded = Loaded {
            memory: convert::memory(loaded.memory),
            load_time: Duration::from_micros(loaded.load_us),
            context_per_sequence: loaded.context_per_sequence,
            has_template: loaded.has_template,
            resident: loaded.resident.map(Bytes::new),
            gpu_layers: loaded.gpu_layers,
            pid,
        };
        let (commands, receive) = mpsc::unbounded_channel();
        let (tell_exit, exited) = watch::channel(None);
        tokio::spawn(GeneratorTask::new(process, command.silence_limit).run(receive, tell_exit));
        Ok((Self { commands, exited, pid }, loaded))
    }

    /// Starts an answer. Several may run at once, as many as the settings say; more wait.
    pub fn chat(&self, request: ChatRequest) -> GenerationStream {
        self.request(Request::Chat(convert::chat(request)))
    }

    fn request(&self, request: Request) -> GenerationStream {
        let (route, replies) = mpsc::unbounded_channel();
        let (id, id_receiver) = oneshot::channel();
        let cancel = Cancel { commands: self.commands.downgrade(), id: id_receiver };
        if let Err(mpsc::error::SendError(Command::Request { route, .. })) =
            self.commands.send(Command::Request { request, route, id })
        {
            let _ = route.send(Err(self.exited.borrow().clone().unwrap_or(WorkerError::Stopped)));
        }
        GenerationStream { replies, cancel: Some(cancel) }
    }

    /// Measures (prefill, decode) speed with synthetic tokens, between the steps of running answers.
    ///
    /// # Errors
    /// See [`GenerateError`].
    pub async fn measure(
        &self,
        prefill_tokens: u32,
        decode_tokens: u32,
    ) -> Result<(TokensPerSecond, TokensPerSecond), GenerateError> {
        let mut stream = self.request(Request::Measure(wire::Measure { prefill_tokens, decode_tokens }));
        let nonsense = || WorkerError::Protocol { detail: "a measurement without a speed".into() };
        match stream.replies.recv().await {
            Some(Ok(Reply::Measured(measured))) => {
                let rates = TokensPerSecond::new(measured.prefill).zip(TokensPerSecond::new(measured.decode));
                Ok(rates.ok_or_else(nonsense)?)
            }
            Some(Ok(Reply::Refused(refused))) => Err(GenerateError::BadRequest { message: refused.reason }),
            Some(Err(error)) => Err(error.into()),
            Some(Ok(_)) | None => Err(nonsense().into()),
        }
    }

    /// Waits until the worker has exited, and says how.
    pub async fn exited(&self) -> WorkerError {
        let mut exited = self.exited.clone();
        match exited.wait_for(Option::is_some).await {
            Ok(error) => error.clone().unwrap_or(WorkerError::Stopped),
            // The task ended without a word: its runtime is shutting down.
            Err(_) => WorkerError::Stopped,
        }
    }

    /// The worker's process.
    pub const fn pid(&self) -> u32 {
        self.pid
    }

    /// Ends the worker: first by closing its input, after two seconds by killing it. Returns when it is gone.
    pub async fn stop(self) {
        let (done, gone) = oneshot::channel();
        let _ = self.commands.send(Command::Stop { done });
        let _ = gone.await;
    }

    /// Makes the worker fail as an assertion in llama.cpp does: for tests of what happens then.
    #[doc(hidden)]
    pub fn abort_for_tests(&self) {
        let _ = self.commands.send(Command::Abort);
    }
}

impl GenerationStream {
    /// The next event; `None` after `Finished` or an error. Cancel-safe.
    pub async fn next(&mut self) -> Option<Result<GenerationEvent, GenerateError>> {
        std::future::poll_fn(|context| self.poll_event(context)).await
    }

    fn poll_event(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<GenerationEvent, GenerateError>>> {
        loop {
            if self.cancel.is_none() {
                return Poll::Ready(None);
            }
            let Some(reply) = ready!(self.replies.poll_recv(context)) else {
                self.cancel = None;
                return Poll::Ready(Some(Err(WorkerError::Stopped.into())));
            };
            let event = match reply {
                Ok(Reply::Started(started)) => Ok(GenerationEvent::Started { prompt_tokens: started.prompt_tokens }),
                Ok(Reply::Delta(delta)) => Ok(convert::delta(delta)),
                Ok(Reply::Finished(finished)) => Ok(convert::finished(&finished)),
                Ok(Reply::Overflow(overflow)) => Err(GenerateError::ContextOverflow {
                    prompt_tokens: overflow.prompt_tokens,
                    max_tokens: overflow.max_tokens,
                    context: overflow.context,
                }),
                Ok(Reply::Busy(wire::Busy {})) => Err(GenerateError::Busy),
                Ok(Reply::Refused(refused)) if refused.internal => {
                    Err(WorkerError::Refused { reason: refused.reason }.into())
                }
                Ok(Reply::Refused(refused)) => Err(GenerateError::BadRequest { message: refused.reason }),
                Ok(_) => continue,
                Err(error) => Err(error.into()),
            };
            if matches!(event, Err(_) | Ok(GenerationEvent::Finished { .. })) {
                self.cancel = None;
            }
            return Poll::Ready(Some(event));
        }
    }
}

impl Stream for GenerationStream {
    type Item = Result<GenerationEvent, GenerateError>;
    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.poll_event(context)
    }
}

/// Owns the worker and knows who waits for what.
struct GeneratorTask {
    process: Process,
    /// Frames on their way to the worker.
    frames: mpsc::UnboundedSender<Vec<u8>>,
    writer: JoinHandle<()>,
    routes: HashMap<u64, mpsc::UnboundedSender<Route>>,
    next_id: u64,
    silence_limit: Duration,
}

/// Why the task ends.
enum End {
    Stopped(Option<oneshot::Sender<()>>),
    Gone,
    Silent,
}

impl GeneratorTask {
    fn new(mut process: Process, silence_limit: Duration) -> Self {
        let stdin = process.stdin.take();
        // Unbounded for the same reason as the commands, which it takes as they come.
        let (frames, mut unsent) = mpsc::unbounded_channel::<Vec<u8>>();
        // A task of its own: a worker that hangs lets its pipe fill, and the deadline must still be kept. A pipe that is
        // closed is no error here: the other one tells.
        let writer = tokio::spawn(async move {
            let Some(mut pipe) = stdin else { return };
            while let Some(frame) = unsent.recv().await {
                if pipe.write_all(&frame).await.is_err() {
                    break;
                }
            }
        });
        Self { process, frames, writer, routes: HashMap::new(), next_id: 1, silence_limit }
    }

    fn send(&self, id: u64, request: Request) -> Result<(), WorkerError> {
        let _ = self.frames.send(Process::frame(id, request)?);
        Ok(())
    }

    async fn run(
        mut self,
        mut commands: mpsc::UnboundedReceiver<Command>,
        tell_exit: watch::Sender<Option<WorkerError>>,
    ) {
        let (send_messages, mut messages) = mpsc::channel(64);
        let stdout = self.process.stdout.take();
        // A task of its own, because reading a frame is not cancel-safe. Ends with the pipe.
        let reader = tokio::spawn(async move {
            let Some(mut pipe) = stdout else { return };
            while let Ok(Some(message)) = frame::read_async::<FromWorker>(&mut pipe).await {
                if send_messages.send(message).await.is_err() {
                    break;
                }
            }
        });
        let mut heard = Instant::now();
        let end = loop {
            let waiting = !self.routes.is_empty();
            // Every arm is cancel-safe: channels and a timer.
            tokio::select! {
                command = commands.recv() => match command {
                    None => break End::Stopped(None),
                    Some(Command::Stop { done }) => break End::Stopped(Some(done)),
                    Some(command) => {
                        if !waiting {
                            heard = Instant::now();
                        }
                        self.take(command);
                    }
                },
                message = messages.recv() => match message {
                    None => break End::Gone,
                    Some(message) => {
                        heard = Instant::now();
                        self.route(message);
                    }
                },
                () = sleep_until(heard + self.silence_limit), if waiting => break End::Silent,
            }
        };
        reader.abort();
        // Closes the worker's input, even in the middle of a frame.
        self.writer.abort();
        let _ = self.writer.await;
        let error = match end {
            End::Gone => self.process.died().await,
            End::Silent => self.process.hung(self.silence_limit).await,
            End::Stopped(done) => {
                self.process.end().await;
                if let Some(done) = done {
                    let _ = done.send(());
                }
                WorkerError::Stopped
            }
        };
        for route in self.routes.into_values() {
            let _ = route.send(Err(error.clone()));
        }
        let _ = tell_exit.send(Some(error.clone()));
        // What was asked in the meantime hears it too.
        commands.close();
        while let Some(command) = commands.recv().await {
            match command {
                Command::Request { route, .. } => {
                    let _ = route.send(Err(error.clone()));
                }
                Command::Stop { done } => {
                    let _ = done.send(());
                }
                Command::Cancel { .. } | Command::Abort => {}
            }
        }
    }

    fn take(&mut self, command: Command) {
        match command {
            Command::Request { request, route, id: tell_id } => {
                let id = self.next_id;
                self.next_id += 1;
                if tell_id.send(id).is_err() {
                    return; // dropped before it began
                }
                // Before the prompt leaves: nothing that the worker prints from here on is kept.
                self.process.log.close();
                match self.send(id, request) {
                    Ok(()) => {
                        self.routes.insert(id, route);
                    }
                    Err(error) => {
                        let _ = route.send(Err(error));
                    }
                }
            }
            Command::Cancel { id } => self.cancel(id),
            Command::Abort => {
                let _ = self.send(0, Request::Abort(wire::Abort {}));
            }
            Command::Stop { .. } => {}
        }
    }

    fn cancel(&mut self, id: u64) {
        if self.routes.remove(&id).is_some() {
            let _ = self.send(id, Request::Cancel(wire::Cancel {}));
        }
    }

    fn route(&mut self, message: FromWorker) {
        let Some(reply) = message.reply else { return };
        let last = !matches!(reply, Reply::Started(_) | Reply::Delta(_) | Reply::Progress(_));
        let Some(route) = self.routes.get(&message.id) else { return };
        let heard = route.send(Ok(reply)).is_ok();
        if last {
            self.routes.remove(&message.id);
        } else if !heard {
            self.cancel(message.id);
        }
    }
}
