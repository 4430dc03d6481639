//! Which machines have a stream up, and how to reach them there.
//!
//! Owns: one entry for each connected machine; waking its stream for a new desired state; the challenge when a second
//! stream of the same identity appears; cutting a revoked machine off. It does not know what goes over the streams.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use muster_proto::{MachineId, Timestamp};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

/// How long the old stream has to answer a challenge.
pub const CHALLENGE_TIMEOUT: Duration = Duration::from_secs(2);

/// A question for the stream that is up.
#[derive(Debug)]
pub struct ChallengeOrder {
    /// What the answer must repeat.
    pub nonce: [u8; 32],
    /// Told when it did.
    pub answered: oneshot::Sender<()>,
}

#[derive(Debug)]
struct Entry {
    number: u64,
    challenges: mpsc::Sender<ChallengeOrder>,
    wake: watch::Sender<u64>,
    expires: watch::Sender<Option<Timestamp>>,
    last_seen: Arc<AtomicI64>,
    replaced: CancellationToken,
}

#[derive(Debug, Default)]
struct State {
    entries: BTreeMap<MachineId, Entry>,
    /// For each machine that connected since the start: cancelled when it is revoked.
    sessions: HashMap<MachineId, CancellationToken>,
}

/// The registry; clones share it.
#[derive(Clone, Debug, Default)]
pub struct Links {
    state: Arc<Mutex<State>>,
    next: Arc<AtomicU64>,
}

/// The machine's identity is in use by a live stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cloned;

/// One stream's hold on its machine's entry, given back when dropped.
#[derive(Debug)]
pub struct Claim {
    links: Links,
    machine: MachineId,
    number: u64,
    last_seen: Arc<AtomicI64>,
    /// Challenges to put to the peer.
    pub challenges: mpsc::Receiver<ChallengeOrder>,
    /// Changes when there is a new desired state.
    pub wake: watch::Receiver<u64>,
    /// When the machine's newest certificate ends.
    pub expires: watch::Receiver<Option<Timestamp>>,
    /// Cancelled when another stream took over.
    pub replaced: CancellationToken,
    /// Whether this stream took over from a silent one.
    pub took_over: bool,
}

impl Claim {
    /// Notes a sign of life.
    pub fn seen(&self, at: Timestamp) {
        self.last_seen.store(at.unix_millis(), Ordering::Relaxed);
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        let mut state = self.links.lock();
        if state.entries.get(&self.machine).is_some_and(|entry| entry.number == self.number) {
            state.entries.remove(&self.machine);
        }
    }
}

impl Links {
    fn lock(&self) -> MutexGuard<'_, State> {
        // Each section leaves the maps whole, so a panic elsewhere does not make them wrong.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes this stream the machine's own. Where another one is up, that one is challenged first: it keeps the identity
    /// if it answers in time.
    ///
    /// # Errors
    /// [`Cloned`] if the other one answered.
    pub async fn claim(&self, machine: MachineId, expires: Option<Timestamp>, now: Timestamp) -> Result<Claim, Cloned> {
        let mut silent = None;
        loop {
            let old = {
                let mut state = self.lock();
                match state.entries.get(&machine) {
                    Some(entry) if Some(entry.number) != silent => (entry.number, entry.challenges.clone()),
                    _ => return Ok(self.enter(&mut state, machine, expires, now, silent.is_some())),
                }
            };
            let (answered, answer) = oneshot::channel();
            let asked = old.1.try_send(ChallengeOrder { nonce: rand::random(), answered }).is_ok();
            if asked && matches!(timeout(CHALLENGE_TIMEOUT, answer).await, Ok(Ok(()))) {
                return Err(Cloned);
            }
            silent = Some(old.0);
        }
    }

    fn enter(
        &self,
        state: &mut State,
        machine: MachineId,
        expires: Option<Timestamp>,
        now: Timestamp,
        took_over: bool,
    ) -> Claim {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let (challenges, challenge_orders) = mpsc::channel(4);
        let (wake, woken) = watch::channel(0);
        let (expiry, expiry_changes) = watch::channel(expires);
        let last_seen = Arc::new(AtomicI64::new(now.unix_millis()));
        let replaced = CancellationToken::new();
        let entry = Entry {
            number,
            challenges,
            wake,
            expires: expiry,
            last_seen: Arc::clone(&last_seen),
            replaced: replaced.clone(),
        };
        if let Some(old) = state.entries.insert(machine, entry) {
            old.replaced.cancel();
        }
        Claim {
            links: self.clone(),
            machine,
            number,
            last_seen,
            challenges: challenge_orders,
            wake: woken,
            expires: expiry_changes,
            replaced,
            took_over,
        }
    }

    /// Tells a machine's stream that there is a new desired state.
    pub fn wake(&self, machine: MachineId) {
        if let Some(entry) = self.lock().entries.get(&machine) {
            entry.wake.send_modify(|count| *count += 1);
        }
    }

    /// Tells a machine's stream that its certificate was renewed.
    pub fn renewed(&self, machine: MachineId, expires: Timestamp) {
        if let Some(entry) = self.lock().entries.get(&machine) {
            entry.expires.send_replace(Some(expires));
        }
    }

    /// Ends everything that this machine has open, within what its connections need to say so.
    pub fn cut_off(&self, machine: MachineId) {
        if let Some(session) = self.lock().sessions.remove(&machine) {
            session.cancel();
        }
    }

    /// Cancelled when the machine is revoked; a connection takes one before its first request.
    pub fn session(&self, machine: MachineId) -> CancellationToken {
        self.lock().sessions.entry(machine).or_default().child_token()
    }

    /// When each connected machine was last heard of.
    pub fn online(&self) -> BTreeMap<MachineId, Timestamp> {
        let state = self.lock();
        let seen = |entry: &Entry| Timestamp::from_unix_millis(entry.last_seen.load(Ordering::Relaxed));
        state.entries.iter().map(|(machine, entry)| (*machine, seen(entry))).collect()
    }

    /// The connected machines.
    pub fn online_ids(&self) -> BTreeSet<MachineId> {
        self.lock().entries.keys().copied().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn now() -> Timestamp {
        Timestamp::from_unix_millis(1_000)
    }

    #[tokio::test]
    async fn a_silent_stream_hands_over_after_two_seconds() {
        let links = Links::default();
        let machine = MachineId::random();
        let old = links.claim(machine, None, now()).await.expect("the first");
        let started = tokio::time::Instant::now();
        let new = links.claim(machine, None, now()).await.expect("the old one is silent");
        assert!(started.elapsed() >= CHALLENGE_TIMEOUT);
        assert!(old.replaced.is_cancelled() && new.took_over && !new.replaced.is_cancelled());
        drop(old);
        assert!(links.online_ids().contains(&machine), "the old stream's end took the new one's entry");
        drop(new);
        assert!(links.online_ids().is_empty());
    }

    #[tokio::test]
    async fn a_stream_that_answers_keeps_its_identity() {
        let links = Links::default();
        let machine = MachineId::random();
        let mut old = links.claim(machine, None, now()).await.expect("the first");
        let second = tokio::spawn({
            let links = links.clone();
            async move { links.claim(machine, None, now()).await.map(drop) }
        });
        let order = old.challenges.recv().await.expect("a challenge");
        order.answered.send(()).expect("waiting");
        assert_eq!(second.await.expect("no panic"), Err(Cloned));
        assert!(!old.replaced.is_cancelled());
    }

    #[tokio::test]
    async fn a_stream_that_ended_is_replaced_at_once() {
        let links = Links::default();
        let machine = MachineId::random();
        let mut old = links.claim(machine, None, now()).await.expect("the first");
        old.challenges.close();
        let new = links.claim(machine, None, now()).await.expect("nobody there to ask");
        assert!(new.took_over);
    }
}
