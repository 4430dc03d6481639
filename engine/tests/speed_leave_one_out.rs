//! The figures of the speed priors, computed again from the committed measurements: each device predicted by what is
//! learnt from all others; and whether what is learnt stays within reason on every known device. Arithmetic only; nothing is
//! timed.

#[path = "../examples/fit_speed/data.rs"]
#[expect(dead_code, reason = "the example prints more of a row than the test needs")]
mod data;
#[path = "../examples/fit_speed/evaluate.rs"]
mod evaluate;
#[path = "../examples/fit_speed/fit.rs"]
mod fit;

use data::Row;
use evaluate::Figures;
use muster_engine::device_table::{self, KnownDevice};
use muster_engine::speed::{Backend, ModelCosts, ModelFacts, Priors, SpeedError, SpeedQuestion, estimate};
use serde_json::Value;

#[test]
fn priors_predict_devices_that_they_were_not_learnt_from() {
    let data = data::read().expect("the data files are whole");
    assert_eq!((data.rows.len(), data.left_out.len()), (722, 2), "OpenCL's two rows are left out");
    let (priors, judged) = evaluate::run(&data);
    assert_eq!(priors.to_json(), Priors::shipped().to_json(), "run the example fit_speed with --write");
    let figures = |pass: &dyn Fn(&Row) -> bool| Figures::of(&judged, pass).expect("rows");
    for (name, pass, median, p90) in CLAIMS {
        let found = figures(pass);
        println!(
            "{name}: {} rows, {} devices, {:.1} / {:.1} %",
            found.rows,
            found.devices,
            found.median * 100.0,
            found.p90 * 100.0
        );
        assert!(found.median <= *median, "{name}: median {:.3}", found.median);
        assert!(found.p90 <= *p90, "{name}: p90 {:.3}", found.p90);
    }
    for decode in [true, false] {
        let held = figures(&|row| row.decode == decode).held;
        assert!((0.75..=0.88).contains(&held), "80 % intervals hold {held:.3}");
        let held = figures(&|row| row.decode == decode && row.experts).held;
        assert!((0.75..=0.88).contains(&held), "80 % intervals of experts hold {held:.3}");
    }
    let held = figures(&|row| row.depth > 0).held;
    assert!((0.75..=0.88).contains(&held), "80 % intervals at depth hold {held:.3}");
}

/// Of every device and backend, also those without any measurement: no faster than its published bandwidth and matrix units,
/// and not absurdly slower.
#[test]
fn every_known_device_gets_a_speed_within_reason() {
    let models: Vec<Value> = include_str!("../data/reference_models.jsonl")
        .lines()
        .map(|line| serde_json::from_str(line).expect("a line of the data file"))
        .collect();
    let mut asked = 0;
    for (id, quantization) in [("llama-3.1-8b", "Q4_K_M"), ("gpt-oss-20b", "MXFP4")] {
        let facts = models.iter().find(|model| model["id"] == id).expect("a reference model");
        let costs = ModelCosts::from_facts(&ModelFacts::from_json(facts), quantization, None).expect("whole");
        for device in device_table::all() {
            for backend in [Backend::Cuda, Backend::Rocm, Backend::Vulkan, Backend::Metal, Backend::Cpu] {
                if device.is_cpu() != (backend == Backend::Cpu) {
                    continue;
                }
                let speed = match estimate(&SpeedQuestion::on(&costs, device, backend)) {
                    Ok(speed) => speed,
                    Err(SpeedError::Backend { .. }) => continue,
                    Err(error) => panic!("{}: {error}", device.key),
                };
                asked += 1;
                let (prefill, decode) = (speed.prefill.expected.get(), speed.decode.expected.get());
                let of_bandwidth = decode * costs.bytes_per_token() / device.bandwidth.expect("tested");
                let operations = prefill * 2.0 * costs.parameters_per_token() / peak(device);
                let what = format!(
                    "{id} {} {}: prefill {prefill:.0} ({operations:.2} of the peak), decode {decode:.1} \
                     ({of_bandwidth:.2} of the bandwidth)",
                    device.key,
                    backend.name()
                );
                println!("{what}");
                assert!((0.03..1.05).contains(&of_bandwidth), "{what}");
                assert!((0.002..1.0).contains(&operations), "{what}");
                assert!(speed.decode.low.get() < decode && decode < speed.decode.high.get(), "{what}");
            }
        }
    }
    assert!(asked > 2 * 226, "{asked} questions");
}

/// More operations a second than a device can do on products of bytes: eight times its published FP32 or twice its matrix
/// units' FP16; of a CPU, 128 for each core and clock, and 16 times that with matrix units.
fn peak(device: &KnownDevice) -> f64 {
    if let Some(cpu) = &device.cpu {
        let wide = if cpu.instructions == "amx" { 16.0 } else { 1.0 };
        return f64::from(cpu.cores) * cpu.ghz * 1e9 * 128.0 * wide;
    }
    let apple = device.gpu_cores.map_or(64.0, f64::from) * 0.42e12;
    let fp32 = device.fp32.or(device.fp16.map(|fp16| fp16 / 2.0)).unwrap_or(apple);
    (8.0 * fp32).max(2.0 * device.fp16_matrix.unwrap_or(0.0))
}

/// Whether a row counts.
type Pass = fn(&Row) -> bool;

/// Medians and ninth deciles that docs/benchmarks.md claims, rounded up.
const CLAIMS: &[(&str, &Pass, f64, f64)] = &[
    ("decode", &((|row| row.decode) as Pass), 0.085, 0.345),
    ("decode on GPUs", &((|row| row.decode && row.backend.name() != "cpu") as Pass), 0.07, 0.27),
    ("decode, CUDA", &((|row| row.decode && row.backend.name() == "cuda") as Pass), 0.08, 0.28),
    ("decode, experts", &((|row| row.decode && row.experts) as Pass), 0.12, 0.31),
    ("prefill", &((|row| !row.decode) as Pass), 0.145, 0.53),
    ("prefill on GPUs", &((|row| !row.decode && row.backend.name() != "cpu") as Pass), 0.115, 0.46),
    ("prefill, CUDA", &((|row| !row.decode && row.backend.name() == "cuda") as Pass), 0.135, 0.37),
    ("prefill, Metal", &((|row| !row.decode && row.backend.name() == "metal") as Pass), 0.04, 0.25),
    ("at depth", &((|row| row.depth > 0) as Pass), 0.12, 0.71),
];
