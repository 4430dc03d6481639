//! The speed of a laid out model, from what is known or was measured of its devices.

use muster_proto::{Benchmark, Bytes, EstimatedSpeed, FlashAttention, KvType, TokensPerSecond};

use super::layout::Layout;
use super::places::{OnHost, on_host};
use super::{Question, TargetDevice};
use crate::device_table::{self, KnownDevice};
use crate::gguf::GgufHeader;
use crate::speed::{
    self, Backend, Calibration, DeviceShare, Engine, Interval, ModelCosts, Placement, Priors, SpeedQuestion,
};

/// llama.cpp's name of the CPU, in benchmarks.
const CPU: &str = "CPU";

/// The known device that stands for a processor of which only a benchmark is known.
const USUAL_HOST: &str = "cpu-desktop";

/// How fast the model runs as it is laid out; `None` where nothing is known of the devices.
pub(super) fn speed(question: &Question, header: &GgufHeader, layout: &Layout) -> Option<EstimatedSpeed> {
    let places = on_host(header, &layout.sized);
    let cpu_alone = layout.sized.gpu_layers == 0;
    let known = question.devices.iter().all(|device| device.known.is_some());
    let measured_here = |device: &str| question.benchmark.as_ref().is_some_and(|benchmark| measured(benchmark, device));
    if cpu_alone && question.host.is_none() && !measured_here(CPU) {
        return None;
    }
    if !cpu_alone && !known {
        return by_benchmark_alone(question, header, layout, places);
    }
    by_physics(question, header, layout, places)
}

fn measured(benchmark: &Benchmark, device: &str) -> bool {
    benchmark.points.iter().any(|point| point.device == device)
}

/// From the specifications of the devices, and the machine's benchmark where there is one.
fn by_physics(question: &Question, header: &GgufHeader, layout: &Layout, places: OnHost) -> Option<EstimatedSpeed> {
    let costs = ModelCosts::of(header).ok()?;
    let benchmark = question.benchmark.as_ref();
    let calibrate = |name: &str, known: &KnownDevice| Calibration::from_benchmark(benchmark?, name, known);
    let used: Vec<(&TargetDevice, &'static KnownDevice, u32)> = question
        .devices
        .iter()
        .zip(&layout.devices)
        .filter(|(_, placed)| placed.layers > 0)
        .filter_map(|(device, placed)| Some((device, device.known?, placed.layers)))
        .collect();
    let calibrations: Vec<Option<Calibration>> =
        used.iter().map(|(device, known, _)| calibrate(&device.name, known)).collect();
    let host = question.host.or_else(|| benchmark.and_then(|_| device_table::by_key(USUAL_HOST)));
    let host_calibration = host.and_then(|known| calibrate(CPU, known));
    let layers: u32 = used.iter().map(|(_, _, layers)| layers).sum();
    let on_devices = 1.0 - places.layers;
    let asked = SpeedQuestion {
        costs: &costs,
        devices: used
            .iter()
            .zip(&calibrations)
            .map(|((_, known, own), calibration)| DeviceShare {
                device: known,
                calibration: calibration.as_ref(),
                layers: on_devices * f64::from(*own) / f64::from(layers.max(1)),
            })
            .collect(),
        placement: Placement {
            host_layers: places.layers,
            host_experts: if layout.sized.experts > 0 { places.experts } else { places.layers },
            host_output: places.output,
        },
        host,
        host_calibration: host_calibration.as_ref(),
        backend: used.first().map_or(Backend::Cpu, |(device, _, _)| Backend::from(device.backend)),
        flash_attention: match question.flash_attention {
            FlashAttention::On => Some(true),
            FlashAttention::Off => Some(false),
            _ => None,
        },
        cache_bytes_per_element: match question.kv_type {
            KvType::Q8_0 => 34.0 / 32.0,
            KvType::Q4_0 => 18.0 / 32.0,
            _ => 2.0,
        },
        depth: question.depth.get().into(),
        prompt_tokens: 512,
        decode_tokens: 128,
        ubatch: question.ubatch,
        threads: None,
        built: None,
        engine: Engine::LlamaCpp,
        first_matrix_extension: false,
    };
    let answer = speed::estimate(&asked).ok()?;
    let calibrated = calibrations.iter().any(Option::is_some) || used.is_empty() && host_calibration.is_some();
    let basis = match (calibrated, used.first()) {
        (true, _) => "the machine's own benchmark".to_owned(),
        (false, Some((device, known, _))) => {
            format!(
                "what is published of {} and measured of others with {}",
                known.name,
                Backend::from(device.backend).name()
            )
        }
        (false, None) => format!("what is published of {}", host.map_or("the processor", |host| &host.name)),
    };
    Some(estimated(answer.prefill, answer.decode, question, basis))
}

/// From the machine's benchmark alone, where nobody knows what its devices are: each part takes the time that its own
/// device takes for it.
fn by_benchmark_alone(
    question: &Question,
    header: &GgufHeader,
    layout: &Layout,
    places: OnHost,
) -> Option<EstimatedSpeed> {
    let benchmark = question.benchmark.as_ref()?;
    let device = question.devices.iter().zip(&layout.devices).find(|(_, placed)| placed.layers > 0)?.0;
    let costs = ModelCosts::of(header).ok();
    // Experts weigh by what a token reads of them.
    let expert_share = costs.filter(|costs| costs.expert_count > 0.0).map_or(0.0, |costs| {
        let used = costs.experts_used / costs.expert_count;
        let sum = |weights: &[speed::Weights]| weights.iter().map(|weights| weights.bytes).sum::<f64>();
        let (dense, experts) = (sum(&costs.dense), sum(&costs.experts) * used);
        if dense + experts > 0.0 { experts / (dense + experts) } else { 0.0 }
    });
    let host = places.layers * (1.0 - expert_share) + places.experts * expert_share;
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a share of a count")]
    let part = |whole: u64, share: f64| (whole as f64 * share) as u64;
    let (bytes, parameters) = (header.bytes_per_token().get(), header.parameters_per_token());
    let seconds = |name: &str, share: f64| {
        if share <= 0.0 {
            return Some((0.0, 0.0));
        }
        let (prefill, decode) =
            speed::predict(benchmark, name, Bytes::new(part(bytes, share)), part(parameters, share));
        Some((1.0 / prefill?.get(), 1.0 / decode?.get()))
    };
    let ((gpu_prefill, gpu_decode), (cpu_prefill, cpu_decode)) =
        (seconds(&device.name, 1.0 - host)?, seconds(CPU, host)?);
    let interval = |seconds: f64, decode: bool| {
        let spread = Priors::shipped().spread(decode, "calibrated");
        let rate = |seconds: f64| TokensPerSecond::new(1.0 / seconds);
        Some(Interval {
            expected: rate(seconds)?,
            low: rate(seconds * spread.slower.exp())?,
            high: rate(seconds / spread.faster.exp())?,
        })
    };
    let (prefill, decode) = (interval(gpu_prefill + cpu_prefill, false)?, interval(gpu_decode + cpu_decode, true)?);
    Some(estimated(prefill, decode, question, "the machine's own benchmark, of an empty context".to_owned()))
}

fn estimated(prefill: Interval, decode: Interval, question: &Question, basis: String) -> EstimatedSpeed {
    EstimatedSpeed {
        prefill_tokens_per_second: prefill.expected,
        prefill_low: prefill.low,
        prefill_high: prefill.high,
        decode_tokens_per_second: decode.expected,
        decode_low: decode.low,
        decode_high: decode.high,
        depth: question.depth,
        basis,
    }
}
