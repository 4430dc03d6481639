//! Who computes on NVIDIA's cards at the moment: [`serve`] in a probe's process, which keeps the library open
//! ([`KeptProbe`]); [`NvmlUse`] for whoever wants to know.
//!
//! A library that does not answer in time is killed with its process and not asked again. While a card of NVIDIA sleeps,
//! nobody uses it, and no process is kept that would wake it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, SystemTime};

use nvml_wrapper::Nvml;
use nvml_wrapper::error::NvmlError;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use super::kept::{self, KeptProbe};
use super::{nvml, sleep};

/// The probe's name.
pub const NAME: &str = "nvml-use";
/// How often it asks: the driver sums up six times a second.
const EVERY: Duration = Duration::from_millis(300);
/// How long an answer may take; the first one wakes up the driver.
const DEADLINE: Duration = Duration::from_secs(8);

/// What one card does.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CardUse {
    /// Share of the last moments in which anything computed, in percent.
    pub percent: Option<u32>,
    /// Programs with their share of its multiprocessors, in percent; absent where the driver does not count that.
    pub programs: Option<BTreeMap<u32, u32>>,
}

/// The share of any card that others take, 0 to 1. `own`: processes of ours that may compute there; then only what is certainly
/// others' counts: a program that `is_shown` does not know may be our own, as a container sees it. Pure.
pub fn others(cards: &[CardUse], own: Option<&[u32]>, is_shown: impl Fn(u32) -> bool) -> Option<f64> {
    let of_card = |card: &CardUse| match own {
        None => card.percent.map(f64::from),
        Some(own) => {
            let others = card.programs.as_ref()?.iter().filter(|(pid, _)| !own.contains(pid) && is_shown(**pid));
            Some(others.map(|(_, percent)| f64::from(*percent)).sum())
        }
    };
    cards.iter().filter_map(of_card).reduce(f64::max).map(|percent| (percent / 100.0).clamp(0.0, 1.0))
}

/// The probe's process: answers each line, whatever it says.
pub fn serve() -> ExitCode {
    let Ok(nvml) = nvml::open() else { return ExitCode::FAILURE };
    let mut since = BTreeMap::new();
    kept::serve(|_| Some(look(&nvml, &mut since)))
}

fn look(nvml: &Nvml, since: &mut BTreeMap<u32, u64>) -> Vec<CardUse> {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    // The driver's moments are microseconds since 1970.
    let start = u64::try_from((now.saturating_sub(Duration::from_secs(1))).as_micros()).unwrap_or(0);
    let cards =
        (0..nvml.device_count().unwrap_or(0)).filter_map(|index| Some((index, nvml.device_by_index(index).ok()?)));
    cards
        .map(|(index, card)| {
            let since = since.entry(index).or_insert(start);
            let programs = match card.process_utilization_stats(*since) {
                Ok(samples) => {
                    let mut programs = BTreeMap::new();
                    for sample in samples {
                        *since = (*since).max(sample.timestamp);
                        let most: &mut u32 = programs.entry(sample.pid).or_default();
                        *most = (*most).max(sample.sm_util);
                    }
                    Some(programs)
                }
                // Nobody computed since.
                Err(NvmlError::NotFound) => Some(BTreeMap::new()),
                Err(_) => None,
            };
            CardUse { percent: card.utilization_rates().ok().map(|rates| rates.gpu), programs }
        })
        .collect()
}

/// Asks again and again, in a task of its own, for as long as it is there.
#[derive(Debug)]
pub struct NvmlUse {
    newest: watch::Receiver<Vec<CardUse>>,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for NvmlUse {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl NvmlUse {
    /// Begins; does nothing on a machine without NVIDIA's cards.
    pub fn start(program: &Path, sys: &Path) -> Self {
        let (tell, newest) = watch::channel(Vec::new());
        let (program, sys) = (program.to_owned(), sys.to_owned());
        Self { newest, task: tokio::spawn(follow(program, sys, tell)) }
    }

    /// Returns when something was seen, or never will be. Cancel-safe.
    pub async fn known(&mut self) {
        if self.newest.has_changed().is_ok() {
            let _ = self.newest.changed().await;
        }
    }

    /// To wait for what will be seen.
    pub fn follow(&self) -> watch::Receiver<Vec<CardUse>> {
        self.newest.clone()
    }

    /// What was seen last; nothing where nothing is known, or all cards sleep.
    pub fn newest(&self) -> Vec<CardUse> {
        self.newest.borrow().clone()
    }
}

async fn follow(program: PathBuf, sys: PathBuf, tell: watch::Sender<Vec<CardUse>>) {
    let mut open: Option<KeptProbe> = None;
    loop {
        match sleep::nvidia(&sys) {
            sleep::Nvidia::None => return,
            sleep::Nvidia::SomeAsleep => {
                open = None;
                tell.send_replace(Vec::new());
            }
            sleep::Nvidia::Awake => {
                let Some(mut asked) = open.take().or_else(|| KeptProbe::start(&program, NAME)) else { return };
                let Some(cards) = asked.ask(&(), DEADLINE).await else {
                    tracing::info!("NVIDIA's library does not say who computes: it is not asked again");
                    tell.send_replace(Vec::new());
                    return;
                };
                tell.send_replace(cards);
                open = Some(asked);
            }
        }
        tokio::time::sleep(EVERY).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_certainly_others_counts() {
        let card = |percent, programs: &[(u32, u32)]| CardUse {
            percent: Some(percent),
            programs: Some(programs.iter().copied().collect()),
        };
        let close = |share: Option<f64>, wanted: f64| (share.expect("a share") - wanted).abs() < 1e-9;
        let busy = [card(3, &[]), card(98, &[(7, 90), (8, 30), (9, 5)])];
        assert!(close(others(&busy, None, |_| true), 0.98), "all of it, where we do nothing");
        assert!(close(others(&busy, Some(&[7]), |_| true), 0.35));
        assert!(close(others(&busy, Some(&[7]), |pid| pid != 8), 0.05), "a program that is not shown may be ours");
        assert!(close(others(&busy, Some(&[]), |_| true), 1.0));
        let not_counted = [CardUse { percent: Some(100), programs: None }];
        assert_eq!(others(&not_counted, Some(&[7]), |_| true), None);
        assert_eq!(others(&[], None, |_| true), None);
    }
}
