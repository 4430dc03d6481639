//! What the reconciler tells: [`Observed`] for the controller, [`Serving`] for the endpoint.

use std::sync::Arc;

use muster_proto::{Bytes, Deployment, DeploymentState, DesiredAssignment, DesiredState, Observed};

use super::{Reconciler, RunKey, Runner, RunnerState};
use crate::clock;
use crate::serving::{Served, ServedState, Serving};

impl Reconciler {
    /// Tells what is; nobody is woken when nothing changed.
    pub(super) fn publish(&self, desired: Option<&DesiredState>) {
        let contents = self.settings.store.contents().unwrap_or_default();
        let present = |assignment: &DesiredAssignment| {
            contents.iter().any(|file| file.whole && file.digest == assignment.digest && file.size == assignment.size)
        };
        let assignments = desired.map(|state| state.assignments.as_slice()).unwrap_or_default();
        let observed = Observed {
            at: clock::now(),
            generation: desired.map_or(0, |state| state.generation),
            deployments: assignments
                .iter()
                .map(|assignment| self.deployment(assignment, present(assignment)))
                .collect(),
            endpoint: Some(self.settings.endpoint.clone()),
            store_used: contents.iter().map(|file| file.size).sum::<Bytes>(),
        };
        self.observed.send_if_modified(|old| {
            let same = Observed { at: old.at, ..observed.clone() } == *old;
            if !same {
                *old = observed;
            }
            !same
        });
        self.serving.send_replace(Arc::new(self.serving(assignments)));
    }

    fn deployment(&self, assignment: &DesiredAssignment, present: bool) -> Deployment {
        let digest = assignment.digest;
        let (state, reason, measured) = match self.runners.get(&RunKey::of(assignment)).map(|runner| &runner.state) {
            Some(RunnerState::Measured(_, measured)) => {
                (DeploymentState::Success, None, Some(measured.as_ref().clone()))
            }
            Some(RunnerState::Failed { reason, .. }) => (DeploymentState::Failure, Some(reason.clone()), None),
            Some(RunnerState::Restarting { reason }) => (DeploymentState::Installing, Some(reason.clone()), None),
            Some(RunnerState::Loading | RunnerState::Loaded(_)) => (DeploymentState::Installing, None, None),
            None if present => {
                (DeploymentState::Installing, Some("waits for another model to be unloaded".to_owned()), None)
            }
            None => {
                let (state, reason) = self.missing(assignment);
                (state, reason, None)
            }
        };
        Deployment {
            assignment: assignment.id,
            digest,
            model: assignment.model.clone(),
            state,
            reason,
            transfer: self.transfers.get(&digest).copied(),
            measured,
        }
    }

    fn missing(&self, assignment: &DesiredAssignment) -> (DeploymentState, Option<String>) {
        let setback = self.setbacks.get(&assignment.digest);
        let download = self.download.as_ref().filter(|download| download.digest == assignment.digest);
        match (download, setback) {
            (Some(download), _) if download.verifying => (DeploymentState::Verifying, None),
            (Some(_), _) => (DeploymentState::Downloading, None),
            (None, Some(setback)) if setback.transient => {
                (DeploymentState::Downloading, Some(format!("trying again soon: {}", setback.reason)))
            }
            (None, Some(setback)) => (DeploymentState::Failure, Some(setback.reason.clone())),
            (None, None) => (DeploymentState::Scheduled, None),
        }
    }

    /// Models by the names that clients use. Where a name's own model is not up, an old one of that name answers.
    fn serving(&self, assignments: &[DesiredAssignment]) -> Serving {
        let mut serving = Serving::default();
        for assignment in assignments {
            let key = RunKey::of(assignment);
            let state = self.runners.get(&key).filter(|runner| !runner.stopping).map_or_else(
                || match self.missing(assignment) {
                    (DeploymentState::Failure, reason) => {
                        ServedState::Failed { reason: reason.unwrap_or_else(|| "it is not installed".into()) }
                    }
                    (state, _) => ServedState::Loading { what: state.to_string() },
                },
                runner_state,
            );
            serving.models.insert(
                assignment.model.clone(),
                Served {
                    role: assignment.role.clone(),
                    quantization: assignment.quantization.clone(),
                    digest: assignment.digest,
                    state,
                },
            );
        }
        for (key, runner) in &self.runners {
            let Some(running) = runner.state.running().filter(|_| !runner.stopping) else { continue };
            for serves in &runner.serves {
                let answers = serving.models.get(&serves.model);
                if answers.is_none_or(|served| !matches!(served.state, ServedState::Ready(_))) {
                    serving.models.insert(
                        serves.model.clone(),
                        Served {
                            role: serves.role.clone(),
                            quantization: serves.quantization.clone(),
                            digest: key.digest,
                            state: ServedState::Ready(running.clone()),
                        },
                    );
                }
            }
        }
        serving
    }
}

fn runner_state(runner: &Runner) -> ServedState {
    match &runner.state {
        RunnerState::Loaded(running) | RunnerState::Measured(running, _) => ServedState::Ready(running.clone()),
        RunnerState::Loading => ServedState::Loading { what: "loading".into() },
        RunnerState::Restarting { .. } => ServedState::Loading { what: "restarting after a crash".into() },
        RunnerState::Failed { reason, .. } => ServedState::Failed { reason: reason.clone() },
    }
}
