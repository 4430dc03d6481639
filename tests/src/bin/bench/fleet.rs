//! Readiness of a synthetic fleet: judging, reporting, and each form of the report.

use std::path::Path;
use std::time::{Duration, Instant};

use muster_engine::readiness::{Change, Judge, role, table};
use muster_proto::{Benchmark, Inventory, Machine, ReadinessReport, WhatIf};
use muster_reports::{Style, audit_html, readiness_csv, readiness_html, readiness_page, readiness_xlsx};
use muster_tests::fleet::{NOW, fleet};

use super::{Figure, median};

/// One form of a report.
type Form<'a> = &'a dyn Fn(&ReadinessReport) -> Vec<u8>;

/// Makes the fleet and reports on it; the forms go to `folder` if there is one.
pub fn measure(size: u32, rounds: usize, folder: Option<&Path>) -> Vec<Figure> {
    let machines = fleet(size, 7);
    let role = role("chat").expect("there is one");
    let card = WhatIf { gpu: Some("RTX 4060 Ti 16GB".into()), ..WhatIf::default() };
    let change = Change::of(card).expect("a card");
    let clocked = |work: &mut dyn FnMut()| {
        let started = Instant::now();
        work();
        started.elapsed()
    };
    let report = |judge: &Judge| judge.report(&machines, &role, None, Some(&change), NOW);
    // The first of all also reads the data that ships.
    let first = clocked(&mut || drop(report(&Judge::new())));
    let mut cold = Vec::new();
    let mut warm = Vec::new();
    let mut last = None;
    for _ in 0..rounds {
        let judge = Judge::new();
        cold.push(clocked(&mut || drop(report(&judge))));
        warm.push(clocked(&mut || last = Some(report(&judge))));
    }
    let report = last.expect("at least one round");
    let forms: [(&str, Form); 5] = [
        ("xlsx", &|report| readiness_xlsx(report).expect("a workbook")),
        ("html", &|report| readiness_html(report).into_bytes()),
        ("csv", &|report| readiness_csv(report).expect("CSV").into_bytes()),
        ("json", &|report| serde_json::to_vec_pretty(report).expect("JSON")),
        ("txt", &|report| readiness_page(report, &Style::default()).into_bytes()),
    ];
    let wanted = |limit: u64, times: &[Duration]| (format!("≤ {limit} s"), Some(seconds(times) <= limit as f64));
    let mut figures = Vec::new();
    let mut note = |what: String, times: &[Duration], (wanted, met): (String, Option<bool>)| {
        figures.push(Figure::new(what, format!("{:.2} s", seconds(times)), wanted, met));
    };
    note(format!("{size} machines judged, the very first time"), &[first], wanted(2, &[first]));
    note(format!("{size} machines judged, nothing remembered"), &cold, wanted(2, &cold));
    note(format!("{size} machines judged again"), &warm, wanted(2, &warm));
    for (ending, form) in forms {
        let mut bytes = Vec::new();
        let times: Vec<Duration> = (0..rounds).map(|_| clocked(&mut || bytes = form(&report))).collect();
        let limit = if ending == "xlsx" { wanted(10, &times) } else { (String::new(), None) };
        note(format!("the report as {ending}, {} KiB", bytes.len() >> 10), &times, limit);
        if let Some(folder) = folder {
            std::fs::write(folder.join(format!("readiness.{ending}")), bytes).expect("a folder to write to");
        }
    }
    let one = machines.iter().find_map(whole).expect("some have both");
    let times: Vec<Duration> = (0..rounds).map(|_| clocked(&mut || drop(table(one.0, Some(one.1))))).collect();
    note("every reference model on one machine".into(), &times, (String::new(), None));
    if let Some(folder) = folder {
        let page = audit_html(one.0, Some(one.1), &table(one.0, Some(one.1)));
        std::fs::write(folder.join("audit.html"), page).expect("a folder to write to");
    }
    figures
}

fn whole(machine: &Machine) -> Option<(&Inventory, &Benchmark)> {
    let inventory = machine.inventory.as_ref().filter(|inventory| inventory.devices.len() > 1)?;
    Some((inventory, machine.benchmark.as_ref()?))
}

fn seconds(times: &[Duration]) -> f64 {
    median(times.iter().map(Duration::as_secs_f64).collect())
}
