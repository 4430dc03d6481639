//! The report as one page: charts, then every machine and every GPU.

use std::fmt::Write as _;

use muster_proto::{Assessment, MachineReadiness, Readiness, ReadinessReport, RemedyCount, Timestamp};

use super::chart::{Cell, Column, bars, document, escaped, parts, table, tile};
use super::page::bin_words;
use super::{
    change_words, gpu_use, model_words, parameters_words, placement_words, range_words, ready_then, reason_words,
    reasons_words, role_words, verdict_word,
};
use crate::age::{age, date};

/// Models that the chart shows; all are in the workbook.
const CHARTED: usize = 24;

/// The class that colours a verdict.
pub(super) fn class(verdict: Readiness) -> &'static str {
    match verdict {
        Readiness::Ready => "ready",
        Readiness::NotReady => "not",
        _ => "unknown",
    }
}

/// One file that loads nothing: for a browser, dark or light, and for paper.
pub fn readiness_html(report: &ReadinessReport) -> String {
    let ReadinessReport { at, role, group, summary, machines, models: _, remedies: _, what_if: _ } = report;
    let title = format!("Readiness for {}", role.name);
    let whose = group.as_ref().map_or_else(|| "all machines".to_owned(), |group| format!("group {group}"));
    let mut body = format!(
        "<h1>{}</h1>\n<p class=\"quiet\">{}, made {}</p>\n<p>Wanted: {}.</p>\n",
        escaped(&title),
        escaped(&whose),
        escaped(&date(*at)),
        escaped(&role_words(role)),
    );
    body += "<div class=\"tiles\">\n";
    body += &tile(&summary.machines.to_string(), "machines", "");
    let verdicts = [
        ("ready", "ready", summary.ready),
        ("not ready", "not", summary.not_ready),
        ("unknown", "unknown", summary.unknown),
    ];
    for (name, class, count) in verdicts {
        let percent = f64::from(count) * 100.0 / f64::from(summary.machines.max(1));
        body += &tile(&count.to_string(), &format!("{name}, {percent:.0} %"), class);
    }
    body += "</div>\n";
    body += &parts("ready, not ready and unknown machines", &verdicts.map(|(_, class, count)| (class, count)));
    body += "<div class=\"columns\">\n<section>\n<h2>What stands in the way</h2>\n";
    body += &reasons(report);
    body += "</section>\n<section>\n<h2>Machines by memory of their GPUs</h2>\n";
    body += &vram(report);
    body += "</section>\n</div>\n";
    body += &changes(report);
    body += "<h2>Models that the fleet can run</h2>\n";
    body += &coverage(report);
    let _ = write!(body, "<h2>Machines ({})</h2>\n{}", machines.len(), machine_rows(machines, *at));
    let gpus: usize = machines.iter().map(|row| row.gpus.len()).sum();
    let _ = write!(body, "<h2>GPUs ({gpus})</h2>\n{}", gpu_rows(machines));
    body += FOOTER;
    document(&title, &body)
}

const FOOTER: &str = "<footer><p>Speeds are of one answer at a time from an empty context, with the interval that four of five \
real ones are in; measured ones follow from the machine&#39;s own benchmark, the others from published figures of its parts. \
Memory is what is free 95 % of a working day where that was sampled, else what was free at the inventory. Made by Muster on the \
controller; nothing that was typed at a desk is in it.</p></footer>\n";

fn reasons(report: &ReadinessReport) -> String {
    if report.summary.reasons.is_empty() {
        return "<p class=\"quiet\">Nothing: every machine is ready.</p>\n".to_owned();
    }
    let column = |(word, machines): &(String, u32)| Column {
        name: reason_words(word),
        value: (*machines).into(),
        caption: machines.to_string(),
        class: "not",
    };
    bars("machines by reason", &report.summary.reasons.iter().map(column).collect::<Vec<_>>(), 150)
}

/// What single changes would do, and what came of the one that was asked about.
fn changes(report: &ReadinessReport) -> String {
    let mut body = String::new();
    if let Some(words) = change_words(report) {
        let _ = write!(body, "<h2>What if</h2>\n<p>{}.</p>\n", escaped(&words));
    }
    if !report.remedies.is_empty() {
        body += "<h2>What would make machines ready, each alone</h2>\n";
        let column = |remedy: &RemedyCount| Column {
            name: remedy.change.to_string(),
            value: remedy.machines.into(),
            caption: remedy.machines.to_string(),
            class: "ready",
        };
        let columns: Vec<Column> = report.remedies.iter().map(column).collect();
        body += &bars("machines that each change alone makes ready", &columns, 270);
        body += "<p class=\"quiet\">Of the machines that are not ready; a card in place of what is there, in desks that take one.</p>\n";
    }
    body
}

fn vram(report: &ReadinessReport) -> String {
    let columns: Vec<Column> = report
        .summary
        .vram
        .iter()
        .map(|bin| Column {
            name: bin_words(bin),
            value: bin.machines.into(),
            caption: bin.machines.to_string(),
            class: "bar",
        })
        .collect();
    bars("machines by memory of their discrete GPUs", &columns, 150)
}

fn coverage(report: &ReadinessReport) -> String {
    let size = |model: &Option<String>| {
        let found = report.models.iter().find(|known| Some(&known.model) == model.as_ref());
        found.map_or_else(String::new, |found| parameters_words(found.parameters))
    };
    let levels = table(
        &["Share of the machines", "Largest model that runs on it", "Parameters", "Machines"],
        report.summary.coverage.iter().map(|level| {
            vec![
                Cell::Text(format!("{} %", level.percent)),
                Cell::Text(level.name.clone().unwrap_or_else(|| "no model runs on so many".to_owned())),
                Cell::Number(size(&level.model)),
                Cell::Number(level.machines.to_string()),
            ]
        }),
    );
    let all = f64::from(report.summary.machines.max(1));
    // Of models of about one size the most widespread is enough.
    let mut columns: Vec<Column> = Vec::new();
    for model in report.models.iter().filter(|model| model.machines > 0) {
        let percent = f64::from(model.machines) * 100.0 / all;
        columns.push(Column {
            name: format!("{} ({})", model.name, parameters_words(model.parameters)),
            value: percent,
            caption: format!("{percent:.0} %"),
            class: if model.counts { "ready" } else { "other" },
        });
    }
    let step = columns.len().div_ceil(CHARTED).max(1);
    let columns: Vec<Column> = columns.into_iter().step_by(step).collect();
    let note = if step > 1 { " Some of them, all are in the workbook." } else { "" };
    let chart = if columns.is_empty() {
        "<p class=\"quiet\">No model runs on any of them as the role wants it.</p>\n".to_owned()
    } else {
        bars("share of the machines that each model runs on", &columns, 270)
    };
    format!(
        "{levels}<p class=\"quiet\">Share of the machines that each model would run on, held against the context and the floors of \
         this role; those that count for the role stand out.{note}</p>\n{chart}"
    )
}

fn told(assessment: &Assessment) -> (String, String) {
    let best = assessment.best.as_ref();
    let model = best.map_or_else(String::new, |best| match placement_words(best) {
        Some(placement) => format!("{}, {placement}", model_words(best)),
        None => format!("nearest: {}", model_words(best)),
    });
    (model, reasons_words(&assessment.reasons))
}

fn speed(assessment: &Assessment, decode: bool) -> String {
    let best = assessment.best.as_ref().filter(|best| best.placement.is_some());
    let range = best.and_then(|best| if decode { best.decode } else { best.prefill });
    range.map_or_else(|| "–".to_owned(), |range| range_words(&range))
}

fn machine_rows(machines: &[MachineReadiness], now: Timestamp) -> String {
    let header = [
        "Machine",
        "Verdict",
        "Best model",
        "Prefill, tok/s",
        "Decode, tok/s",
        "What stands in the way, and what helps",
        "GPUs",
        "RAM",
        "Facts from",
        "Benchmark",
    ];
    let rows = machines.iter().map(|row| {
        let (model, reasons) = told(&row.assessment);
        let gpus: Vec<String> = row
            .gpus
            .iter()
            .map(|gpu| match gpu.memory_total {
                Some(memory) => format!("{}, {memory}", gpu.name),
                None => gpu.name.clone(),
            })
            .collect();
        let when = |moment: Option<Timestamp>| moment.map_or_else(|| "never".to_owned(), |moment| age(moment, now));
        vec![
            Cell::Text(row.hostname.clone()),
            Cell::Badge(verdict_word(row.assessment.verdict), class(row.assessment.verdict)),
            Cell::Text(model),
            Cell::Number(speed(&row.assessment, false)),
            Cell::Number(speed(&row.assessment, true)),
            Cell::Text(match ready_then(row) {
                Some(then) => format!("then {then}; now: {reasons}"),
                None => reasons,
            }),
            Cell::Text(gpus.join("; ")),
            Cell::Number(row.memory_total.map_or_else(|| "–".to_owned(), |memory| memory.to_string())),
            Cell::Text(when(row.facts.inventory)),
            Cell::Text(when(row.facts.benchmark)),
        ]
    });
    table(&header, rows)
}

fn gpu_rows(machines: &[MachineReadiness]) -> String {
    let known = |value: Option<String>| value.unwrap_or_else(|| "–".to_owned());
    let rows = machines.iter().flat_map(|row| {
        row.gpus.iter().map(move |gpu| {
            vec![
                Cell::Text(row.hostname.clone()),
                Cell::Text(gpu.name.clone()),
                Cell::Text(gpu.kind.to_string().replace('_', " ")),
                Cell::Number(known(gpu.memory_total.map(|memory| memory.to_string()))),
                Cell::Number(known(gpu.memory_free.map(|memory| memory.to_string()))),
                Cell::Text(known(gpu.driver.clone())),
                Cell::Text(gpu_use(gpu)),
            ]
        })
    });
    table(&["Machine", "GPU", "Kind", "Memory", "Free", "Driver", "Use"], rows)
}
