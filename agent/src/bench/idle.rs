//! How busy others keep a machine: processor time that is not this program's own, and graphics cards.
//!
//! It does not know what a benchmark is. Entry points: [`Load`] and [`wait`].

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::Job;
use super::others::Others;

/// Others may take so much of one core on an idle machine, and so much more of each core it has: what daemons take.
const OF_A_CORE: f64 = 0.1;
/// See [`OF_A_CORE`].
const OF_EACH_CORE: f64 = 0.01;
/// A GPU that is busier than this is in use.
pub const GPU_BUSY: f64 = 0.1;
/// Over what a load is taken while waiting.
const WINDOW: Duration = Duration::from_secs(1);

/// Processor time since the start, in the system's ticks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Ticks {
    /// Of all cores, idle ones too.
    all: u64,
    /// Of all cores, at work for anybody.
    busy: u64,
    /// Of this program and the child that it measures with.
    own: u64,
}

/// Watches what others take.
#[derive(Debug)]
pub struct Load {
    /// `/proc`.
    proc: PathBuf,
    last: Option<Ticks>,
    /// Own time of children that are gone by now.
    gone: u64,
    child: Option<(u32, u64)>,
}

impl Load {
    /// Nothing was seen yet.
    pub fn new(proc: &Path) -> Self {
        Self { proc: proc.to_owned(), last: None, gone: 0, child: None }
    }

    /// What others took since the last call, in cores (1.5: one and a half); `None` at the first call and where the system
    /// says nothing. `child` is a process of our own.
    pub fn since_last(&mut self, child: Option<u32>) -> Option<f64> {
        let now = self.read(child)?;
        let Some(last) = self.last else {
            self.last = Some(now);
            return None;
        };
        let all = now.all.saturating_sub(last.all);
        if all == 0 {
            return None;
        }
        self.last = Some(now);
        let own = now.own.saturating_sub(last.own);
        let others = now.busy.saturating_sub(last.busy).saturating_sub(own);
        Some(others as f64 / all as f64 * cores())
    }

    fn read(&mut self, child: Option<u32>) -> Option<Ticks> {
        let (all, busy) = parse_system(&std::fs::read_to_string(self.proc.join("stat")).ok()?)?;
        let time = |pid: &str| parse_process(&std::fs::read_to_string(self.proc.join(pid).join("stat")).ok()?);
        if let Some((pid, ticks)) = self.child
            && child != Some(pid)
        {
            self.gone += ticks;
            self.child = None;
        }
        if let Some(pid) = child {
            // One that has just ended keeps what it had at last.
            let before = self.child.map_or(0, |(_, ticks)| ticks);
            self.child = Some((pid, time(&pid.to_string()).unwrap_or(before).max(before)));
        }
        let own = time("self").unwrap_or(0) + self.gone + self.child.map_or(0, |(_, ticks)| ticks);
        Some(Ticks { all, busy, own })
    }
}

/// Cores of this machine.
pub fn cores() -> f64 {
    std::thread::available_parallelism().map_or(1.0, |cores| cores.get() as f64)
}

/// What others may take of an idle machine, in cores.
pub fn allowed() -> f64 {
    OF_A_CORE + OF_EACH_CORE * cores()
}

/// Waits until nobody else uses the machine, on mains power where the job prefers that, for as long as the job may. Says whether it is idle; `None` where the system
/// says nothing of others.
pub async fn wait(gpus: &mut Others, job: &Job<'_>, mut tell: impl FnMut(String)) -> Option<bool> {
    let Job { roots, wait: at_most, prefers_mains, .. } = job;
    // Before anything is counted: NVIDIA's library takes its time to begin.
    gpus.known().await;
    let mut load = Load::new(&roots.proc);
    load.since_last(None);
    let start = Instant::now();
    // The first look is short, so that an idle desk is measured at once.
    let mut window = WINDOW.min(Duration::from_millis(300));
    loop {
        tokio::time::sleep(window).await;
        window = WINDOW;
        let Some(others) = load.since_last(None) else {
            // A kernel that counts nothing, or whose clock has not moved yet.
            if load.last.is_none() || start.elapsed() > *at_most {
                return None;
            }
            continue;
        };
        let gpu_in_use = gpus.before().is_some_and(|share| share > GPU_BUSY);
        let busy = if others > allowed() {
            Some(format!("other programs take {:.0} % of a core", others * 100.0))
        } else if *prefers_mains && super::power::on_mains(&roots.sys) == Some(false) {
            Some("on battery".to_owned())
        } else if gpu_in_use {
            Some("a GPU is in use".to_owned())
        } else {
            None
        };
        let Some(busy) = busy else { return Some(true) };
        if start.elapsed() + window > *at_most {
            // On battery the figures are still the machine's own: conditions say which power it had.
            return Some(others <= allowed() && !gpu_in_use);
        }
        tell(format!("waiting until the desk is idle: {busy}"));
    }
}

/// All and busy ticks of `/proc/stat`: user, nice, system, idle, iowait, irq, softirq, steal (proc(5)). Time of guests is
/// within user. What a hypervisor takes (steal) is others' too.
fn parse_system(text: &str) -> Option<(u64, u64)> {
    let line = text.lines().next()?.strip_prefix("cpu ")?;
    let ticks: Vec<u64> = line.split_whitespace().take(8).map(str::parse).collect::<Result<_, _>>().ok()?;
    let all: u64 = ticks.iter().sum();
    Some((all, all - ticks.get(3)? - ticks.get(4)?))
}

/// User and system ticks of `/proc/PID/stat`: fields 14 and 15 (proc(5)); the name before them may hold anything.
fn parse_process(text: &str) -> Option<u64> {
    let (_, rest) = text.rsplit_once(')')?;
    let mut fields = rest.split_whitespace().skip(11);
    Some(fields.next()?.parse::<u64>().ok()? + fields.next()?.parse::<u64>().ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_from_the_kernels_texts() {
        let system = "cpu  100 20 30 1000 50 1 2 7 0 0\ncpu0 1 2 3 4 5 6 7 8 0 0\n";
        assert_eq!(parse_system(system), Some((1210, 160)));
        assert_eq!(parse_system("intr 1"), None);
        let process = "42 (a ) b (c) S 1 42 42 0 -1 4194560 100 0 0 0 250 17 0 0 20 0 1 0 100 0 0";
        assert_eq!(parse_process(process), Some(267));
        assert_eq!(parse_process("42 (x"), None);
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn own_time_is_not_others() {
        let mut load = Load::new(Path::new("/proc"));
        assert_eq!(load.since_last(None), None);
        let start = Instant::now();
        while start.elapsed() < Duration::from_millis(200) {
            std::hint::black_box(0);
        }
        let ticks = load.last.expect("read");
        let now = load.read(None).expect("read");
        assert!(now.own > ticks.own, "a fifth of a second is some ticks");
        assert!(now.busy - ticks.busy >= now.own - ticks.own - 3, "own time is within all");
    }
}
