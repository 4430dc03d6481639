//! `muster-agent bench`: through the running agent, or alone.

use std::io::IsTerminal as _;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail};
use indicatif::{ProgressBar, ProgressStyle};
use muster_engine::host::StateDir;
use muster_proto::{Benchmark, BenchmarkKind};
use muster_reports::benchmark_table;

use super::Context;
use super::args::BenchArgs;
use super::status::no_agent;
use crate::config::Config;
use crate::control::{self, Reply, Request};
use crate::probe::{self, Probe};
use crate::roots::Roots;
use crate::{bench, state, survey};

/// Measures this desk and shows the result.
pub async fn run(context: Context, args: BenchArgs) -> anyhow::Result<ExitCode> {
    let progress = Progress::new();
    let Context { paths, file, output } = context;
    let config = Config::new(paths, file)?;
    let benchmark = measure(&config, args.kind(), args.wait.map(Duration::from_secs), &progress).await?;
    progress.done();
    output.show(&benchmark, |style| benchmark_table(&benchmark, style))?;
    Ok(ExitCode::SUCCESS)
}

/// Measures through the running agent, else here; then it waits so long for the desk to be idle.
pub async fn measure(
    config: &Config,
    kind: BenchmarkKind,
    wait: Option<Duration>,
    progress: &Progress,
) -> anyhow::Result<Benchmark> {
    let request = Request::Bench { quick: kind == BenchmarkKind::Quick, full: kind == BenchmarkKind::Full };
    let asked =
        control::ask(&config.paths.control_socket(), request, |step, fraction| progress.at(step, fraction)).await;
    match asked {
        Ok(Reply::Bench(benchmark)) => Ok(*benchmark),
        Ok(Reply::Failed { reason }) => bail!(reason),
        Ok(_) => bail!("the agent answered something else than was asked"),
        Err(error) if no_agent(&error) => alone(config, kind, wait, progress).await,
        Err(error) => Err(error).context("the running agent went away"),
    }
}

/// A folder on the volume of the model store, which may not be there yet.
pub fn volume(config: &Config) -> PathBuf {
    config.store.ancestors().find(|path| path.exists()).unwrap_or(&config.store).to_owned()
}

async fn alone(
    config: &Config,
    kind: BenchmarkKind,
    wait: Option<Duration>,
    progress: &Progress,
) -> anyhow::Result<Benchmark> {
    // The lock keeps an agent from starting its own benchmark meanwhile.
    let _state = StateDir::open(config.paths.root(), state::FORMAT)?;
    let store = volume(config);
    let roots = Roots::of_this_machine();
    let probe =
        Probe { roots: roots.clone(), store: store.clone(), worker: config.worker.clone(), serving: Arc::default() };
    let inventory = probe::collect(&probe).await;
    let drivers = survey::drivers(&inventory);
    let at = |step: String, fraction| progress.at(&step, fraction);
    let scratch = config.paths.scratch();
    let job = bench::Job {
        worker: &config.worker,
        scratch: &scratch,
        roots: &roots,
        store: &store,
        threads: config.threads,
        kind,
        hardware_fingerprint: inventory.hardware_fingerprint,
        drivers,
        prefers_mains: false,
        wait: wait.unwrap_or_else(|| survey::asked_wait(kind)),
    };
    Ok(survey::measure(&config.paths, job, at).await?.0)
}

/// A bar on a terminal, lines elsewhere.
pub struct Progress {
    bar: Option<ProgressBar>,
}

impl Progress {
    /// One on stderr.
    pub fn new() -> Self {
        let bar = std::io::stderr().is_terminal().then(|| {
            let style = ProgressStyle::with_template("{bar:30} {percent:>3} %  {msg}").expect("a valid template");
            ProgressBar::new(1000).with_style(style)
        });
        Self { bar }
    }

    /// It is there now.
    pub fn at(&self, step: &str, fraction: f32) {
        match &self.bar {
            Some(bar) => {
                #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "clamped to 0..1")]
                bar.set_position((fraction.clamp(0.0, 1.0) * 1000.0) as u64);
                bar.set_message(step.to_owned());
            }
            None => eprintln!("{:>3.0} % {step}", fraction * 100.0),
        }
    }

    /// It is through.
    pub fn done(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}
