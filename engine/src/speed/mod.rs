//! How fast a model will prefill and decode: on a known device from learnt efficiencies, or on a machine from its own
//! benchmark. Pure arithmetic.
//!
//! A token takes the time in which its weights and its cache pass from memory, its multiplications, and the launches of
//! its layers ([`physics`]). What of the published rates is reached is learnt from public measurements, in levels (all →
//! backend → architecture), by `examples/fit_speed.rs`, and ships as `data/speed_priors.json` ([`Priors`]); a machine's own
//! [`Benchmark`](muster_proto::Benchmark) replaces it ([`Calibration`]). It does not know of memory sizes or placements:
//! who holds what is part of the question. Entry points: [`estimate`], [`ModelCosts::of`], and [`predict`] for a machine
//! without a known device.

mod calibration;
mod costs;
mod measured;
mod names;
mod parameters;
pub mod physics;
mod priors;
mod question;
mod streaming;

use muster_proto::TokensPerSecond;

use crate::device_table::{self, KnownDevice};

pub use calibration::Calibration;
pub use costs::{Attention, CostsError, ModelCosts, ModelFacts, Weights};
pub use measured::predict;
pub use names::{Key, Name};
pub use priors::{Priors, Spread};
pub use question::{Backend, DeviceShare, Engine, Placement, SpeedQuestion, default_backend};

use parameters::{Keyed, Parameters, total, uncertain};
use physics::{Part, Rates, Term, Work};

/// A speed with its uncertainty.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Interval {
    /// The most likely speed.
    pub expected: TokensPerSecond,
    /// Four fifths of all machines like this are between this
    pub low: TokensPerSecond,
    /// and this.
    pub high: TokensPerSecond,
}

/// The answer.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Speed {
    /// Tokens of the prompt a second.
    pub prefill: Interval,
    /// Tokens decoded a second, of one sequence.
    pub decode: Interval,
}

/// Why there is no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SpeedError {
    /// No bandwidth or arithmetic is known of the device.
    #[error("no speed is known of {device}: its specification has no {missing}")]
    Unspecified {
        /// The device's name.
        device: String,
        /// What is missing.
        missing: &'static str,
    },
    /// The backend does not run on the device.
    #[error("{device} has no {backend} backend")]
    Backend {
        /// The device's name.
        device: String,
        /// The backend's name.
        backend: &'static str,
    },
    /// Nobody holds the layers, or the numbers are no numbers.
    #[error("no speed can be estimated: {detail}")]
    Question {
        /// What is wrong.
        detail: String,
    },
}

/// The desktop that stands for a host of which nothing is said.
const USUAL_HOST: &str = "cpu-desktop";
/// How much wider an interval is for a host of which nothing is said, in the logarithm, per share of time on it.
const UNKNOWN_HOST: f64 = 0.35;

/// Answers from the priors that ship with the program, and from calibrations where the question has them.
///
/// # Errors
/// See [`SpeedError`].
pub fn estimate(question: &SpeedQuestion) -> Result<Speed, SpeedError> {
    answer(question, Keyed::shipped())
}

/// As [`estimate`], with other priors.
///
/// # Errors
/// See [`SpeedError`].
pub fn estimate_with(question: &SpeedQuestion, priors: &Priors) -> Result<Speed, SpeedError> {
    answer(question, priors)
}

fn answer<P: Parameters>(question: &SpeedQuestion, parameters: &P) -> Result<Speed, SpeedError> {
    let priors = parameters.priors();
    let phase = |decode: bool| {
        let work = work(question, decode)?;
        let terms = if decode { physics::decode(&work) } else { physics::prefill(&work) };
        let backend = work.parts[0].rates.backend.as_str();
        let mut spread = priors.spread(decode, backend);
        let calibrations: Vec<&Calibration> = question
            .devices
            .iter()
            .map(|share| share.calibration)
            .chain((question.placement.host_layers > 0.0).then_some(question.host_calibration))
            .flatten()
            .collect();
        let parts = work.parts.len();
        let each = parameters.each(&terms);
        let mut seconds = total(&terms, &each, |_| 1.0);
        if !calibrations.is_empty() {
            // Each calibrated part by its own measurements; the rest by the priors.
            seconds = calibrated(question, &work, decode, parameters);
            if calibrations.len() == parts {
                spread = spread.narrower(priors.spread(decode, "calibrated"));
            }
        }
        // Benchmarks are of short contexts and have no experts, so this stays uncertain after them.
        spread = spread.widened(uncertain(&terms, &each));
        if question.host.is_none() && question.placement.host_layers + question.placement.host_experts > 0.0 {
            spread = spread.widened(UNKNOWN_HOST);
        }
        interval(seconds, spread)
    };
    Ok(Speed { prefill: phase(false)?, decode: phase(true)? })
}

/// Seconds with each part's calibration applied to the terms of that part alone.
fn calibrated<P: Parameters>(question: &SpeedQuestion, work: &Work, decode: bool, parameters: &P) -> f64 {
    let calibration = |index: usize| match question.devices.get(index) {
        Some(share) => share.calibration,
        None => question.host_calibration,
    };
    let mut seconds = 0.0;
    for (index, part) in work.parts.iter().enumerate() {
        // A GPU computes a host's layers in a prefill, from copies: only the priors know how fast.
        let copied = !decode && index > 0 && part.rates.backend == "cpu";
        let own = calibration(index).filter(|_| !copied).and_then(|own| own.seconds(work, part, decode));
        if let Some(own) = own {
            seconds += own;
            continue;
        }
        let mut parts = vec![part.clone()];
        if !decode && index > 0 && part.rates.backend == "cpu" {
            // The first part stands for the GPU that computes copies; it holds nothing here.
            parts.insert(0, Part { layers: 0.0, experts: 0.0, output: false, ..work.parts[0].clone() });
        }
        let own = Work { parts, devices: 1.0, ..work.clone() };
        let terms = if decode { physics::decode(&own) } else { physics::prefill(&own) };
        let scale =
            |term: &Term<P::Name>| calibration(index).map_or(1.0, |calibration| calibration.scale(term, decode));
        seconds += total(&terms, &parameters.each(&terms), scale);
    }
    seconds
}

fn interval(seconds: f64, spread: Spread) -> Result<Interval, SpeedError> {
    let rate = |seconds: f64| {
        Some(1.0 / seconds)
            .filter(|rate| rate.is_finite() && *rate > 0.0)
            .and_then(TokensPerSecond::new)
            .ok_or_else(|| SpeedError::Question { detail: "its time is not a positive number".into() })
    };
    Ok(Interval {
        expected: rate(seconds)?,
        low: rate(seconds * spread.slower.exp())?,
        high: rate(seconds / spread.faster.exp())?,
    })
}

/// The question in the units of the terms.
///
/// # Errors
/// See [`SpeedError`].
///
/// # Panics
/// Never: the usual host is in the data file, which is tested.
pub fn work<'a>(question: &SpeedQuestion<'a>, decode: bool) -> Result<Work<'a>, SpeedError> {
    let placement = question.placement;
    let mut parts = Vec::new();
    let shares: f64 = question.devices.iter().map(|share| share.layers).sum();
    let sound = |share: f64| (0.0..=1.0 + 1e-9).contains(&share);
    if !sound(placement.host_layers)
        || !sound(placement.host_experts)
        || !question.devices.iter().all(|d| sound(d.layers))
    {
        return Err(SpeedError::Question { detail: "a share of layers is not between 0 and 1".into() });
    }
    let year = question.built.unwrap_or(physics::CARRIED);
    for (index, share) in question.devices.iter().enumerate() {
        let device = share.device;
        if !fits(device, question.backend) {
            return Err(SpeedError::Backend { device: device.name.clone(), backend: question.backend.name() });
        }
        let rates = Rates::gpu(device, question.backend, year).ok_or_else(|| SpeedError::Unspecified {
            device: device.name.clone(),
            missing: if device.bandwidth.is_none() { "bandwidth" } else { "arithmetic" },
        })?;
        let rates = if question.first_matrix_extension { rates.without_second_matrix_extension() } else { rates };
        let of_all = if shares > 0.0 { share.layers / shares } else { 1.0 };
        parts.push(Part {
            rates,
            layers: share.layers,
            experts: (1.0 - placement.host_experts) * of_all,
            output: !placement.host_output && index + 1 == question.devices.len(),
        });
    }
    if placement.host_layers > 0.0 || placement.host_experts > 0.0 || placement.host_output {
        let usual = device_table::by_key(USUAL_HOST).expect("the usual host is in the data file, which is tested");
        let host = question.host.unwrap_or(usual);
        let rates = Rates::cpu(host, question.threads)
            .ok_or_else(|| SpeedError::Unspecified { device: host.name.clone(), missing: "number of cores" })?;
        parts.push(Part {
            rates,
            layers: placement.host_layers,
            experts: placement.host_experts,
            output: placement.host_output,
        });
    }
    if parts.is_empty() {
        return Err(SpeedError::Question { detail: "no device holds the layers".into() });
    }
    let tokens = if decode { question.decode_tokens } else { question.prompt_tokens };
    Ok(Work {
        costs: question.costs,
        parts,
        devices: question.devices.len() as f64,
        flash_attention: question.flash_attention.unwrap_or(year >= physics::TODAY - 0.05),
        cache_bytes: question.cache_bytes_per_element,
        depth: question.depth as f64,
        tokens: tokens.max(1) as f64,
        ubatch: f64::from(question.ubatch.max(1)),
        year,
        engine: question.engine,
    })
}

fn fits(device: &KnownDevice, backend: Backend) -> bool {
    use device_table::Vendor;
    match backend {
        Backend::Cuda => device.vendor == Vendor::Nvidia,
        Backend::Rocm => device.vendor == Vendor::Amd && !device.is_cpu(),
        Backend::Metal => device.vendor == Vendor::Apple && !device.is_cpu(),
        Backend::Vulkan => !device.is_cpu(),
        Backend::Cpu => device.is_cpu(),
    }
}
