//! `muster-agent audit`: what this desk is, with or without a running agent.

use std::process::ExitCode;
use std::sync::Arc;

use muster_reports::{benchmark_table, inventory_page};
use serde_json::json;

use super::Context;
use crate::config::Config;
use crate::probe::{self, Probe};
use crate::survey;

/// Looks at this machine and shows it, with the benchmark if this hardware was measured.
pub async fn run(context: Context) -> anyhow::Result<ExitCode> {
    let Context { paths, file, output } = context;
    let config = Config::new(paths, file)?;
    // The volume exists even where the store does not yet.
    let store = config.store.ancestors().find(|path| path.exists()).unwrap_or(&config.store).to_owned();
    let inventory = probe::collect(&Probe { store, worker: config.worker.clone(), serving: Arc::default() }).await;
    let (_, benchmark) = survey::stored(&config.paths);
    let benchmark = benchmark.filter(|measured| measured.hardware_fingerprint == inventory.hardware_fingerprint);
    let value = json!({ "inventory": inventory, "benchmark": benchmark.as_deref() });
    output.show(&value, |style| {
        let mut page = inventory_page(&inventory, style);
        page.push('\n');
        match &benchmark {
            Some(benchmark) => page.push_str(&benchmark_table(benchmark, style)),
            None => page.push_str("not benchmarked yet\nnext: `muster-agent bench`\n"),
        }
        page
    })?;
    Ok(ExitCode::SUCCESS)
}
