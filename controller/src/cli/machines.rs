//! `muster machines`.

use muster_proto::{Machine, wire};
use muster_reports::{machine_page, machines_table};

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
            output.result(&machine, |style| machine_page(&machine, planned.as_ref(), now(), style))
        }
        MachinesCommand::Accept { machine, reject } => {
            let answer = client.accept_machine(wire::AcceptMachineRequest { machine, accept: !reject }).await?;
            changed(&answer.into_inner().try_into()?, output)
        }
        MachinesCommand::Revoke { machine } => {
            let answer = client.revoke_machine(wire::RevokeMachineRequest { machine }).await?;
            changed(&answer.into_inner().try_into()?, output)
        }
    }
}

fn changed(machine: &Machine, output: &Output) -> Result<(), Failure> {
    output.result(machine, |_| format!("machine {} ({}) is {}\n", machine.id, machine.hostname, machine.enrolment))
}
