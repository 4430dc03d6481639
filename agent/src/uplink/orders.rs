//! [`Orders`]: the benchmarks that the controller ordered, and how they go.
//!
//! They outlive the link: what happens while it is down is told when it is up again, and an order that comes a second time
//! is no second benchmark. Only the newest are remembered; the controller keeps the rest.

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes as RawBytes;
use muster_proto::{BenchOrderState, BenchmarkKind, wire};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

use crate::survey::{BenchUpdate, SurveyRequest};

/// Orders that are remembered. The controller has one open at a time for each machine.
const REMEMBERED: usize = 8;
/// Length of an order's id.
const ID: usize = 16;

/// The orders of this run of the agent.
#[derive(Debug)]
pub struct Orders {
    survey: mpsc::Sender<SurveyRequest>,
    newest: watch::Sender<VecDeque<wire::BenchmarkProgress>>,
    changes: watch::Receiver<VecDeque<wire::BenchmarkProgress>>,
    running: JoinSet<()>,
}

/// What one link has told.
pub(super) type Told = BTreeMap<RawBytes, wire::BenchmarkProgress>;

impl Orders {
    /// Without any.
    pub fn new(survey: mpsc::Sender<SurveyRequest>) -> Self {
        let (newest, changes) = watch::channel(VecDeque::new());
        Self { survey, newest, changes, running: JoinSet::new() }
    }

    /// Follows a request. One that is known is told again.
    pub(super) fn take(&mut self, request: wire::BenchmarkRequest, told: &mut Told) {
        while self.running.try_join_next().is_some() {}
        let wire::BenchmarkRequest { quick, kind, order } = request;
        let kind = match kind {
            0 if quick => BenchmarkKind::Quick,
            0 => BenchmarkKind::Standard,
            kind => BenchmarkKind::from_number(kind),
        };
        if order.len() != ID {
            // Nobody waits for it; a full queue means that one is on its way anyway.
            let _ = self.survey.try_send(SurveyRequest::Benchmark { kind, updates: None });
            return;
        }
        if self.newest.borrow().iter().any(|known| known.order == order) {
            told.remove(&order);
            self.newest.send_modify(|_| {});
            return;
        }
        let (survey, newest) = (self.survey.clone(), self.newest.clone());
        newest.send_modify(|orders| {
            if orders.len() == REMEMBERED {
                orders.pop_front();
            }
            orders.push_back(wire::BenchmarkProgress {
                order: order.clone(),
                state: BenchOrderState::Waiting.number(),
                ..wire::BenchmarkProgress::default()
            });
        });
        self.running.spawn(async move {
            let (updates, mut inbox) = mpsc::channel(16);
            let update = |change: &dyn Fn(&mut wire::BenchmarkProgress)| {
                newest.send_modify(|orders| orders.iter_mut().filter(|known| known.order == order).for_each(change));
            };
            // A surveyor that is gone means that the agent stops: the controller asks again.
            let _ = survey.send(SurveyRequest::Benchmark { kind, updates: Some(updates) }).await;
            while let Some(news) = inbox.recv().await {
                update(&|known| note(known, &news));
            }
        });
    }

    /// Waits for something new to tell. Cancel-safe.
    pub(super) async fn changed(&mut self) {
        // The sender lives as long as this does.
        let _ = self.changes.changed().await;
    }

    /// What this link has not told yet; it is noted as told.
    pub(super) fn untold(&mut self, told: &mut Told) -> Vec<wire::BenchmarkProgress> {
        let orders = self.changes.borrow_and_update();
        told.retain(|order, _| orders.iter().any(|known| known.order == *order));
        let new: Vec<_> = orders.iter().filter(|known| told.get(&known.order) != Some(known)).cloned().collect();
        told.extend(new.iter().map(|known| (known.order.clone(), known.clone())));
        new
    }
}

fn note(progress: &mut wire::BenchmarkProgress, news: &BenchUpdate) {
    let state = match news {
        BenchUpdate::Progress { step, fraction } => {
            progress.step.clone_from(step);
            progress.fraction = f64::from(*fraction);
            BenchOrderState::Running
        }
        BenchUpdate::Done(_) => {
            progress.fraction = 1.0;
            BenchOrderState::Done
        }
        BenchUpdate::Failed(reason) => {
            progress.reason = Some(reason.clone());
            BenchOrderState::Refused
        }
    };
    progress.state = state.number();
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(order: u8) -> wire::BenchmarkRequest {
        let order = RawBytes::copy_from_slice(&[order; ID]);
        wire::BenchmarkRequest { quick: false, kind: BenchmarkKind::Full.number(), order }
    }

    #[tokio::test]
    async fn an_order_is_followed_once_and_told_on_every_link() {
        let (survey, mut requests) = mpsc::channel(4);
        let mut orders = Orders::new(survey);
        let mut link = Told::new();
        orders.take(request(1), &mut link);
        assert_eq!(orders.untold(&mut link)[0].state, BenchOrderState::Waiting.number());
        assert_eq!(orders.untold(&mut link), []);
        let Some(SurveyRequest::Benchmark { kind: BenchmarkKind::Full, updates: Some(updates) }) =
            requests.recv().await
        else {
            panic!("another request");
        };
        orders.take(request(1), &mut link);
        assert_eq!(orders.untold(&mut link).len(), 1, "it is told again");
        updates.send(BenchUpdate::Progress { step: "half".into(), fraction: 0.5 }).await.expect("it listens");
        orders.changed().await;
        let told = orders.untold(&mut link);
        assert_eq!((told[0].step.as_str(), told[0].state), ("half", BenchOrderState::Running.number()));
        // The link breaks, and it ends meanwhile.
        updates.send(BenchUpdate::Failed("on battery".into())).await.expect("it listens");
        drop(updates);
        orders.changed().await;
        let mut link = Told::new();
        orders.take(request(1), &mut link);
        let told = orders.untold(&mut link);
        assert_eq!((told[0].reason.as_deref(), told[0].state), (Some("on battery"), BenchOrderState::Refused.number()));
        assert!(requests.try_recv().is_err(), "the same order is no second benchmark");
        orders.take(request(2), &mut link);
        assert!(requests.recv().await.is_some());
    }

    #[tokio::test]
    async fn only_some_are_remembered() {
        let (survey, mut requests) = mpsc::channel(64);
        let mut orders = Orders::new(survey);
        let mut link = Told::new();
        for number in 0..20 {
            orders.take(request(number), &mut link);
            requests.recv().await.expect("a benchmark");
        }
        assert_eq!(orders.untold(&mut link).len(), REMEMBERED);
        assert_eq!(link.len(), REMEMBERED);
    }
}
