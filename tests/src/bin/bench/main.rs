//! `make bench`: the figures of `docs/benchmarks.md` that a running controller and agent can be asked for.
//!
//! Prints a Markdown table. Each figure says how it was taken; what is compared is measured in one run, interleaved.

#![allow(clippy::missing_panics_doc, reason = "a measurement that fails panics, and says which")]

mod download;
mod fleet;
mod idle;
mod online;

use std::time::Duration;

use clap::Parser;
use muster_proto::Bytes;
use muster_tests::{PATIENCE, wait_for};

/// Measures idle agents, the way to online, downloads, and the readiness of a fleet on this machine.
#[derive(Parser)]
#[command(name = "muster-bench")]
struct Flags {
    /// Seconds over which an idle agent is watched; 0 leaves it out.
    #[arg(long, default_value_t = 300)]
    idle: u64,
    /// MiB of the model that is downloaded; 0 leaves it out.
    #[arg(long, default_value_t = 1024)]
    download: u64,
    /// Repeats of each download, and of each way of downloading.
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Repeats of the way from `muster-agent run` to online; 0 leaves it out.
    #[arg(long, default_value_t = 5)]
    online: usize,
    /// Machines of the synthetic fleet whose readiness is reported; 0 leaves it out.
    #[arg(long, default_value_t = 10_000)]
    fleet: u32,
    /// Where to leave the synthetic fleet's reports.
    #[arg(long, value_name = "DIR")]
    reports: Option<std::path::PathBuf>,
}

/// One line of the table.
pub struct Figure {
    /// What was measured.
    pub what: String,
    /// The value with its unit.
    pub value: String,
    /// What it should be.
    pub wanted: String,
    /// Whether it is.
    pub met: Option<bool>,
}

impl Figure {
    fn new(what: impl Into<String>, value: impl Into<String>, wanted: impl Into<String>, met: Option<bool>) -> Self {
        Self { what: what.into(), value: value.into(), wanted: wanted.into(), met }
    }
}

/// The middle one; the mean of both if there are two.
pub fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    let half = values.len() / 2;
    if values.len() % 2 == 1 { values[half] } else { f64::midpoint(values[half - 1], values[half]) }
}

/// Resident memory of a process.
pub fn resident(pid: u32) -> Bytes {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("a running process");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("Linux says it");
    let kib: u64 = line.trim().trim_end_matches(" kB").trim().parse().expect("a number");
    Bytes::new(kib << 10)
}

/// Lets so much time pass.
pub fn pass(time: Duration) {
    let started = std::time::Instant::now();
    wait_for("time to pass", time + PATIENCE, || {
        if started.elapsed() >= time { Ok(()) } else { Err(format!("{:?}", started.elapsed())) }
    });
}

fn main() {
    let flags = Flags::parse();
    let mut figures = Vec::new();
    if flags.fleet > 0 {
        eprintln!("readiness of {} machines, {} rounds …", flags.fleet, flags.rounds);
        figures.extend(fleet::measure(flags.fleet, flags.rounds.max(1), flags.reports.as_deref()));
    }
    if flags.online > 0 {
        eprintln!("run to online, {} times …", flags.online);
        figures.extend(online::measure(flags.online));
    }
    if flags.download > 0 {
        eprintln!("download of {} MiB, {} rounds …", flags.download, flags.rounds);
        figures.extend(download::measure(Bytes::from_mib(flags.download), flags.rounds.max(1)));
    }
    if flags.idle > 0 {
        eprintln!("an idle agent over {} s …", flags.idle);
        figures.extend(idle::measure(Duration::from_secs(flags.idle)));
    }
    println!("{}\n", machine());
    println!("| what | measured | wanted | met |");
    println!("|---|---|---|---|");
    for Figure { what, value, wanted, met } in figures {
        let met = met.map_or("", |met| if met { "yes" } else { "**no**" });
        println!("| {what} | {value} | {wanted} | {met} |");
    }
}

/// What this machine is, in one line.
fn machine() -> String {
    let cpu = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let brand = cpu.lines().find_map(|line| line.strip_prefix("model name")).unwrap_or("unknown CPU");
    let threads = std::thread::available_parallelism().map_or(0, std::num::NonZero::get);
    let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let profile = if cfg!(debug_assertions) { "dev profile (own crates at opt-level 1)" } else { "release profile" };
    format!("{}, {threads} threads, Linux {}, {profile}.", brand.trim_start_matches([' ', '\t', ':']), kernel.trim())
}
