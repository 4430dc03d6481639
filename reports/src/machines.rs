//! The fleet, and one machine of it.

use comfy_table::Cell;
use muster_proto::{BenchOrderState, DeviceKind, EnrolmentState, Inventory, Machine, MachinePlan, Timestamp};

use crate::age::{age, date_and_age};
use crate::bench_orders::order_cell;
use crate::benchmark::{benchmark_table, fastest};
use crate::inventory::inventory_page;
use crate::layout::{Facts, Grid, UNKNOWN, heading, known, plain, sentence, toned};
use crate::observed::{deployments_table, state_tone};
use crate::prediction::prediction_table;
use crate::style::{Style, Tone};

/// One line for each machine.
pub fn machines_table(machines: &[Machine], now: Timestamp, style: &Style) -> String {
    if machines.is_empty() {
        let hint = "no machine has enrolled yet: make a token with `muster token create`, then run `muster-agent enrol` \
                    with it on the desk";
        return sentence(hint, Tone::Quiet, style);
    }
    let mut grid = Grid::new(style, &["NAME", "ID", "STATE", "SEEN", "DEVICE", "RUNS"]).whole(&[1, 2]);
    for machine in machines {
        grid.row(vec![
            plain(&machine.hostname),
            plain(&machine.id.to_string()[..8]),
            state(machine),
            known(machine.last_seen.map(|seen| age(seen, now))),
            machine.inventory.as_ref().map_or_else(|| toned(UNKNOWN, Tone::Quiet), best_device),
            runs(machine),
        ]);
    }
    let mut report = grid.render();
    if machines.iter().any(|machine| machine.enrolment == EnrolmentState::Pending) {
        let hint =
            "pending machines wait for you: `muster machines accept NAME`, or `muster machines accept NAME --reject`";
        report += &sentence(hint, Tone::Waiting, style);
    }
    report
}

/// Enrolment and stream in one word: an accepted machine is online or offline.
fn state(machine: &Machine) -> Cell {
    match (machine.enrolment, machine.online) {
        (EnrolmentState::Accepted, true) => toned("online", Tone::Good),
        (EnrolmentState::Accepted, false) => toned("offline", Tone::Waiting),
        (EnrolmentState::Pending, _) => toned("pending", Tone::Waiting),
        (other, _) => toned(other.to_string(), Tone::Bad),
    }
}

/// The GPU with the most memory, else the processor, with the memory that models would go to.
fn best_device(inventory: &Inventory) -> Cell {
    let gpu = inventory
        .devices
        .iter()
        .filter(|device| !matches!(device.kind, DeviceKind::Cpu | DeviceKind::IntegratedGpu))
        .max_by_key(|device| device.memory_total);
    match gpu {
        Some(gpu) => match gpu.memory_total {
            Some(memory) => plain(format!("{}, {memory}", gpu.description)),
            None => plain(&gpu.description),
        },
        None => plain(format!("CPU, {} threads, {}", inventory.cpu.threads, inventory.memory.total)),
    }
}

fn runs(machine: &Machine) -> Cell {
    let Some(observed) = &machine.observed else { return toned(UNKNOWN, Tone::Quiet) };
    match observed.deployments.as_slice() {
        [] => toned("nothing", Tone::Quiet),
        [one] => toned(format!("{}: {}", one.model, one.state.to_string().replace('_', " ")), state_tone(one.state)),
        many => plain(
            many.iter()
                .map(|one| format!("{}: {}", one.model, one.state.to_string().replace('_', " ")))
                .collect::<Vec<_>>()
                .join("\n"),
        ),
    }
}

/// Everything that is known of one machine. Predictions come from its part of the plan, where there is one.
pub fn machine_page(machine: &Machine, planned: Option<&MachinePlan>, now: Timestamp, style: &Style) -> String {
    let Machine {
        id,
        hostname,
        enrolment,
        enrolled_at,
        last_seen,
        online,
        agent_version,
        inventory,
        benchmark,
        desired_generation,
        observed,
        bench_order,
    } = machine;
    let seen = match (online, last_seen) {
        (true, _) => toned("online", Tone::Good),
        (false, Some(seen)) => toned(format!("offline, seen {}", age(*seen, now)), Tone::Waiting),
        (false, None) => toned("never seen", Tone::Waiting),
    };
    let held = match observed {
        Some(observed) if observed.generation == *desired_generation => {
            toned(desired_generation.to_string(), Tone::Plain)
        }
        Some(observed) => {
            toned(format!("{desired_generation}, the machine is at {}", observed.generation), Tone::Waiting)
        }
        None => plain(format!("{desired_generation}, nothing heard of the machine's")),
    };
    let mut facts = Facts::new(style);
    facts
        .add("id", plain(id.to_string()))
        .add(
            "enrolment",
            toned(
                enrolment.to_string(),
                if *enrolment == EnrolmentState::Accepted { Tone::Good } else { Tone::Waiting },
            ),
        )
        .add("enrolled", plain(date_and_age(*enrolled_at, now)))
        .add("stream", seen)
        .add("agent", known(agent_version.as_ref()))
        .add("generation", held);
    if let Some(endpoint) = observed.as_ref().and_then(|observed| observed.endpoint.as_ref()) {
        facts.add("endpoint", plain(endpoint));
    }
    if let Some(fastest) = benchmark.as_ref().and_then(fastest) {
        facts.add("decodes", fastest);
    }
    if let Some(order) = bench_order.as_ref().filter(|order| order.state != BenchOrderState::Done) {
        facts.add("bench order", order_cell(order, now));
    }
    let mut page = heading(hostname, style) + &facts.render();
    let mut part = |title: String, body: String| {
        page.push('\n');
        page += &heading(title, style);
        page += &body;
    };
    let missing =
        |what: &str| sentence(format!("{what}: it comes with the agent's first connection"), Tone::Quiet, style);
    match observed {
        Some(observed) => {
            part(format!("Runs ({})", age(observed.at, now)), deployments_table(&observed.deployments, style));
        }
        None => part("Runs".into(), missing("nothing is known yet")),
    }
    if let Some((assignment, observed)) = planned.and_then(|planned| planned.assignment.as_ref()).zip(observed.as_ref())
    {
        let label = format!("{} {}", assignment.model, assignment.quantization);
        let pairs: Vec<_> = observed
            .deployments
            .iter()
            .filter(|deployment| deployment.assignment == assignment.id)
            .filter_map(|deployment| Some((label.clone(), &assignment.prediction, deployment.measured.as_ref()?)))
            .collect();
        if !pairs.is_empty() {
            part("Predicted and measured".into(), prediction_table(&pairs, style));
        }
    }
    match inventory {
        Some(inventory) => {
            part(format!("Inventory ({})", age(inventory.collected_at, now)), inventory_page(inventory, style));
        }
        None => part("Inventory".into(), missing("no inventory yet")),
    }
    match benchmark {
        Some(benchmark) => {
            let replaced = inventory
                .as_ref()
                .is_some_and(|inventory| inventory.hardware_fingerprint != benchmark.hardware_fingerprint);
            let note = if replaced { ", of other hardware" } else { "" };
            part(format!("Benchmark ({}{note})", age(benchmark.measured_at, now)), benchmark_table(benchmark, style));
        }
        None => part("Benchmark".into(), missing("no benchmark yet")),
    }
    page
}
