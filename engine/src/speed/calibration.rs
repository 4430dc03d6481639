//! [`Calibration`]: what a machine's own benchmark says against the priors.
//!
//! Where the benchmark's models are known by name, its own times replace the priors ([`Measured`]). Else:
//! two numbers for decoding (how much longer its launches, and its weights, take than the priors say) and two for
//! prefilling, fitted to the benchmark's models of random weights and shrunk towards 1 where the models are too alike to
//! tell launches from weights.

use muster_proto::{BenchModel, BenchPoint, Benchmark};

use crate::bench_models::BenchShape;
use crate::device_table::KnownDevice;

use super::costs::{ModelCosts, ModelFacts};
use super::measured::Measured;
use super::names::Name;
use super::parameters::{Keyed, Parameters, total};
use super::physics::{self, Part, Rates, Term, Work};
use super::question::{Backend, Engine, default_backend};

/// Factors on a device's times, from its own benchmark.
#[derive(Clone, Debug, PartialEq)]
pub struct Calibration {
    decode: Factors,
    prefill: Factors,
    own: Option<Measured>,
}

/// Factors on seconds.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Factors {
    launches: f64,
    weights: f64,
}

/// How firmly the launches' factor is held to the weights' factor, against a relative error of a point: launches may be
/// half or twice the priors' where a point is off by a tenth.
const HELD: f64 = 0.02;

impl Calibration {
    /// Fits the points of one device, by llama.cpp's name of it; `None` without a point of it, or where the known device
    /// has no rates.
    pub fn from_benchmark(benchmark: &Benchmark, device: &str, known: &KnownDevice) -> Option<Self> {
        Self::from_benchmark_with(benchmark, device, known, Keyed::shipped())
    }

    fn from_benchmark_with<P: Parameters>(
        benchmark: &Benchmark,
        device: &str,
        known: &KnownDevice,
        parameters: &P,
    ) -> Option<Self> {
        let points: Vec<&BenchPoint> = benchmark.points.iter().filter(|point| point.device == device).collect();
        let own = Measured::from_points(&points);
        // The priors' terms are compared with short contexts of dense models.
        let points: Vec<&BenchPoint> = points.into_iter().filter(|point| point.depth == 0 && is_dense(point)).collect();
        let backend = backend_of(device, known);
        let points: Vec<(&BenchPoint, ModelCosts, Rates)> =
            points.into_iter().filter_map(|point| asked(point, known, backend)).collect();
        let factors = |decode: bool| {
            let samples: Vec<(f64, f64, f64)> = points
                .iter()
                .filter_map(|(point, costs, rates)| {
                    let measured = if decode { &point.decode } else { &point.prefill };
                    let rate = measured.median.get();
                    let (launches, weights) = split(point, costs, rates, decode, parameters)?;
                    (rate > 0.0).then(|| (launches, weights, 1.0 / rate))
                })
                .collect();
            fit(&samples)
        };
        Some(Self { decode: factors(true)?, prefill: factors(false)?, own })
    }

    /// Seconds of a token of one part, from what was measured alone; `None` where only the priors say something.
    pub(super) fn seconds(&self, work: &Work, part: &Part, decode: bool) -> Option<f64> {
        self.own.as_ref()?.seconds(work, part, decode)
    }

    /// The factor on a term's seconds.
    pub fn scale<N: Name>(&self, term: &Term<N>, decode: bool) -> f64 {
        let factors = if decode { self.decode } else { self.prefill };
        if is_launch(term) { factors.launches } else { factors.weights }
    }
}

fn is_dense(point: &BenchPoint) -> bool {
    BenchShape::named(&point.model.name).is_none_or(|shape| shape.experts.0 == 0)
}

fn is_launch<N: Name>(term: &Term<N>) -> bool {
    term.factors.first().is_some_and(|(name, _)| name.is_launch())
}

fn backend_of(device: &str, known: &KnownDevice) -> Backend {
    let lower = device.to_lowercase();
    [Backend::Cuda, Backend::Rocm, Backend::Vulkan, Backend::Metal, Backend::Cpu]
        .into_iter()
        .find(|backend| lower.starts_with(backend.name()))
        .unwrap_or_else(|| default_backend(known))
}

/// A point with what its model costs and what its device can do.
fn asked<'a>(
    point: &'a BenchPoint,
    known: &KnownDevice,
    backend: Backend,
) -> Option<(&'a BenchPoint, ModelCosts, Rates)> {
    let rates = match backend {
        Backend::Cpu => Rates::cpu(known, point.threads)?,
        _ => Rates::gpu(known, backend, physics::CARRIED)?,
    };
    Some((point, costs_of(&point.model)?, rates))
}

/// Seconds of launches and of everything else that the priors expect of a point.
fn split<P: Parameters>(
    point: &BenchPoint,
    costs: &ModelCosts,
    rates: &Rates,
    decode: bool,
    parameters: &P,
) -> Option<(f64, f64)> {
    let tokens = f64::from(if decode { point.decode_tokens } else { point.prefill_tokens }).max(1.0);
    let work = Work {
        costs,
        parts: vec![Part { rates: rates.clone(), layers: 1.0, experts: 1.0, output: true }],
        devices: 1.0,
        flash_attention: true,
        cache_bytes: 2.0,
        depth: 0.0,
        tokens,
        ubatch: 512.0,
        year: physics::CARRIED,
        engine: Engine::LlamaCpp,
    };
    let terms = if decode { physics::decode(&work) } else { physics::prefill(&work) };
    let each = parameters.each(&terms);
    let launches = total(&terms, &each, |term| if is_launch(term) { 1.0 } else { 0.0 });
    let weights = total(&terms, &each, |term| if is_launch(term) { 0.0 } else { 1.0 });
    (launches + weights > 0.0).then_some((launches, weights))
}

/// A model of random weights as costs: only its layers, bytes and parameters are recorded.
fn costs_of(model: &BenchModel) -> Option<ModelCosts> {
    let (layers, parameters) = (f64::from(model.layers.max(1)), model.parameters_per_token as f64);
    if parameters <= 0.0 {
        return None;
    }
    // Twelve squares of the width to a block, as in GPT's and nearly in Llama's.
    let width = (parameters / layers / 12.0).sqrt().max(1.0);
    let facts = serde_json::json!({
        "arch": "llama", "n_layer": layers, "n_embd": width, "n_head": (width / 128.0).max(1.0), "n_vocab": 1,
    });
    let mut costs = ModelCosts::from_facts(&ModelFacts::from_json(&facts), &model.quantization, None)
        .or_else(|_| ModelCosts::from_facts(&ModelFacts::from_json(&facts), "Q8_0", None))
        .ok()?;
    costs.output = None;
    costs.dense.truncate(1);
    let dense = costs.dense.first_mut()?;
    (dense.parameters, dense.bytes) = (parameters, model.bytes_per_token.get() as f64);
    Some(costs)
}

/// Least squares of relative errors of `a · launches + b · weights = seconds`, with `a` held near `b`.
fn fit(samples: &[(f64, f64, f64)]) -> Option<Factors> {
    if samples.is_empty() {
        return None;
    }
    let sum = |term: &dyn Fn(&(f64, f64, f64)) -> f64| samples.iter().map(|s| term(s) / (s.2 * s.2)).sum::<f64>();
    let (aa, ab, bb) = (sum(&|s| s.0 * s.0), sum(&|s| s.0 * s.1), sum(&|s| s.1 * s.1));
    let (ay, by) = (sum(&|s| s.0 * s.2), sum(&|s| s.1 * s.2));
    // One factor for both: where all else is undecided.
    let both = (ay + by) / (aa + 2.0 * ab + bb);
    // Held in units of that factor: HELD · ((a − b) / both)².
    let hold = HELD / (both * both);
    let (m00, m01, m11) = (aa + hold, ab - hold, bb + hold);
    let determinant = m00 * m11 - m01 * m01;
    let (launches, weights) = ((ay * m11 - by * m01) / determinant, (by * m00 - ay * m01) / determinant);
    if launches > 0.0 && weights > 0.0 && launches.is_finite() && weights.is_finite() {
        Some(Factors { launches, weights })
    } else {
        (both > 0.0 && both.is_finite()).then_some(Factors { launches: both, weights: both })
    }
}

#[cfg(test)]
mod tests {
    use muster_proto::{Bytes, Spread, Timestamp};

    use super::super::{DeviceShare, SpeedQuestion, estimate};
    use super::*;
    use crate::device_table;

    fn benchmark(known: &KnownDevice, slower: f64) -> Benchmark {
        let points = [
            (40_000_000_u64, 33_000_000_u64, 6_u32),
            (600_000_000, 500_000_000, 16),
            (1_200_000_000, 1_100_000_000, 22),
        ]
        .into_iter()
        .map(|(bytes, parameters, layers)| {
            let model = BenchModel {
                name: "m".into(),
                quantization: "Q8_0".into(),
                bytes_per_token: Bytes::new(bytes),
                parameters_per_token: parameters,
                layers,
            };
            let mut point = BenchPoint {
                device: "CUDA0".into(),
                threads: None,
                model,
                prefill_tokens: 512,
                decode_tokens: 16,
                prefill: Spread::of(vec![1.0]).expect("a rate"),
                decode: Spread::of(vec![1.0]).expect("a rate"),
                depth: 0,
            };
            let (_, costs, rates) = asked(&point, known, Backend::Cuda).expect("rates");
            for decode in [true, false] {
                let (a, b) = split(&point, &costs, &rates, decode, Keyed::shipped()).expect("rates");
                let spread = Spread::of(vec![1.0 / (a + b * slower)]).expect("a rate");
                if decode { point.decode = spread } else { point.prefill = spread }
            }
            point
        })
        .collect();
        Benchmark {
            measured_at: Timestamp::from_unix_millis(0),
            took_ms: 1,
            engine_build: "test".into(),
            hardware_fingerprint: "test".into(),
            points,
            conditions: muster_proto::Conditions::default(),
            parts: vec![],
            on_battery: vec![],
        }
    }

    #[test]
    fn a_slower_machine_is_estimated_slower_and_its_interval_is_no_wider() {
        let known = device_table::find("RTX 4090").expect("known");
        let facts = serde_json::json!({
            "arch": "llama", "n_layer": 32, "n_embd": 4096, "n_head": 32, "n_head_kv": 8, "n_ff": 14336, "n_vocab": 128_256,
        });
        let costs = ModelCosts::from_facts(&ModelFacts::from_json(&facts), "Q4_K_M", None).expect("whole");
        let prior = estimate(&SpeedQuestion::on(&costs, known, Backend::Cuda)).expect("known");
        for slower in [1.0, 1.6] {
            let calibration =
                Calibration::from_benchmark(&benchmark(known, slower), "CUDA0", known).expect("three points");
            let mut question = SpeedQuestion::on(&costs, known, Backend::Cuda);
            question.devices = vec![DeviceShare { device: known, calibration: Some(&calibration), layers: 1.0 }];
            let own = estimate(&question).expect("known");
            let ratio = prior.decode.expected.get() / own.decode.expected.get();
            assert!(ratio > slower.powf(0.7) - 0.01 && ratio < slower + 0.01, "{ratio} for {slower}");
            let width = |speed: super::super::Interval| speed.high.get() / speed.low.get();
            assert!(width(own.decode) <= width(prior.decode) * 1.000_001);
            assert!(width(own.prefill) <= width(prior.prefill) * 1.000_001);
        }
    }

    #[test]
    fn no_point_is_no_calibration() {
        let known = device_table::find("RTX 4090").expect("known");
        assert_eq!(Calibration::from_benchmark(&benchmark(known, 1.0), "CUDA1", known), None);
    }
}
