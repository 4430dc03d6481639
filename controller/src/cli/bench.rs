//! `muster bench`: orders benchmarks, and waits for their results if told to.

use std::collections::BTreeMap;
use std::io::IsTerminal as _;

use indicatif::{ProgressBar, ProgressStyle};
use muster_proto::{BenchOrder, BenchOrderState, Benchmark, BenchmarkKind, Machine, MachineId, wire};
use muster_reports::{bench_orders_table, benchmark_table};
use serde::Serialize;

use super::args::BenchArgs;
use super::output::{Output, now};
use super::{Client, Failure};

/// An order and, where it was waited for, what came of it.
#[derive(Debug, Serialize)]
struct Ordered {
    order: BenchOrder,
    #[serde(skip_serializing_if = "Option::is_none")]
    benchmark: Option<Benchmark>,
}

pub(super) async fn run(client: &mut Client, arguments: BenchArgs, output: &Output) -> Result<(), Failure> {
    let BenchArgs { machines, group, all, quick, full, wait } = arguments;
    let kind = match (quick, full) {
        (true, _) => BenchmarkKind::Quick,
        (_, true) => BenchmarkKind::Full,
        _ => BenchmarkKind::Standard,
    };
    let group = group.unwrap_or_default();
    let request = wire::BenchMachinesRequest { machines, group, all, kind: kind.number(), wait };
    let mut answers = client.bench_machines(request).await?.into_inner();
    let progress = Progress::new();
    let mut orders: BTreeMap<MachineId, BenchOrder> = BTreeMap::new();
    while let Some(answer) = answers.message().await? {
        let order = BenchOrder::try_from(answer)?;
        if wait {
            progress.tell(&order);
        }
        orders.insert(order.machine, order);
    }
    progress.done();
    let mut results = Vec::new();
    for order in orders.into_values() {
        let benchmark = if wait && order.state == BenchOrderState::Done {
            let machine = client.get_machine(wire::GetMachineRequest { machine: order.machine.to_string() }).await?;
            Machine::try_from(machine.into_inner())?.benchmark
        } else {
            None
        };
        results.push(Ordered { order, benchmark });
    }
    output.result(&results, |style| {
        let orders: Vec<BenchOrder> = results.iter().map(|result| result.order.clone()).collect();
        let mut page = bench_orders_table(&orders, now(), style);
        if let [Ordered { benchmark: Some(benchmark), .. }] = results.as_slice() {
            page.push('\n');
            page += &benchmark_table(benchmark, style);
        } else if !wait && !results.is_empty() {
            page += "next: `muster machines show NAME`, or the same with --wait\n";
        }
        page
    })?;
    let missing: Vec<_> =
        results.iter().map(|result| &result.order).filter(|order| order.state != BenchOrderState::Done).collect();
    match missing.as_slice() {
        [] => Ok(()),
        _ if !wait => Ok(()),
        [one] if results.len() == 1 => Err(Failure::new(format!(
            "{} was not measured: {}",
            one.hostname,
            one.reason.as_deref().unwrap_or(one.state.word())
        ))),
        some => Err(Failure::new(format!("{} of {} machines were not measured", some.len(), results.len()))),
    }
}

/// A line of each machine's newest step: one that moves on a terminal, one after the other elsewhere.
struct Progress {
    spinner: Option<ProgressBar>,
}

impl Progress {
    fn new() -> Self {
        let spinner = std::io::stderr().is_terminal().then(|| {
            let style = ProgressStyle::with_template("{spinner} {msg}").expect("a valid template");
            ProgressBar::new_spinner().with_style(style)
        });
        Self { spinner }
    }

    fn tell(&self, order: &BenchOrder) {
        let percent = order.fraction.map(|fraction| format!(" {:.0} %", fraction * 100.0)).unwrap_or_default();
        let detail = order.step.as_ref().or(order.reason.as_ref()).map(|text| format!(": {text}")).unwrap_or_default();
        let text = format!("{}: {}{percent}{detail}", order.hostname, order.state);
        // They came from another machine.
        let text: String = text.chars().filter(|c| !c.is_control()).collect();
        match &self.spinner {
            Some(spinner) => {
                spinner.set_message(text);
                spinner.tick();
            }
            None => Output::hint(&text),
        }
    }

    fn done(&self) {
        if let Some(spinner) = &self.spinner {
            spinner.finish_and_clear();
        }
    }
}
