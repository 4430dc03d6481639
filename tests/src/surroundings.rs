//! [`Surroundings`]: what a desk's kernel says of power, heat and who computes, made up, so that a test turns them as it
//! likes and other tests on the same machine are not taken for the desk's owner.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::{Agent, children};

/// How often the made-up kernel counts: its own clock's tick is 10 ms.
const COUNTING: Duration = Duration::from_millis(20);
/// Ticks of a processor's second (`USER_HZ`, the same on all of Linux's architectures but Alpha).
const TICKS: f64 = 100.0;

/// The program that draws the desktop: no number that a process can have.
const DESKTOP: &str = "proc/4194305";

/// Folders like `/sys` and `/proc`.
pub struct Surroundings {
    folder: TempDir,
    counting: Option<(mpsc::Sender<u32>, JoinHandle<()>)>,
    drawing: Arc<AtomicBool>,
}

impl Surroundings {
    /// A cool laptop on mains on which nobody does anything.
    #[expect(clippy::new_without_default, reason = "it makes a folder")]
    pub fn new() -> Self {
        let folder = tempfile::Builder::new().prefix("muster-test-").tempdir().expect("a temporary folder");
        let made = Self { folder, counting: None, drawing: Arc::default() };
        made.on_mains(true);
        made.put("sys/class/power_supply/AC/type", "Mains");
        made.put("sys/class/power_supply/BAT0/type", "Battery");
        made.heat(45);
        made.put("sys/class/hwmon/hwmon0/temp1_crit", "100000");
        fs::create_dir_all(made.path(DESKTOP).join("fd")).expect("made");
        symlink("/dev/dri/renderD128", made.path(DESKTOP).join("fd/5")).expect("linked");
        made.put(&format!("{DESKTOP}/fdinfo/5"), &fdinfo(0));
        symlink("/proc/self", made.path("proc/self")).expect("linked");
        made.put("proc/stat", "cpu  0 0 0 0 0 0 0 0 0 0");
        made
    }

    /// The agent in them.
    #[must_use]
    pub fn around(&self, agent: Agent) -> Agent {
        let text = |name: &str| self.path(name).to_str().expect("UTF-8").to_owned();
        agent.variable("MUSTER_SYSFS_ROOT", &text("sys")).variable("MUSTER_PROC_ROOT", &text("proc"))
    }

    /// From now on the processor's time is what `agent` and its children take, and what the programs of
    /// [`owner`](Self::owner) take; nobody else's.
    pub fn count(&mut self, agent: u32) {
        let (owner, owners) = mpsc::channel();
        let (proc, desktop) = (self.path("proc"), self.path(DESKTOP).join("fdinfo/5"));
        let drawing = Arc::clone(&self.drawing);
        let task = thread::spawn(move || {
            let began = Instant::now();
            let mut watched = vec![agent];
            let mut ticks: BTreeMap<u32, f64> = BTreeMap::new();
            let (mut looked, mut drew) = (began, Duration::ZERO);
            loop {
                match owners.recv_timeout(COUNTING) {
                    Ok(pid) => watched.push(pid),
                    Err(RecvTimeoutError::Timeout) => {}
                    Err(RecvTimeoutError::Disconnected) => return,
                }
                let since = looked.elapsed();
                looked += since;
                if drawing.load(Ordering::Relaxed) {
                    drew += since.mul_f64(0.8);
                    write_whole(&desktop, &fdinfo(drew.as_nanos()));
                }
                watched.extend(children(agent, ""));
                watched.sort_unstable();
                watched.dedup();
                for pid in &watched {
                    let _ = symlink(format!("/proc/{pid}"), proc.join(pid.to_string()));
                    // One that is gone took what it took.
                    if let Some(now) = ticks_of(*pid) {
                        ticks.insert(*pid, now);
                    }
                }
                let cores = thread::available_parallelism().map_or(1.0, |cores| cores.get() as f64);
                let busy: f64 = ticks.values().sum();
                let idle = (began.elapsed().as_secs_f64() * TICKS * cores - busy).max(0.0);
                let text = format!("cpu  {busy:.0} 0 0 {idle:.0} 0 0 0 0 0 0\n");
                write_whole(&proc.join("stat"), &text);
            }
        });
        self.counting = Some((owner, task));
    }

    /// A program of the desk's owner.
    pub fn owner(&self, pid: u32) {
        let (owner, _) = self.counting.as_ref().expect("the time is counted");
        owner.send(pid).expect("it counts");
    }

    /// The owner's desktop draws from now on, which takes four fifths of the graphics card.
    pub fn draw(&self) {
        self.drawing.store(true, Ordering::Relaxed);
    }

    /// Plugs the charger in or pulls it.
    pub fn on_mains(&self, plugged: bool) {
        self.put("sys/class/power_supply/AC/online", if plugged { "1" } else { "0" });
        self.put("sys/class/power_supply/BAT0/status", if plugged { "Full" } else { "Discharging" });
    }

    /// The processor is this hot, in degrees Celsius; it is critical at 100.
    pub fn heat(&self, celsius: u32) {
        self.put("sys/class/hwmon/hwmon0/temp1_input", &format!("{celsius}000"));
    }

    /// Writes one of the kernel's files, by its path with `sys/` or `proc/`.
    pub fn put(&self, file: &str, text: &str) {
        let path = self.path(file);
        fs::create_dir_all(path.parent().expect("in a folder")).expect("made");
        write_whole(&path, &format!("{text}\n"));
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }
}

impl Drop for Surroundings {
    fn drop(&mut self) {
        if let Some((owner, task)) = self.counting.take() {
            drop(owner);
            let _ = task.join();
        }
    }
}

/// What a driver says of a program that has drawn for so long.
fn fdinfo(ns: u128) -> String {
    format!("drm-driver:\tamdgpu\ndrm-client-id:\t9\ndrm-pdev:\t0000:03:00.0\ndrm-engine-gfx:\t{ns} ns\n")
}

/// Never seen half written, as the kernel's files are not.
fn write_whole(path: &Path, text: &str) {
    let new = path.with_extension("new");
    fs::write(&new, text).expect("written");
    fs::rename(&new, path).expect("renamed");
}

/// User and system time of a process (proc(5)).
fn ticks_of(pid: u32) -> Option<f64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace().skip(11);
    Some(fields.next()?.parse::<f64>().ok()? + fields.next()?.parse::<f64>().ok()?)
}
