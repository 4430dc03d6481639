//! [`Setbacks`]: downloads that failed, why, and when they are tried again. Pure: the clock is an argument.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use muster_proto::{Bytes, ModelDigest};
use tokio::time::Instant;

use crate::backoff::Backoff;
use crate::install::DownloadError;

/// A file that came out wrong is wrong at its source: it is not fetched over and over.
const MISMATCH_RETRY: Duration = Duration::from_mins(1);
/// Longest wait after repeated mismatches.
const MISMATCH_LONGEST: Duration = Duration::from_hours(1);

/// One file's failed downloads.
#[derive(Clone, Debug)]
pub struct Setback {
    /// Why the last one failed.
    pub reason: String,
    /// Whether the network is to blame, so that it goes on by itself.
    pub transient: bool,
    wait: Wait,
    backoff: Backoff,
    mismatches: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wait {
    Until(Instant),
    ForSpace(Bytes),
    /// Its time has come; the reason stays until the next attempt ends.
    Over,
}

/// All of them.
#[derive(Clone, Debug, Default)]
pub struct Setbacks {
    files: BTreeMap<ModelDigest, Setback>,
}

impl Setbacks {
    /// Notes a failure at `now`; `chance` is uniform in 0..1.
    pub fn failed(&mut self, digest: ModelDigest, error: &DownloadError, now: Instant, chance: f64) {
        let before = self.files.remove(&digest);
        let (mut backoff, mut mismatches) = before.map_or_else(Default::default, |old| (old.backoff, old.mismatches));
        let pause = backoff.failed(now.into_std(), chance);
        let wait = match error {
            DownloadError::NoSpace { needs, .. } => Wait::ForSpace(*needs),
            DownloadError::Mismatch { .. } => {
                mismatches = mismatches.saturating_add(1);
                let pause = MISMATCH_RETRY.saturating_mul(1 << (mismatches - 1).min(6)).min(MISMATCH_LONGEST);
                Wait::Until(now + pause)
            }
            _ => Wait::Until(now + pause),
        };
        let transient = match error {
            DownloadError::Blob(blob) => !blob.is_refusal(),
            DownloadError::Stalled => true,
            _ => false,
        };
        self.files.insert(digest, Setback { reason: crate::error_chain(error), transient, wait, backoff, mismatches });
    }

    /// Forgets a file's failures.
    pub fn succeeded(&mut self, digest: &ModelDigest) {
        self.files.remove(digest);
    }

    /// Lets go of those whose time has come or for which `free` is enough, and forgets those that nobody wants.
    pub fn release(&mut self, wanted: &BTreeSet<ModelDigest>, now: Instant, free: Option<Bytes>) {
        self.files.retain(|digest, _| wanted.contains(digest));
        for setback in self.files.values_mut() {
            let over = match setback.wait {
                Wait::Until(time) => time <= now,
                Wait::ForSpace(needs) => free.is_some_and(|free| free >= needs),
                Wait::Over => continue,
            };
            if over {
                setback.wait = Wait::Over;
            }
        }
    }

    /// Files that wait.
    pub fn digests(&self) -> BTreeSet<ModelDigest> {
        self.files.iter().filter(|(_, setback)| setback.wait != Wait::Over).map(|(digest, _)| *digest).collect()
    }

    /// Why a file is not here.
    pub fn get(&self, digest: &ModelDigest) -> Option<&Setback> {
        self.files.get(digest)
    }

    /// When the next one's time comes.
    pub fn next(&self) -> Option<Instant> {
        self.files
            .values()
            .filter_map(|setback| match setback.wait {
                Wait::Until(time) => Some(time),
                _ => None,
            })
            .min()
    }

    /// Whether one waits for room on the disk.
    pub fn any_waits_for_space(&self) -> bool {
        self.files.values().any(|setback| matches!(setback.wait, Wait::ForSpace(_)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_disk_waits_for_room_and_a_mismatch_for_its_time() {
        let (full, wrong) = (ModelDigest::new([1; 32]), ModelDigest::new([2; 32]));
        let wanted = BTreeSet::from([full, wrong]);
        let now = Instant::now();
        let mut setbacks = Setbacks::default();
        let no_space =
            DownloadError::NoSpace { needs: Bytes::from_mib(2), free: Bytes::from_mib(1), store: "/models".into() };
        setbacks.failed(full, &no_space, now, 0.5);
        setbacks.failed(wrong, &DownloadError::Mismatch { expected: wrong, got: full }, now, 0.5);
        assert_eq!(setbacks.digests(), wanted);
        assert!(setbacks.get(&full).is_some_and(|setback| setback.reason.contains("disk space") && !setback.transient));
        setbacks.release(&wanted, now + Duration::from_secs(59), Some(Bytes::from_mib(1)));
        assert_eq!(setbacks.digests(), wanted);
        setbacks.release(&wanted, now + Duration::from_mins(1), Some(Bytes::from_mib(2)));
        assert_eq!(setbacks.digests(), BTreeSet::new());
        assert!(setbacks.get(&wrong).is_some(), "the reason stays until the next attempt ends");
        setbacks.failed(wrong, &DownloadError::Mismatch { expected: wrong, got: full }, now, 0.5);
        assert_eq!(setbacks.next(), Some(now + Duration::from_mins(2)));
        setbacks.release(&BTreeSet::new(), now, None);
        assert!(setbacks.get(&full).is_none());
    }

    #[test]
    fn a_broken_connection_goes_on_by_itself() {
        let mut setbacks = Setbacks::default();
        let digest = ModelDigest::new([1; 32]);
        let now = Instant::now();
        setbacks.failed(digest, &DownloadError::Stalled, now, 1.0);
        assert!(setbacks.get(&digest).is_some_and(|setback| setback.transient));
        assert_eq!(setbacks.next(), Some(now + Duration::from_secs(2)));
    }
}
