//! `muster machines`.

use muster_engine::readiness::{self, Judge};
use muster_proto::{Assessment, Machine, wire};
use muster_reports::{machine_page, machines_table};
use serde::Serialize;

use super::args::MachinesCommand;
use super::output::{Output, now};
use super::{Client, Failure, plan};

pub(super) async fn run(client: &mut Client, command: MachinesCommand, output: &Output) -> Result<(), Failure> {
    match command {
        MachinesCommand::List => {
            let answer = client.list_machines(wire::ListMachinesRequest {}).await?;
            let machines: Vec<Machine> = answer.into_inner().try_into()?;
            output.result(&machines, |style| machines_table(&machines, now(), style))
        }
        MachinesCommand::Show { machine } => {
            let answer = client.get_machine(wire::GetMachineRequest { machine }).await?;
            let machine = Machine::try_from(answer.into_inner())?;
            let planned = if output.json { None } else { plan::get(client).await?.0.machines.remove(&machine.id) };
            let readiness = assessments(&machine);
            let shown = Shown { machine: &machine, readiness: &readiness };
            output.result(&shown, |style| machine_page(&machine, planned.as_ref(), &readiness, now(), style))
        }
        MachinesCommand::Accept { machine, reject } => {
            let answer = client.accept_machine(wire::AcceptMachineRequest { machine, accept: !reject }).await?;
            changed(&answer.into_inner().try_into()?, output)
        }
        MachinesCommand::Group { machine, add, remove } => {
            let answer = client.set_machine_groups(wire::SetMachineGroupsRequest { machine, add, remove }).await?;
            let machine = Machine::try_from(answer.into_inner())?;
            output.result(&machine, |_| match machine.groups.as_slice() {
                [] => format!("machine {} ({}) is in no group\n", machine.id, machine.hostname),
                groups => format!("machine {} ({}) is in {}\n", machine.id, machine.hostname, groups.join(", ")),
            })
        }
        MachinesCommand::Revoke { machine } => {
            let answer = client.revoke_machine(wire::RevokeMachineRequest { machine }).await?;
            changed(&answer.into_inner().try_into()?, output)
        }
    }
}

/// What `machines show --json` prints.
#[derive(Debug, Serialize)]
struct Shown<'a> {
    #[serde(flatten)]
    machine: &'a Machine,
    /// For each role.
    readiness: &'a [Assessment],
}

/// What a machine is ready for.
fn assessments(machine: &Machine) -> Vec<Assessment> {
    let judge = Judge::new();
    let roles = readiness::roles();
    roles.iter().map(|role| judge.row(machine, role, now()).assessment).collect()
}

fn changed(machine: &Machine, output: &Output) -> Result<(), Failure> {
    output.result(machine, |_| format!("machine {} ({}) is {}\n", machine.id, machine.hostname, machine.enrolment))
}
