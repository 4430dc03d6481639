//! Which machines have a stream up, and how to reach them there.
//!
//! Owns: one entry for each connected machine; waking its stream for a new desired state; the challenge when a second
//! stream of the same identity appears; what all connections of one machine or operator share: being cut off when it is
//! revoked, and the limits that keep one of them from harming the others. It does not know what goes over the streams.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use muster_proto::{MachineId, Timestamp};
use tokio::sync::{Semaphore, mpsc, oneshot, watch};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::identity::Subject;
use crate::pace::Pace;

/// How long the old stream has to answer a challenge.
pub const CHALLENGE_TIMEOUT: Duration = Duration::from_secs(2);

/// Connections of one machine or operator at the same time: an agent has a few, and some more that broke unnoticed.
const CONNECTIONS: usize = 32;

/// Downloads of one machine at the same time; each holds some buffers.
const DOWNLOADS: usize = 16;

/// What one machine may ask of the store: each message costs 1 and what follows from it more. A machine in the middle of
/// an install uses about 4 a second.
const ALLOWANCES_PER_SECOND: f64 = 20.0;
const ALLOWANCES_AT_ONCE: f64 = 600.0;

/// What keeps one machine or operator from harming the others.
#[derive(Debug)]
pub struct Limits {
    /// What it may ask of the store.
    pub(crate) pace: Pace,
    /// One permit for each of its connections.
    pub(crate) connections: Arc<Semaphore>,
    /// One permit for each of its downloads.
    pub(crate) downloads: Arc<Semaphore>,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            pace: Pace::new(ALLOWANCES_PER_SECOND, ALLOWANCES_AT_ONCE),
            connections: Arc::new(Semaphore::new(CONNECTIONS)),
            downloads: Arc::new(Semaphore::new(DOWNLOADS)),
        }
    }
}

/// What the connections of one machine or operator share, and their requests hold on to.
#[derive(Clone, Debug, Default)]
pub struct Session {
    /// Cancelled when the machine or operator is revoked.
    pub ended: CancellationToken,
    /// Shared by all of its connections.
    pub limits: Arc<Limits>,
}

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
    /// For each machine and operator that connected since the start.
    sessions: HashMap<Subject, Session>,
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
            let order = ChallengeOrder { nonce: rand::random(), answered };
            // Several may ask at once; a stream that ended says so at once.
            let asked = async { old.1.send(order).await.is_ok() && answer.await.is_ok() };
            if timeout(CHALLENGE_TIMEOUT, asked).await == Ok(true) {
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
            entry.expires.send_if_modified(|newest| {
                let newer = newest.is_none_or(|newest| newest < expires);
                if newer {
                    *newest = Some(expires);
                }
                newer
            });
        }
    }

    /// Ends everything that this machine or operator has open, within what its connections need to say so.
    pub fn cut_off(&self, subject: &Subject) {
        if let Some(session) = self.lock().sessions.remove(subject) {
            session.ended.cancel();
        }
    }

    /// What all connections of this machine or operator share; a connection takes one before its first request.
    pub fn session(&self, subject: &Subject) -> Session {
        let mut state = self.lock();
        let session = state.sessions.entry(subject.clone()).or_default();
        Session { ended: session.ended.child_token(), limits: Arc::clone(&session.limits) }
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
    async fn a_stream_that_answers_keeps_its_identity_however_many_ask_at_once() {
        let links = Links::default();
        let machine = MachineId::random();
        let mut old = links.claim(machine, None, now()).await.expect("the first");
        let mut others = tokio::task::JoinSet::new();
        for _ in 0..20 {
            let links = links.clone();
            others.spawn(async move { links.claim(machine, None, now()).await.map(drop) });
        }
        for _ in 0..20 {
            old.challenges.recv().await.expect("a challenge").answered.send(()).expect("waiting");
        }
        while let Some(other) = others.join_next().await {
            assert_eq!(other.expect("no panic"), Err(Cloned));
        }
        assert!(!old.replaced.is_cancelled());
    }

    #[test]
    fn whoever_is_cut_off_is_so_on_every_connection_and_nobody_else_is() {
        let links = Links::default();
        let [one, other] = [0; 2].map(|_| Subject::Machine(MachineId::random()));
        let sessions = [links.session(&one), links.session(&one), links.session(&other)];
        links.cut_off(&one);
        assert_eq!(sessions.map(|session| session.ended.is_cancelled()), [true, true, false]);
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
