//! `muster plan`.

use std::collections::BTreeMap;

use muster_proto::{Machine, MachineId, Plan, wire};
use muster_reports::plan_page;

use super::output::Output;
use super::{Client, Failure};

/// The plan, and the machines' names.
pub(super) async fn get(client: &mut Client) -> Result<(Plan, BTreeMap<MachineId, String>), Failure> {
    Ok(client.get_plan(wire::GetPlanRequest {}).await?.into_inner().into_plan_and_names()?)
}

pub(super) async fn show(client: &mut Client, machine: Option<String>, output: &Output) -> Result<(), Failure> {
    let (mut plan, names) = get(client).await?;
    if let Some(machine) = machine {
        let found = client.get_machine(wire::GetMachineRequest { machine }).await?;
        let found = Machine::try_from(found.into_inner())?;
        plan.machines.retain(|machine, _| *machine == found.id);
        if plan.machines.is_empty() {
            return Err(Failure::new(format!(
                "machine {} is {} and not planned for: only accepted machines are",
                found.id, found.enrolment
            )));
        }
    }
    output.result(&plan, |style| plan_page(&plan, &names, style))
}
