//! `muster-agent audit`: what this desk is, how fast it is and what it can run, with or without a running agent.

use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Context as _;
use muster_engine::host::atomic_file::write_atomic;
use muster_engine::readiness;
use muster_proto::{Benchmark, BenchmarkKind, Inventory};
use muster_reports::{audit_html, audit_table, benchmark_table, inventory_page};
use serde_json::json;

use super::args::AuditArgs;
use super::bench::{self, Progress};
use super::{Context, output};
use crate::bench::power;
use crate::config::Config;
use crate::probe::{self, Probe};
use crate::roots::Roots;
use crate::survey;

/// Looks at this machine, measures it where that was not done yet, judges the reference models, and shows all that.
pub async fn run(context: Context, args: AuditArgs) -> anyhow::Result<ExitCode> {
    let Context { paths, file, output } = context;
    let config = Config::new(paths, file)?;
    let progress = Progress::new();
    progress.at("looking at the hardware", 0.0);
    let probe = Probe {
        roots: Roots::of_this_machine(),
        store: bench::volume(&config),
        worker: config.worker.clone(),
        serving: Arc::default(),
    };
    let inventory = probe::collect(&probe).await;
    let (benchmark, not_measured) = match known(&config, &inventory, &args) {
        Some(benchmark) => (Some(benchmark), None),
        None => match bench::measure(&config, args.kind(), None, &progress).await {
            Ok(benchmark) => (Some(Arc::new(benchmark)), None),
            Err(error) => (None, Some(output::chain(&error))),
        },
    };
    progress.at("judging the reference models", 1.0);
    // What was measured on battery is shown; what is predicted is for mains, where that was measured.
    let kept = survey::stored(&config.paths).1.filter(|kept| !survey::is_due(&inventory, Some(kept)));
    let rows = readiness::table(&inventory, kept.as_deref().or(benchmark.as_deref()));
    progress.done();
    if let Some(path) = &args.html {
        write_page(path, &audit_html(&inventory, benchmark.as_deref(), &rows))?;
    }
    let value = json!({
        "inventory": inventory,
        "benchmark": benchmark.as_deref(),
        "not_measured": not_measured,
        "models": rows,
    });
    output.show(&value, |style| {
        let mut page = inventory_page(&inventory, style);
        page.push('\n');
        if let Some(benchmark) = &benchmark {
            page.push_str(&benchmark_table(benchmark, style));
        } else {
            page.push_str("not measured: ");
            page.push_str(not_measured.as_deref().unwrap_or("nobody asked"));
            page.push_str("\nspeeds below are from what is known of such hardware\n");
        }
        page.push('\n');
        page.push_str(&audit_table(&rows, style));
        page
    })?;
    Ok(ExitCode::SUCCESS)
}

/// The stored benchmark, if it is of this very hardware, engine and drivers, and as thorough as is asked for.
fn known(config: &Config, inventory: &Inventory, args: &AuditArgs) -> Option<Arc<Benchmark>> {
    let (_, benchmark) = survey::stored(&config.paths);
    let thoroughness = |measured: &Benchmark| measured.conditions.kind.map_or(0, survey::thoroughness);
    let enough = |measured: &Benchmark| thoroughness(measured) >= survey::thoroughness(args.kind());
    let whole = |measured: &Benchmark| measured.conditions.stopped_by.is_none();
    let roots = Roots::of_this_machine();
    // On battery a thorough audit is for what that takes.
    let compares = args.kind() == BenchmarkKind::Full && power::on_mains(&roots.sys) == Some(false);
    benchmark.filter(|measured| {
        let current = !survey::is_due(inventory, Some(measured)) && !survey::wants_mains(measured, &roots);
        current && enough(measured) && whole(measured) && (!compares || !measured.on_battery.is_empty())
    })
}

fn write_page(path: &Path, page: &str) -> anyhow::Result<()> {
    write_atomic(path, page.as_bytes()).with_context(|| format!("cannot write {}", path.display()))
}
