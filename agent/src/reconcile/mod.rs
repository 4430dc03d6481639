//! [`Reconciler`]: brings the desk to its desired state, and says how far it is.
//!
//! Desired state (on the ledger) → [`diff`] (pure) → apply (downloads, supervisors, files) → [`Observed`]. Woken by a new
//! desired state, by what its own tasks report, and by timers; what woke it does not matter. It does not know whether
//! there is a controller.

mod apply;
mod diff;
mod observe;
mod setback;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use muster_engine::host::atomic_file::write_atomic;
use muster_engine::worker::WorkerCommand;
use muster_proto::{Bytes, DesiredState, Measured, ModelDigest, Observed, Timestamp, Transfer};
use tokio::sync::{Mutex, mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

pub use diff::RunKey;
use diff::{RunnerSituation, Situation, diff};
use setback::Setbacks;

use crate::clock;
use crate::install::{Bandwidth, Blobs, DownloadError, Phase, Store};
use crate::serving::{Running, Serving};
use crate::supervisor::RunEvent;

/// What the reconciler's own tasks report.
#[derive(Debug)]
pub enum Message {
    /// A download goes on.
    Progress(ModelDigest, Phase),
    /// A download ended.
    Downloaded(ModelDigest, Result<Transfer, DownloadError>),
    /// Something happened to a model.
    Run(RunKey, RunEvent),
    /// A file that llama.cpp refused was read again: is it what its name says?
    Verified(ModelDigest, bool),
}

/// Reports on their way.
pub const QUEUE: usize = 64;
/// How soon a full disk is looked at again.
const DISK_CHECK: Duration = Duration::from_secs(10);
/// When a model that llama.cpp refused, perhaps for lack of memory, is tried again.
const REFUSED_RETRY: Duration = Duration::from_mins(5);
/// When a model in a crash loop is tried again.
const CRASHED_RETRY: Duration = Duration::from_hours(1);

/// What the reconciler works with.
#[derive(Debug)]
pub struct Settings {
    /// Where model files lie.
    pub store: Store,
    /// Where they come from.
    pub blobs: Blobs,
    /// How workers are started.
    pub worker: WorkerCommand,
    /// CPU threads of each worker.
    pub threads: Option<u32>,
    /// What stays free on the store's volume.
    pub disk_reserve: Bytes,
    /// How long an unwanted file stays.
    pub removal_grace: Duration,
    /// The cap over all downloads.
    pub bandwidth: Bandwidth,
    /// The cap of each connection.
    pub link_bandwidth: Option<Bytes>,
    /// Where it is written since when which file is unwanted.
    pub unwanted: PathBuf,
    /// Where the desk answers.
    pub endpoint: String,
    /// Held while something is measured.
    pub quiet: Arc<Mutex<()>>,
}

/// The owner of everything that runs and of every file in the store.
#[derive(Debug)]
pub struct Reconciler {
    settings: Settings,
    desired: watch::Receiver<Option<Arc<DesiredState>>>,
    observed: watch::Sender<Observed>,
    serving: watch::Sender<Arc<Serving>>,
    reports: mpsc::Sender<Message>,
    inbox: mpsc::Receiver<Message>,
    tasks: JoinSet<()>,
    runners: BTreeMap<RunKey, Runner>,
    download: Option<ActiveDownload>,
    transfers: BTreeMap<ModelDigest, Transfer>,
    setbacks: Setbacks,
    /// Files that were read again since they came.
    verified: BTreeSet<ModelDigest>,
    unwanted: BTreeMap<ModelDigest, Timestamp>,
    shutdown: CancellationToken,
}

/// A download that runs.
#[derive(Debug)]
struct ActiveDownload {
    digest: ModelDigest,
    cancel: CancellationToken,
    verifying: bool,
}

/// A model that should run.
#[derive(Debug)]
struct Runner {
    state: RunnerState,
    cancel: CancellationToken,
    /// Roles, names and quantizations that it last served: what it goes on with until its successor is here.
    serves: Vec<Serves>,
    stopping: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Serves {
    role: String,
    model: String,
    quantization: String,
}

#[derive(Debug)]
enum RunnerState {
    Loading,
    Loaded(Running),
    Measured(Running, Box<Measured>),
    Restarting { reason: String },
    Failed { reason: String, again_at: Instant },
}

impl RunnerState {
    const fn running(&self) -> Option<&Running> {
        match self {
            Self::Loaded(running) | Self::Measured(running, _) => Some(running),
            _ => None,
        }
    }
}

impl Reconciler {
    /// A reconciler of what `desired` holds.
    pub fn new(
        settings: Settings,
        desired: watch::Receiver<Option<Arc<DesiredState>>>,
        observed: watch::Sender<Observed>,
        serving: watch::Sender<Arc<Serving>>,
    ) -> Self {
        let (reports, inbox) = mpsc::channel(QUEUE);
        let unwanted = read_unwanted(&settings.unwanted);
        Self {
            settings,
            desired,
            observed,
            serving,
            reports,
            inbox,
            tasks: JoinSet::new(),
            runners: BTreeMap::new(),
            download: None,
            transfers: BTreeMap::new(),
            setbacks: Setbacks::default(),
            verified: BTreeSet::new(),
            unwanted,
            shutdown: CancellationToken::new(),
        }
    }

    /// Reconciles until `shutdown`, then stops everything it started.
    pub async fn run(mut self, shutdown: CancellationToken) {
        self.shutdown = shutdown.clone();
        loop {
            self.activate();
            let wake = self.next_wake();
            // Every arm is cancel-safe: channels and timers lose nothing when another arm wins.
            tokio::select! {
                biased;
                () = shutdown.cancelled() => break,
                changed = self.desired.changed() => if changed.is_err() { break },
                Some(message) = self.inbox.recv() => {
                    self.note(message);
                    while let Ok(message) = self.inbox.try_recv() {
                        self.note(message);
                    }
                }
                () = sleep_until(wake) => {}
            }
            while self.tasks.try_join_next().is_some() {}
        }
        self.stop_all().await;
    }

    async fn stop_all(mut self) {
        self.serving.send_replace(Arc::default());
        for runner in self.runners.values() {
            runner.cancel.cancel();
        }
        if let Some(download) = &self.download {
            download.cancel.cancel();
        }
        self.runners.clear();
        // Tasks report before they end; somebody has to listen.
        self.inbox.close();
        while self.tasks.join_next().await.is_some() {}
    }

    /// One pass: look, decide, act, tell.
    fn activate(&mut self) {
        let desired = self.desired.borrow_and_update().clone();
        self.forget_what_is_due(desired.as_deref());
        if let Some(desired) = &desired {
            self.note_names(desired);
        }
        // What was done may make more possible at once; the bound only guards against a mistake.
        for _ in 0..16 {
            let actions = match self.look() {
                Ok(situation) => diff(desired.as_deref(), &situation),
                Err(error) => {
                    tracing::error!(store = %self.settings.store.directory().display(), %error, "cannot read the store");
                    break;
                }
            };
            if actions.is_empty() {
                break;
            }
            let mut acted = false;
            for action in actions {
                acted |= self.apply(action);
            }
            if !acted {
                break;
            }
        }
        self.publish(desired.as_deref());
    }

    /// What is, for [`diff`].
    fn look(&self) -> std::io::Result<Situation> {
        let contents = self.settings.store.contents()?;
        let now = clock::now();
        Ok(Situation {
            files: contents.iter().filter(|file| file.whole).map(|file| (file.digest, file.size)).collect(),
            parts: contents.iter().filter(|file| !file.whole).map(|file| file.digest).collect(),
            downloading: self.download.as_ref().map(|download| download.digest),
            held_back: self.setbacks.digests(),
            runners: self
                .runners
                .iter()
                .map(|(key, runner)| {
                    let roles = runner.serves.iter().map(|serves| serves.role.clone()).collect();
                    (key.clone(), RunnerSituation { roles, stopping: runner.stopping })
                })
                .collect(),
            unwanted: self.unwanted.clone(),
            now,
            grace: self.settings.removal_grace,
        })
    }

    /// Setbacks whose time has come, and those of files that nobody wants any more.
    fn forget_what_is_due(&mut self, desired: Option<&DesiredState>) {
        let wanted: BTreeSet<ModelDigest> =
            desired.iter().flat_map(|state| &state.assignments).map(|assignment| assignment.digest).collect();
        let free = self.setbacks.any_waits_for_space().then(|| self.settings.store.disk().ok()).flatten();
        self.setbacks.release(&wanted, Instant::now(), free.map(|disk| disk.free));
        let now = Instant::now();
        let again: Vec<RunKey> = self
            .runners
            .iter()
            .filter(|(_, runner)| matches!(runner.state, RunnerState::Failed { again_at, .. } if again_at <= now))
            .map(|(key, _)| key.clone())
            .collect();
        for key in again {
            self.runners.remove(&key);
        }
    }

    /// Remembers what each model serves, for when it bridges the way to its successor.
    fn note_names(&mut self, desired: &DesiredState) {
        let mut names: BTreeMap<RunKey, Vec<Serves>> = BTreeMap::new();
        for assignment in &desired.assignments {
            names.entry(RunKey::of(assignment)).or_default().push(Serves {
                role: assignment.role.clone(),
                model: assignment.model.clone(),
                quantization: assignment.quantization.clone(),
            });
        }
        for (key, serves) in names {
            if let Some(runner) = self.runners.get_mut(&key) {
                runner.serves = serves;
            }
        }
    }

    fn next_wake(&self) -> Option<Instant> {
        let now = Instant::now();
        let retries = self.runners.values().filter_map(|runner| match runner.state {
            RunnerState::Failed { again_at, .. } => Some(again_at),
            _ => None,
        });
        let here = clock::now();
        let removals = self.unwanted.values().map(|since| {
            let left = since.plus(self.settings.removal_grace).since(here);
            // At least a second, so that a file which cannot be removed does not spin.
            now + left.max(Duration::from_secs(1))
        });
        let space = self.setbacks.any_waits_for_space().then(|| now + DISK_CHECK);
        retries.chain(removals).chain(space).chain(self.setbacks.next()).min()
    }

    /// Takes in what a task reports.
    fn note(&mut self, message: Message) {
        match message {
            Message::Progress(digest, phase) => {
                if let Some(download) = self.download.as_mut().filter(|download| download.digest == digest) {
                    let (transfer, verifying) = match phase {
                        Phase::Downloading(transfer) => (transfer, false),
                        Phase::Verifying(transfer) => (transfer, true),
                    };
                    download.verifying = verifying;
                    self.transfers.insert(digest, transfer);
                }
            }
            Message::Downloaded(digest, result) => self.note_downloaded(digest, result),
            Message::Run(key, event) => self.note_run(&key, event),
            Message::Verified(digest, true) => tracing::info!(%digest, "the refused file is what its digest says"),
            Message::Verified(digest, false) => {
                tracing::error!(%digest, "the file was damaged on this disk; it is removed and fetched again");
                self.remove_file(&digest);
                // The supervisors of it have ended with their failure.
                self.runners.retain(|key, _| key.digest != digest);
            }
        }
    }

    fn note_downloaded(&mut self, digest: ModelDigest, result: Result<Transfer, DownloadError>) {
        if self.download.as_ref().is_some_and(|download| download.digest == digest) {
            self.download = None;
        }
        match result {
            Ok(transfer) => {
                tracing::info!(%digest, bytes = transfer.done.get(), resumed_from = transfer.resumed_from.get(), "installed");
                self.transfers.insert(digest, transfer);
                self.setbacks.succeeded(&digest);
                self.verified.insert(digest);
            }
            Err(DownloadError::Cancelled) => {}
            Err(error) => {
                tracing::warn!(%digest, error = %crate::error_chain(&error), "not installed");
                if matches!(error, DownloadError::Mismatch { .. }) {
                    // Nothing of it is here any more.
                    self.transfers.remove(&digest);
                }
                self.setbacks.failed(digest, &error, Instant::now(), rand::random());
            }
        }
    }

    fn note_run(&mut self, key: &RunKey, event: RunEvent) {
        let Some(runner) = self.runners.get_mut(key) else { return };
        let digest = key.digest;
        match event {
            RunEvent::Loading => runner.state = RunnerState::Loading,
            RunEvent::Loaded(generator, loaded) => {
                tracing::info!(%digest, pid = loaded.pid, ms = loaded.load_time.as_millis(), "loaded");
                runner.state = RunnerState::Loaded(Running { generator, loaded });
            }
            RunEvent::Measured(measured) => {
                if let Some(running) = runner.state.running().cloned() {
                    runner.state = RunnerState::Measured(running, measured);
                }
            }
            RunEvent::Restarting { reason } => {
                tracing::warn!(%digest, %reason, "the engine worker died; another one starts");
                runner.state = RunnerState::Restarting { reason };
            }
            RunEvent::Failed { reason, refused } => {
                tracing::error!(%digest, %reason, "the model does not run");
                let pause = if refused { REFUSED_RETRY } else { CRASHED_RETRY };
                runner.state = RunnerState::Failed { reason, again_at: Instant::now() + pause };
                if self.verified.insert(digest) {
                    self.verify_again(digest);
                }
            }
            RunEvent::Ended => {
                // A failed one stays, with its reason; one that was stopped makes room.
                if runner.stopping {
                    tracing::info!(%digest, "unloaded");
                    self.runners.remove(key);
                }
            }
        }
    }

    fn verify_again(&mut self, digest: ModelDigest) {
        let (store, reports) = (self.settings.store.clone(), self.reports.clone());
        self.tasks.spawn(async move {
            let intact = tokio::task::spawn_blocking(move || store.verify(&digest)).await;
            let intact = match intact {
                Ok(Ok(intact)) => intact,
                Ok(Err(error)) => {
                    tracing::warn!(%digest, %error, "cannot read the refused file again");
                    true
                }
                Err(_) => true,
            };
            let _ = reports.send(Message::Verified(digest, intact)).await;
        });
    }

    fn remove_file(&mut self, digest: &ModelDigest) -> bool {
        match self.settings.store.remove(digest) {
            Ok(()) => {
                self.verified.remove(digest);
                self.transfers.remove(digest);
                if self.unwanted.remove(digest).is_some() {
                    self.store_unwanted();
                }
                true
            }
            Err(error) => {
                tracing::warn!(%digest, %error, "cannot remove a model file");
                false
            }
        }
    }

    fn store_unwanted(&self) {
        let json = serde_json::to_vec(
            &self.unwanted.iter().map(|(digest, since)| (digest.to_string(), since)).collect::<BTreeMap<_, _>>(),
        )
        .expect("plain data serializes");
        if let Err(error) = write_atomic(&self.settings.unwanted, &json) {
            tracing::warn!(path = %self.settings.unwanted.display(), %error, "cannot note which files are unwanted");
        }
    }
}

/// A missing or damaged note only means that grace times begin anew.
fn read_unwanted(path: &std::path::Path) -> BTreeMap<ModelDigest, Timestamp> {
    std::fs::read(path)
        .ok()
        .and_then(|content| serde_json::from_slice::<BTreeMap<ModelDigest, Timestamp>>(&content).ok())
        .unwrap_or_default()
}

async fn sleep_until(wake: Option<Instant>) {
    match wake {
        Some(wake) => tokio::time::sleep_until(wake).await,
        None => std::future::pending().await,
    }
}
