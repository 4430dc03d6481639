//! [`Surveyor`]: keeps the inventory and the benchmark, on disk and for whoever watches.
//!
//! A restart has both at once from disk. The benchmark runs when the hardware, a driver or the engine is another one than
//! was measured, and when somebody asks; never twice at once (who asks meanwhile joins it), and never beside the loading of
//! a model.

use std::collections::{BTreeSet, VecDeque};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use muster_engine::host::atomic_file::write_atomic;
use muster_engine::worker::{WorkerCommand, WorkerError};
use muster_proto::{Benchmark, BenchmarkKind, Inventory, TypicalUse};
use serde::de::DeserializeOwned;
use tokio::sync::{Mutex, mpsc, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::bench::{self, power};
use crate::measured::{self, Held};
use crate::news::{is_news, use_is_news};
use crate::probe::{Looker, Probe};
use crate::roots::Roots;
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

/// What may be asked.
#[derive(Debug)]
pub enum SurveyRequest {
    /// Look again, and tell what there is.
    Inventory,
    /// Something changed: look again, and tell what is news.
    Changed {
        /// Whether cards or drivers did: then cards that sleep are woken to look at them.
        cards: bool,
    },
    /// Measure again. Joins one that runs, if that is as thorough.
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
    /// Where the kernel shows this machine.
    pub roots: Roots,
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
    /// What is typically free.
    pub typical: watch::Receiver<Option<Arc<TypicalUse>>>,
    /// Hears of every new inventory.
    pub inventory: watch::Sender<Option<Arc<Inventory>>>,
    /// Hears of every new benchmark.
    pub benchmark: watch::Sender<Option<Arc<Benchmark>>>,
    /// Failures of the start, which belong into the inventory.
    pub failures: Vec<muster_proto::ProbeFailure>,
    /// Who waits for a benchmark; nobody at first.
    pub waiting: VecDeque<Asked>,
    /// When it may measure unasked again; at once at first.
    pub attempt_at: Option<Instant>,
    /// What drivers said; nothing at first.
    pub looker: Looker,
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
        self.look(true, true).await;
        let mut refresh = Instant::now() + REFRESH;
        loop {
            if let Some(asked) = self.waiting.pop_front() {
                self.measure(asked, requests).await;
                continue;
            }
            if self.automatic && self.benchmark_is_due() {
                self.attempt_at = Some(Instant::now() + REFRESH);
                self.measure(Asked { kind: BenchmarkKind::Standard, listeners: vec![] }, requests).await;
                continue;
            }
            // Cancel-safe: a channel, a watch and a timer.
            tokio::select! {
                request = requests.recv() => match request {
                    Some(SurveyRequest::Inventory) => self.look(true, true).await,
                    Some(SurveyRequest::Changed { cards }) => self.look(false, cards).await,
                    Some(SurveyRequest::Benchmark { kind, updates }) => {
                        self.waiting.push_back(Asked { kind, listeners: updates.into_iter().collect() });
                    }
                    None => return,
                },
                Ok(()) = self.typical.changed() => self.note_typical(),
                () = tokio::time::sleep_until(refresh) => {
                    refresh = Instant::now() + REFRESH;
                    self.look(false, false).await;
                }
            }
        }
    }

    /// Puts what is typically free into the inventory, where that is news; without looking at anything else.
    fn note_typical(&self) {
        let typical = self.typical.borrow().as_deref().cloned();
        let old = self.inventory.borrow().clone();
        if let Some(old) = old.filter(|old| use_is_news(old.hardware.typical.as_ref(), typical.as_ref(), old)) {
            let mut inventory = (*old).clone();
            inventory.hardware.typical = typical;
            store(&self.paths.inventory(), &inventory);
            self.inventory.send_replace(Some(Arc::new(inventory)));
        }
    }

    /// Looks at the machine; tells it if `asked` or if there is news. Only with `wake` are drivers asked while a graphics card
    /// sleeps.
    async fn look(&mut self, asked: bool, wake: bool) {
        let probe = Probe {
            roots: self.roots.clone(),
            store: self.store.clone(),
            worker: self.worker.clone(),
            serving: self.serving.borrow().clone(),
        };
        let mut inventory = self.looker.look(&probe, wake).await;
        inventory.failures.extend(self.failures.iter().cloned());
        inventory.hardware.typical = self.typical.borrow_and_update().as_deref().cloned();
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

    /// Whether to measure unasked: what was measured is not what is here, and the last try was not just now.
    fn benchmark_is_due(&self) -> bool {
        let inventory = self.inventory.borrow();
        let again = self.attempt_at.is_none_or(|at| Instant::now() >= at);
        let benchmark = self.benchmark.borrow();
        let due = inventory.as_ref().is_some_and(|inventory| is_due(inventory, benchmark.as_deref()));
        again && (due || benchmark.as_deref().is_some_and(|benchmark| wants_mains(benchmark, &self.roots)))
    }

    /// Measures once, for all who ask for no more than this meanwhile.
    async fn measure(&mut self, asked: Asked, requests: &mut mpsc::Receiver<SurveyRequest>) {
        let Asked { kind, mut listeners } = asked;
        let inventory = self.inventory.borrow().clone();
        let (fingerprint, drivers) = inventory
            .map(|inventory| (inventory.hardware_fingerprint.clone(), drivers(&inventory)))
            .unwrap_or_default();
        let (steps, mut told) = mpsc::channel(16);
        let (worker, paths, volume, threads, quiet) =
            (self.worker.clone(), self.paths.clone(), self.store.clone(), self.threads, Arc::clone(&self.quiet));
        let roots = self.roots.clone();
        let prefers_mains = listeners.is_empty();
        let wait = if listeners.is_empty() { IDLE_WAIT } else { asked_wait(kind) };
        let work = async move {
            let _quiet = quiet.lock().await;
            tracing::info!(%kind, "benchmark begins");
            // A full queue only loses progress.
            let progress = |step, fraction| drop(steps.try_send((step, fraction)));
            let job = bench::Job {
                worker: &worker,
                scratch: &paths.scratch(),
                roots: &roots,
                store: &volume,
                threads,
                kind,
                hardware_fingerprint: fingerprint,
                drivers,
                prefers_mains,
                wait,
            };
            measure(&paths, job, progress).await
        };
        let mut work = std::pin::pin!(work);
        let mut newest = BenchUpdate::Progress { step: "waiting until no model is loading".into(), fraction: 0.0 };
        tell(&listeners, &newest);
        let mut look = None;
        let result = loop {
            // Cancel-safe: the work is only polled, the channels lose nothing.
            tokio::select! {
                result = &mut work => break result,
                Some((step, fraction)) = told.recv() => {
                    newest = BenchUpdate::Progress { step, fraction };
                    tell(&listeners, &newest);
                }
                request = requests.recv() => match request {
                    Some(SurveyRequest::Benchmark { kind: also, updates }) => {
                        let updates: Vec<_> = updates.into_iter().collect();
                        if thoroughness(also) <= thoroughness(kind) {
                            tell(&updates, &newest);
                            listeners.extend(updates);
                        } else if let Some(next) = self.waiting.iter_mut().find(|next| next.kind == also) {
                            next.listeners.extend(updates);
                        } else {
                            self.waiting.push_back(Asked { kind: also, listeners: updates });
                        }
                    }
                    Some(SurveyRequest::Inventory) => look = Some((true, true)),
                    Some(SurveyRequest::Changed { cards }) => {
                        let (asked, wake) = look.unwrap_or_default();
                        look = Some((asked, wake || cards));
                    }
                    None => return,
                },
            }
        };
        let end = match result {
            Ok((benchmark, held)) => {
                tracing::info!(ms = benchmark.took_ms, points = benchmark.points.len(), "benchmark done");
                self.benchmark.send_replace(held.main.map(Arc::new));
                BenchUpdate::Done(Arc::new(benchmark))
            }
            Err(error) => {
                let reason = crate::error_chain(&error);
                tracing::warn!(%reason, "benchmark failed");
                BenchUpdate::Failed(reason)
            }
        };
        for listener in listeners {
            let _ = listener.send(end.clone()).await;
        }
        if let Some((asked, wake)) = look {
            self.look(asked, wake).await;
        }
    }
}

/// Somebody who wants a benchmark, or several who want the same.
#[derive(Debug)]
pub struct Asked {
    kind: BenchmarkKind,
    listeners: Vec<mpsc::Sender<BenchUpdate>>,
}

fn tell(listeners: &[mpsc::Sender<BenchUpdate>], update: &BenchUpdate) {
    for listener in listeners {
        let _ = listener.try_send(update.clone());
    }
}

/// Orders kinds by what they cover. One of a newer controller is taken for the usual.
pub fn thoroughness(kind: BenchmarkKind) -> u8 {
    match kind {
        BenchmarkKind::Quick => 0,
        BenchmarkKind::Full => 2,
        _ => 1,
    }
}

/// The drivers of an inventory's GPUs, sorted, each once.
pub fn drivers(inventory: &Inventory) -> Vec<String> {
    let drivers: BTreeSet<_> = inventory.hardware.gpus.iter().filter_map(|gpu| gpu.driver.clone()).collect();
    drivers.into_iter().collect()
}

/// Whether what was measured is not what is here: other hardware, another engine, other drivers. Without the list of devices
/// nothing can be said.
pub fn is_due(inventory: &Inventory, benchmark: Option<&Benchmark>) -> bool {
    if inventory.devices.is_empty() {
        return false;
    }
    benchmark.is_none_or(|benchmark| {
        let measured: BTreeSet<_> = benchmark.conditions.drivers.iter().cloned().collect();
        let here = drivers(inventory);
        // An older build did not say which drivers it measured; a probe that failed does not say which there are.
        let other_drivers = benchmark.conditions.kind.is_some() && !here.is_empty() && !here.iter().eq(measured.iter());
        benchmark.hardware_fingerprint != inventory.hardware_fingerprint
            || benchmark.engine_build != inventory.engine_build
            || other_drivers
    })
}

/// Whether it was measured on battery, for want of anything better, and mains power is there now. By the same look at the
/// power supplies as the benchmark's own: a charger that is too weak would have it measured for ever.
pub fn wants_mains(benchmark: &Benchmark, roots: &Roots) -> bool {
    measured::is_on_battery(benchmark) && power::on_mains(&roots.sys) == Some(true)
}

/// How long a benchmark that somebody asked for waits until the desk is idle.
pub fn asked_wait(kind: BenchmarkKind) -> Duration {
    if kind == BenchmarkKind::Quick { IDLE_WAIT_QUICK } else { IDLE_WAIT_ASKED }
}

/// Measures this machine and keeps the result: as it came, and all that is kept now.
///
/// # Errors
/// The engine worker failed, or the desk was needed before anything was measured.
pub async fn measure(
    paths: &Paths,
    job: bench::Job<'_>,
    progress: impl FnMut(String, f32) + Send,
) -> Result<(Benchmark, Held), WorkerError> {
    Ok(measured::store(paths, bench::measure(job, progress).await?))
}

pub(crate) fn store<T: serde::Serialize>(path: &std::path::Path, value: &T) {
    let json = serde_json::to_vec_pretty(value).expect("plain data serializes");
    if let Err(error) = write_atomic(path, &json) {
        tracing::warn!(path = %path.display(), %error, "cannot be stored");
    }
}

#[cfg(test)]
mod tests {
    use muster_engine::worker::WorkerCommand;
    use muster_proto::{Bytes, Conditions, Device, DeviceKind, Gpu, GpuVendor, Timestamp, TypicalUse};

    use super::*;

    fn desk(driver: Option<&str>) -> Inventory {
        let mut inventory = crate::news::tests::inventory(Bytes::from_gib(8), Bytes::from_gib(50));
        inventory.devices = vec![Device {
            name: "CPU".into(),
            description: String::new(),
            kind: DeviceKind::Cpu,
            backend: "CPU".into(),
            memory_total: None,
            memory_free: None,
            pci_bus_id: None,
            uuid: None,
            driver: None,
        }];
        inventory.hardware.gpus = vec![Gpu {
            name: "a card".into(),
            vendor: GpuVendor::Nvidia,
            kind: DeviceKind::DiscreteGpu,
            pci_bus_id: None,
            pci_id: None,
            uuid: None,
            driver: driver.map(str::to_owned),
            memory_total: None,
            memory_free: None,
            memory_shared: None,
            unified_memory: false,
            compute_capability: None,
            cuda_version: None,
            pcie: None,
            power_limit_watts: None,
            temperature_celsius: None,
            throttle_reasons: vec![],
            ecc: None,
            mig: None,
            slice_of: None,
            used_by: vec![],
            engine_device: None,
            obstacle: None,
            sources: vec![],
        }];
        inventory
    }

    fn measured(inventory: &Inventory) -> Benchmark {
        Benchmark {
            measured_at: Timestamp::from_unix_millis(0),
            took_ms: 1,
            engine_build: inventory.engine_build.clone(),
            hardware_fingerprint: inventory.hardware_fingerprint.clone(),
            points: vec![],
            conditions: Conditions {
                kind: Some(BenchmarkKind::Standard),
                drivers: drivers(inventory),
                ..Conditions::default()
            },
            parts: vec![],
            on_battery: vec![],
        }
    }

    #[test]
    fn other_hardware_drivers_or_engines_are_measured_anew() {
        let desk_now = desk(Some("nvidia 580.95"));
        let done = measured(&desk_now);
        assert!(is_due(&desk_now, None));
        assert!(!is_due(&desk_now, Some(&done)));
        assert!(is_due(&desk(Some("nvidia 590.11")), Some(&done)), "a driver");
        assert!(!is_due(&desk(None), Some(&done)), "a probe that did not say");
        assert!(is_due(&desk_now, Some(&measured(&desk(None)))), "a driver where none was");
        let old = Benchmark { conditions: Conditions::default(), ..done.clone() };
        assert!(!is_due(&desk_now, Some(&old)), "an older build did not tell drivers");
        assert!(is_due(&desk_now, Some(&Benchmark { engine_build: "other".into(), ..done.clone() })));
        assert!(is_due(&desk_now, Some(&Benchmark { hardware_fingerprint: "other".into(), ..done.clone() })));
        let blind = Inventory { devices: vec![], ..desk_now };
        assert!(!is_due(&blind, None));
    }

    fn surveyor(folder: &std::path::Path) -> (Surveyor, watch::Receiver<Option<Arc<Inventory>>>) {
        let (inventory, inventories) = watch::channel(None);
        let surveyor = Surveyor {
            paths: Paths::new(folder),
            roots: Roots::of_this_machine(),
            store: folder.to_owned(),
            // No such program: each benchmark fails, but only when it may begin.
            worker: WorkerCommand::new(folder.join("no-worker")),
            threads: Some(1),
            automatic: false,
            quiet: Arc::default(),
            serving: watch::channel(Arc::default()).1,
            typical: watch::channel(None).1,
            inventory,
            benchmark: watch::channel(None).0,
            failures: vec![],
            waiting: VecDeque::new(),
            attempt_at: None,
            looker: Looker::default(),
        };
        (surveyor, inventories)
    }

    async fn end(updates: &mut mpsc::Receiver<BenchUpdate>) -> (usize, String) {
        let mut steps = 0;
        loop {
            match updates.recv().await.expect("an end") {
                BenchUpdate::Progress { .. } => steps += 1,
                BenchUpdate::Failed(reason) => return (steps, reason),
                BenchUpdate::Done(_) => panic!("there is no worker"),
            }
        }
    }

    #[tokio::test]
    async fn who_asks_while_one_runs_joins_it_and_who_wants_more_comes_after() {
        let folder = tempfile::tempdir().expect("a temporary directory");
        let (surveyor, _inventories) = surveyor(folder.path());
        let quiet = Arc::clone(&surveyor.quiet);
        let loading = quiet.lock().await;
        let (requests, queue) = mpsc::channel(8);
        let shutdown = CancellationToken::new();
        let task = tokio::spawn(surveyor.run(queue, shutdown.clone()));
        let ask = async |kind| {
            let (updates, told) = mpsc::channel(8);
            requests.send(SurveyRequest::Benchmark { kind, updates: Some(updates) }).await.expect("it listens");
            told
        };
        let mut first = ask(BenchmarkKind::Standard).await;
        assert!(matches!(first.recv().await, Some(BenchUpdate::Progress { .. })), "it runs");
        let mut joined = ask(BenchmarkKind::Quick).await;
        assert!(matches!(joined.recv().await, Some(BenchUpdate::Progress { .. })), "it hears how far the first is");
        let mut more = ask(BenchmarkKind::Full).await;
        drop(loading);
        let (_, one) = end(&mut first).await;
        assert_eq!(end(&mut joined).await.1, one);
        let (steps, _) = end(&mut more).await;
        assert!(steps >= 1, "the third one is a run of its own");
        shutdown.cancel();
        task.await.expect("no panic");
    }

    #[tokio::test]
    async fn what_is_typical_joins_the_inventory_without_another_look() {
        let folder = tempfile::tempdir().expect("a temporary directory");
        let (mut surveyor, mut inventories) = surveyor(folder.path());
        let (typical, receiver) = watch::channel(None);
        surveyor.typical = receiver;
        let (_requests, queue) = mpsc::channel(8);
        let shutdown = CancellationToken::new();
        let task = tokio::spawn(surveyor.run(queue, shutdown.clone()));
        let first = inventories.wait_for(Option::is_some).await.expect("a look").clone().expect("some");
        assert_eq!(first.hardware.typical, None);
        let usual = TypicalUse {
            since: Timestamp::from_unix_millis(0),
            until: Timestamp::from_unix_millis(1),
            samples: 480,
            memory_available: Bytes::from_gib(1),
            devices: vec![],
        };
        typical.send_replace(Some(Arc::new(usual.clone())));
        let told =
            |inventory: &Option<Arc<Inventory>>| inventory.as_ref().is_some_and(|i| i.hardware.typical.is_some());
        let second = inventories.wait_for(told).await.expect("news").clone().expect("some");
        assert_eq!((second.hardware.typical.as_ref(), second.collected_at), (Some(&usual), first.collected_at));
        shutdown.cancel();
        task.await.expect("no panic");
    }
}
