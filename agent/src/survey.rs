//! [`Surveyor`]: keeps the inventory and the benchmark, on disk and for whoever watches.
//!
//! A restart has both at once from disk. The benchmark runs when the hardware or the engine is another one than was
//! measured, and when somebody asks; never twice at once, and never beside the loading of a model.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use muster_engine::host::atomic_file::write_atomic;
use muster_engine::worker::{self, BenchRequest, WorkerCommand, WorkerError};
use muster_proto::{Benchmark, Bytes, Inventory};
use serde::de::DeserializeOwned;
use tokio::sync::{Mutex, mpsc, watch};
use tokio_util::sync::CancellationToken;

use crate::clock;
use crate::probe::{self, Probe};
use crate::serving::Serving;
use crate::state::Paths;

/// How long a benchmark measures at most.
const BUDGET: Duration = Duration::from_secs(20);
/// See [`BUDGET`], for the quick one.
const QUICK_BUDGET: Duration = Duration::from_secs(6);
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
        /// A few seconds only.
        quick: bool,
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
            self.measure(false, None).await;
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
                Some(SurveyRequest::Benchmark { quick, updates }) => self.measure(quick, updates).await,
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

    async fn measure(&mut self, quick: bool, updates: Option<mpsc::Sender<BenchUpdate>>) {
        let tell = |update| {
            if let Some(updates) = &updates {
                // A full queue only loses progress; the end is sent below.
                let _ = updates.try_send(update);
            }
        };
        let fingerprint = self.inventory.borrow().as_ref().map(|inventory| inventory.hardware_fingerprint.clone());
        tell(BenchUpdate::Progress { step: "waiting until no model is loading".into(), fraction: 0.0 });
        let quiet = self.quiet.lock().await;
        tracing::info!(quick, "benchmark begins");
        let result = measure(
            &self.worker,
            &self.paths,
            self.threads,
            quick,
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

/// Measures this machine and stores the result.
///
/// # Errors
/// The engine worker failed.
pub async fn measure(
    worker: &WorkerCommand,
    paths: &Paths,
    threads: Option<u32>,
    quick: bool,
    hardware_fingerprint: String,
    mut progress: impl FnMut(String, f32) + Send,
) -> Result<Benchmark, WorkerError> {
    let scratch_dir = paths.scratch();
    if let Err(error) = std::fs::create_dir_all(&scratch_dir) {
        return Err(WorkerError::Refused { reason: format!("cannot create {}: {error}", scratch_dir.display()) });
    }
    let (measured_at, began) = (clock::now(), Instant::now());
    let budget = if quick { QUICK_BUDGET } else { BUDGET };
    let request = BenchRequest { scratch_dir: scratch_dir.clone(), budget, threads, quick };
    let points = worker::bench(worker, request, |at| progress(at.step, at.fraction)).await;
    // Models of random weights are of no use afterwards, whatever happened.
    let _ = std::fs::remove_dir_all(&scratch_dir);
    let benchmark = Benchmark {
        measured_at,
        took_ms: u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX),
        engine_build: muster_engine::BUILD.into(),
        hardware_fingerprint,
        points: points?,
        conditions: muster_proto::Conditions::default(),
        parts: vec![],
    };
    store(&paths.benchmark(), &benchmark);
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
    let gpus = old.hardware.gpus.iter().zip(&new.hardware.gpus);
    let gpu_moved = gpus.into_iter().any(|(old, new)| match (old.memory_free, new.memory_free) {
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
        for gpu in &mut inventory.hardware.gpus {
            gpu.memory_free = None;
            gpu.temperature_celsius = None;
            gpu.throttle_reasons = vec![];
            gpu.power_limit_watts = None;
            gpu.used_by = vec![];
            // An idle card lowers its link.
            if let Some(link) = &mut gpu.pcie {
                link.generation = None;
                link.width = None;
            }
        }
        inventory.hardware.typical = None;
        inventory
    };
    free_memory_moved || disk_moved || device_moved || gpu_moved || still(old) != still(new)
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

    #[test]
    fn a_warm_card_is_no_news_and_a_full_one_is() {
        let gpu = r#"{"name": "RTX 3090", "vendor": "nvidia", "kind": "discrete_gpu", "unified_memory": false,
            "memory_total": 25769803776, "memory_free": 24000000000, "temperature_celsius": 40.0,
            "pcie": {"generation": 1, "width": 16, "generation_max": 4, "width_max": 16}}"#;
        let mut old = inventory(Bytes::from_gib(8), Bytes::from_gib(50));
        old.hardware.gpus = vec![serde_json::from_str(gpu).expect("a GPU")];
        let mut warm = old.clone();
        let card = &mut warm.hardware.gpus[0];
        card.temperature_celsius = Some(83.0);
        card.throttle_reasons = vec!["sw_thermal_slowdown".into()];
        card.pcie = card.pcie.map(|link| muster_proto::PcieLink { generation: Some(4), ..link });
        card.memory_free = Some(Bytes::new(23_500_000_000));
        assert!(!is_news(&old, &warm));
        warm.hardware.gpus[0].memory_free = Some(Bytes::from_gib(2));
        assert!(is_news(&old, &warm));
        let mut unplugged = old.clone();
        unplugged.hardware.chassis.on_mains = Some(false);
        assert!(is_news(&old, &unplugged));
    }
}
