//! [`Surveyor`]: keeps the inventory and the benchmark, on disk and for whoever watches.
//!
//! A restart has both at once from disk. The benchmark runs when the hardware or the engine is another one than was
//! measured, and when somebody asks; never twice at once, and never beside the loading of a model.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use muster_engine::host::atomic_file::write_atomic;
use muster_engine::worker::{WorkerCommand, WorkerError};
use muster_proto::{Benchmark, BenchmarkKind, Bytes, Inventory};
use serde::de::DeserializeOwned;
use tokio::sync::{Mutex, mpsc, watch};
use tokio_util::sync::CancellationToken;

use crate::bench;
use crate::probe::{self, Probe};
use crate::serving::Serving;
use crate::state::Paths;

/// How long a benchmark that nobody asked for waits until the desk is idle; then it measures, and says that it was not.
const IDLE_WAIT: Duration = Duration::from_mins(10);
/// How long one waits that somebody asked for.
const IDLE_WAIT_ASKED: Duration = Duration::from_secs(10);
/// The same where a few seconds are all there is.
const IDLE_WAIT_QUICK: Duration = Duration::from_secs(1);
/// How often the inventory is looked at again without being asked: what is free on the disk and in memory changes.
const REFRESH: Duration = Duration::from_mins(15);
/// Free memory and disk that differ by less than this share of the total are no news.
const NEWS_SHARE: u64 = 20;

/// What may be asked.
#[derive(Debug)]
pub enum SurveyRequest {
    /// Look again.
    Inventory,
    /// Measure again.
    Benchmark {
        /// How thoroughly.
        kind: BenchmarkKind,
        /// Hears how far it is and how it ended.
        updates: Option<mpsc::Sender<BenchUpdate>>,
    },
}

/// How a benchmark goes.
#[derive(Clone, Debug)]
pub enum BenchUpdate {
    /// It goes on.
    Progress {
        /// What is being done.
        step: String,
        /// Share of the steps that are done, 0 to 1.
        fraction: f32,
    },
    /// It ended.
    Done(Arc<Benchmark>),
    /// It failed.
    Failed(String),
}

/// The owner of inventory and benchmark.
#[derive(Debug)]
pub struct Surveyor {
    /// The state directory.
    pub paths: Paths,
    /// The model store.
    pub store: PathBuf,
    /// How workers are started.
    pub worker: WorkerCommand,
    /// CPU threads.
    pub threads: Option<u32>,
    /// Whether it may measure without being asked.
    pub automatic: bool,
    /// Held while something is measured.
    pub quiet: Arc<Mutex<()>>,
    /// What the agent runs itself.
    pub serving: watch::Receiver<Arc<Serving>>,
    /// Hears of every new inventory.
    pub inventory: watch::Sender<Option<Arc<Inventory>>>,
    /// Hears of every new benchmark.
    pub benchmark: watch::Sender<Option<Arc<Benchmark>>>,
    /// Failures of the start, which belong into the inventory.
    pub failures: Vec<muster_proto::ProbeFailure>,
}

/// The newest stored inventory and benchmark.
pub fn stored(paths: &Paths) -> (Option<Arc<Inventory>>, Option<Arc<Benchmark>>) {
    (read(&paths.inventory()).map(Arc::new), read(&paths.benchmark()).map(Arc::new))
}

/// A file that is missing or damaged is made again anyway.
fn read<T: DeserializeOwned>(path: &std::path::Path) -> Option<T> {
    serde_json::from_slice(&std::fs::read(path).ok()?).ok()
}

impl Surveyor {
    /// Answers requests until `shutdown`.
    pub async fn run(mut self, mut requests: mpsc::Receiver<SurveyRequest>, shutdown: CancellationToken) {
        // Cancel-safe: a worker is killed when its future is dropped, and files are written whole.
        tokio::select! {
            biased;
            () = shutdown.cancelled() => {}
            () = self.serve(&mut requests) => {}
        }
    }

    async fn serve(&mut self, requests: &mut mpsc::Receiver<SurveyRequest>) {
        self.look(true).await;
        if self.automatic && self.benchmark_is_due() {
            self.measure(BenchmarkKind::Standard, None).await;
        }
        loop {
            // Cancel-safe: a channel and a timer.
            let request = tokio::select! {
                request = requests.recv() => request,
                () = tokio::time::sleep(REFRESH) => {
                    self.look(false).await;
                    continue;
                }
            };
            match request {
                Some(SurveyRequest::Inventory) => self.look(true).await,
                Some(SurveyRequest::Benchmark { kind, updates }) => self.measure(kind, updates).await,
                None => return,
            }
        }
    }

    /// Looks at the machine; tells it if `asked` or if there is news.
    async fn look(&mut self, asked: bool) {
        let probe =
            Probe { store: self.store.clone(), worker: self.worker.clone(), serving: self.serving.borrow().clone() };
        let mut inventory = probe::collect(&probe).await;
        inventory.failures.extend(self.failures.iter().cloned());
        let old = self.inventory.borrow().clone();
        if !asked && old.is_some_and(|old| !is_news(&old, &inventory)) {
            return;
        }
        for failure in &inventory.failures {
            tracing::warn!(probe = %failure.probe, reason = %failure.reason, "could not be read");
        }
        store(&self.paths.inventory(), &inventory);
        self.inventory.send_replace(Some(Arc::new(inventory)));
    }

    /// Whether what was measured is not what is here. Without the list of devices nothing can be said.
    fn benchmark_is_due(&self) -> bool {
        let inventory = self.inventory.borrow();
        let Some(inventory) = inventory.as_ref().filter(|inventory| !inventory.devices.is_empty()) else {
            return false;
        };
        self.benchmark.borrow().as_ref().is_none_or(|benchmark| {
            benchmark.hardware_fingerprint != inventory.hardware_fingerprint
                || benchmark.engine_build != inventory.engine_build
        })
    }

    async fn measure(&mut self, kind: BenchmarkKind, updates: Option<mpsc::Sender<BenchUpdate>>) {
        let tell = |update| {
            if let Some(updates) = &updates {
                // A full queue only loses progress; the end is sent below.
                let _ = updates.try_send(update);
            }
        };
        let fingerprint = self.inventory.borrow().as_ref().map(|inventory| inventory.hardware_fingerprint.clone());
        tell(BenchUpdate::Progress { step: "waiting until no model is loading".into(), fraction: 0.0 });
        let quiet = self.quiet.lock().await;
        tracing::info!(kind = kind.word(), "benchmark begins");
        let result = measure(
            &self.worker,
            &self.paths,
            &self.store,
            self.threads,
            kind,
            if updates.is_some() { asked_wait(kind) } else { IDLE_WAIT },
            fingerprint.unwrap_or_default(),
            |step, fraction| tell(BenchUpdate::Progress { step, fraction }),
        )
        .await;
        drop(quiet);
        let end = match result {
            Ok(benchmark) => {
                tracing::info!(ms = benchmark.took_ms, points = benchmark.points.len(), "benchmark done");
                let benchmark = Arc::new(benchmark);
                self.benchmark.send_replace(Some(Arc::clone(&benchmark)));
                BenchUpdate::Done(benchmark)
            }
            Err(error) => {
                let reason = crate::error_chain(&error);
                tracing::warn!(%reason, "benchmark failed");
                BenchUpdate::Failed(reason)
            }
        };
        if let Some(updates) = updates {
            let _ = updates.send(end).await;
        }
    }
}

/// How long a benchmark that somebody asked for waits until the desk is idle.
pub fn asked_wait(kind: BenchmarkKind) -> Duration {
    if kind == BenchmarkKind::Quick { IDLE_WAIT_QUICK } else { IDLE_WAIT_ASKED }
}

/// Measures this machine and stores the result; one that was cut off does not replace a whole one of the same hardware.
///
/// # Errors
/// The engine worker failed, or the desk was needed before anything was measured.
#[expect(clippy::too_many_arguments, reason = "what a benchmark needs to know of an agent")]
pub async fn measure(
    worker: &WorkerCommand,
    paths: &Paths,
    volume: &std::path::Path,
    threads: Option<u32>,
    kind: BenchmarkKind,
    wait: Duration,
    hardware_fingerprint: String,
    progress: impl FnMut(String, f32) + Send,
) -> Result<Benchmark, WorkerError> {
    let scratch = paths.scratch();
    let job = bench::Job { worker, scratch: &scratch, store: volume, threads, kind, hardware_fingerprint, wait };
    let benchmark = bench::measure(job, progress).await?;
    let whole = |benchmark: &Benchmark| benchmark.conditions.stopped_by.is_none();
    let known: Option<Benchmark> = read(&paths.benchmark());
    let better = known.is_some_and(|known| {
        let same = |field: fn(&Benchmark) -> &str| field(&known) == field(&benchmark);
        whole(&known) && !whole(&benchmark) && same(|b| &b.hardware_fingerprint) && same(|b| &b.engine_build)
    });
    if !better {
        store(&paths.benchmark(), &benchmark);
    }
    Ok(benchmark)
}

fn store<T: serde::Serialize>(path: &std::path::Path, value: &T) {
    let json = serde_json::to_vec_pretty(value).expect("plain data serializes");
    if let Err(error) = write_atomic(path, &json) {
        tracing::warn!(path = %path.display(), %error, "cannot be stored");
    }
}

/// Whether an inventory says something that the old one did not.
fn is_news(old: &Inventory, new: &Inventory) -> bool {
    let far = |old: Bytes, new: Bytes, total: Bytes| old.get().abs_diff(new.get()) > total.get() / NEWS_SHARE;
    let free_memory_moved = far(old.memory.available, new.memory.available, new.memory.total);
    let disk_moved = match (old.store_disk, new.store_disk) {
        (Some(old), Some(new)) => far(old.free, new.free, new.total),
        (old, new) => old.is_some() != new.is_some(),
    };
    let device_moved =
        old.devices.iter().zip(&new.devices).any(|(old, new)| match (old.memory_free, new.memory_free) {
            (Some(before), Some(now)) => far(before, now, new.memory_total.unwrap_or(now)),
            (before, now) => before.is_some() != now.is_some(),
        });
    // Everything but what moves all the time.
    let still = |inventory: &Inventory| {
        let mut inventory = inventory.clone();
        inventory.collected_at = muster_proto::Timestamp::from_unix_millis(0);
        inventory.memory.available = Bytes::ZERO;
        inventory.store_disk = None;
        for device in &mut inventory.devices {
            device.memory_free = None;
        }
        inventory
    };
    free_memory_moved || disk_moved || device_moved || still(old) != still(new)
}

#[cfg(test)]
mod tests {
    use muster_proto::{Cpu, Disk, Memory, Os, Timestamp};

    use super::*;

    fn inventory(available: Bytes, free: Bytes) -> Inventory {
        Inventory {
            collected_at: Timestamp::from_unix_millis(1),
            hostname: "desk".into(),
            hardware_fingerprint: "f".into(),
            os: Os { platform: "linux-x86_64".into(), name: None, kernel: None },
            cpu: Cpu { brand: None, physical_cores: None, threads: 2, features: vec![] },
            memory: Memory { total: Bytes::from_gib(16), available },
            devices: vec![],
            store_disk: Some(Disk { total: Bytes::from_gib(100), free }),
            engine_build: "b".into(),
            failures: vec![],
            hardware: muster_proto::Hardware::default(),
        }
    }

    #[test]
    fn small_movements_are_no_news() {
        let old = inventory(Bytes::from_gib(8), Bytes::from_gib(50));
        let mut same = inventory(Bytes::from_mib(8 * 1024 - 700), Bytes::from_gib(46));
        same.collected_at = Timestamp::from_unix_millis(99);
        assert!(!is_news(&old, &same));
        assert!(is_news(&old, &inventory(Bytes::from_gib(6), Bytes::from_gib(50))));
        assert!(is_news(&old, &inventory(Bytes::from_gib(8), Bytes::from_gib(40))));
        let mut renamed = old.clone();
        renamed.hostname = "other".into();
        assert!(is_news(&old, &renamed));
    }
}
