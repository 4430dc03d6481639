//! One machine and what it can run: the table for a terminal, and a page of its own.

use std::fmt::Write as _;

use muster_proto::{Benchmark, DeviceKind, Inventory, ModelVerdict, Readiness};

use super::chart::{Cell, Column, bars, document, escaped, table, tile};
use super::html::class;
use super::{parameters_words, placement_words, range_words, reasons_words, verdict_tone, verdict_word};
use crate::age::date;
use crate::benchmark::battery_words;
use crate::layout::{Grid, UNKNOWN, plain, sentence, toned};
use crate::style::{Style, Tone};

/// Rows in the order of reading: what runs, what may, what does not; the largest first.
fn ordered(rows: &[ModelVerdict]) -> Vec<&ModelVerdict> {
    let mut ordered: Vec<&ModelVerdict> = rows.iter().collect();
    ordered.sort_by_key(|row| match row.verdict {
        Readiness::Ready => 0,
        Readiness::Unknown => 1,
        // What runs, if slowly, before what has no room.
        _ if row.placement.is_some() => 2,
        _ => 3,
    });
    ordered
}

/// Reference models in the best quantization that does, with context, speeds and verdict; a line for each.
pub fn audit_table(rows: &[ModelVerdict], style: &Style) -> String {
    if rows.is_empty() {
        return sentence("no reference model was judged", Tone::Quiet, style);
    }
    let header = ["MODEL", "QUANT", "CONTEXT", "PREFILL", "DECODE", "VERDICT"];
    let mut grid = Grid::new(style, &header).right(&[2, 3, 4]).whole(&[1, 2, 3, 4]);
    for row in ordered(rows) {
        let fits = row.placement.is_some();
        let speed = |range: Option<muster_proto::SpeedRange>| match range.filter(|_| fits) {
            Some(range) => plain(range_words(&range)),
            None => toned(UNKNOWN, Tone::Quiet),
        };
        grid.row(vec![
            plain(&row.model),
            plain(&row.quantization),
            row.context.map_or_else(|| toned(UNKNOWN, Tone::Quiet), |context| plain(context.get().to_string())),
            speed(row.prefill),
            speed(row.decode),
            toned(verdict(row), verdict_tone(row.verdict)),
        ]);
    }
    let note = "Speeds in tokens a second from an empty context, with the interval that four of five real ones are in.";
    grid.render() + &sentence(note, Tone::Quiet, style)
}

/// `ready, on GPU`, or the first reason.
fn verdict(row: &ModelVerdict) -> String {
    match (row.reasons.first(), placement_words(row)) {
        (None, Some(placement)) => format!("{}, {placement}", verdict_word(row.verdict)),
        (None, None) => verdict_word(row.verdict),
        (Some(reason), _) => format!("{}: {}", verdict_word(row.verdict), reason.cause),
    }
}

/// One page of one machine: what it is, how fast its parts are, and what it can run. It loads nothing.
pub fn audit_html(inventory: &Inventory, benchmark: Option<&Benchmark>, rows: &[ModelVerdict]) -> String {
    let title = format!("Audit of {}", inventory.hostname);
    let mut body = format!(
        "<h1>{}</h1>\n<p class=\"quiet\">collected {}</p>\n",
        escaped(&title),
        escaped(&date(inventory.collected_at))
    );
    let ready = rows.iter().filter(|row| row.verdict == Readiness::Ready);
    body += "<div class=\"tiles\">\n";
    body += &tile(&ready.clone().count().to_string(), "reference models run well", "ready");
    if let Some(largest) = ready.max_by_key(|row| row.parameters) {
        body += &tile(&parameters_words(largest.parameters), &format!("the largest: {}", largest.name), "ready");
    }
    body += &tile(&inventory.memory.total.to_string(), "main memory", "");
    body += "</div>\n<h2>The machine</h2>\n";
    body += &machine(inventory);
    let _ = write!(body, "<h2>GPUs</h2>\n{}", gpus(inventory));
    if let Some(benchmark) = benchmark {
        let _ = write!(body, "<h2>Measured</h2>\n{}", measured(benchmark));
    }
    let _ = write!(body, "<h2>What it can run</h2>\n{}", models(rows));
    for failure in &inventory.failures {
        let text = format!("Could not read {}: {}", failure.probe, failure.reason);
        let _ = writeln!(body, "<p class=\"quiet\">{}</p>", escaped(&text));
    }
    body += "<footer><p>Speeds are of one answer at a time from an empty context, with the interval that four of five real ones \
             are in.</p></footer>\n";
    document(&title, &body)
}

fn machine(inventory: &Inventory) -> String {
    let mut html = String::from("<dl>\n");
    let mut fact = |name: &str, value: String| {
        let _ = writeln!(html, "<dt>{}</dt><dd>{}</dd>", escaped(name), escaped(&value));
    };
    let chassis = &inventory.hardware.chassis;
    let model: Vec<String> = [chassis.vendor.clone(), chassis.model.clone(), chassis.kind.map(|kind| kind.to_string())]
        .into_iter()
        .flatten()
        .collect();
    if !model.is_empty() {
        fact("machine", model.join(", "));
    }
    fact("system", inventory.os.name.clone().unwrap_or_else(|| inventory.os.platform.clone()));
    let cores = inventory.cpu.physical_cores.map_or_else(String::new, |cores| format!("{cores} cores, "));
    let brand = inventory.cpu.brand.clone().unwrap_or_else(|| "unknown".to_owned());
    fact("processor", format!("{brand}, {cores}{} threads", inventory.cpu.threads));
    fact("main memory", format!("{}, {} available now", inventory.memory.total, inventory.memory.available));
    if let Some(typical) = &inventory.hardware.typical {
        fact("typically available", format!("{} ({} samples)", typical.memory_available, typical.samples));
    }
    if let Some(disk) = inventory.store_disk {
        fact("volume of the model store", format!("{}, {} free", disk.total, disk.free));
    }
    fact("engine", inventory.engine_build.clone());
    html + "</dl>\n"
}

fn gpus(inventory: &Inventory) -> String {
    let known = |value: Option<String>| value.unwrap_or_else(|| "–".to_owned());
    let typically = |device: Option<&str>| {
        let typical = inventory.hardware.typical.as_ref()?;
        typical.devices.iter().find(|free| Some(free.device.as_str()) == device).map(|free| free.free.to_string())
    };
    let joined = inventory.hardware.gpus.iter().map(|gpu| {
        let used = match (&gpu.engine_device, &gpu.obstacle) {
            (Some(device), _) => format!("usable as {device}"),
            (None, Some(obstacle)) => obstacle
                .remedy
                .as_ref()
                .map_or_else(|| obstacle.text.clone(), |remedy| format!("{}: {remedy}", obstacle.text)),
            (None, None) => "not used".to_owned(),
        };
        vec![
            Cell::Text(gpu.name.clone()),
            Cell::Number(known(gpu.memory_total.map(|memory| memory.to_string()))),
            Cell::Number(known(gpu.memory_free.map(|memory| memory.to_string()))),
            Cell::Number(known(typically(gpu.engine_device.as_deref()))),
            Cell::Text(known(gpu.driver.clone())),
            Cell::Text(used),
        ]
    });
    let listed = inventory.devices.iter().filter(|device| device.kind != DeviceKind::Cpu).map(|device| {
        vec![
            Cell::Text(device.description.clone()),
            Cell::Number(known(device.memory_total.map(|memory| memory.to_string()))),
            Cell::Number(known(device.memory_free.map(|memory| memory.to_string()))),
            Cell::Number(known(typically(Some(&device.name)))),
            Cell::Text(known(device.driver.clone())),
            Cell::Text(format!("usable as {}", device.name)),
        ]
    });
    let rows: Vec<Vec<Cell>> = if inventory.hardware.gpus.is_empty() { listed.collect() } else { joined.collect() };
    if rows.is_empty() {
        return "<p class=\"quiet\">None.</p>\n".to_owned();
    }
    table(&["GPU", "Memory", "Free now", "Typically free", "Driver", "Use"], rows.into_iter())
}

fn measured(benchmark: &Benchmark) -> String {
    let spread = |spread: &muster_proto::Spread| format!("{} ± {:.1}", spread.median, spread.median_absolute_deviation);
    let rows = benchmark.points.iter().map(|point| {
        vec![
            Cell::Text(point.device.clone()),
            Cell::Text(format!("{} {}", point.model.name, point.model.quantization)),
            Cell::Number(point.depth.to_string()),
            Cell::Number(spread(&point.prefill)),
            Cell::Number(spread(&point.decode)),
        ]
    });
    let parts = benchmark.parts.iter().map(|part| Column {
        name: format!("{}, {}", part.part, part.quantity.to_string().replace('_', " ")),
        value: part.rate.median.get() / 1e9,
        caption: format!("{:.1} G/s", part.rate.median.get() / 1e9),
        class: "bar",
    });
    let parts: Vec<Column> = parts.filter(|column| column.value > 0.01).collect();
    let chart = if parts.is_empty() { String::new() } else { bars("rates of the parts", &parts, 270) };
    let note = match (&benchmark.conditions.stopped_by, benchmark.conditions.idle) {
        (Some(stopped), _) => format!("<p class=\"quiet\">Stopped: {}</p>\n", escaped(stopped)),
        (None, Some(false)) => {
            "<p class=\"quiet\">The machine was not idle: the figures are not all its own.</p>\n".to_owned()
        }
        _ => String::new(),
    };
    let battery = battery_words(benchmark).iter().fold(String::new(), |mut html, text| {
        let _ = writeln!(html, "<p>{}</p>", escaped(text));
        html
    });
    table(&["Device", "Model", "Depth", "Prefill", "Decode"], rows) + &chart + &battery + &note
}

fn models(rows: &[ModelVerdict]) -> String {
    let header = [
        "Model",
        "Parameters",
        "Quantization",
        "Context",
        "Placement",
        "Prefill, tok/s",
        "Decode, tok/s",
        "Verdict",
        "Why, and what helps",
    ];
    let rows = ordered(rows).into_iter().map(|row| {
        let speed = |range: Option<muster_proto::SpeedRange>| {
            range.filter(|_| row.placement.is_some()).map_or_else(|| "–".to_owned(), |range| range_words(&range))
        };
        vec![
            Cell::Text(row.name.clone()),
            Cell::Number(parameters_words(row.parameters)),
            Cell::Text(row.quantization.clone()),
            Cell::Number(row.context.map_or_else(|| "–".to_owned(), |context| context.get().to_string())),
            Cell::Text(placement_words(row).unwrap_or_else(|| "–".to_owned())),
            Cell::Number(speed(row.prefill)),
            Cell::Number(speed(row.decode)),
            Cell::Badge(verdict_word(row.verdict), class(row.verdict)),
            Cell::Text(reasons_words(&row.reasons)),
        ]
    });
    table(&header, rows)
}
