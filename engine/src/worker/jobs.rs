//! Jobs that a short-lived worker does: listing devices, sizing, benchmarking; and how any of them is followed to its end.

use std::path::PathBuf;
use std::time::Duration;

use muster_proto::{BenchModel, BenchPoint, Bytes, ContextTokens, Device, EngineSettings, MemoryNeed, Spread};
use tokio::time::timeout;

use super::process::Process;
use super::{EarlierBuild, WorkerCommand, WorkerError, convert};
use crate::wire::{self, from_worker::Reply, to_worker::Request};

/// A model file to size by llama.cpp's own dry run.
#[derive(Clone, Debug, PartialEq)]
pub struct SizeRequest {
    /// The file; its header is enough, so it may be sparse.
    pub path: PathBuf,
    /// How the model would run.
    pub settings: EngineSettings,
    /// GPUs to imagine, in llama.cpp's order; none means on the CPU alone.
    pub devices: Vec<PhantomDevice>,
    /// What only a dry run may ask for; the default is what a worker then loads.
    pub options: SizeOptions,
}

/// What a dry run may ask for beyond what Muster's own workers load.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct SizeOptions {
    /// Context over all sequences (llama.cpp's `n_ctx`); `None` takes that of the settings, times `parallel`. 0 together
    /// with [`Placement::Fit`] takes what the model was trained with, or as much of it as fits.
    pub total_context: Option<ContextTokens>,
    /// For how many tokens of a micro-batch logits are reserved.
    pub outputs: Outputs,
    /// Who decides what goes where.
    pub placement: Placement,
    /// What goes where beyond the number of layers; the default leaves it to llama.cpp, and to a fit.
    pub layout: Layout,
    /// Whose graphs the compute buffers are for.
    pub graphs: Graphs,
    /// Which of them, where they are earlier builds'.
    pub earlier: EarlierBuild,
    /// A GPU that has no layer still computes long prompts, as with llama.cpp's own programs; Muster's workers leave it alone.
    pub gpu_without_layers: bool,
    /// A fit as llama.cpp compiles it, many times slower and the same: for tests that it is.
    pub unmodified_fit: bool,
}

/// Whose graphs the compute buffers are for. Weights and caches are the same for all.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Graphs {
    /// Those of the llama.cpp that is linked, which is what a load then takes.
    #[default]
    ThisBuild,
    /// Those of earlier builds (until b8200 at least), to compare with what they logged: [`EarlierBuild`] says in what they
    /// differ. On devices only: main memory is not an earlier build's.
    EarlierBuilds,
}

/// What goes where beyond the number of layers, as a dry run found it and a load can be told; empty leaves it to llama.cpp.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Layout {
    /// Of the layers over the devices, in their order; relative. Empty: by the memory that is free at the time.
    pub split: Vec<f32>,
    /// Tensors that do not go where their layer goes; the first pattern that is found in a name decides.
    pub overrides: Vec<TensorOverride>,
}

/// Where certain tensors go, as llama.cpp's `--override-tensor` says it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TensorOverride {
    /// A regular expression that is searched in tensors' names.
    pub pattern: String,
    /// `CPU`, or a device's name.
    pub device: String,
}

/// For how many tokens of a micro-batch the compute buffer holds logits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Outputs {
    /// One for each sequence: all that answering takes, and what Muster's workers load with.
    #[default]
    PerSequence,
    /// For all: what llama.cpp's own programs reserve.
    MicroBatch,
}

/// Who decides what goes where.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Placement {
    /// The settings: `gpu_layers` and `expert_layers_on_host`.
    #[default]
    AsSet,
    /// llama.cpp's own fit, over all devices, with experts kept on the host where that helps. It changes only what is not
    /// set: `gpu_layers` and the layout where they are left open, a context of 0. Without devices there is nothing to fit.
    Fit {
        /// A context that may shrink does not become smaller than this.
        min_context: ContextTokens,
        /// To leave free on each device.
        margin: Bytes,
    },
}

/// A GPU that exists only in a worker's sizing: it reports memory and never computes.
///
/// What its backend takes for tensors and operations, which operations it does and in which order, is upstream's own code of
/// the llama.cpp that is linked (`engine/build/upstream.rs`). Not in the figures: what a driver takes beyond llama.cpp's
/// buffers, see [`surcharge`](crate::surcharge).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PhantomDevice {
    /// llama.cpp's name for it, e.g. `CUDA0`, which is how the result names it.
    pub name: String,
    /// Whose rules of alignment and padding hold.
    pub backend: PhantomBackend,
    /// What it has.
    pub total: Bytes,
    /// What is free.
    pub free: Bytes,
    /// Whether it shares main memory.
    pub integrated: bool,
    /// Its generation, where the backend's rules depend on it: CUDA's compute capability times 100 (`890`), ROCm's gfx
    /// number read as hexadecimal (`0x1100`), Metal's Apple GPU family (`9`), Vulkan's vendor (`0x10DE`, `0x1002`, `0x8086`,
    /// `0x10005` for Mesa's software). `None` takes a common one.
    pub capability: Option<u32>,
}

impl PhantomDevice {
    /// A discrete GPU (an integrated one with Metal) of a common generation, all of whose memory is free.
    pub fn new(name: impl Into<String>, backend: PhantomBackend, memory: Bytes) -> Self {
        Self {
            name: name.into(),
            backend,
            total: memory,
            free: memory,
            integrated: backend == PhantomBackend::Metal,
            capability: None,
        }
    }
}

/// Whose buffers a phantom device imitates.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PhantomBackend {
    /// CUDA: rows of quantized weights padded to the next 512 columns, F16 copies of a quantized KV cache.
    Cuda,
    /// Vulkan: no padding, no scratch.
    Vulkan,
    /// Metal: no padding, scratch for flash attention, experts and sorts; memory shared with the host.
    Metal,
    /// ROCm: CUDA's code, compiled for AMD.
    Rocm,
}

/// What llama.cpp's dry run says.
#[derive(Clone, Debug, PartialEq)]
pub struct Sized {
    /// Memory by device.
    pub need: MemoryNeed,
    /// Transformer blocks of the model.
    pub layers: u32,
    /// Layers (the output counts as one) that went to GPU devices.
    pub gpu_layers: u32,
    /// The context it was trained with.
    pub context_train: u32,
    /// Experts, 0 for a dense model.
    pub experts: u32,
    /// Layers, where the output counts as one.
    pub total_layers: u32,
    /// Context over all sequences, as llama.cpp rounded or fitted it.
    pub context: ContextTokens,
    /// Layers, from the first, whose experts stay in main memory.
    pub expert_layers_on_host: u32,
    /// What goes where, for a load that is to do the same: layers on each device where there are several, and the tensors
    /// that do not go where their layer goes (without those that `expert_layers_on_host` says).
    pub layout: Layout,
    /// Whether it leaves the margin free on every device; `None` where no fit was asked for.
    pub fits: Option<bool>,
}

/// A benchmark to run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BenchRequest {
    /// Where models of random weights are made, and removed afterwards.
    pub scratch_dir: PathBuf,
    /// When to stop measuring more; what was measured until then counts.
    pub budget: Duration,
    /// CPU threads; `None` takes all physical cores.
    pub threads: Option<u32>,
    /// Smaller models and fewer repeats: a few seconds.
    pub quick: bool,
    /// Load on the first device for so long after all else; zero for none.
    pub sustained: Duration,
}

/// What a benchmark tells while it runs. What was measured is told at once, so that it is there if the rest is cut off.
#[derive(Clone, Debug, PartialEq)]
pub enum BenchEvent {
    /// It runs.
    Started {
        /// As this process.
        pid: u32,
    },
    /// It goes on.
    Progress {
        /// What is being done, e.g. `muster-61m Q8_0 on CPU: measuring`.
        step: String,
        /// Share of the steps that are done, 0 to 1.
        fraction: f32,
    },
    /// A model was measured; again with more samples, which takes the place of what was told of it before
    /// ([`BenchPoint::put_into`]).
    Point(Box<BenchPoint>),
    /// A device was under load.
    Sustained {
        /// llama.cpp's name of it.
        device: String,
        /// Decoding over time, in tokens a second.
        rates: Vec<f64>,
    },
}

/// What llama.cpp can compute on here, each device once; the CPU is one of them.
///
/// # Errors
/// See [`WorkerError`].
pub async fn devices(command: &WorkerCommand) -> Result<Vec<Device>, WorkerError> {
    once(command, Request::Devices(wire::Devices {}), |reply| match reply {
        Reply::Devices(list) => Step::Done(list.devices.into_iter().map(convert::device).collect()),
        _ => Step::Unexpected,
    })
    .await
}

/// What a model takes in memory, by llama.cpp's own dry run on imagined devices. Nothing is loaded. The file's header is
/// checked by [`GgufHeader`](crate::gguf::GgufHeader) first.
///
/// # Errors
/// `Refused` with llama.cpp's words for a file that it does not take.
pub async fn size(command: &WorkerCommand, request: SizeRequest) -> Result<Sized, WorkerError> {
    let request = wire::Size {
        path: convert::path(&request.path),
        settings: Some(convert::settings(&request.settings)),
        phantoms: request.devices.iter().map(convert::phantom).collect(),
        options: Some(convert::size_options(&request.options)),
        layout: Some(convert::layout(&request.options.layout)),
    };
    once(command, Request::Size(request), |reply| match reply {
        Reply::Sized(sized) => Step::Done(Sized {
            need: convert::memory(sized.memory),
            layers: sized.layers,
            gpu_layers: sized.gpu_layers,
            context_train: sized.context_train,
            experts: sized.experts,
            total_layers: sized.total_layers,
            context: ContextTokens::new(sized.context),
            expert_layers_on_host: sized.expert_layers_on_host,
            layout: convert::layout_back(sized.split, sized.overrides),
            fits: sized.fits,
        }),
        _ => Step::Unexpected,
    })
    .await
}

/// Measures prefill and decode speed on models of random weights, on each GPU and on the CPU; what is found goes to
/// `tell`. Dropping the future cancels; the model that was in use then stays in the scratch directory, which is the
/// caller's.
///
/// # Errors
/// See [`WorkerError`].
pub async fn bench(
    command: &WorkerCommand,
    request: BenchRequest,
    mut tell: impl FnMut(BenchEvent) + Send,
) -> Result<(), WorkerError> {
    let millis = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
    let job = wire::Bench {
        scratch_dir: convert::path(&request.scratch_dir),
        budget_ms: millis(request.budget),
        threads: request.threads.unwrap_or(0),
        quick: request.quick,
        sustained_ms: millis(request.sustained),
    };
    let process = Process::spawn(command)?;
    tell(BenchEvent::Started { pid: process.pid });
    follow(process, command.silence_limit, Request::Bench(job), |reply| match reply {
        Reply::Progress(step) => {
            tell(BenchEvent::Progress { step: step.step, fraction: step.fraction });
            Step::More
        }
        Reply::BenchPoint(point) => {
            if let Some(point) = bench_point(point) {
                tell(BenchEvent::Point(Box::new(point)));
            }
            Step::More
        }
        Reply::Sustained(wire::Sustained { device, rates }) => {
            tell(BenchEvent::Sustained { device, rates });
            Step::More
        }
        Reply::Done(wire::Done {}) => Step::Done(()),
        _ => Step::Unexpected,
    })
    .await
}

/// A point; `None` where something took no time at all, which is no measurement.
fn bench_point(point: wire::BenchPoint) -> Option<BenchPoint> {
    Some(BenchPoint {
        device: point.device,
        threads: point.threads,
        model: BenchModel {
            name: point.model,
            quantization: point.quantization,
            bytes_per_token: Bytes::new(point.bytes_per_token),
            parameters_per_token: point.parameters_per_token,
            layers: point.layers,
        },
        prefill_tokens: point.prefill_tokens,
        decode_tokens: point.decode_tokens,
        prefill: Spread::of(point.prefill)?,
        decode: Spread::of(point.decode)?,
        depth: point.depth,
    })
}

/// Removes a file that is not complete, however the job ends.
pub(super) struct Partial(Option<PathBuf>);

impl Partial {
    pub(super) fn new(path: PathBuf) -> Self {
        Self(Some(path))
    }

    pub(super) fn keep(mut self) {
        self.0 = None;
    }
}

impl Drop for Partial {
    fn drop(&mut self) {
        if let Some(path) = &self.0 {
            let _ = std::fs::remove_file(path);
        }
    }
}

/// What a reply means for a job.
pub(super) enum Step<T> {
    More,
    Done(T),
    Unexpected,
}

/// Starts a worker for one request, and follows its replies until one ends the job.
pub(super) async fn once<T>(
    command: &WorkerCommand,
    request: Request,
    on_reply: impl FnMut(Reply) -> Step<T>,
) -> Result<T, WorkerError> {
    follow(Process::spawn(command)?, command.silence_limit, request, on_reply).await
}

/// Sends a worker its one request, and follows its replies until one ends the job.
async fn follow<T>(
    mut process: Process,
    silence_limit: Duration,
    request: Request,
    mut on_reply: impl FnMut(Reply) -> Step<T>,
) -> Result<T, WorkerError> {
    const ID: u64 = 1;
    process.send(ID, request).await?;
    loop {
        let reply = match timeout(silence_limit, process.receive()).await {
            Ok(Some(message)) => message.reply,
            Ok(None) => return Err(process.died().await),
            Err(_) => return Err(process.hung(silence_limit).await),
        };
        let outcome = match reply {
            Some(Reply::Refused(refused)) => Err(WorkerError::Refused { reason: refused.reason }),
            None => continue,
            Some(reply) => match on_reply(reply) {
                Step::More => continue,
                Step::Done(result) => Ok(result),
                Step::Unexpected => {
                    Err(WorkerError::Protocol { detail: "it answered something else than it was asked".into() })
                }
            },
        };
        process.kill().await;
        return outcome;
    }
}
