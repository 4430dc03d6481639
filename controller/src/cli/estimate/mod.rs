//! `muster estimate`: finds the model and the devices, asks the engine, and prints its answer.
//!
//! Needs no controller, unless the model is of its catalog or the devices are those of one of its machines. Entry point:
//! [`run`].

mod catalog;
mod model;
mod nearest;
mod target;
mod written;

use muster_engine::estimate::{EstimateError, ExpertsOnHost, GpuLayers, Question, answer};
use muster_engine::worker::{Graphs, Outputs, WorkerCommand};
use muster_proto::{Bytes, ContextTokens, Estimate, FlashAttention, KvType};
use muster_reports::estimate_page;
use tempfile::TempDir;
use tokio::signal::unix::{Signal, SignalKind, signal};

use super::Failure;
use super::args::{ComputeGraphs, EstimateArgs, FlashAttn, Global, KvCacheType, OutputRows};
use super::output::Output;
use crate::error_chain;

pub(super) use written::{WrittenDevice, WrittenExperts, WrittenLayers, WrittenSize};

/// Address space of a worker that only counts. A dry run of the largest models takes a fraction of it; a file that makes
/// llama.cpp ask for more is refused by its own allocator.
const WORKER_MEMORY: Bytes = Bytes::from_gib(8);

/// Answers, or is interrupted; either way nothing stays behind.
pub(super) async fn run(global: &Global, arguments: &EstimateArgs, output: &Output) -> Result<(), Failure> {
    check(arguments)?;
    // Before there is anything to leave behind.
    let mut signals = Signals::listen()?;
    let scratch = tempfile::Builder::new().prefix("muster-estimate-").tempdir();
    let scratch = scratch.map_err(|error| Failure::new(format!("cannot make a temporary folder: {error}")))?;
    // Whatever wins, nothing goes on after it, so that neither need be cancel-safe: the worker of a dropped job dies. Signals
    // first, because one that a terminal sends reaches the worker too.
    let estimate = tokio::select! {
        biased;
        number = signals.received() => Err(Failure { code: 128 + number, message: "interrupted".to_owned() }),
        estimate = estimate(global, arguments, &scratch) => estimate,
    };
    drop(scratch);
    let estimate = estimate?;
    output.result(&estimate, |style| estimate_page(&estimate, style))
}

/// What is wrong with the flags together, found before anything is looked at.
fn check(arguments: &EstimateArgs) -> Result<(), Failure> {
    if arguments.batch < arguments.parallel {
        return Err(Failure::usage(format!(
            "--batch {} is less than --parallel {}: every sequence decodes a token in each step",
            arguments.batch, arguments.parallel
        )));
    }
    if arguments.kv_type != KvCacheType::F16 && arguments.flash_attn == FlashAttn::Off {
        return Err(Failure::usage("a quantized KV cache takes fused attention: leave --flash-attn off away"));
    }
    target::check(arguments)
}

async fn estimate(global: &Global, arguments: &EstimateArgs, scratch: &TempDir) -> Result<Estimate, Failure> {
    let mut command = WorkerCommand::this_executable()
        .map_err(|error| Failure::new(format!("cannot find the path of this program: {error}")))?;
    command.memory_limit = Some(WORKER_MEMORY);
    // A wrong device is said before a model is made.
    let target = target::find(global, arguments, &command).await?;
    let found = model::find(global, &arguments.model, &command, scratch.path()).await?;
    let mut question = Question::new(found.path, found.source, target.devices);
    question.name = found.name;
    question.siblings = found.siblings;
    question.host_memory = target.host_memory;
    question.benchmark = target.benchmark;
    question.host = target.host;
    question.notes = target.notes;
    question.context = arguments.ctx.map(ContextTokens::new);
    question.parallel = arguments.parallel;
    question.batch = arguments.batch;
    question.ubatch = arguments.ubatch;
    question.kv_type = match arguments.kv_type {
        KvCacheType::F16 => KvType::F16,
        KvCacheType::Q8_0 => KvType::Q8_0,
        KvCacheType::Q4_0 => KvType::Q4_0,
    };
    question.kv_unified = arguments.kv_unified;
    question.flash_attention = match arguments.flash_attn {
        FlashAttn::On => FlashAttention::On,
        FlashAttn::Off => FlashAttention::Off,
        FlashAttn::Auto => FlashAttention::Auto,
    };
    // A machine of Muster runs Muster's engine.
    let usual = if arguments.machine.is_some() { OutputRows::Sequence } else { OutputRows::MicroBatch };
    question.outputs = match arguments.outputs.unwrap_or(usual) {
        OutputRows::MicroBatch => Outputs::MicroBatch,
        OutputRows::Sequence => Outputs::PerSequence,
    };
    question.graphs = match arguments.graphs {
        Some(ComputeGraphs::ThisBuild) => Graphs::ThisBuild,
        None if question.outputs == Outputs::PerSequence => Graphs::ThisBuild,
        Some(ComputeGraphs::Earlier) | None => Graphs::EarlierBuilds,
    };
    question.gpu_layers = match arguments.gpu_layers {
        WrittenLayers::Auto => GpuLayers::Auto,
        WrittenLayers::All => GpuLayers::All,
        WrittenLayers::Count(layers) => GpuLayers::Count(layers),
    };
    question.experts_on_host = match arguments.cpu_moe {
        None => ExpertsOnHost::Layers(0),
        Some(WrittenExperts::All) => ExpertsOnHost::All,
        Some(WrittenExperts::Layers(layers)) => ExpertsOnHost::Layers(layers),
    };
    question.margin = arguments.margin.0;
    question.depth = ContextTokens::new(arguments.depth);
    answer(&command, &question).await.map_err(|error| failure(&error, &arguments.model.display().to_string()))
}

/// The model as it was written, not the path of a file that was made for it.
fn failure(error: &EstimateError, model: &str) -> Failure {
    let cause = std::error::Error::source(error).map_or_else(|| error.to_string(), error_chain);
    if error.is_about_the_file() {
        Failure::model(format!("{model}: {cause}"))
    } else {
        Failure::new(format!("cannot size {model}: {cause}"))
    }
}

/// The signals that end this program.
struct Signals {
    interrupt: Signal,
    terminate: Signal,
    hangup: Signal,
}

impl Signals {
    fn listen() -> Result<Self, Failure> {
        let wait = |kind| signal(kind).map_err(|error| Failure::new(format!("cannot wait for signals: {error}")));
        Ok(Self {
            interrupt: wait(SignalKind::interrupt())?,
            terminate: wait(SignalKind::terminate())?,
            hangup: wait(SignalKind::hangup())?,
        })
    }

    /// The number of the first one. A shell says of a program that a signal ended: 128 and this.
    async fn received(&mut self) -> u8 {
        // Cancel-safe: `recv` loses no signal.
        tokio::select! {
            _ = self.interrupt.recv() => 2,
            _ = self.terminate.recv() => 15,
            _ = self.hangup.recv() => 1,
        }
    }
}
