//! [`Sampler`]: looks at memory once a minute, and tells what is typical when enough was seen.
//!
//! Its timer stands still while the machine sleeps, so that nights in standby do not count. While a model loads or a
//! benchmark runs it does not look: what those take is this agent's doing, and not yet known to be.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use muster_proto::{Bytes, DeviceMemory, Inventory, TypicalUse};
use tokio::sync::{Mutex, watch};
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

use super::devices::Devices;
use super::{History, Level, Sample};
use crate::cpu_time::CpuTime;
use crate::serving::Serving;
use crate::{clock, probe};

/// How often it looks.
const EVERY: Duration = Duration::from_mins(1);
/// Samples between writing the file and summing up.
const SAVE_EVERY: u32 = 15;

/// The task that samples.
#[derive(Debug)]
pub struct Sampler {
    /// The file of the history.
    pub path: PathBuf,
    /// `/sys`.
    pub sys: PathBuf,
    /// This program, for the process that asks a driver.
    pub program: PathBuf,
    /// Which devices there are.
    pub inventory: watch::Receiver<Option<Arc<Inventory>>>,
    /// What the agent runs itself.
    pub serving: watch::Receiver<Arc<Serving>>,
    /// Held while something is measured or loaded.
    pub quiet: Arc<Mutex<()>>,
    /// Hears what is typical.
    pub typical: watch::Sender<Option<Arc<TypicalUse>>>,
    /// Hears of each sample.
    pub newest: watch::Sender<Option<Arc<Sample>>>,
    /// What looking costs.
    pub cost: CpuTime,
}

impl Sampler {
    /// Samples until `shutdown`, then writes what it has.
    pub async fn run(self, shutdown: CancellationToken) {
        let (mut history, damage) = History::read(&self.path);
        if let Some(damage) = damage {
            tracing::warn!(path = %self.path.display(), damage, "the history of memory use begins anew");
        }
        let mut devices = Devices::new(&self.sys, &self.program);
        self.typical.send_replace(history.typical().map(Arc::new));
        let mut ticks = tokio::time::interval(EVERY);
        // After a pause one sample, not one for each minute of it.
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut unsaved = 0;
        loop {
            // Cancel-safe: a timer.
            tokio::select! {
                biased;
                () = shutdown.cancelled() => break,
                _ = ticks.tick() => {}
            }
            let Some(sample) = self.sample(&mut devices).await else { continue };
            history.add(&sample);
            self.newest.send_replace(Some(Arc::new(sample)));
            unsaved += 1;
            if unsaved >= SAVE_EVERY {
                unsaved = 0;
                self.save(&history);
                self.typical.send_replace(history.typical().map(Arc::new));
            }
        }
        if unsaved > 0 {
            self.save(&history);
        }
    }

    fn save(&self, history: &History) {
        let _cost = self.cost.count();
        if let Err(error) = history.write(&self.path) {
            tracing::warn!(path = %self.path.display(), %error, "cannot be stored");
        }
    }

    /// One look; nothing while something is loaded or measured.
    async fn sample(&self, devices: &mut Devices) -> Option<Sample> {
        if self.quiet.try_lock().is_err() {
            return None;
        }
        let inventory = self.inventory.borrow().clone();
        let mut levels = match &inventory {
            Some(inventory) => devices.read(inventory).await,
            None => std::collections::BTreeMap::new(),
        };
        let _cost = self.cost.count();
        let serving = self.serving.borrow().clone();
        for (name, level) in &mut levels {
            level.free = level.free.saturating_add(own(&serving, name)).min(level.total);
        }
        let memory = probe::memory::read(&serving);
        // Where it cannot be read there is nothing to count.
        (memory.total > Bytes::ZERO).then(|| Sample {
            at: clock::now(),
            memory: Level { total: memory.total, free: memory.available },
            devices: levels,
        })
    }
}

/// What this agent's models take on a device.
fn own(serving: &Serving, device: &str) -> Bytes {
    let workers = serving.workers();
    let memories = workers.values().flat_map(|running| &running.loaded.memory.devices);
    memories.filter(|memory| memory.name == device).map(DeviceMemory::total).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    type Typicals = watch::Receiver<Option<Arc<TypicalUse>>>;
    type Newest = watch::Receiver<Option<Arc<Sample>>>;

    fn made(path: PathBuf) -> (Sampler, Typicals, Newest) {
        let (typical, typicals) = watch::channel(None);
        let (newest, looks) = watch::channel(None);
        let task = Sampler {
            path,
            sys: PathBuf::from("/sys"),
            program: PathBuf::from("no-such-program"),
            inventory: watch::channel(None).1,
            serving: watch::channel(Arc::default()).1,
            quiet: Arc::default(),
            typical,
            newest,
            cost: CpuTime::default(),
        };
        (task, typicals, looks)
    }

    #[tokio::test(start_paused = true)]
    async fn a_working_day_becomes_what_is_typical_and_survives_a_restart() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let path = directory.path().join("use.json");
        let (first, mut typicals, mut looks) = made(path.clone());
        let shutdown = CancellationToken::new();
        let task = tokio::spawn(first.run(shutdown.clone()));
        looks.changed().await.expect("samples");
        assert!(typicals.borrow_and_update().is_none());
        typicals.wait_for(Option::is_some).await.expect("480 samples");
        shutdown.cancel();
        task.await.expect("no panic");
        let (again, mut typicals, _looks) = made(path);
        let shutdown = CancellationToken::new();
        let task = tokio::spawn(again.run(shutdown.clone()));
        let typical = typicals.wait_for(Option::is_some).await.expect("at once").clone().expect("some");
        assert!(typical.samples >= 480 && typical.memory_available > Bytes::ZERO, "{typical:?}");
        shutdown.cancel();
        task.await.expect("no panic");
    }

    #[tokio::test(start_paused = true)]
    async fn what_the_agent_does_itself_is_not_looked_at() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let (first, _typicals, mut looks) = made(directory.path().join("use.json"));
        let quiet = Arc::clone(&first.quiet);
        let loading = quiet.lock().await;
        let shutdown = CancellationToken::new();
        let task = tokio::spawn(first.run(shutdown.clone()));
        for _ in 0..5 {
            tokio::time::advance(EVERY).await;
            tokio::task::yield_now().await;
        }
        assert!(looks.borrow().is_none());
        drop(loading);
        // The clock goes on by itself while all wait.
        looks.wait_for(Option::is_some).await.expect("a look");
        shutdown.cancel();
        task.await.expect("no panic");
    }
}
