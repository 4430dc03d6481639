//! Independent invariants over every plan, checked before it is used. Written without the planner's own helpers, so that
//! one mistake does not hide another. Pure.

use std::collections::{BTreeMap, BTreeSet};

use muster_proto::{Bytes, DesiredAssignment, DeviceKind, MachineId, MachinePlan, Plan};

use crate::plan::{PlanInput, PlanMachine};

/// One thing that must never be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("machine {machine}: {what}")]
pub struct Violation {
    /// Where.
    pub machine: MachineId,
    /// What is wrong.
    pub what: String,
}

/// Everything that is wrong with a plan; nothing, if it may be used.
pub fn check(input: &PlanInput, plan: &Plan) -> Vec<Violation> {
    let mut violations = Vec::new();
    let machines: BTreeMap<MachineId, &PlanMachine> =
        input.machines.iter().map(|machine| (machine.id, machine)).collect();
    for machine in machines.keys().filter(|machine| !plan.machines.contains_key(machine)) {
        violations.push(Violation { machine: *machine, what: "it is missing from the plan".to_owned() });
    }
    let mut ids = BTreeSet::new();
    for (id, planned) in &plan.machines {
        let mut wrong = |what: String| violations.push(Violation { machine: *id, what });
        let Some(machine) = machines.get(id) else {
            wrong("it is planned for and not an accepted machine".to_owned());
            continue;
        };
        if let Some(assignment) = &planned.assignment {
            if !ids.insert(assignment.id) {
                wrong(format!("assignment {} occurs twice", assignment.id));
            }
            check_assignment(input, machine, assignment, &mut wrong);
        }
        check_reasons(planned, &mut wrong);
    }
    violations
}

/// Exactly the chosen candidate has no reason against it.
fn check_reasons(planned: &MachinePlan, wrong: &mut impl FnMut(String)) {
    let unrejected: Vec<_> = planned.candidates.iter().filter(|candidate| candidate.rejected.is_none()).collect();
    match (&planned.assignment, &unrejected[..]) {
        (None, []) | (Some(_), [_]) => {}
        (_, some) => wrong(format!("{} candidates have no reason against them", some.len())),
    }
    if let (Some(assignment), [candidate]) = (&planned.assignment, &unrejected[..])
        && assignment.digest != candidate.digest
    {
        wrong("the candidate without a reason against it is not the chosen one".to_owned());
    }
    if planned.assignment.is_none() && planned.candidates.is_empty() && planned.blocked.is_none() {
        wrong("it gets nothing and nothing says why".to_owned());
    }
}

fn check_assignment(
    input: &PlanInput,
    machine: &PlanMachine,
    assignment: &DesiredAssignment,
    wrong: &mut impl FnMut(String),
) {
    let Some(policy) = &input.policy else { return wrong("there is no policy to assign by".to_owned()) };
    let Some(inventory) = &machine.inventory else { return wrong("it has no inventory to assign by".to_owned()) };
    match policy.roles.iter().find(|role| role.name == assignment.role) {
        None => wrong(format!("role {:?} is not in the policy", assignment.role)),
        Some(role) => {
            if !role.models.contains(&assignment.model) {
                wrong(format!("model {:?} is not wanted", assignment.model));
            }
            if assignment.settings.context != role.context || assignment.settings.parallel != role.parallel {
                wrong("the settings are not the policy's".to_owned());
            }
        }
    }
    let known = input
        .models
        .iter()
        .filter(|model| model.name == assignment.model)
        .flat_map(|model| &model.artifacts)
        .any(|artifact| artifact.artifact.digest == assignment.digest && artifact.artifact.size == assignment.size);
    if !known {
        wrong(format!("{} is no file of model {:?}", assignment.digest, assignment.model));
    }
    let need = &assignment.prediction.memory;
    for device in &need.devices {
        let known = inventory.devices.iter().find(|known| known.name == device.name);
        let free = known.and_then(|known| inventory.free_to_plan(known));
        let taken = device.total().saturating_add(policy.reserve);
        if device.total() > Bytes::ZERO && free.is_none_or(|free| taken > free) {
            wrong(format!("{} and the reserve do not fit on {}", device.total(), device.name));
        }
    }
    let shared = need.devices.iter().filter(|device| {
        inventory.devices.iter().any(|d| d.name == device.name && d.kind == DeviceKind::IntegratedGpu)
    });
    let host = need.host.total() + shared.map(muster_proto::DeviceMemory::total).sum();
    if host > Bytes::ZERO && host.saturating_add(policy.reserve) > inventory.memory_to_plan() {
        wrong(format!("{host} and the reserve do not fit in main memory"));
    }
}
