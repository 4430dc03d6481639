//! How fast a desk is.

use std::time::Duration;

use muster_proto::{BenchPoint, Benchmark, BenchmarkKind, Conditions, OnBattery, PartQuantity, PartRate, Spread};

use crate::age::{date, span};
use crate::layout::{Grid, count, plain, sentence, toned};
use crate::style::{Style, Tone};

/// What was measured of each device: parts, then every point as median ± median absolute deviation; then what is to be known
/// of the measuring itself.
pub fn benchmark_table(benchmark: &Benchmark, style: &Style) -> String {
    let Benchmark {
        measured_at,
        took_ms,
        engine_build,
        hardware_fingerprint: _,
        points,
        conditions,
        parts,
        on_battery: _,
    } = benchmark;
    if points.is_empty() && parts.is_empty() {
        return sentence("nothing was measured: run `muster-agent bench`", Tone::Quiet, style);
    }
    let mut page = String::new();
    if !parts.is_empty() {
        page.push_str(&parts_table(parts, style));
        page.push('\n');
    }
    if !points.is_empty() {
        page.push_str(&points_table(points, style));
    }
    let runs = points.iter().map(|point| point.prefill.samples.len());
    let runs = match (runs.clone().min().unwrap_or(0), runs.max().unwrap_or(0)) {
        (fewest, most) if fewest < most => format!("{fewest} to {}", count(most, "run", "runs")),
        (_, same) => count(same, "run", "runs"),
    };
    let note = format!(
        "median ± median absolute deviation of {runs}, by {engine_build}, took {}, {}",
        span(Duration::from_millis(*took_ms)),
        date(*measured_at)
    );
    page.push_str(&sentence(note, Tone::Quiet, style));
    for (text, tone) in remarks(conditions) {
        page.push_str(&sentence(text, tone, style));
    }
    for text in battery_words(benchmark) {
        page.push_str(&sentence(text, Tone::Plain, style));
    }
    page
}

fn points_table(points: &[BenchPoint], style: &Style) -> String {
    let mut grid = Grid::new(style, &["DEVICE", "MODEL", "PREFILL", "DECODE"]).right(&[2, 3]).whole(&[0]);
    for point in points {
        let BenchPoint { device, threads, model, prefill_tokens, decode_tokens, prefill, decode, depth } = point;
        let device = match threads {
            Some(threads) => format!("{device}, {}", count(*threads as usize, "thread", "threads")),
            None => device.clone(),
        };
        let after = if *depth > 0 { format!("\nafter {depth} tokens") } else { String::new() };
        grid.row(vec![
            plain(device),
            plain(format!("{} {}{after}", model.name, model.quantization)),
            plain(format!("{}\nof {prefill_tokens} tokens", rate(prefill))),
            plain(format!("{}\nof {decode_tokens} tokens", rate(decode))),
        ]);
    }
    grid.render()
}

fn parts_table(parts: &[PartRate], style: &Style) -> String {
    let mut grid = Grid::new(style, &["PART", "WHAT", "MEASURED"]).right(&[2]).whole(&[0]);
    for PartRate { part, quantity, rate } in parts {
        let (what, unit, scale) = match quantity {
            PartQuantity::MemoryBandwidth => ("memory bandwidth, triad", "GB/s", 1e-9),
            PartQuantity::DiskRead => ("disk, past the page cache", "MB/s", 1e-6),
            PartQuantity::Fp32 => ("arithmetic, 32-bit floats", "GFLOP/s", 1e-9),
            PartQuantity::Fp16 => ("arithmetic, 16-bit floats", "GFLOP/s", 1e-9),
            PartQuantity::Sustained => ("speed after minutes of load", "% of before", 1e2),
            _ => continue,
        };
        let number = |value: f64| {
            let scaled = value * scale;
            if scaled < 100.0 { format!("{scaled:.1}") } else { format!("{scaled:.0}") }
        };
        let part = if part == "store" { "model store" } else { part };
        grid.row(vec![
            plain(part),
            plain(what),
            plain(format!("{} ± {} {unit}", number(rate.median.get()), number(rate.median_absolute_deviation))),
        ]);
    }
    grid.render()
}

/// What takes from the figures' worth, or is to be known beside them.
fn remarks(conditions: &Conditions) -> Vec<(String, Tone)> {
    let Conditions { kind: _, other_load, idle, on_mains, temperature_celsius, drivers, stopped_by, has_battery: _ } =
        conditions;
    let mut remarks = Vec::new();
    if let Some(reason) = stopped_by {
        remarks.push((format!("not complete: it stopped because {reason}"), Tone::Waiting));
    } else if *idle == Some(false) {
        let load = other_load.map_or(String::new(), |load| format!(": other programs took {:.0} %", load * 100.0));
        let text = format!("not idle{load}; the figures are too low: run `muster-agent bench` when the desk is idle");
        remarks.push((text, Tone::Waiting));
    }
    if *on_mains == Some(false) {
        remarks.push(("measured on battery".to_owned(), Tone::Waiting));
    }
    let mut facts: Vec<String> = drivers.clone();
    facts.extend(temperature_celsius.map(|degrees| format!("at most {degrees:.0} °C")));
    if !facts.is_empty() {
        remarks.push((facts.join(", "), Tone::Quiet));
    }
    remarks
}

/// What battery power takes, a sentence for each device; after a thorough benchmark of a laptop also how to find that out.
pub(crate) fn battery_words(benchmark: &Benchmark) -> Vec<String> {
    let Conditions { kind, on_mains, stopped_by, has_battery, .. } = &benchmark.conditions;
    let ratios = benchmark.on_battery.iter().map(|OnBattery { device, prefill, decode, points }| {
        let points = count(*points as usize, "point", "points");
        format!("on battery, {device}: decode {decode:.2}×, prefill {prefill:.2}× of mains ({points})")
    });
    let ratios: Vec<String> = ratios.collect();
    if !ratios.is_empty() || *kind != Some(BenchmarkKind::Full) || stopped_by.is_some() {
        return ratios;
    }
    let how = match (has_battery, on_mains) {
        (_, Some(false)) => "plug the charger in",
        (Some(true), Some(true)) => "pull the charger",
        _ => return ratios,
    };
    vec![format!("to compare mains with battery, {how} and run `muster-agent bench --full` again")]
}

/// `1250 ± 9 tok/s`: the deviation with as many decimals as the median.
fn rate(spread: &Spread) -> String {
    let median = spread.median.to_string();
    let number = median.split(' ').next().unwrap_or_default();
    let decimals = number.split_once('.').map_or(0, |(_, decimals)| decimals.len());
    format!("{number} ± {:.decimals$} tok/s", spread.median_absolute_deviation)
}

/// The fastest decode of a benchmark, for one line.
pub(crate) fn fastest(benchmark: &Benchmark) -> Option<comfy_table::Cell> {
    let best =
        benchmark.points.iter().max_by(|one, other| one.decode.median.get().total_cmp(&other.decode.median.get()))?;
    Some(toned(format!("{} ({} on {})", best.decode.median, best.model.name, best.device), Tone::Plain))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_takes_from_the_figures_worth_is_said() {
        let said = |conditions: Conditions| {
            remarks(&conditions).into_iter().map(|(text, _)| text).collect::<Vec<_>>().join("; ")
        };
        assert_eq!(said(Conditions { idle: Some(true), on_mains: Some(true), ..Conditions::default() }), "");
        let busy = said(Conditions { idle: Some(false), other_load: Some(0.42), ..Conditions::default() });
        assert!(busy.starts_with("not idle: other programs took 42 %"), "{busy}");
        let stopped = Conditions { stopped_by: Some("the battery took over".into()), ..Conditions::default() };
        assert!(said(stopped).contains("not complete: it stopped because the battery took over"));
        let battery = Conditions { on_mains: Some(false), drivers: vec!["radv 25".into()], ..Conditions::default() };
        assert_eq!(said(battery), "measured on battery; radv 25");
    }

    #[test]
    fn what_battery_takes_is_said_or_how_to_find_out() {
        let benchmark = |kind, on_mains, has_battery, on_battery: Vec<OnBattery>| Benchmark {
            measured_at: muster_proto::Timestamp::from_unix_millis(0),
            took_ms: 1,
            engine_build: String::new(),
            hardware_fingerprint: String::new(),
            points: vec![],
            conditions: Conditions { kind: Some(kind), on_mains: Some(on_mains), has_battery, ..Conditions::default() },
            parts: vec![],
            on_battery,
        };
        let cpu = OnBattery { device: "CPU".into(), prefill: 0.55, decode: 0.621, points: 3 };
        let compared = benchmark(BenchmarkKind::Quick, false, Some(true), vec![cpu]);
        assert_eq!(battery_words(&compared), ["on battery, CPU: decode 0.62×, prefill 0.55× of mains (3 points)"]);
        let asks =
            |on_mains, has_battery| battery_words(&benchmark(BenchmarkKind::Full, on_mains, has_battery, vec![]));
        assert!(asks(true, Some(true))[0].contains("pull the charger and run"));
        assert!(asks(false, Some(true))[0].contains("plug the charger in and run"));
        assert_eq!(asks(true, Some(false)), Vec::<String>::new(), "a desktop");
        assert_eq!(battery_words(&benchmark(BenchmarkKind::Standard, true, Some(true), vec![])), Vec::<String>::new());
    }
}
