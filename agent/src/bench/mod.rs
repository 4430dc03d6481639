//! The benchmark of a desk: parts and llama.cpp, measured without disturbing the desk's owner.
//!
//! Owns: waiting until the desk is idle ([`idle`]), watching it meanwhile ([`power`], [`heat`]), measuring the parts in child
//! processes ([`parts`]), and putting all that together with what the engine's worker measures. It does not know when a
//! benchmark is due, nor where it is kept. Entry point: [`measure`].

mod disk;
mod fdinfo;
mod gpu;
mod gpu_use;
mod heat;
mod idle;
mod memory;
mod others;
pub mod parts;
pub(crate) mod power;
mod watch;

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use muster_engine::worker::{self, BenchEvent, BenchRequest, WorkerCommand, WorkerError};
use muster_proto::{BenchPoint, Benchmark, BenchmarkKind, Conditions, Device, PartQuantity, PartRate, Spread};

use crate::clock;
use crate::roots::Roots;
use others::Others;
use watch::Watch;

/// Lowest priority: the scheduler gives it what nobody else wants. On an idle desk that is everything.
const NICENESS: i32 = 19;

/// Attempts to remove a folder in which something appears meanwhile.
const REMOVALS: usize = 10;

/// After so many times its budget a benchmark that has a point ends.
const LATE: f64 = 1.25;

/// How much time each kind of benchmark may take.
#[derive(Clone, Copy, Debug)]
struct Budget {
    /// Memory and disk together.
    host: Duration,
    /// GPUs.
    gpu: Duration,
    /// llama.cpp.
    engine: Duration,
    /// Minutes of load.
    sustained: Duration,
}

impl Budget {
    fn of(kind: BenchmarkKind) -> Self {
        let budget = |host, gpu, engine, sustained| Self {
            host: Duration::from_millis(host),
            gpu: Duration::from_millis(gpu),
            engine: Duration::from_millis(engine),
            sustained: Duration::from_millis(sustained),
        };
        match kind {
            BenchmarkKind::Quick => budget(450, 500, 1_600, 0),
            BenchmarkKind::Full => budget(6_000, 4_000, 90_000, 180_000),
            _ => budget(3_000, 2_000, 30_000, 0),
        }
    }
}

/// A benchmark to do.
#[derive(Debug)]
pub struct Job<'a> {
    /// How engine workers are started.
    pub worker: &'a WorkerCommand,
    /// Where models are made, and removed afterwards.
    pub scratch: &'a Path,
    /// Where the kernel says who uses the desk, what powers it and how hot it is.
    pub roots: &'a Roots,
    /// A folder on the volume of the model store.
    pub store: &'a Path,
    /// CPU threads; `None` takes all physical cores.
    pub threads: Option<u32>,
    /// How thorough.
    pub kind: BenchmarkKind,
    /// The hardware that is measured.
    pub hardware_fingerprint: String,
    /// Drivers of its GPUs, as the inventory has them.
    pub drivers: Vec<String>,
    /// Whether to wait for mains power too: nobody asked for figures on battery.
    pub prefers_mains: bool,
    /// How long to wait for the desk to become idle; then it is measured anyway, and the result says so.
    pub wait: Duration,
}

/// What came in while it ran; kept also where it was cut off.
#[derive(Debug, Default)]
struct Found {
    points: Vec<BenchPoint>,
    parts: Vec<PartRate>,
    /// Its time was up before it was through.
    late: bool,
}

/// Measures this machine.
///
/// # Errors
/// The engine worker failed, or nothing at all was measured before the desk was needed otherwise.
pub async fn measure(job: Job<'_>, mut progress: impl FnMut(String, f32) + Send) -> Result<Benchmark, WorkerError> {
    let refused = |reason: String| WorkerError::Refused { reason };
    std::fs::create_dir_all(job.scratch)
        .map_err(|error| refused(format!("cannot create {}: {error}", job.scratch.display())))?;
    let scratch = RemovedAfterwards(job.scratch.to_owned());
    let on_mains_before = power::on_mains(&job.roots.sys);
    // Before others are watched: what it takes is not theirs.
    let devices = worker::devices(job.worker).await.unwrap_or_default();
    let mut others = Others::start(job.roots, &job.worker.program);
    let idle = idle::wait(&mut others, &job, |step| progress(step, 0.0)).await;
    let (measured_at, began) = (clock::now(), Instant::now());
    let mut watch = Watch::start(job.roots, others, idle, on_mains_before, job.kind != BenchmarkKind::Quick);
    let mut found = Found::default();
    let pid = watch.worker_pid();
    let ran = {
        let work = run(&job, &devices, &mut found, &pid, &mut progress);
        // Whichever ends first: dropping the other kills its child at once. Only what was told by then is kept.
        tokio::select! {
            ended = work => Some(ended),
            () = watch.until_needed() => None,
        }
    };
    let stopped_by = watch.stopped_by();
    if let Some(reason) = &stopped_by {
        tracing::info!(reason, "the desk is needed: the benchmark stops");
    }
    drop(scratch);
    match ran {
        Some(Err(error)) if found.points.is_empty() => return Err(error),
        None if found.points.is_empty() && found.parts.is_empty() => {
            let why = stopped_by.unwrap_or_default();
            return Err(refused(format!(
                "nothing was measured before it stopped: {why}; run it again when the desk is idle"
            )));
        }
        _ => {}
    }
    let failed =
        ran.and_then(Result::err).map(|error| format!("the engine's worker failed: {}", crate::error_chain(&error)));
    let late = found.late.then(|| "its time was up: the machine is busy, or too slow for it".to_owned());
    Ok(Benchmark {
        measured_at,
        took_ms: u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX),
        engine_build: muster_engine::BUILD.into(),
        hardware_fingerprint: job.hardware_fingerprint,
        points: found.points,
        conditions: Conditions {
            kind: Some(job.kind),
            other_load: watch.other_load(),
            idle: watch.was_idle(),
            on_mains: on_mains_before,
            temperature_celsius: watch.hottest(),
            drivers: job.drivers,
            has_battery: power::has_battery(&job.roots.sys),
            stopped_by: stopped_by.or(failed).or(late),
        },
        parts: found.parts,
        on_battery: Vec::new(),
    })
}

/// Models of random weights are of no use afterwards, whatever happened.
struct RemovedAfterwards(PathBuf);

impl Drop for RemovedAfterwards {
    fn drop(&mut self) {
        // A worker that was killed a moment ago may still end the call that makes a file.
        for _ in 0..REMOVALS {
            match std::fs::remove_dir_all(&self.0) {
                Err(error) if error.kind() == std::io::ErrorKind::DirectoryNotEmpty => {}
                _ => return,
            }
        }
    }
}

async fn run(
    job: &Job<'_>,
    devices: &[Device],
    found: &mut Found,
    pid: &watch::WorkerPid,
    progress: &mut (impl FnMut(String, f32) + Send),
) -> Result<(), WorkerError> {
    let budget = Budget::of(job.kind);
    for (part, time) in [(parts::Part::Host, budget.host), (parts::Part::Gpu, budget.gpu)] {
        progress(part.words().into(), 0.0);
        let request = parts::Request::new(part, job, time, devices);
        let deadline = time + parts::GRACE;
        parts::run(&job.worker.program, &request, deadline, pid, |answer| match answer {
            parts::Answer::Rate(rate) => found.parts.push(rate),
            parts::Answer::Failed(reason) => tracing::warn!(part = part.words(), %reason, "could not be measured"),
        })
        .await;
    }
    let command = WorkerCommand { niceness: NICENESS, ..job.worker.clone() };
    let request = BenchRequest {
        scratch_dir: job.scratch.to_owned(),
        budget: budget.engine,
        threads: job.threads,
        quick: job.kind == BenchmarkKind::Quick,
        sustained: budget.sustained,
    };
    let some = AtomicBool::new(false);
    let measuring = worker::bench(&command, request, |event| match event {
        BenchEvent::Started { pid: worker } => pid.set(Some(worker)),
        BenchEvent::Progress { step, fraction } => progress(step, fraction),
        BenchEvent::Point(point) => {
            point.put_into(&mut found.points);
            some.store(true, Ordering::Relaxed);
        }
        BenchEvent::Sustained { device, rates } => found.parts.extend(sustained(device, &rates)),
    });
    // The worker keeps its budget between steps; on a machine that others keep busy one step may take minutes.
    let late = async {
        tokio::time::sleep(budget.engine.mul_f64(LATE) + budget.sustained).await;
        while !some.load(Ordering::Relaxed) {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    // Dropping the worker's future kills it; its points are kept.
    let ended = tokio::select! {
        ended = measuring => Some(ended),
        () = late => None,
    };
    found.late = ended.is_none();
    ended.unwrap_or(Ok(()))
}

/// The last third of a long load over the first: below 1 where heat takes speed. `None` for less than three samples.
fn sustained(device: String, rates: &[f64]) -> Option<PartRate> {
    let third = rates.len() / 3;
    let first = Spread::of(rates.get(..third)?.to_vec())?.median.get();
    let last: Vec<f64> = rates[rates.len() - third..].iter().map(|rate| rate / first).collect();
    Some(PartRate { part: device, quantity: PartQuantity::Sustained, rate: Spread::of(last)? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heat_is_the_last_third_over_the_first() {
        let rates = [100.0, 102.0, 101.0, 95.0, 90.0, 85.0, 80.8, 79.0, 82.0];
        let found = sustained("CPU".into(), &rates).expect("nine samples");
        assert!((found.rate.median.get() - 0.8).abs() < 1e-9, "{}", found.rate.median);
        assert_eq!(found.rate.samples.len(), 3);
        assert_eq!(sustained("CPU".into(), &[1.0, 2.0]), None);
    }
}
