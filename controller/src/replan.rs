//! The task that keeps every machine's desired state in step with policy, catalog and inventories.
//!
//! Each activation takes a whole new look: it sizes what is missing, plans, checks, writes desired states and wakes the
//! streams of the machines whose state changed. Signals carry nothing but that there may be something to do.
//!
//! Entry points: [`ReplanHandle::request`] and [`Replanner::run`].

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use muster_engine::worker::WorkerCommand;
use muster_proto::{AssignmentId, EnrolmentState, Machine, MachinePlan, ModelDigest, Plan, Policy};
use prometheus::Histogram;
use tokio::sync::watch;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use crate::blobs::Blobs;
use crate::check::{Violation, check};
use crate::clock::Clock;
use crate::links::Links;
use crate::plan::{PlanArtifact, PlanInput, PlanMachine, PlanModel, Sizing, plan};
use crate::sizing;
use crate::store::{Actor, Event, SizingOutcome, Store, StoreError};

/// How long a question for the plan waits for it to be up to date.
const SETTLE: Duration = Duration::from_secs(30);

/// When to try again by itself what this host did not manage: a full disk, a worker that was killed.
const RETRY: Duration = Duration::from_secs(30);

#[derive(Clone, Debug, Default)]
struct Published {
    /// The newest request that this plan answers.
    request: u64,
    plan: Arc<Plan>,
}

/// Asks for planning and reads what came of it; clones share the task.
#[derive(Clone, Debug)]
pub struct ReplanHandle {
    requests: watch::Sender<u64>,
    published: watch::Receiver<Published>,
}

impl ReplanHandle {
    /// Something changed that a plan may follow from.
    pub fn request(&self) {
        self.requests.send_modify(|count| *count += 1);
    }

    /// The plan that answers everything requested until now; the one there is, if that takes too long.
    pub async fn settled(&self) -> Arc<Plan> {
        let wanted = *self.requests.borrow();
        let mut published = self.published.clone();
        let newest = timeout(SETTLE, published.wait_for(|published| published.request >= wanted)).await;
        if let Ok(Ok(published)) = newest {
            return Arc::clone(&published.plan);
        }
        Arc::clone(&self.published.borrow().plan)
    }
}

/// The task.
#[derive(Debug)]
pub struct Replanner {
    store: Store,
    blobs: Blobs,
    links: Links,
    clock: Clock,
    worker: WorkerCommand,
    requests: watch::Receiver<u64>,
    published: watch::Sender<Published>,
    /// How long each activation takes.
    durations: Histogram,
    /// What was last said about a plan that broke an invariant.
    complained: Option<String>,
    /// Whether something failed that may go better next time.
    again: bool,
}

impl Replanner {
    /// A task with one request waiting, and its handle.
    pub fn new(
        store: Store,
        blobs: Blobs,
        links: Links,
        clock: Clock,
        worker: WorkerCommand,
        durations: Histogram,
    ) -> (Self, ReplanHandle) {
        let (requests, asked) = watch::channel(1);
        let (published, answers) = watch::channel(Published::default());
        let task = Self {
            store,
            blobs,
            links,
            clock,
            worker,
            requests: asked,
            published,
            durations,
            complained: None,
            again: false,
        };
        (task, ReplanHandle { requests, published: answers })
    }

    /// Runs until cancelled.
    pub async fn run(mut self, shutdown: CancellationToken) {
        loop {
            let request = *self.requests.borrow_and_update();
            self.again = false;
            // Cancel-safe: an activation that is dropped has written nothing or a whole transaction.
            tokio::select! {
                () = shutdown.cancelled() => return,
                result = self.activate() => {
                    let plan = match result {
                        Ok(plan) => Arc::new(plan),
                        Err(error) => {
                            tracing::error!(error = %crate::error_chain(&error), "planning failed");
                            self.again = true;
                            Arc::clone(&self.published.borrow().plan)
                        }
                    };
                    self.published.send_replace(Published { request, plan });
                }
            }
            // Cancel-safe: `changed` loses no change, and the rest holds nothing.
            tokio::select! {
                () = shutdown.cancelled() => return,
                changed = self.requests.changed() => if changed.is_err() { return },
                () = sleep(RETRY), if self.again => {}
            }
        }
    }

    async fn activate(&mut self) -> Result<Plan, StoreError> {
        let _takes = self.durations.start_timer();
        let input = self.gather().await?;
        let mut plan = plan(&input);
        let violations = check(&input, &plan);
        if violations.is_empty() {
            self.complained = None;
        } else {
            let what = violations.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ");
            tracing::error!(violations = %what, "a part of the plan breaks its invariants and is not used");
            if self.complained.as_ref() != Some(&what) {
                let now = self.clock.now();
                self.store.record(Event::new(now, Actor::Controller, "plan.refused", "plan", what.clone())).await?;
                self.complained = Some(what);
            }
            set_aside(&mut plan, violations);
        }
        // A machine for which nothing could be considered keeps what it has.
        let decisions = plan
            .machines
            .iter()
            .filter(|(_, planned)| planned.blocked.is_none())
            .map(|(machine, planned)| (*machine, planned.assignment.clone().into_iter().collect()))
            .collect();
        let changed = self.store.decide(decisions, self.clock.now()).await?;
        tracing::debug!(machines = plan.machines.len(), changed = changed.len(), "planned");
        for machine in changed {
            self.links.wake(machine);
        }
        Ok(plan)
    }

    async fn gather(&mut self) -> Result<PlanInput, StoreError> {
        let machines = self.store.machines().await?;
        let machines: Vec<_> = machines.into_iter().filter(|m| m.enrolment == EnrolmentState::Accepted).collect();
        let record = self.store.policy().await?;
        // Checked when it was applied; an older build may have taken what this one does not.
        let policy = if record.toml.is_empty() {
            None
        } else {
            toml::from_str::<Policy>(&record.toml)
                .inspect_err(|error| tracing::error!(%error, "the stored policy cannot be read"))
                .ok()
        };
        let models: Vec<PlanModel> = self
            .store
            .catalog()
            .await?
            .into_iter()
            .map(|(model, records)| PlanModel {
                name: model.name,
                context_train: model.context_train,
                artifacts: records
                    .into_iter()
                    .map(|record| PlanArtifact {
                        artifact: record.artifact,
                        bytes_per_token: record.bytes_per_token,
                        parameters_per_token: record.parameters_per_token,
                    })
                    .collect(),
            })
            .collect();
        let mut current = self.store.all_desired().await?;
        let sizings = self.size(&machines, policy.as_ref(), &models).await?;
        let machines = machines
            .into_iter()
            .zip(sizings)
            .map(|(machine, sizings)| PlanMachine {
                id: machine.id,
                inventory: machine.inventory,
                benchmark: machine.benchmark,
                current: current.remove(&machine.id).unwrap_or_default(),
                sizings,
                fresh_id: AssignmentId::random(),
            })
            .collect();
        Ok(PlanInput { policy, models, machines })
    }

    /// What the wanted models need on each machine, asking for what is not known yet.
    async fn size(
        &mut self,
        machines: &[Machine],
        policy: Option<&Policy>,
        models: &[PlanModel],
    ) -> Result<Vec<BTreeMap<ModelDigest, Sizing>>, StoreError> {
        let Some(role) = policy.and_then(|policy| policy.roles.first()) else {
            return Ok(vec![BTreeMap::new(); machines.len()]);
        };
        let settings = role.settings();
        let wanted: BTreeSet<ModelDigest> = models
            .iter()
            .filter(|model| role.models.contains(&model.name))
            .flat_map(|model| model.artifacts.iter().map(|artifact| artifact.artifact.digest))
            .collect();
        let mut known = self.store.sizings().await?;
        let mut failed = BTreeMap::new();
        let mut all = Vec::with_capacity(machines.len());
        for machine in machines {
            let mut sizings = BTreeMap::new();
            if let Some(inventory) = &machine.inventory {
                let devices = sizing::phantoms(inventory);
                let key = sizing::key(&settings, &devices);
                for digest in &wanted {
                    let question = (*digest, key.clone());
                    if let Some(error) = failed.get(&question) {
                        sizings.insert(*digest, Sizing::Refused(String::clone(error)));
                        continue;
                    }
                    if !known.contains_key(&question) {
                        let path = self.blobs.path(*digest);
                        match sizing::ask(&self.worker, path, settings.clone(), devices.clone()).await {
                            Ok(outcome) => {
                                self.store.put_sizing(*digest, &key, &outcome).await?;
                                known.insert(question.clone(), outcome);
                            }
                            Err(error) => {
                                let error = crate::error_chain(&error);
                                tracing::warn!(%digest, %error, "cannot size a model");
                                sizings.insert(*digest, Sizing::Refused(error.clone()));
                                failed.insert(question, error);
                                self.again = true;
                                continue;
                            }
                        }
                    }
                    let sizing = match &known[&question] {
                        SizingOutcome::Needs(need) => Sizing::Needs(need.clone()),
                        SizingOutcome::Refused(words) => Sizing::Refused(words.clone()),
                    };
                    sizings.insert(*digest, sizing);
                }
            }
            all.push(sizings);
        }
        Ok(all)
    }
}

/// Takes the machines out of a plan whose part of it is wrong, so that they keep what they have: what one of them says of
/// itself must not keep the others from their plan.
fn set_aside(plan: &mut Plan, violations: Vec<Violation>) {
    for Violation { machine, what } in violations {
        let blocked = format!("its plan would break an invariant and is not used: {what}");
        plan.machines.insert(machine, MachinePlan { blocked: Some(blocked), ..MachinePlan::default() });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_machine_with_a_wrong_plan_does_not_stop_the_others() {
        let [good, bad] = [0; 2].map(|_| muster_proto::MachineId::random());
        let mut plan = Plan { machines: [good, bad].map(|machine| (machine, MachinePlan::default())).into() };
        set_aside(&mut plan, vec![Violation { machine: bad, what: "two devices of one name".to_owned() }]);
        assert_eq!(plan.machines[&good], MachinePlan::default());
        assert!(plan.machines[&bad].blocked.as_ref().is_some_and(|why| why.contains("two devices of one name")));
    }
}
