//! Seconds per token as a sum of terms, each a quantity times an efficiency.
//!
//! Every term is `quantity × exp(Σ weight · parameter)`: the quantity is counted from the model and the device's
//! specification (bytes over bandwidth, operations over arithmetic, launches times a typical cost), and the parameters
//! are learnt, each a deviation from the one above it (all devices → backend → architecture). A parameter that was never
//! learnt counts zero, so an unknown architecture gets its backend's. It does not know where parameters come from: that
//! is [`Priors`](super::Priors). Entry points: [`decode`], [`prefill`].

use super::costs::{Attention, ModelCosts, Weights};
use super::names::Name;
use super::question::{Backend, Engine};
use crate::device_table::{KnownDevice, Vendor};

/// What a term's time overlaps with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lane {
    /// Nothing: it adds to all others.
    Alone,
    /// Weights passing from memory, which overlap with the arithmetic on the same part's weights.
    Memory(usize),
    /// That arithmetic.
    Arithmetic(usize),
}

/// How sharply the slower of memory and arithmetic hides the other: `(m^p + a^p)^(1/p)`; 1 would be their sum, infinity
/// the slower alone.
pub const OVERLAP: f64 = 3.0;
/// The same for a CPU, whose prefetching hides more.
pub const OVERLAP_CPU: f64 = 3.0;

/// All terms together, given the seconds of each; and the share with which each term's own change passes on.
pub fn total(terms: impl Iterator<Item = (Lane, bool, f64)>) -> f64 {
    let mut parts: Vec<(f64, f64, bool)> = Vec::new();
    let mut alone = 0.0;
    for (lane, cpu, seconds) in terms {
        let (Lane::Memory(part) | Lane::Arithmetic(part)) = lane else {
            alone += seconds;
            continue;
        };
        if parts.len() <= part {
            parts.resize(part + 1, (0.0, 0.0, cpu));
        }
        parts[part].2 = cpu;
        if matches!(lane, Lane::Memory(_)) { parts[part].0 += seconds } else { parts[part].1 += seconds }
    }
    alone
        + parts
            .iter()
            .map(|(memory, arithmetic, cpu)| {
                let sharp = sharpness(*cpu);
                (memory.powf(sharp) + arithmetic.powf(sharp)).powf(1.0 / sharp)
            })
            .sum::<f64>()
}

/// The exponent of overlapping.
pub fn sharpness(cpu: bool) -> f64 {
    if cpu { OVERLAP_CPU } else { OVERLAP }
}

/// What a term's time is spent on, as far as its uncertainty depends on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Concern {
    /// Attention: the cache's bytes and the products over the context.
    Context,
    /// Weights of routed experts.
    Experts,
    /// All else.
    Other,
}

/// `quantity × exp(Σ weight · parameter)` seconds.
#[derive(Clone, Debug, PartialEq)]
pub struct Term<N = String> {
    /// What it is spent on.
    pub concern: Concern,
    /// What it overlaps with.
    pub lane: Lane,
    /// Whether a CPU computes it.
    pub cpu: bool,
    /// Seconds at efficiency 1.
    pub quantity: f64,
    /// Names of parameters, and how much each counts.
    pub factors: Vec<(N, f64)>,
}

/// What a device can do, in the units of the terms.
#[derive(Clone, Debug, PartialEq)]
pub struct Rates {
    /// The backend, as parameters name it.
    pub backend: String,
    /// The architecture, as parameters name it.
    pub architecture: String,
    /// How its matrix arithmetic works, as parameters name it: `matrix`, `dot`, `scalar`, …
    pub unit: &'static str,
    /// How its attention over a prompt works, as parameters name it: on matrix units, or on the shaders (`tile`, `shader`).
    pub attention_unit: &'static str,
    /// Memory bandwidth, in bytes a second.
    pub bandwidth: f64,
    /// Bytes a second that a CPU's threads can ask for; infinite for a GPU.
    pub draw: f64,
    /// Shader arithmetic, in FP32 operations a second of lanes that each issue one instruction a clock.
    pub arithmetic: f64,
    /// Logarithm of watts per shader arithmetic, against a desktop card's, where it has fewer; else, and where the power is
    /// not known, 0. A card that lacks power runs below its published clock when its arithmetic is busy.
    pub power: f64,
    /// The same against the power that its own architecture takes at full clock: what matrix arithmetic, which keeps every
    /// unit busy, is held back by.
    pub busy_power: f64,
    /// Whether it shares the host's memory.
    pub unified: bool,
    /// Bytes a second over its bus.
    pub bus: f64,
    /// Logarithm of the published matrix arithmetic (FP16, dense) over shader arithmetic, against 4, the ratio of most
    /// cards; 0 without matrix units.
    pub matrix: f64,
    /// Logarithm of shader arithmetic against a middling card's 30·10¹²: the same matrix has as many tiles on a larger
    /// chip, and its last wave leaves more of it idle; a smaller one gains nothing. 0 for a CPU.
    pub size: f64,
    /// Threads, of a CPU.
    pub threads: f64,
    /// Whether two processors share the work, each with memory of its own.
    pub sockets: bool,
}

/// Watts per 10¹² shader operations a second of a desktop card at its full clock (GeForce RTX 4090: 450 W, 82.6).
const WATTS_PER_TERA: f64 = 5.5;
/// Watts per 10¹² shader operations a second that an architecture's desktop cards have at their full clock: the upper
/// third of the device table's cards of it.
fn full_power(architecture: &str) -> f64 {
    match architecture {
        "Ada" => 7.0,
        "Blackwell" => 7.5,
        "Volta" => 9.0,
        "Turing" | "Turing (no tensor cores)" => 11.7,
        "RDNA4" => 12.5,
        "RDNA3" | "RDNA3.5" | "Xe2" | "Battlemage" | "P100" | "CDNA1" | "CDNA2" => 13.5,
        "Alchemist" => 15.3,
        "RDNA2" => 16.0,
        "Pascal" | "GCN5" | "GCN5.1" | "RDNA1" => 22.0,
        _ => 10.5,
    }
}

/// From when on llama.cpp's builds are taken as today's: the mass of the measurements that the priors come from.
pub(super) const TODAY: f64 = 2025.7;
/// When the build that this program carries was made.
pub(super) const CARRIED: f64 = 2026.8;
/// Until then CUDA and ROCm multiplied experts one after the other, after the host had read which they are (llama.cpp's
/// pull request 13199 ended it where there is a quantized kernel).
const EXPERTS_ONE_BY_ONE: f64 = 2025.34;
/// From when on routing, norms and gates are one kernel each and not several (llama.cpp's fusions of autumn 2025).
const FUSED: f64 = 2025.8;
/// From when on ROCm's attention uses matrix units: after the build of December 2025, and before that of summer 2026, of
/// which measurements are known.
const ROCM_MATRIX_ATTENTION: f64 = 2026.2;
/// Until then the states of Qwen 3 Next and 3.5 (gated delta nets) were computed by some sixty small operations a layer,
/// and not by one of their own.
const STATES_IN_STEPS: f64 = 2026.25;
/// Those operations.
const STEPS_OF_A_STATE: f64 = 60.0;
/// Bytes a second that one thread of an x86 or Arm core draws from memory while it dequantizes: some dozen cache lines in
/// flight at 90 ns, and what prefetching adds. Apple's cores keep twice as many in flight.
const BANDWIDTH_OF_A_THREAD: f64 = 20e9;
/// From this many tokens in a batch on, the GPU computes layers whose weights are on the host and copies those
/// (`ggml-cuda.cu`, `ggml-vulkan.cpp`: `offload_op`, `min_batch_size = 32`).
const OFFLOAD_BATCH: f64 = 32.0;

impl Rates {
    /// A GPU's, for a backend of a build of that year; `None` where the specification lacks bandwidth or arithmetic.
    pub fn gpu(device: &KnownDevice, backend: Backend, built: f64) -> Option<Self> {
        let arithmetic = shader_arithmetic(device)?;
        let architecture = architecture(device);
        let unit = matrix_unit(&architecture, device.vendor, backend, built);
        let power = match device.tdp_watts {
            Some(watts) if !device.unified => watts / (arithmetic / 1e12),
            _ => f64::INFINITY,
        };
        // A processor's graphics share its watts with the cores, of which they get most.
        let busy_power = match device.tdp_watts {
            Some(watts) if matches!(device.vendor, Vendor::Amd | Vendor::Intel) => watts / (arithmetic / 1e12),
            _ => power,
        };
        // Measured copies reach four fifths of what the lanes carry.
        let (generation, lanes) = device.pcie.unwrap_or((4.0, 16));
        Some(Self {
            backend: backend.name().to_owned(),
            unit,
            attention_unit: attention_unit(unit, backend),
            bandwidth: device.bandwidth?,
            draw: f64::INFINITY,
            arithmetic,
            power: (power / WATTS_PER_TERA).ln().clamp(-1.0, 0.0),
            busy_power: (busy_power / full_power(&architecture)).ln().clamp(-1.2, 0.0),
            unified: device.unified || device.vendor == Vendor::Apple,
            bus: 0.8 * 0.985e9 * 2.0_f64.powf(generation - 3.0) * f64::from(lanes),
            matrix: matrix_ratio(device),
            size: (arithmetic / 30e12).ln().max(0.0),
            threads: 0.0,
            sockets: false,
            architecture,
        })
    }

    /// A CPU's with that many threads; `None` where its cores are not known.
    pub fn cpu(device: &KnownDevice, threads: Option<u32>) -> Option<Self> {
        let cores = device.cpu.as_ref()?;
        let threads = threads.unwrap_or(cores.cores);
        let busy = f64::from(threads.min(cores.cores));
        let each = BANDWIDTH_OF_A_THREAD * if device.vendor == Vendor::Apple { 2.0 } else { 1.0 };
        Some(Self {
            backend: Backend::Cpu.name().to_owned(),
            architecture: cores.instructions.clone(),
            unit: "cpu",
            attention_unit: "cpu",
            bandwidth: cores.bandwidth.or(device.bandwidth)?,
            draw: busy * each,
            arithmetic: busy * cores.ghz * 1e9 * operations_per_clock(device, &cores.instructions),
            power: 0.0,
            busy_power: 0.0,
            unified: true,
            bus: f64::INFINITY,
            matrix: 0.0,
            size: 0.0,
            threads: f64::from(threads.min(2 * cores.cores)),
            sockets: device.key.ends_with("-2p"),
        })
    }

    /// The same card with a Vulkan driver that lacks NVIDIA's own extension for matrices.
    #[must_use]
    pub fn without_second_matrix_extension(mut self) -> Self {
        if self.unit == "coopmat2" {
            (self.unit, self.attention_unit) = ("coopmat", "coopmat");
        }
        self
    }
}

/// FP32 operations a second with one instruction per lane and clock, and 128 lanes to an NVIDIA multiprocessor: what
/// dequantizing and addressing run at. Published figures count differently: RDNA 3 and 4 and CDNA 3 count a second
/// instruction that this code cannot pair; P100, Volta, Turing and A100 have 64 FP32 lanes beside 64 integer lanes.
pub(super) fn shader_arithmetic(device: &KnownDevice) -> Option<f64> {
    if device.vendor == Vendor::Apple {
        // 128 lanes a core at the generation's clock (1.28, 1.4, 1.4, 1.57, 1.62 GHz).
        let core = match device.architecture.as_str() {
            "M1" => 0.325e12,
            "M2" | "M3" => 0.358e12,
            "M4" => 0.40e12,
            _ => 0.415e12,
        };
        let cores = device.gpu_cores.unwrap_or(if device.key.contains("ultra") { 64 } else { 10 });
        return Some(core * f64::from(cores));
    }
    let published = device.fp32.or(device.fp16.map(|fp16| fp16 / 2.0))?;
    Some(match architecture(device).as_str() {
        "P100" | "Volta" | "Turing" | "Turing (no tensor cores)" | "A100" => published * 2.0,
        "RDNA3" | "RDNA3.5" | "RDNA4" | "CDNA3" => published / 2.0,
        _ => published,
    })
}

/// The architecture as kernels see it: P100 (no 8-bit dot product) is not the other Pascals, nor A100 the other Amperes.
pub(super) fn architecture(device: &KnownDevice) -> String {
    match device.key.as_str() {
        key if key.starts_with("tesla-p100") => "P100".into(),
        key if key.starts_with("a100") || key.starts_with("a30") || key.starts_with("a800") => "A100".into(),
        _ => device.architecture.clone(),
    }
}

/// FP32 operations of a core and clock: two fused multiply-adds of eight lanes on x86 (llama.cpp's quantized products are
/// AVX2 for most types, and AMD's AVX-512 takes two clocks); of four on Arm, and Apple's cores have four units.
fn operations_per_clock(device: &KnownDevice, instructions: &str) -> f64 {
    if instructions == "neon" && device.vendor != Vendor::Apple { 16.0 } else { 32.0 }
}

/// See [`Rates::matrix`]. By architecture, from the makers' white papers, since the table has gaps.
fn matrix_ratio(device: &KnownDevice) -> f64 {
    let ratio: f64 = match architecture(device).as_str() {
        // Half of Hopper's rate needs instructions (`wgmma`) that llama.cpp does not use.
        "A100" | "Hopper" | "RDNA4" | "CDNA1" | "CDNA2" | "Alchemist" | "Battlemage" | "Xe2" => 8.0,
        "CDNA3" => 16.0,
        _ => 4.0,
    };
    (ratio / 4.0).ln()
}

/// How a backend multiplies matrices on an architecture.
fn matrix_unit(architecture: &str, vendor: Vendor, backend: Backend, built: f64) -> &'static str {
    match (architecture, backend) {
        // The matrix cores of CDNA are used for quantized weights since July 2025 (llama.cpp's pull request 14624).
        ("CDNA1" | "CDNA2" | "CDNA3", Backend::Rocm) if built < 2025.55 => "unused",
        // dp4a and its AMD likes appear with Pascal's GP102, Vega 20, RDNA 2.
        ("P100" | "GCN4" | "GCN5" | "RDNA1", Backend::Cuda | Backend::Rocm) => "scalar",
        // llama.cpp compiles one path for compute capability 7.5, whose matrix instructions this chip emulates.
        ("Turing (no tensor cores)", Backend::Cuda) => "emulated",
        ("Volta", Backend::Cuda) => "matrix",
        (
            "Pascal"
            | "GCN5.1"
            | "RDNA2"
            | "Turing (no tensor cores)"
            | "Alchemist"
            | "Volta"
            | "P100"
            | "GCN4"
            | "GCN5"
            | "RDNA1",
            _,
        ) => "dot",
        // Before the extension for cooperative matrices was used.
        (_, Backend::Vulkan) if built < 2024.93 => "dot",
        (_, Backend::Vulkan) if vendor == Vendor::Nvidia => "coopmat2",
        (_, Backend::Vulkan) if vendor == Vendor::Amd => "coopmat",
        ("RDNA3" | "RDNA3.5", _) => "wmma",
        ("Turing", _) => "matrix-turing",
        ("M5" | "M6", _) => "neural",
        ("M1" | "M2" | "M3" | "M4", _) => "simdgroup",
        ("Battlemage" | "Xe2", _) => "xmx",
        _ => "matrix",
    }
}

/// How a backend computes flash attention over a prompt (`fattn.cu`, `ggml-vulkan.cpp`): ROCm's default kernels left
/// the matrix units idle for long, and so do CUDA's and Vulkan's where there are none.
fn attention_unit(unit: &'static str, backend: Backend) -> &'static str {
    match (backend, unit) {
        (Backend::Vulkan, "coopmat" | "coopmat2" | "xmx") => unit,
        (Backend::Vulkan, _) => "shader",
        (Backend::Cuda, "matrix" | "matrix-turing") => "mma",
        (Backend::Rocm | Backend::Cuda, _) => "tile",
        _ => unit,
    }
}

/// Whether weights of a quantized type are turned into F16 for the vendor's library to multiply
/// (`ggml_cuda_should_use_mmq`): on NVIDIA's matrix units until June 2024 (llama.cpp's pull request 8062), on Volta's to
/// this day, on RDNA 3's and 4's until December 2025 (17576).
fn by_library(rates: &Rates, kind: &str, year: f64, engine: Engine) -> bool {
    if class(kind) == "float" || engine == Engine::IkLlamaCpp {
        return false;
    }
    match (rates.backend.as_str(), rates.architecture.as_str()) {
        ("cuda", "Volta") => true,
        ("cuda", "Turing" | "Ampere" | "A100" | "Ada" | "Hopper") => year < 2024.48,
        ("rocm", "RDNA3" | "RDNA3.5" | "RDNA4") => year < 2025.95,
        _ => false,
    }
}

/// Times as many operations as needed that CDNA's vector units did before its matrix units were used: its 64 lanes ran
/// kernels written for 32, and a matrix was cut into too few tiles (128 by 128) for all of its compute units (0.27·10¹²
/// operations a second each), with none of them split.
fn idle_lanes(rates: &Rates, width: f64, batch: f64) -> f64 {
    if rates.unit != "unused" {
        return 1.0;
    }
    let tiles = (width / 128.0).max(1.0) * (batch / 128.0).max(1.0);
    2.0 * (rates.arithmetic / 0.27e12 / tiles).max(1.0)
}

/// Classes of types whose kernels are alike.
fn class(kind: &str) -> &'static str {
    match kind {
        "F32" | "F16" | "BF16" => "float",
        "Q8_0" | "Q4_0" | "Q4_1" | "Q5_0" | "Q5_1" => "legacy",
        "MXFP4" | "NVFP4" => "fp4",
        kind if kind.starts_with("IQ4") => "iq4",
        kind if kind.starts_with("IQ") || kind.starts_with("TQ") => "iq",
        _ => "k",
    }
}

/// One part of the model on one device.
#[derive(Clone, Debug, PartialEq)]
pub struct Part {
    /// The device.
    pub rates: Rates,
    /// Share of the layers that it holds.
    pub layers: f64,
    /// Share of the routed experts that it holds.
    pub experts: f64,
    /// Whether it holds the output matrix.
    pub output: bool,
}

/// One question, in numbers.
#[derive(Clone, Debug)]
pub struct Work<'a> {
    /// The model.
    pub costs: &'a ModelCosts,
    /// Who holds what. The first is where a GPU's copies of host layers are computed.
    pub parts: Vec<Part>,
    /// GPUs that share the layers.
    pub devices: f64,
    /// Flash attention.
    pub flash_attention: bool,
    /// Bytes of an element of the KV cache.
    pub cache_bytes: f64,
    /// Tokens already in the context.
    pub depth: f64,
    /// Tokens of the prompt, or tokens to decode.
    pub tokens: f64,
    /// Tokens of one physical batch.
    pub ubatch: f64,
    /// When the engine was built, as a year.
    pub year: f64,
    /// Whose engine.
    pub engine: Engine,
}

/// Names of parameters, and how much each counts.
type Factors<N> = Vec<(N, f64)>;

/// A parameter and those below it, by backend and architecture.
fn levels<N: Name>(name: &str, rates: &Rates) -> Factors<N> {
    let all = N::of(name);
    let backend = all.then(&["/", &rates.backend]);
    let architecture = backend.then(&["/", &rates.architecture]);
    vec![(all, 1.0), (backend, 1.0), (architecture, 1.0)]
}

/// A parameter and that of the backend.
fn backend<N: Name>(name: &str, rates: &Rates) -> Factors<N> {
    let all = N::of(name);
    let backend = all.then(&["/", &rates.backend]);
    vec![(all, 1.0), (backend, 1.0)]
}

/// One parameter.
fn one<N: Name>(name: &str, rest: &[&str], weight: f64) -> (N, f64) {
    (N::of(name).then(rest), weight)
}

fn join<N: Name>(parts: &[Factors<N>]) -> Factors<N> {
    parts.concat()
}

impl Work<'_> {
    /// Years before today's builds.
    fn age(&self) -> f64 {
        (TODAY - self.year).clamp(0.0, 2.0)
    }

    fn aged<N: Name>(&self, name: &str, rates: &Rates) -> Factors<N> {
        let age = self.age();
        if age > 0.0 { vec![one(name, &["/", &rates.backend], age)] } else { Vec::new() }
    }

    /// A parameter's type, and what the fork of llama.cpp does otherwise with it. On a CPU the fork has kernels of its own
    /// for all types, so that nothing of llama.cpp's differences between types is left.
    fn types<N: Name>(&self, name: &str, kind: &str, rates: &Rates) -> Factors<N> {
        let fork = || {
            vec![one(name, &[".ik/", &rates.backend], 1.0), one(name, &[".ik.", class(kind), "/", &rates.backend], 1.0)]
        };
        match self.engine {
            Engine::LlamaCpp => Self::kinds(name, kind, rates),
            Engine::IkLlamaCpp if rates.backend == "cpu" => {
                join(&[fork(), vec![one(name, &[".ik.", class(kind), ".", kind, "/cpu"], 1.0)]])
            }
            Engine::IkLlamaCpp => join(&[Self::kinds(name, kind, rates), fork()]),
        }
    }

    /// What a GPU's newer builds fuse. Few devices were measured with and without, and none with the build that this
    /// program carries: of that, the gain is left out, which errs on the slow side.
    fn fused<N: Name>(&self, name: &str, rates: &Rates) -> Factors<N> {
        if (FUSED..CARRIED).contains(&self.year) && rates.backend != "cpu" { backend(name, rates) } else { Vec::new() }
    }

    /// How a prompt's attention is computed: see [`attention_unit`]; newer builds of ROCm use the matrix units where several
    /// query heads share a key (`fattn.cu`: `amd_wmma_available`, `gqa_opt_applies`).
    fn attention_unit(&self, attention: &Attention, rates: &Rates) -> &'static str {
        let grouped = attention.cache_elements < 2.0 * attention.heads * attention.head_size;
        let matrices = rates.backend == "rocm" && matches!(rates.unit, "wmma" | "matrix");
        if matrices && grouped && self.year >= ROCM_MATRIX_ATTENTION { "mma" } else { rates.attention_unit }
    }

    /// Whether a gated delta net is computed in steps.
    fn steps_through_states(&self) -> bool {
        let delta = matches!(self.costs.architecture.as_str(), "qwen3next" | "qwen35" | "qwen35moe");
        delta && self.costs.recurrent_layers > 0.0 && self.year < STATES_IN_STEPS
    }

    /// Whether experts are launched one by one, three matrices each and the host waiting: in old builds, and still for
    /// types without a quantized kernel.
    fn loops_over_experts(&self, rates: &Rates) -> bool {
        let plain = self.costs.experts.first().is_some_and(|weights| class(&weights.kind) == "float");
        self.costs.expert_layers > 0.0
            && self.engine == Engine::LlamaCpp
            && matches!(rates.backend.as_str(), "cuda" | "rocm")
            && (self.year < EXPERTS_ONE_BY_ONE || plain)
    }

    fn kinds<N: Name>(name: &str, kind: &str, rates: &Rates) -> Factors<N> {
        let class = N::of(name).then(&[".", class(kind)]);
        let backend = class.then(&["/", &rates.backend]);
        let kind = class.then(&[".", kind, "/", &rates.backend]);
        vec![(class, 1.0), (backend, 1.0), (kind, 1.0)]
    }
}

/// Weights of a part: (weights, share of the parameters that a token uses, whether they are experts).
fn pieces<'a>(costs: &'a ModelCosts, part: &Part) -> Vec<(&'a Weights, f64, bool)> {
    let mut pieces: Vec<(&Weights, f64, bool)> = Vec::new();
    pieces.extend(costs.dense.iter().map(|weights| (weights, part.layers, false)));
    pieces.extend(costs.experts.iter().map(|weights| (weights, part.experts, true)));
    if let Some(output) = costs.output.as_ref().filter(|_| part.output) {
        pieces.push((output, 1.0, false));
    }
    pieces.retain(|(_, share, _)| *share > 0.0);
    pieces
}

/// Tokens of context that an attention layer sees on average, over `tokens` that follow `depth`.
fn context(attention: &Attention, depth: f64, tokens: f64) -> f64 {
    let mean = depth + tokens / 2.0;
    attention.window.map_or(mean, |window| mean.min(window as f64))
}

/// The terms of one decoded token.
pub fn decode<N: Name>(work: &Work) -> Vec<Term<N>> {
    let costs = work.costs;
    let mut terms = Vec::new();
    for (index, part) in work.parts.iter().enumerate() {
        let rates = &part.rates;
        let cpu = rates.backend == "cpu";
        // Launching kernels: some 10 µs a layer; nothing to launch on a CPU but its threads' meeting.
        let launch =
            join(&[levels("d.launch", rates), work.aged("d.launch.age", rates), work.fused("d.launch.fused", rates)]);
        let each = if cpu { 1e-6 * rates.threads } else { 1e-5 };
        terms.push(Term {
            concern: Concern::Other,
            lane: Lane::Alone,
            cpu: rates.backend == "cpu",
            quantity: costs.layers * part.layers * each,
            factors: launch.clone(),
        });
        if costs.expert_layers > 0.0 {
            let extra = join(&[
                launch.clone(),
                backend("d.launch.experts", rates),
                work.fused("d.launch.experts.fused", rates),
            ]);
            terms.push(Term {
                concern: Concern::Other,
                lane: Lane::Alone,
                cpu: rates.backend == "cpu",
                quantity: costs.expert_layers * part.experts * each,
                factors: extra,
            });
        }
        if costs.recurrent_layers > 0.0 {
            let extra = join(&[launch.clone(), backend("d.launch.recurrent", rates)]);
            terms.push(Term {
                concern: Concern::Other,
                lane: Lane::Alone,
                cpu: rates.backend == "cpu",
                quantity: costs.recurrent_layers * part.layers * each,
                factors: extra,
            });
        }
        if work.steps_through_states() {
            terms.push(Term {
                concern: Concern::Other,
                lane: Lane::Alone,
                cpu,
                quantity: costs.recurrent_layers * part.layers * STEPS_OF_A_STATE * 5e-6,
                factors: backend("d.delta", rates),
            });
        }
        if work.loops_over_experts(rates) && work.year < EXPERTS_ONE_BY_ONE {
            terms.push(Term {
                concern: Concern::Experts,
                lane: Lane::Alone,
                cpu,
                quantity: costs.expert_layers * part.experts * 3.0 * (costs.experts_used * 8e-6 + 2e-5),
                factors: vec![one("d.experts.loop", &[], 1.0)],
            });
        }
        for (weights, share, expert) in pieces(costs, part) {
            let share = if expert { share * costs.experts_active() } else { share };
            let experts = if expert { backend("d.experts", rates) } else { Vec::new() };
            let mut bandwidth = join(&[levels("d.bandwidth", rates), experts.clone()]);
            if rates.unified && !cpu {
                bandwidth.push(one("d.bandwidth.unified", &[], 1.0));
            }
            if rates.sockets {
                bandwidth.push(one("d.sockets", &[], 1.0));
            }
            terms.push(Term {
                concern: of(expert),
                lane: Lane::Memory(index),
                cpu,
                quantity: weights.bytes * share / rates.bandwidth,
                factors: bandwidth,
            });
            terms.push(Term {
                concern: of(expert),
                lane: Lane::Memory(index),
                cpu,
                quantity: weights.bytes * share / rates.draw,
                factors: vec![one("d.draw", &[], 1.0)],
            });
            let mut compute = join(&[
                levels("d.compute", rates),
                work.types("d.compute", &weights.kind, rates),
                work.aged("d.compute.age", rates),
                experts,
            ]);
            if rates.unit == "scalar" && rates.backend == "cuda" {
                // Eight instructions in place of a dot product of four bytes.
                compute.push(one("d.compute.scalar", &[], 1.0));
            }
            if rates.power != 0.0 {
                compute.push(one("d.compute.power", &[], rates.power));
            }
            // Some ten instructions a parameter, spread over 64 lanes' worth of loads.
            terms.push(Term {
                concern: of(expert),
                lane: Lane::Arithmetic(index),
                cpu,
                quantity: weights.parameters * share * 8.0 / rates.arithmetic,
                factors: compute,
            });
        }
        for attention in &costs.attention {
            let seen = attention.layers * part.layers * context(attention, work.depth, work.tokens);
            let bytes = seen * attention.cache_elements * work.cache_bytes;
            let cache = join(&[backend("d.cache", rates), levels("d.bandwidth", rates)]);
            terms.push(Term {
                concern: Concern::Context,
                lane: Lane::Alone,
                cpu: rates.backend == "cpu",
                quantity: bytes / rates.bandwidth,
                factors: cache,
            });
            let mut products = levels("d.attention", rates);
            if !work.flash_attention {
                products.extend(backend("d.attention.plain", rates));
            }
            if attention.head_size > 128.0 {
                products.extend(backend("d.attention.wide", rates));
            }
            terms.push(Term {
                concern: Concern::Context,
                lane: Lane::Alone,
                cpu: rates.backend == "cpu",
                quantity: 2.0 * seen * attention.products / rates.arithmetic,
                factors: products,
            });
        }
        if costs.state_elements > 0.0 {
            let bytes = costs.state_elements * part.layers * 8.0;
            terms.push(Term {
                concern: Concern::Context,
                lane: Lane::Alone,
                cpu: rates.backend == "cpu",
                quantity: bytes / rates.bandwidth,
                factors: backend("d.state", rates),
            });
        }
    }
    if work.devices > 1.0 {
        let rates = &work.parts[0].rates;
        terms.push(Term {
            concern: Concern::Other,
            lane: Lane::Alone,
            cpu: rates.backend == "cpu",
            quantity: (work.devices - 1.0) * 1e-4,
            factors: backend("d.hop", rates),
        });
    }
    terms.retain(|term| term.quantity > 0.0);
    terms
}

/// The terms of one token of a prompt.
pub fn prefill<N: Name>(work: &Work) -> Vec<Term<N>> {
    let costs = work.costs;
    let batch = work.ubatch.min(work.tokens).max(1.0);
    let streams = work.parts[0].rates.backend != "cpu" && batch >= OFFLOAD_BATCH;
    let mut terms = Vec::new();
    // Physical batches pass GPU after GPU, several at once (`ggml-backend.cpp`: `GGML_SCHED_MAX_COPIES` is 4).
    let batches = (work.tokens / batch).ceil().min(4.0);
    let host = work.parts.iter().any(|part| part.rates.backend == "cpu");
    let pipeline =
        if work.devices > 1.0 && !host { (batches * work.devices / (batches + work.devices - 1.0)).ln() } else { 0.0 };
    for part in &work.parts {
        let copied = part.rates.backend == "cpu" && streams;
        // Layers of the host in a large batch: their weights are copied, the GPU computes.
        let rates = if copied { &work.parts[0].rates } else { &part.rates };
        let launch = join(&[levels("p.launch", rates), work.aged("p.launch.age", rates)]);
        let count = costs.layers * part.layers + costs.expert_layers * part.experts;
        let each = if rates.backend == "cpu" { 2e-6 * rates.threads } else { 2e-5 };
        terms.push(Term {
            concern: Concern::Other,
            lane: Lane::Alone,
            cpu: rates.backend == "cpu",
            quantity: count * each / batch,
            factors: launch,
        });
        if work.loops_over_experts(rates) {
            let launched = costs.expert_layers * part.experts * costs.expert_count * costs.experts_read(batch);
            terms.push(Term {
                concern: Concern::Experts,
                lane: Lane::Alone,
                cpu: false,
                quantity: launched * 3.0 * 2e-5 / batch,
                factors: vec![one("p.experts.loop", &[], 1.0)],
            });
        }
        for (weights, share, expert) in pieces(costs, part) {
            if costs.output.as_ref().is_some_and(|output| std::ptr::eq(output, weights)) {
                // Only the last token of a prompt needs its output.
                terms.push(Term {
                    concern: of(expert),
                    lane: Lane::Alone,
                    cpu: rates.backend == "cpu",
                    quantity: weights.bytes / rates.bandwidth / work.tokens,
                    factors: vec![one("p.read", &[], 1.0)],
                });
                continue;
            }
            let (used, read) = if expert { (costs.experts_active(), costs.experts_read(batch)) } else { (1.0, 1.0) };
            let library = by_library(rates, &weights.kind, work.year, work.engine);
            let kind = if library { "F16" } else { weights.kind.as_str() };
            let mut matmul = join(&[
                levels("p.matmul", rates),
                work.types("p.matmul", kind, rates),
                work.aged("p.matmul.age", rates),
                vec![one("p.matmul.unit.", &[rates.unit], 1.0)],
                vec![one("p.matmul.unit.", &[rates.unit, "/", &rates.backend], 1.0)],
                vec![one("p.matmul@", &[&rates.architecture], 1.0)],
                vec![one("p.matmul.", &[class(kind), "/", &rates.backend, "/", &rates.architecture], 1.0)],
            ]);
            if rates.unit == "emulated" {
                matmul.push(one("p.matmul.unit.dot", &[], 1.0));
            }
            if rates.sockets {
                matmul.push(one("p.sockets", &[], 1.0));
            }
            if rates.busy_power != 0.0 {
                matmul.push(one("p.matmul.power", &[], rates.busy_power));
            }
            if pipeline > 0.0 {
                matmul.push(one("p.pipeline", &[], pipeline));
            }
            if rates.unified && rates.unit != "simdgroup" && rates.unit != "neural" && rates.unit != "cpu" {
                // It shares its power with a CPU.
                matmul.push(one("p.matmul.unified", &[], 1.0));
            }
            if rates.size != 0.0 && expert {
                matmul.push(one("p.matmul.size.experts", &[], rates.size));
            }
            if rates.matrix != 0.0 && rates.unit != "unused" {
                // The quantized kernels spend much of their time on scales, which the shaders multiply.
                let name = if class(kind) == "float" { "p.matmul.rate.float" } else { "p.matmul.rate" };
                matmul.push(one(name, &[], rates.matrix));
                matmul.push(one(name, &["/", &rates.backend], rates.matrix));
            }
            let operations =
                2.0 * weights.parameters * share / rates.arithmetic * idle_lanes(rates, costs.width, batch);
            let experts = if expert { backend("p.matmul.experts", rates) } else { Vec::new() };
            terms.push(Term {
                concern: of(expert),
                lane: Lane::Alone,
                cpu: rates.backend == "cpu",
                quantity: operations * used,
                factors: join(&[matmul.clone(), experts]),
            });
            // Rows of tiles that a small batch, or an expert's share of one, leaves empty.
            let (tile, name) = if expert { (32.0, "p.fill.experts") } else { (64.0, "p.fill") };
            let fill = join(&[matmul, backend(name, rates)]);
            terms.push(Term {
                concern: of(expert),
                lane: Lane::Alone,
                cpu: rates.backend == "cpu",
                quantity: operations * read * tile / batch,
                factors: fill,
            });
            let bytes = weights.bytes * share * read / batch;
            terms.push(Term {
                concern: of(expert),
                lane: Lane::Alone,
                cpu: rates.backend == "cpu",
                quantity: bytes / rates.bandwidth,
                factors: vec![one("p.read", &[], 1.0)],
            });
            if library {
                // F16 copies are written and read, once for each physical batch.
                terms.push(Term {
                    concern: of(expert),
                    lane: Lane::Alone,
                    cpu: false,
                    quantity: weights.parameters * share * read * 4.0 / batch / rates.bandwidth,
                    factors: backend("p.dequant", rates),
                });
            }
            if copied {
                terms.push(Term {
                    concern: Concern::Other,
                    lane: Lane::Alone,
                    cpu: rates.backend == "cpu",
                    quantity: bytes / rates.bus,
                    factors: vec![one("p.copy", &[], 1.0)],
                });
            }
        }
        // What passes between the matrices: norms, gates, residuals, some 60 bytes per width and layer.
        let passing = costs.layers * part.layers * costs.width * 60.0 / rates.bandwidth;
        terms.push(Term {
            concern: Concern::Other,
            lane: Lane::Alone,
            cpu: rates.backend == "cpu",
            quantity: passing,
            factors: backend("p.passing", rates),
        });
        if costs.expert_layers > 0.0 {
            // And between the experts' matrices, in F32, once for each expert in use.
            let each = costs.experts_used * (3.0 * costs.expert_width + 2.0 * costs.width) * 8.0;
            let quantity = costs.expert_layers * part.experts * each / rates.bandwidth;
            terms.push(Term {
                concern: Concern::Other,
                lane: Lane::Alone,
                cpu: rates.backend == "cpu",
                quantity,
                factors: backend("p.passing.experts", rates),
            });
        }
        for attention in &costs.attention {
            let seen = attention.layers * part.layers * context(attention, work.depth, work.tokens);
            let mut products = join(&[
                levels("p.attention", rates),
                vec![one("p.attention.unit.", &[work.attention_unit(attention, rates)], 1.0)],
                work.aged("p.attention.age", rates),
            ]);
            if attention.head_size > 128.0 {
                products.extend(backend("p.attention.wide", rates));
            }
            if attention.head_size < 128.0 {
                products.extend(backend("p.attention.narrow", rates));
            }
            if !work.flash_attention {
                products.extend(backend("p.attention.plain", rates));
            }
            terms.push(Term {
                concern: Concern::Context,
                lane: Lane::Alone,
                cpu: rates.backend == "cpu",
                quantity: 2.0 * seen * attention.products / rates.arithmetic,
                factors: products,
            });
            if !work.flash_attention {
                // The matrix of scores is written, masked, normalized and read.
                let scores = seen * attention.heads * 20.0 / rates.bandwidth;
                terms.push(Term {
                    concern: Concern::Context,
                    lane: Lane::Alone,
                    cpu: rates.backend == "cpu",
                    quantity: scores,
                    factors: backend("p.scores", rates),
                });
            }
        }
        if work.steps_through_states() {
            // The same steps for each chunk of 64 tokens.
            terms.push(Term {
                concern: Concern::Other,
                lane: Lane::Alone,
                cpu: rates.backend == "cpu",
                quantity: costs.recurrent_layers * part.layers * STEPS_OF_A_STATE * 1e-5 / 64.0,
                factors: backend("p.delta", rates),
            });
        }
        if costs.state_elements > 0.0 {
            let scan = costs.state_elements * part.layers * 8.0 / rates.arithmetic;
            let mut factors = backend("p.scan", rates);
            factors.push(one("p.scan.", &[&costs.architecture], 1.0));
            terms.push(Term {
                concern: Concern::Other,
                lane: Lane::Alone,
                cpu: rates.backend == "cpu",
                quantity: scan,
                factors,
            });
        }
    }
    if work.devices > 1.0 {
        let rates = &work.parts[0].rates;
        let hop = Term {
            concern: Concern::Other,
            lane: Lane::Alone,
            cpu: rates.backend == "cpu",
            quantity: (work.devices - 1.0) * 2e-3 / batch,
            factors: backend("p.hop", rates),
        };
        terms.push(hop);
    }
    terms.retain(|term| term.quantity > 0.0);
    terms
}

fn of(expert: bool) -> Concern {
    if expert { Concern::Experts } else { Concern::Other }
}
