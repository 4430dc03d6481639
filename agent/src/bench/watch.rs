//! [`Watch`]: looks after the desk while it is measured, and says when to stop.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use super::idle::{self, Load};
use super::others::Others;
use super::{heat, power};
use crate::roots::Roots;

/// How often it looks. An owner who begins within a period is seen from the next one on at the latest: four of them and the
/// end of a child are within a second.
const PERIOD: Duration = Duration::from_millis(150);
/// So many looks in a row make it certain, so that a daemon's half second of work does not end minutes of measuring.
const LOOKS: usize = 3;
/// Others that take so much of a core in each of them are the owner at work.
const OWNER_AT_WORK: f64 = 0.5;
/// The same for a graphics card: more than a desktop's picture takes of it, less than a game, a film or a drawing program.
const OWNER_AT_GPU: f64 = 0.25;

/// The child that measures at the moment.
#[derive(Clone, Debug, Default)]
pub struct WorkerPid(Arc<AtomicU32>);

impl WorkerPid {
    /// Says which it is.
    pub fn set(&self, pid: Option<u32>) {
        self.0.store(pid.unwrap_or(0), Ordering::Relaxed);
    }

    fn get(&self) -> Option<u32> {
        Some(self.0.load(Ordering::Relaxed)).filter(|pid| *pid != 0)
    }
}

/// What was seen while measuring.
#[derive(Debug)]
pub struct Watch {
    roots: Roots,
    /// As it was before; a desk that was busy then is not left because it is busy.
    idle: Option<bool>,
    /// Whether it makes room for others.
    yields: bool,
    on_mains: Option<bool>,
    pid: WorkerPid,
    load: Load,
    gpus: Others,
    /// Processes that measured.
    own: Vec<u32>,
    others: Vec<f64>,
    gpu_shares: Vec<f64>,
    hottest: Option<f64>,
    stopped_by: Option<String>,
}

impl Watch {
    /// Begins, with what was found before. `yields`: it makes room for others; a few seconds that somebody waits for do not.
    pub fn start(roots: &Roots, gpus: Others, idle: Option<bool>, on_mains: Option<bool>, yields: bool) -> Self {
        let mut load = Load::new(&roots.proc);
        load.since_last(None);
        let pid = WorkerPid::default();
        Self {
            roots: roots.clone(),
            idle,
            yields,
            on_mains,
            pid,
            load,
            gpus,
            own: vec![std::process::id()],
            others: Vec::new(),
            gpu_shares: Vec::new(),
            hottest: None,
            stopped_by: None,
        }
    }

    /// To tell which child measures.
    pub fn worker_pid(&self) -> WorkerPid {
        self.pid.clone()
    }

    /// Returns when the desk is needed otherwise; [`stopped_by`](Self::stopped_by) then says why. Cancel-safe: what was seen is
    /// kept.
    pub async fn until_needed(&mut self) {
        loop {
            tokio::time::sleep(PERIOD).await;
            let pid = self.pid.get();
            if let Some(others) = self.load.since_last(pid) {
                self.others.push(others);
            }
            self.own.extend(pid.filter(|pid| !self.own.contains(pid)));
            self.gpu_shares.extend(self.gpus.beside(&self.own));
            let heat = heat::read(&self.roots.sys);
            if let Some(heat) = heat {
                self.hottest = Some(self.hottest.map_or(heat.hottest, |hottest| hottest.max(heat.hottest)));
            }
            let on_mains = power::on_mains(&self.roots.sys);
            let yields = self.idle == Some(true) && self.yields;
            self.stopped_by = reason(yields, &self.others, &self.gpu_shares, self.on_mains, on_mains, heat);
            if self.stopped_by.is_some() {
                #[cfg(target_os = "linux")]
                hurry(pid);
                return;
            }
        }
    }

    /// What ended it, in words.
    pub fn stopped_by(&self) -> Option<String> {
        self.stopped_by.clone()
    }

    /// Share of all cores that others took, 0 to 1.
    pub fn other_load(&self) -> Option<f64> {
        let count = self.others.len();
        (count > 0).then(|| (self.others.iter().sum::<f64>() / count as f64 / idle::cores()).clamp(0.0, 1.0))
    }

    /// Whether it was idle before and others were quiet at the median of all looks.
    pub fn was_idle(&self) -> Option<bool> {
        let mut others = self.others.clone();
        others.sort_by(f64::total_cmp);
        let quiet = others.get(others.len() / 2).is_none_or(|median| *median <= idle::allowed());
        let mut shares = self.gpu_shares.clone();
        shares.sort_by(f64::total_cmp);
        let quiet = quiet && shares.get(shares.len() / 2).is_none_or(|median| *median <= idle::GPU_BUSY);
        Some(self.idle? && quiet && self.stopped_by.is_none())
    }

    /// The hottest that any sensor was, in degrees Celsius.
    pub fn hottest(&self) -> Option<f64> {
        self.hottest
    }
}

/// Gives a process that is about to be killed the usual priority: at the lowest it gets next to no time to end beside a busy
/// owner, and holds its memory, a GPU's too, for a second more. Needs the right to do so, which a service has.
#[cfg(target_os = "linux")]
fn hurry(pid: Option<u32>) {
    use rustix::process::{Pid, setpriority_process};
    let Some(pid) = pid else { return };
    let threads = std::fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    let ids = threads.filter_map(|thread| thread.file_name().to_str()?.parse().ok());
    for thread in ids.filter_map(Pid::from_raw) {
        let _ = setpriority_process(Some(thread), 0);
    }
}

/// Why to stop now.
fn reason(
    yields: bool,
    others: &[f64],
    gpus: &[f64],
    mains_before: Option<bool>,
    mains: Option<bool>,
    heat: Option<heat::Heat>,
) -> Option<String> {
    if mains_before == Some(true) && mains == Some(false) {
        return Some("the battery took over".into());
    }
    if mains_before == Some(false) && mains == Some(true) {
        return Some("mains power came back, and figures of both would say nothing".into());
    }
    if let Some(heat) = heat.filter(|heat| heat.is_too_much()) {
        let distance = heat.below_critical;
        return Some(format!("a sensor is {distance:.0} °C below critical, the hottest at {:.0} °C", heat.hottest));
    }
    let at_work = |seen: &[f64], least: f64| {
        let newest = seen.last_chunk::<LOOKS>().filter(|newest| yields && newest.iter().all(|share| *share > least));
        newest.map(|newest| newest[LOOKS - 1] * 100.0)
    };
    let cores =
        at_work(others, OWNER_AT_WORK).map(|share| format!("other programs began to work: {share:.0} % of a core"));
    cores.or_else(|| {
        at_work(gpus, OWNER_AT_GPU).map(|share| format!("other programs began to use a GPU: {share:.0} % of it"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_stops_for_the_owner_the_battery_and_the_heat_alone() {
        let cool = Some(heat::Heat { hottest: 60.0, below_critical: 40.0 });
        let stops = |yields, others: &[f64], mains, heat| reason(yields, others, &[], Some(true), mains, heat);
        assert_eq!(stops(true, &[0.9, 0.9], Some(true), cool), None);
        assert_eq!(stops(true, &[0.9, 0.1, 0.9], Some(true), cool), None, "a daemon");
        assert!(stops(true, &[0.0, 0.8, 0.8, 0.9], Some(true), cool).expect("owner").contains("other programs"));
        assert_eq!(stops(false, &[0.8, 0.8, 0.9], Some(true), cool), None);
        assert_eq!(stops(true, &[], Some(false), cool).as_deref(), Some("the battery took over"));
        assert_eq!(reason(true, &[], &[], Some(false), Some(false), None), None);
        assert!(
            reason(true, &[], &[], Some(false), Some(true), None).expect("mixed").contains("mains power came back")
        );
        let gpu = |yields, shares: &[f64]| reason(yields, &[], shares, None, None, None);
        assert_eq!(gpu(true, &[0.9, 0.9, 0.1, 0.9, 0.9]), None);
        assert_eq!(gpu(false, &[0.9, 0.9, 0.9]), None);
        assert!(gpu(true, &[0.3, 0.5, 0.8]).expect("a game").contains("use a GPU: 80 %"));
        let hot = Some(heat::Heat { hottest: 95.0, below_critical: 5.0 });
        assert!(stops(false, &[], None, hot).expect("hot").contains("5 °C below critical"));
    }

    #[tokio::test]
    async fn a_busy_neighbour_makes_it_not_idle() {
        let roots = Roots::of_this_machine();
        let gpus = Others::start(&roots, std::path::Path::new("no-such-program"));
        let mut watch = Watch::start(&roots, gpus, Some(true), None, true);
        watch.gpu_shares = vec![0.0, 0.4, 0.4];
        assert_eq!(watch.was_idle(), Some(false));
        watch.gpu_shares.clear();
        assert_eq!(watch.was_idle(), Some(true));
        watch.others = vec![0.0, 0.4, 0.4];
        assert_eq!(watch.was_idle(), Some(false));
        assert!(watch.other_load().expect("seen") > 0.0);
    }
}
