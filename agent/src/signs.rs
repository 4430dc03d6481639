//! Signs that the machine is another one now: a charger pulled, a card plugged in, a driver loaded or installed.
//!
//! Looks every few seconds at the kernel's count of device events and at two folders: three reads that cost microseconds.
//! Only when one of them moved are the facts themselves read, and only when those differ is the machine looked at again.
//! Knows nothing of inventories.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::cpu_time::CpuTime;
use crate::survey::SurveyRequest;

/// How often it looks.
const EVERY: Duration = Duration::from_secs(5);
/// Events come in swarms, and a container host makes some all day: the facts are read at most so often.
const SETTLE: Duration = Duration::from_secs(10);

/// What moves when something happened, cheap to read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Trace {
    /// Device events since the kernel started.
    events: Option<u64>,
    /// When Vulkan's drivers were last installed or removed, which the kernel does not hear of.
    drivers: Vec<Option<SystemTime>>,
}

/// What is there, and how it gets its power: contents of files by their paths.
#[derive(Debug, Default)]
struct Facts {
    power: BTreeMap<String, String>,
    cards: BTreeMap<String, String>,
}

/// What is another one now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Moved {
    /// Somebody plugged a mouse in.
    Nothing,
    /// The power supply.
    Power,
    /// Graphics cards or their drivers.
    Cards,
}

/// The watcher.
#[derive(Debug)]
pub struct Signs {
    /// The file system; another one in tests.
    root: PathBuf,
    cost: CpuTime,
}

impl Signs {
    /// Watches this machine.
    pub fn new(cost: CpuTime) -> Self {
        Self { root: PathBuf::from("/"), cost }
    }

    /// Asks for a look at the machine whenever there is reason for one, until `shutdown`.
    pub async fn run(self, survey: mpsc::Sender<SurveyRequest>, shutdown: CancellationToken) {
        let (mut trace, mut facts) = (self.trace(), self.facts());
        let mut wait = EVERY;
        loop {
            // Cancel-safe: a timer.
            tokio::select! {
                biased;
                () = shutdown.cancelled() => return,
                () = tokio::time::sleep(wait) => {}
            }
            let moved = {
                let _cost = self.cost.count();
                self.moved(&mut trace, &mut facts)
            };
            wait = if moved.is_some() { SETTLE } else { EVERY };
            if let Some(moved @ (Moved::Power | Moved::Cards)) = moved {
                tracing::info!(?moved, "power supply, graphics cards or drivers changed");
                // A full queue means that somebody looks anyway.
                let _ = survey.try_send(SurveyRequest::Changed { cards: moved == Moved::Cards });
            }
        }
    }

    /// What changed; nothing if the facts had not to be read.
    fn moved(&self, trace: &mut Trace, facts: &mut Facts) -> Option<Moved> {
        let now = self.trace();
        if now == *trace {
            return None;
        }
        let installed = now.drivers != trace.drivers;
        *trace = now;
        let now = self.facts();
        let moved = if installed || now.cards != facts.cards {
            Moved::Cards
        } else if now.power != facts.power {
            Moved::Power
        } else {
            Moved::Nothing
        };
        *facts = now;
        Some(moved)
    }

    fn trace(&self) -> Trace {
        let installed = |folder: &&str| fs::metadata(self.root.join(folder)).and_then(|found| found.modified()).ok();
        Trace {
            events: read(&self.root.join("sys/kernel/uevent_seqnum")).and_then(|count| count.parse().ok()),
            drivers: ["usr/share/vulkan/icd.d", "etc/vulkan/icd.d"].iter().map(installed).collect(),
        }
    }

    fn facts(&self) -> Facts {
        let sys = self.root.join("sys");
        let mut power = Vec::new();
        for supply in entries(&sys.join("class/power_supply")) {
            // A battery says with `online` whether it is in use, and with the rest how full it is.
            if read(&supply.join("type")).as_deref() != Some("Battery") {
                power.push(supply.join("online"));
            }
            power.push(supply.join("type"));
        }
        let mut paths = Vec::new();
        for module in ["nvidia", "nouveau", "amdgpu", "i915", "xe"] {
            paths.extend(["version", "srcversion"].map(|file| sys.join("module").join(module).join(file)));
        }
        let mut cards = BTreeMap::new();
        for device in entries(&sys.join("bus/pci/devices")) {
            // Class 3: display controllers.
            if read(&device.join("class")).is_some_and(|class| class.starts_with("0x03")) {
                let driver = fs::read_link(device.join("driver")).ok();
                let driver = driver.and_then(|link| Some(link.file_name()?.to_string_lossy().into_owned()));
                cards.insert(format!("{}/driver", device.display()), driver.unwrap_or_default());
                paths.push(device.join("device"));
            }
        }
        let content = |path: PathBuf| Some((path.display().to_string(), read(&path)?));
        cards.extend(paths.into_iter().filter_map(content));
        Facts { power: power.into_iter().filter_map(content).collect(), cards }
    }
}

fn entries(folder: &Path) -> Vec<PathBuf> {
    fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path()).collect()
}

fn read(path: &Path) -> Option<String> {
    Some(fs::read_to_string(path).ok()?.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(root: &Path, path: &str, content: &str) {
        let path = root.join(path);
        fs::create_dir_all(path.parent().expect("a folder")).expect("made");
        fs::write(path, content).expect("written");
    }

    #[test]
    fn the_charger_a_card_and_a_driver_are_signs_and_a_mouse_is_none() {
        let root = tempfile::tempdir().expect("a temporary directory");
        let put = |path: &str, content: &str| put(root.path(), path, content);
        put("sys/kernel/uevent_seqnum", "100\n");
        put("sys/class/power_supply/AC/type", "Mains\n");
        put("sys/class/power_supply/AC/online", "1\n");
        put("sys/class/power_supply/BAT0/type", "Battery\n");
        put("sys/bus/pci/devices/0000:00:1f.0/class", "0x060100\n");
        let signs = Signs { root: root.path().to_owned(), cost: CpuTime::default() };
        let (mut trace, mut facts) = (signs.trace(), signs.facts());
        let mut moved = || signs.moved(&mut trace, &mut facts);
        assert_eq!(moved(), None, "nothing happened");
        put("sys/kernel/uevent_seqnum", "103\n");
        assert_eq!(moved(), Some(Moved::Nothing), "a mouse");
        put("sys/class/power_supply/AC/online", "0\n");
        assert_eq!(moved(), None, "no event, no look");
        put("sys/kernel/uevent_seqnum", "104\n");
        assert_eq!(moved(), Some(Moved::Power), "the charger");
        put("sys/bus/pci/devices/0000:01:00.0/class", "0x030000\n");
        put("sys/bus/pci/devices/0000:01:00.0/device", "0x2684\n");
        put("sys/kernel/uevent_seqnum", "110\n");
        assert_eq!(moved(), Some(Moved::Cards), "a card");
        std::os::unix::fs::symlink("../../drivers/nvidia", root.path().join("sys/bus/pci/devices/0000:01:00.0/driver"))
            .expect("linked");
        put("sys/kernel/uevent_seqnum", "111\n");
        assert_eq!(moved(), Some(Moved::Cards), "its driver");
        put("usr/share/vulkan/icd.d/nvidia_icd.json", "{}");
        assert_eq!(moved(), Some(Moved::Cards), "a Vulkan driver");
        assert_eq!(moved(), None);
    }

    #[tokio::test(start_paused = true)]
    async fn a_change_asks_for_a_look() {
        let root = tempfile::tempdir().expect("a temporary directory");
        put(root.path(), "sys/kernel/uevent_seqnum", "1\n");
        let signs = Signs { root: root.path().to_owned(), cost: CpuTime::default() };
        let (survey, mut requests) = mpsc::channel(4);
        let shutdown = CancellationToken::new();
        let task = tokio::spawn(signs.run(survey, shutdown.clone()));
        for _ in 0..3 {
            tokio::time::advance(EVERY).await;
            tokio::task::yield_now().await;
        }
        assert!(requests.try_recv().is_err());
        put(root.path(), "sys/class/power_supply/AC/type", "Mains\n");
        put(root.path(), "sys/kernel/uevent_seqnum", "2\n");
        assert!(matches!(requests.recv().await, Some(SurveyRequest::Changed { cards: false })));
        shutdown.cancel();
        task.await.expect("no panic");
    }
}
