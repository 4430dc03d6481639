//! `muster-agent bench`: through the running agent, or alone.

use std::io::IsTerminal as _;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail};
use indicatif::{ProgressBar, ProgressStyle};
use muster_engine::host::StateDir;
use muster_proto::Benchmark;
use muster_reports::benchmark_table;

use super::Context;
use super::args::BenchArgs;
use super::status::no_agent;
use crate::config::Config;
use crate::control::{self, Reply, Request};
use crate::probe::{self, Probe};
use crate::{bench, state, survey};

/// Measures this desk and shows the result.
pub async fn run(context: Context, args: BenchArgs) -> anyhow::Result<ExitCode> {
    let progress = Progress::new();
    let asked = control::ask(
        &context.paths.control_socket(),
        Request::Bench { quick: args.quick, full: args.full },
        |step, fraction| {
            progress.at(step, fraction);
        },
    )
    .await;
    let Context { paths, file, output } = context;
    let benchmark = match asked {
        Ok(Reply::Bench(benchmark)) => *benchmark,
        Ok(Reply::Failed { reason }) => bail!(reason),
        Ok(_) => bail!("the agent answered something else than was asked"),
        Err(error) if no_agent(&error) => alone(Config::new(paths, file)?, &args, &progress).await?,
        Err(error) => return Err(error).context("the running agent went away"),
    };
    progress.done();
    output.show(&benchmark, |style| benchmark_table(&benchmark, style))?;
    Ok(ExitCode::SUCCESS)
}

async fn alone(config: Config, args: &BenchArgs, progress: &Progress) -> anyhow::Result<Benchmark> {
    // The lock keeps an agent from starting its own benchmark meanwhile.
    let _state = StateDir::open(config.paths.root(), state::FORMAT)?;
    let store = config.paths.root().to_owned();
    let inventory = probe::collect(&Probe { store, worker: config.worker.clone(), serving: Arc::default() }).await;
    let drivers = survey::drivers(&inventory);
    let fingerprint = inventory.hardware_fingerprint;
    let at = |step: String, fraction| progress.at(&step, fraction);
    let kind = args.kind();
    let wait = args.wait.map_or_else(|| survey::asked_wait(kind), Duration::from_secs);
    let scratch = config.paths.scratch();
    let job = bench::Job {
        worker: &config.worker,
        scratch: &scratch,
        store: &config.store,
        threads: config.threads,
        kind,
        hardware_fingerprint: fingerprint,
        drivers,
        wait,
    };
    Ok(survey::measure(&config.paths, job, at).await?)
}

/// A bar on a terminal, lines elsewhere.
struct Progress {
    bar: Option<ProgressBar>,
}

impl Progress {
    fn new() -> Self {
        let bar = std::io::stderr().is_terminal().then(|| {
            let style = ProgressStyle::with_template("{bar:30} {percent:>3} %  {msg}").expect("a valid template");
            ProgressBar::new(1000).with_style(style)
        });
        Self { bar }
    }

    fn at(&self, step: &str, fraction: f32) {
        match &self.bar {
            Some(bar) => {
                #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "clamped to 0..1")]
                bar.set_position((fraction.clamp(0.0, 1.0) * 1000.0) as u64);
                bar.set_message(step.to_owned());
            }
            None => eprintln!("{:>3.0} % {step}", fraction * 100.0),
        }
    }

    fn done(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}
