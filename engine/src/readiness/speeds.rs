//! How fast reference models run on a desk: each question is answered once for each kind of machine.
//!
//! Priors depend on what the parts are, so ten thousand desks of a hundred kinds ask for a hundred. A machine's own
//! benchmark moves them: for ranking and counting, by the same ratio for all models (that of [`PIVOT`], placed alike); what
//! is shown is computed for the very model ([`DeskSpeeds::exact`]).

use std::cell::OnceCell;
use std::collections::HashMap;
use std::sync::{Arc, LazyLock, Mutex, OnceLock, PoisonError};

use muster_proto::{Benchmark, Bytes, SpeedRange, TokensPerSecond};

use super::desk::{Desk, DeskGpu};
use super::sizes::QUANTIZATIONS;
use crate::device_table::{self, KnownDevice};
use crate::reference;
use crate::speed::{
    self, Backend, Calibration, DeviceShare, Interval, ModelCosts, ModelFacts, Placement, Priors, Speed, SpeedQuestion,
};

/// llama.cpp's name of the CPU, in benchmarks.
const CPU: &str = "CPU";

/// The desktop that stands for a processor of which only a benchmark is known.
const USUAL_HOST: &str = "cpu-desktop";

/// The model whose calibrated speed over its prior one is taken for all.
const PIVOT: &str = "llama-3.1-8b";

/// Index of its quantization, `Q4_K_M`.
const PIVOT_QUANTIZATION: usize = 3;

/// Steps that shares of layers are told apart by.
pub(super) const STEPS: u8 = 16;

/// By model, as [`reference::all`] has them, and by [`QUANTIZATIONS`].
static COSTS: LazyLock<Vec<[Option<ModelCosts>; QUANTIZATIONS.len()]>> = LazyLock::new(|| {
    let of = |model: &reference::ReferenceModel| {
        let mut facts = serde_json::to_value(&model.shape).unwrap_or_default();
        facts["arch"] = model.architecture.clone().into();
        let facts = ModelFacts::from_json(&facts);
        QUANTIZATIONS.map(|quantization| ModelCosts::from_facts(&facts, quantization, None).ok())
    };
    reference::all().iter().map(of).collect()
});

static PIVOT_INDEX: LazyLock<Option<usize>> =
    LazyLock::new(|| reference::all().iter().position(|model| model.id == PIVOT));

/// Answers for one kind of machine, all layers on its GPUs or none: by model, then by quantization.
type Answers = Arc<[OnceLock<Option<Speed>>]>;

fn no_answers() -> Answers {
    (0..COSTS.len() * QUANTIZATIONS.len()).map(|_| OnceLock::new()).collect()
}

/// Parts that decide a prior; known devices by address, for they live for ever.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
struct Parts {
    gpus: Vec<usize>,
    backend: u8,
    host: usize,
}

/// Which benchmark of which machine's device, by its digest.
type Measured = (String, i64, String, usize);

/// What was answered before; shared by threads.
#[derive(Debug, Default)]
pub(super) struct Memory {
    priors: Mutex<HashMap<Parts, Answers>>,
    splits: Mutex<HashMap<Parts, Option<Ratios>>>,
    calibrations: Mutex<HashMap<Measured, Option<Arc<Calibration>>>>,
    known: Mutex<HashMap<String, Option<&'static KnownDevice>>>,
}

/// Calibrations that are kept: several for each machine of the largest fleet.
const KEPT: usize = 400_000;

/// Kinds of machines whose answers are kept: many more than any fleet has, each some 20 KiB.
const KINDS: usize = 4000;

fn locked<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn address(known: Option<&'static KnownDevice>) -> usize {
    known.map_or(0, |known| std::ptr::from_ref(known).addr())
}

impl Memory {
    /// The known device of that name; looked for once.
    pub fn find(&self, name: &str) -> Option<&'static KnownDevice> {
        if let Some(found) = locked(&self.known).get(name) {
            return *found;
        }
        let found = device_table::find(name).ok();
        let mut known = locked(&self.known);
        // Names come from machines: a hostile fleet fills no memory.
        if known.len() < KEPT {
            known.insert(name.to_owned(), found);
        }
        found
    }

    fn answers(&self, parts: Parts) -> Answers {
        let mut priors = locked(&self.priors);
        if let Some(known) = priors.get(&parts) {
            return Arc::clone(known);
        }
        let answers = no_answers();
        if priors.len() < KINDS {
            priors.insert(parts, Arc::clone(&answers));
        }
        answers
    }

    /// Ratios that were found before, or are now.
    fn split(&self, parts: Parts, find: impl FnOnce() -> Option<Ratios>) -> Option<Ratios> {
        if let Some(known) = locked(&self.splits).get(&parts) {
            return *known;
        }
        let found = find();
        let mut splits = locked(&self.splits);
        if splits.len() < KEPT {
            splits.insert(parts, found);
        }
        found
    }

    fn calibration(
        &self,
        benchmark: &Benchmark,
        device: &str,
        known: &'static KnownDevice,
    ) -> Option<Arc<Calibration>> {
        let key = (
            benchmark.hardware_fingerprint.clone(),
            benchmark.measured_at.unix_millis(),
            format!("{device}/{}/{}", benchmark.took_ms, benchmark.points.len()),
            address(Some(known)),
        );
        if let Some(found) = locked(&self.calibrations).get(&key) {
            return found.clone();
        }
        let fitted = Calibration::from_benchmark(benchmark, device, known).map(Arc::new);
        let mut calibrations = locked(&self.calibrations);
        if calibrations.len() < KEPT {
            calibrations.insert(key, fitted.clone());
        }
        fitted
    }
}

/// Prefill and decode, each with its interval.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Speeds {
    pub prefill: SpeedRange,
    pub decode: SpeedRange,
    pub measured: bool,
}

/// Factors that a benchmark puts on a prior: low, expected, high.
#[derive(Clone, Copy, Debug)]
struct Ratio([f64; 3]);

impl Ratio {
    fn between(prior: Interval, own: Interval) -> Self {
        let over = |own: TokensPerSecond, prior: TokensPerSecond| own.get() / prior.get().max(f64::MIN_POSITIVE);
        Self([over(own.low, prior.low), over(own.expected, prior.expected), over(own.high, prior.high)])
    }

    fn on(self, prior: Interval) -> Interval {
        let times = |rate: TokensPerSecond, factor: f64| TokensPerSecond::new(rate.get() * factor).unwrap_or(rate);
        let Self([low, expected, high]) = self;
        Interval {
            low: times(prior.low, low),
            expected: times(prior.expected, expected),
            high: times(prior.high, high),
        }
    }
}

/// Ratios of prefill and decode.
type Ratios = (Ratio, Ratio);

/// The speeds of one desk.
pub(super) struct DeskSpeeds<'a> {
    memory: &'a Memory,
    gpus: &'a [DeskGpu],
    backend: Backend,
    /// The processor, or the usual one in its place.
    host: Option<&'static KnownDevice>,
    /// Whether that says something of this processor.
    host_known: bool,
    /// Only one that says something: of this hardware and this engine.
    benchmark: Option<&'a Benchmark>,
    on_gpu: Answers,
    on_host: Answers,
    both: Parts,
    /// What a split comes to over the sum of its parts.
    split: OnceCell<Option<Ratios>>,
    /// What the benchmark says over the prior, by sixteenths of the layers on GPUs: all, none, between.
    ratios: [OnceCell<Option<Ratios>>; 3],
}

impl<'a> DeskSpeeds<'a> {
    pub fn new(memory: &'a Memory, desk: &'a Desk, benchmark: Option<&'a Benchmark>) -> Self {
        let measured_cpu = benchmark.is_some_and(|benchmark| has(benchmark, CPU));
        let host = desk.host.or_else(|| device_table::by_key(USUAL_HOST));
        let gpus: Vec<usize> = desk.gpus.iter().map(|gpu| address(gpu.known)).collect();
        let backend = Backend::from(desk.backend());
        let number = backend as u8;
        let host_address = address(host);
        Self {
            memory,
            gpus: &desk.gpus,
            backend,
            host,
            host_known: desk.host.is_some() || measured_cpu,
            benchmark,
            on_gpu: memory.answers(Parts { gpus: gpus.clone(), backend: number, ..Parts::default() }),
            on_host: memory.answers(Parts { host: host_address, ..Parts::default() }),
            both: Parts { gpus, backend: number, host: host_address },
            split: OnceCell::new(),
            ratios: Default::default(),
        }
    }

    /// For ranking and counting. `share` is how many sixteenths of the layers are on GPUs.
    pub fn quick(&self, model: usize, quantization: usize, share: u8) -> Option<Speeds> {
        if share == 0 && !self.host_known {
            return None;
        }
        if share > 0 && self.gpus.iter().any(|gpu| gpu.known.is_none()) {
            return self.exact(model, quantization, share);
        }
        let prior = self.prior(model, quantization, share)?;
        let Some((prefill, decode)) = self.ratios(share) else { return Some(speeds(prior, false)) };
        Some(speeds(Speed { prefill: prefill.on(prior.prefill), decode: decode.on(prior.decode) }, true))
    }

    /// For showing: this very model, by the benchmark where there is one.
    pub fn exact(&self, model: usize, quantization: usize, share: u8) -> Option<Speeds> {
        if share == 0 && !self.host_known {
            return None;
        }
        if share > 0 && self.gpus.iter().any(|gpu| gpu.known.is_none()) {
            return self.by_benchmark_alone(model, quantization, share);
        }
        match self.calibrated(model, quantization, share) {
            Some(speed) => Some(speeds(speed, true)),
            None if share > 0 && share < STEPS => {
                Some(speeds(self.answer(model, quantization, share, &[], None)?, false))
            }
            None => Some(speeds(self.prior(model, quantization, share)?, false)),
        }
    }

    /// What published figures say. Between all layers on GPUs and none, times add up, corrected by what they come to for
    /// [`PIVOT`] with half of its layers on GPUs (a prefill computes layers of main memory on GPUs too).
    fn prior(&self, model: usize, quantization: usize, share: u8) -> Option<Speed> {
        match share {
            STEPS => self.remembered(&self.on_gpu, model, quantization, share),
            0 => self.remembered(&self.on_host, model, quantization, share),
            _ => {
                let (prefill, decode) = self.split()?;
                let added = self.added(model, quantization, share)?;
                Some(Speed { prefill: prefill.on(added.prefill), decode: decode.on(added.decode) })
            }
        }
    }

    fn split(&self) -> Option<Ratios> {
        let find = || {
            let pivot = (*PIVOT_INDEX)?;
            let split = self.answer(pivot, PIVOT_QUANTIZATION, STEPS / 2, &[], None)?;
            let half = self.added(pivot, PIVOT_QUANTIZATION, STEPS / 2)?;
            Some((Ratio::between(half.prefill, split.prefill), Ratio::between(half.decode, split.decode)))
        };
        *self.split.get_or_init(|| self.memory.split(self.both.clone(), find))
    }

    /// The sum of the times that the parts take for their layers.
    fn added(&self, model: usize, quantization: usize, share: u8) -> Option<Speed> {
        let on_gpu = self.remembered(&self.on_gpu, model, quantization, STEPS)?;
        let on_host = self.remembered(&self.on_host, model, quantization, 0)?;
        let share = f64::from(share) / f64::from(STEPS);
        let rate = |gpu: TokensPerSecond, host: TokensPerSecond| {
            TokensPerSecond::new(1.0 / (share / gpu.get() + (1.0 - share) / host.get()))
        };
        let interval = |gpu: Interval, host: Interval| {
            Some(Interval {
                expected: rate(gpu.expected, host.expected)?,
                low: rate(gpu.low, host.low)?,
                high: rate(gpu.high, host.high)?,
            })
        };
        Some(Speed {
            prefill: interval(on_gpu.prefill, on_host.prefill)?,
            decode: interval(on_gpu.decode, on_host.decode)?,
        })
    }

    fn remembered(&self, answers: &Answers, model: usize, quantization: usize, share: u8) -> Option<Speed> {
        let answer = answers.get(model * QUANTIZATIONS.len() + quantization)?;
        *answer.get_or_init(|| self.answer(model, quantization, share, &[], None))
    }

    fn ratios(&self, share: u8) -> Option<Ratios> {
        let benchmark = self.benchmark?;
        let index = match share {
            STEPS => 0,
            0 => 1,
            _ => 2,
        };
        *self.ratios[index].get_or_init(|| {
            let pivot = (*PIVOT_INDEX)?;
            let share = if index == 2 { STEPS / 2 } else { share };
            if !has(benchmark, CPU) && share == 0 {
                return None;
            }
            let (prior, own) =
                (self.prior(pivot, PIVOT_QUANTIZATION, share)?, self.calibrated(pivot, PIVOT_QUANTIZATION, share)?);
            Some((Ratio::between(prior.prefill, own.prefill), Ratio::between(prior.decode, own.decode)))
        })
    }

    fn calibrated(&self, model: usize, quantization: usize, share: u8) -> Option<Speed> {
        let benchmark = self.benchmark?;
        let fitted = |name: &str, known: Option<&'static KnownDevice>| {
            known.and_then(|known| self.memory.calibration(benchmark, name, known))
        };
        let gpus: Vec<Option<Arc<Calibration>>> =
            if share > 0 { self.gpus.iter().map(|gpu| fitted(&gpu.name, gpu.known)).collect() } else { Vec::new() };
        let host = if share < STEPS { fitted(CPU, self.host) } else { None };
        if gpus.iter().all(Option::is_none) && host.is_none() {
            return None;
        }
        self.answer(model, quantization, share, &gpus, host.as_deref())
    }

    fn answer(
        &self,
        model: usize,
        quantization: usize,
        share: u8,
        gpus: &[Option<Arc<Calibration>>],
        host: Option<&Calibration>,
    ) -> Option<Speed> {
        let costs = COSTS.get(model)?.get(quantization)?.as_ref()?;
        let on_gpus = f64::from(share) / f64::from(STEPS);
        let budgets: f64 = self.gpus.iter().map(|gpu| gpu.budget.max(1) as f64).sum();
        let devices = if share == 0 {
            Vec::new()
        } else {
            let device = |(index, gpu): (usize, &DeskGpu)| {
                Some(DeviceShare {
                    device: gpu.known?,
                    calibration: gpus.get(index).and_then(Option::as_deref),
                    // Priors are shared by machines whose free memory differs: equal parts stand for all.
                    layers: if gpus.is_empty() {
                        on_gpus / self.gpus.len() as f64
                    } else {
                        on_gpus * gpu.budget.max(1) as f64 / budgets
                    },
                })
            };
            self.gpus.iter().enumerate().map(device).collect::<Option<Vec<_>>>()?
        };
        let (host_layers, host_output) = (1.0 - on_gpus, share == 0);
        let question = SpeedQuestion {
            costs,
            devices,
            placement: Placement { host_layers, host_experts: host_layers, host_output },
            host: Some(self.host?),
            host_calibration: host,
            backend: if share == 0 { Backend::Cpu } else { self.backend },
            flash_attention: None,
            cache_bytes_per_element: 2.0,
            depth: 0,
            prompt_tokens: 512,
            decode_tokens: 128,
            ubatch: 512,
            threads: None,
            built: None,
            engine: speed::Engine::LlamaCpp,
            first_matrix_extension: false,
        };
        speed::estimate(&question).ok()
    }

    /// Where nobody knows what a GPU is, its benchmark alone tells; of models that are wholly there.
    fn by_benchmark_alone(&self, model: usize, quantization: usize, share: u8) -> Option<Speeds> {
        let (benchmark, gpu) = (self.benchmark?, self.gpus.first().filter(|_| share == STEPS)?);
        let costs = COSTS.get(model)?.get(quantization)?.as_ref()?;
        let sum = |weights: &[speed::Weights], of: fn(&speed::Weights) -> f64| weights.iter().map(of).sum::<f64>();
        let used = if costs.expert_count > 0.0 { costs.experts_used / costs.expert_count } else { 0.0 };
        let each = |of: fn(&speed::Weights) -> f64| {
            sum(&costs.dense, of) + sum(&costs.experts, of) * used + costs.output.as_ref().map_or(0.0, of)
        };
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "counts, far below 2^53")]
        let (bytes, parameters) = (each(|w| w.bytes) as u64, each(|w| w.parameters) as u64);
        let (prefill, decode) = speed::predict(benchmark, &gpu.name, Bytes::new(bytes), parameters);
        let interval = |rate: TokensPerSecond, decode: bool| {
            let spread = Priors::shipped().spread(decode, "calibrated");
            Some(Interval {
                expected: rate,
                low: TokensPerSecond::new(rate.get() / spread.slower.exp())?,
                high: TokensPerSecond::new(rate.get() * spread.faster.exp())?,
            })
        };
        Some(speeds(Speed { prefill: interval(prefill?, false)?, decode: interval(decode?, true)? }, true))
    }
}

fn has(benchmark: &Benchmark, device: &str) -> bool {
    benchmark.points.iter().any(|point| point.device == device)
}

fn speeds(speed: Speed, measured: bool) -> Speeds {
    let range = |interval: Interval| SpeedRange { expected: interval.expected, low: interval.low, high: interval.high };
    Speeds { prefill: range(speed.prefill), decode: range(speed.decode), measured }
}
