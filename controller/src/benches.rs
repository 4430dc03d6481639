//! [`Benches`]: operators' orders to benchmark machines, from the word to the result.
//!
//! Owns the newest order of each machine. An order waits until its machine is online and is given up after a day; another
//! one meanwhile joins it, unless it wants more. How it goes is kept in memory, how it ended in the store. It does not know
//! of streams: those ask what is due for their machine and tell what they hear.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use muster_proto::{BenchOrder, BenchOrderId, BenchOrderState, BenchmarkKind, MachineId, Timestamp};
use tokio::sync::{Mutex, watch};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use crate::clock::Clock;
use crate::links::Links;
use crate::store::{Actor, Event, Store, StoreError};

/// How long an order waits for its machine: a day, so that one given in the evening finds the desks of the morning, and
/// none surprises anybody a week later.
const LIFETIME: Duration = Duration::from_hours(24);
/// How often to look for orders that nobody came for.
const SWEEP: Duration = Duration::from_mins(1);

/// By machine.
pub(crate) type Orders = BTreeMap<MachineId, BenchOrder>;

/// The orders; clones share them.
#[derive(Clone, Debug)]
pub(crate) struct Benches {
    store: Store,
    links: Links,
    clock: Clock,
    orders: watch::Sender<Orders>,
    /// Held from reading orders to having written them.
    writing: Arc<Mutex<()>>,
}

/// What a machine says of its order.
#[derive(Clone, Debug)]
pub(crate) struct Progress {
    pub id: BenchOrderId,
    pub state: BenchOrderState,
    pub step: String,
    pub fraction: f64,
    pub reason: Option<String>,
}

/// Orders kinds by what they cover.
fn thoroughness(kind: BenchmarkKind) -> u8 {
    match kind {
        BenchmarkKind::Quick => 0,
        BenchmarkKind::Full => 2,
        _ => 1,
    }
}

impl Benches {
    /// With the orders that the store has.
    pub async fn open(store: Store, links: Links, clock: Clock) -> Result<Self, StoreError> {
        let orders = store.bench_orders().await?.into_iter().map(|order| (order.machine, order)).collect();
        Ok(Self { store, links, clock, orders: watch::Sender::new(orders), writing: Arc::default() })
    }

    /// Orders a benchmark of each machine, or joins what is open for it; tells its streams.
    pub async fn order(
        &self,
        machines: Vec<(MachineId, String)>,
        kind: BenchmarkKind,
        actor: &Actor,
    ) -> Result<Vec<BenchOrder>, StoreError> {
        let _writing = self.writing.lock().await;
        let now = self.clock.now();
        let mut all = Vec::with_capacity(machines.len());
        let (mut new, mut events) = (Vec::new(), Vec::new());
        for (machine, hostname) in machines {
            let open = self.of(machine).filter(|order| !order.state.has_ended());
            if let Some(open) = open.filter(|open| thoroughness(kind) <= thoroughness(open.kind)) {
                let detail = format!("{kind}, joins the {} one of {}", open.kind, open.ordered_by);
                events.push(Event::new(now, actor.clone(), "bench.ordered", machine, detail));
                all.push(open);
                continue;
            }
            let order = BenchOrder {
                id: BenchOrderId::random(),
                machine,
                hostname,
                kind,
                state: BenchOrderState::Waiting,
                step: None,
                fraction: None,
                reason: None,
                ordered_at: now,
                ordered_by: actor.to_string(),
                expires_at: now.plus(LIFETIME),
                ended_at: None,
            };
            events.push(Event::new(now, actor.clone(), "bench.ordered", machine, kind.to_string()));
            new.push(order.clone());
            all.push(order);
        }
        self.store.put_bench_orders(new.clone(), events).await?;
        self.publish(new.iter().cloned());
        for order in &new {
            self.links.wake(order.machine);
        }
        Ok(all)
    }

    fn publish(&self, orders: impl Iterator<Item = BenchOrder>) {
        self.orders.send_modify(|all| all.extend(orders.map(|order| (order.machine, order))));
    }

    /// The newest order of a machine. One that nobody came for is over when its time is, whether or not it was swept.
    pub fn of(&self, machine: MachineId) -> Option<BenchOrder> {
        let mut order = self.orders.borrow().get(&machine).cloned()?;
        if order.state == BenchOrderState::Waiting && order.expires_at <= self.clock.now() {
            order.state = BenchOrderState::Expired;
        }
        Some(order)
    }

    /// The order that a machine has to be sent.
    pub fn due(&self, machine: MachineId) -> Option<BenchOrder> {
        self.of(machine).filter(|order| !order.state.has_ended())
    }

    /// How many orders are in each state.
    pub fn counts(&self) -> BTreeMap<BenchOrderState, usize> {
        let mut counts = BTreeMap::new();
        for order in self.orders.borrow().values() {
            *counts.entry(order.state).or_default() += 1;
        }
        counts
    }

    /// Hears of every change.
    pub fn watch(&self) -> watch::Receiver<Orders> {
        self.orders.subscribe()
    }

    /// Notes what a machine says. What it says of an order that is not its newest, or has ended, is nothing.
    pub async fn note(&self, machine: MachineId, progress: Progress) -> Result<(), StoreError> {
        let _writing = self.writing.lock().await;
        let Some(mut order) = self.of(machine).filter(|order| order.id == progress.id && !order.state.has_ended())
        else {
            return Ok(());
        };
        let Progress { id: _, state, step, fraction, reason } = progress;
        match state {
            BenchOrderState::Waiting | BenchOrderState::Running => {
                order.state = state;
                order.step = Some(step).filter(|step| !step.is_empty());
                order.fraction = Some(fraction.clamp(0.0, 1.0));
            }
            BenchOrderState::Done => self.end(&mut order, state, None),
            // Whatever else a newer agent calls an end, there is no result.
            _ => self.end(&mut order, BenchOrderState::Refused, reason.or(Some("the agent does not say why".into()))),
        }
        if order.state.has_ended() {
            let action = if order.state == BenchOrderState::Done { "bench.done" } else { "bench.refused" };
            let detail = order.reason.clone().unwrap_or_else(|| order.kind.to_string());
            let event = Event::new(self.clock.now(), Actor::Machine(machine), action, machine, detail);
            self.store.put_bench_orders(vec![order.clone()], vec![event]).await?;
        }
        self.publish(std::iter::once(order));
        Ok(())
    }

    fn end(&self, order: &mut BenchOrder, state: BenchOrderState, reason: Option<String>) {
        order.state = state;
        order.step = None;
        order.fraction = None;
        order.reason = reason;
        order.ended_at = Some(self.clock.now());
    }

    /// Gives up the orders that nobody came for, until `shutdown`.
    pub async fn run(self, shutdown: CancellationToken) {
        loop {
            if let Err(error) = self.sweep(self.clock.now()).await {
                tracing::error!(error = %crate::error_chain(&error), "cannot give up orders of benchmarks");
            }
            // Cancel-safe: a timer.
            tokio::select! {
                () = shutdown.cancelled() => return,
                () = sleep(SWEEP) => {}
            }
        }
    }

    /// One that runs is left alone: its machine has it, and will say how it ended.
    async fn sweep(&self, now: Timestamp) -> Result<(), StoreError> {
        let _writing = self.writing.lock().await;
        let online = self.links.online_ids();
        let is_over = |order: &&BenchOrder| {
            let runs = order.state == BenchOrderState::Running && online.contains(&order.machine);
            !order.state.has_ended() && order.expires_at <= now && !runs
        };
        let mut over: Vec<_> = self.orders.borrow().values().filter(is_over).cloned().collect();
        if over.is_empty() {
            return Ok(());
        }
        for order in &mut over {
            self.end(order, BenchOrderState::Expired, None);
        }
        let event = |order: &BenchOrder| {
            Event::new(now, Actor::Controller, "bench.expired", order.machine, order.kind.to_string())
        };
        self.store.put_bench_orders(over.clone(), over.iter().map(event).collect()).await?;
        self.publish(over.into_iter());
        Ok(())
    }
}

/// The machines of a group.
///
/// There are no groups yet, so that none has a machine.
pub(crate) async fn machines_of_group(store: &Store, group: &str) -> Result<BTreeSet<MachineId>, StoreError> {
    let _ = (store, group);
    Ok(BTreeSet::new())
}
