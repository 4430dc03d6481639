//! Learns the priors of speed from public measurements and judges them by leaving one device out.
//!
//!     cargo build --workspace --example fit_speed && target/debug/examples/fit_speed [--rows] [--write]
//!
//! `--write` writes `engine/data/speed_priors.json`; `--rows` prints every row, the worst last. The same data gives the
//! same bytes.

#[path = "fit_speed/data.rs"]
mod data;
#[path = "fit_speed/evaluate.rs"]
mod evaluate;
#[path = "fit_speed/fit.rs"]
mod fit;

use std::collections::BTreeSet;
use std::error::Error;

use data::Row;
use evaluate::{Figures, Judged};

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let has = |name: &str| arguments.iter().any(|argument| argument == name);
    if let Some(unknown) =
        arguments.iter().find(|argument| !matches!(argument.as_str(), "--rows" | "--write" | "--parameters"))
    {
        return Err(format!("unknown argument {unknown:?}: use --rows, --parameters, --write").into());
    }
    let data = data::read()?;
    let (priors, judged) = evaluate::run(&data);
    if has("--rows") {
        let mut rows: Vec<&Judged> = judged.iter().collect();
        rows.sort_by(|a, b| a.relative().total_cmp(&b.relative()));
        for judged in rows {
            let row = judged.row;
            println!(
                "{:5} {:6} {:22} {:14} {:60} {:9.2} predicted {:9.2} {:+6.1} %{}",
                row.id,
                row.backend.name(),
                row.device.key,
                row.test,
                row.label,
                row.measured,
                row.measured * judged.error.exp(),
                (judged.error.exp() - 1.0) * 100.0,
                if judged.held { "" } else { " outside" },
            );
        }
    }
    if has("--parameters") {
        for (name, value) in &priors.parameters {
            println!("{name:50} {value:+.3}");
        }
    }
    println!("{} rows; left out: {}", data.rows.len(), data.left_out.join(", "));
    println!(
        "{:34} {:>5} {:>7} {:>8} {:>8} {:>8}",
        "leave one device out", "rows", "devices", "median", "p90", "in 80 %"
    );
    let line = |name: &str, pass: &dyn Fn(&Row) -> bool| {
        if let Some(f) = Figures::of(&judged, pass) {
            let percent = |share: f64| format!("{:.1} %", share * 100.0);
            println!(
                "{name:34} {:5} {:7} {:>8} {:>8} {:>8}",
                f.rows,
                f.devices,
                percent(f.median),
                percent(f.p90),
                percent(f.held)
            );
        }
    };
    for (kind, decode) in [("decode", true), ("prefill", false)] {
        line(kind, &|row| row.decode == decode);
        line(&format!("{kind}, GPUs"), &|row| row.decode == decode && row.backend.name() != "cpu");
        line(&format!("{kind}, dense"), &|row| row.decode == decode && !row.experts);
        line(&format!("{kind}, experts"), &|row| row.decode == decode && row.experts);
        line(&format!("{kind}, at depth"), &|row| row.decode == decode && row.depth > 0);
        line(&format!("{kind}, partly on the host"), &|row| row.decode == decode && row.split);
        line(&format!("{kind}, today's builds"), &|row| row.decode == decode && row.year >= 2025.5);
        let groups: BTreeSet<(&str, &str)> =
            judged.iter().map(|judged| (judged.row.backend.name(), judged.row.device.architecture.as_str())).collect();
        for backend in ["cuda", "rocm", "vulkan", "metal", "cpu"] {
            line(&format!("{kind}, {backend}"), &|row| row.decode == decode && row.backend.name() == backend);
            for (_, architecture) in
                groups.iter().filter(|(own, architecture)| *own == backend && !architecture.is_empty())
            {
                line(&format!("  {backend} {architecture}"), &|row| {
                    row.decode == decode && row.backend.name() == backend && row.device.architecture == *architecture
                });
            }
        }
    }
    line("at depth", &|row| row.depth > 0);
    if has("--write") {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/data/speed_priors.json");
        std::fs::write(path, priors.to_json())?;
        println!("wrote {path}");
    }
    Ok(())
}
