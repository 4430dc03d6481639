//! The report for a terminal.

use muster_proto::{
    Assessment, Bytes, MachineReadiness, ReadinessReport, ReadinessSummary, RemedyCount, Timestamp, VramBin,
};

use super::{
    change_words, gpu_use, model_words, parameters_words, range_words, ready_then, reason_words, reasons_words,
    role_words, verdict_tone, verdict_word,
};
use crate::age::{age, date};
use crate::bar::{Bar, Fill, bars};
use crate::layout::{Facts, Grid, UNKNOWN, count, heading, known, plain, sentence, toned};
use crate::style::{Style, Tone};

const SOLID: Fill = Fill { letter: '█', color: 36 };

/// The whole report: totals, reasons, GPU memory, models for shares of the fleet, machines, GPUs.
pub fn readiness_page(report: &ReadinessReport, style: &Style) -> String {
    let ReadinessReport { at, role, group, summary, machines, models: _, remedies, what_if: _ } = report;
    let mut page = heading(format!("Readiness for {}", role.name), style);
    let mut facts = Facts::new(style);
    facts.add("wanted", plain(role_words(role)));
    facts.add(
        "machines",
        plain(group.as_ref().map_or_else(
            || summary.machines.to_string(),
            |group| format!("{} in the group {group}", summary.machines),
        )),
    );
    facts.add("ready", toned(share(summary.ready, summary.machines), Tone::Good));
    facts.add("not ready", toned(share(summary.not_ready, summary.machines), Tone::Bad));
    facts.add("unknown", toned(share(summary.unknown, summary.machines), Tone::Waiting));
    if let Some(words) = change_words(report) {
        facts.add("what if", plain(words));
    }
    facts.add("made", plain(date(*at)));
    page += &facts.render();
    if machines.is_empty() {
        return page + &sentence("no accepted machine is there to judge", Tone::Quiet, style);
    }
    let mut part = |title: &str, body: String| {
        page.push('\n');
        page += &heading(title, style);
        page += &body;
    };
    if !summary.reasons.is_empty() {
        part("What stands in the way", reasons_bars(summary, style));
    }
    if !remedies.is_empty() {
        part("What would make machines ready, each alone", remedies_table(remedies, summary.not_ready, style));
    }
    part("Machines by memory of their GPUs", vram_bars(&summary.vram, style));
    part("Largest model for a share of the machines", coverage_table(summary, report, style));
    part("Machines", machines_grid(machines, *at, style));
    part("GPUs", gpus_grid(machines, style));
    page
}

fn share(part: u32, all: u32) -> String {
    if all == 0 { part.to_string() } else { format!("{part}  ({:.0} %)", f64::from(part) * 100.0 / f64::from(all)) }
}

fn bar(name: String, value: u32, most: u32) -> Bar {
    Bar {
        name,
        parts: vec![(SOLID, value.into())],
        free: u64::from(most.saturating_sub(value)),
        limit: None,
        caption: value.to_string(),
    }
}

fn reasons_bars(summary: &ReadinessSummary, style: &Style) -> String {
    let most = summary.machines;
    let rows = summary.reasons.iter().map(|(word, machines)| bar(reason_words(word), *machines, most));
    bars(&rows.collect::<Vec<_>>(), style)
}

fn remedies_table(remedies: &[RemedyCount], not_ready: u32, style: &Style) -> String {
    let mut grid = Grid::new(style, &["CHANGE", "MACHINES", "OF THOSE NOT READY"]).right(&[1, 2]).whole(&[1, 2]);
    for remedy in remedies {
        let percent = f64::from(remedy.machines) * 100.0 / f64::from(not_ready.max(1));
        grid.row(vec![
            plain(remedy.change.to_string()),
            plain(remedy.machines.to_string()),
            plain(format!("{percent:.0} %")),
        ]);
    }
    grid.render()
}

/// `no discrete GPU`, `7 to 8 GiB`, `49 GiB and more`.
pub(super) fn bin_words(bin: &VramBin) -> String {
    let gib = |bytes: Bytes| bytes.get() >> 30;
    match bin.to {
        _ if bin.from == Bytes::ZERO => "no discrete GPU".to_owned(),
        Some(to) if gib(to) == gib(bin.from) + 1 => format!("{} GiB", gib(bin.from)),
        Some(to) => format!("{} to {} GiB", gib(bin.from), gib(to) - 1),
        None => format!("{} GiB and more", gib(bin.from)),
    }
}

fn vram_bars(bins: &[VramBin], style: &Style) -> String {
    let most = bins.iter().map(|bin| bin.machines).sum();
    bars(&bins.iter().map(|bin| bar(bin_words(bin), bin.machines, most)).collect::<Vec<_>>(), style)
}

fn coverage_table(summary: &ReadinessSummary, report: &ReadinessReport, style: &Style) -> String {
    let mut grid = Grid::new(style, &["SHARE", "MODEL", "SIZE", "MACHINES"]).right(&[0, 2, 3]);
    for level in &summary.coverage {
        let size = report.models.iter().find(|model| Some(&model.model) == level.model.as_ref());
        grid.row(vec![
            plain(format!("{} %", level.percent)),
            level.name.as_ref().map_or_else(|| toned("no model runs on so many", Tone::Waiting), plain),
            known(size.map(|model| parameters_words(model.parameters))),
            plain(level.machines.to_string()),
        ]);
    }
    grid.render()
}

fn machines_grid(machines: &[MachineReadiness], now: Timestamp, style: &Style) -> String {
    let mut grid = Grid::new(style, &["NAME", "VERDICT", "BEST MODEL, OR WHAT IS IN THE WAY", "DECODE", "FACTS"])
        .right(&[3])
        .whole(&[1]);
    for row in machines {
        let assessment = &row.assessment;
        grid.row(vec![
            plain(&row.hostname),
            toned(verdict_word(assessment.verdict), verdict_tone(assessment.verdict)),
            plain(match ready_then(row) {
                Some(then) => format!("then {then}; now: {}", told(assessment)),
                None => told(assessment),
            }),
            decode(assessment),
            known(row.facts.inventory.map(|inventory| age(inventory, now))),
        ]);
    }
    grid.render()
}

/// The best model of one that is ready, the reasons of all others.
fn told(assessment: &Assessment) -> String {
    match &assessment.best {
        Some(best) if assessment.reasons.is_empty() => model_words(best),
        _ => reasons_words(&assessment.reasons),
    }
}

fn decode(assessment: &Assessment) -> comfy_table::Cell {
    let best = assessment.best.as_ref().filter(|best| best.placement.is_some());
    match best.and_then(|best| best.decode.or(best.prefill)) {
        Some(range) => plain(format!("{} tok/s", range_words(&range))),
        None => toned(UNKNOWN, Tone::Quiet),
    }
}

fn gpus_grid(machines: &[MachineReadiness], style: &Style) -> String {
    let mut grid =
        Grid::new(style, &["MACHINE", "GPU", "MEMORY", "FREE", "DRIVER", "USE"]).right(&[2, 3]).whole(&[2, 3]);
    let mut gpus = 0;
    for row in machines {
        for gpu in &row.gpus {
            gpus += 1;
            grid.row(vec![
                plain(&row.hostname),
                plain(&gpu.name),
                known(gpu.memory_total),
                known(gpu.memory_free),
                known(gpu.driver.as_ref()),
                toned(gpu_use(gpu), if gpu.engine_device.is_some() { Tone::Plain } else { Tone::Waiting }),
            ]);
        }
    }
    if gpus == 0 {
        return sentence(format!("none in {}", count(machines.len(), "machine", "machines")), Tone::Quiet, style);
    }
    grid.render()
}

/// One line for each role that a machine was judged for.
pub fn assessments_table(assessments: &[Assessment], style: &Style) -> String {
    let mut grid = Grid::new(style, &["ROLE", "VERDICT", "BEST MODEL, OR WHAT IS IN THE WAY", "DECODE"])
        .right(&[3])
        .whole(&[0, 1]);
    for assessment in assessments {
        grid.row(vec![
            plain(&assessment.role),
            toned(verdict_word(assessment.verdict), verdict_tone(assessment.verdict)),
            plain(told(assessment)),
            decode(assessment),
        ]);
    }
    grid.render()
}
