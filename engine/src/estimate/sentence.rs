//! The answer in one plain sentence.

use std::fmt::Write as _;

use muster_proto::{Bytes, Change, Estimate, grouped};

/// Says whether it fits, with how much to spare or missing, and what would fit instead.
pub(super) fn sentence(estimate: &Estimate) -> String {
    let Estimate { fits, short_bytes, full_offload_short_bytes, .. } = estimate;
    match (fits, full_offload_short_bytes) {
        (true, Some(short)) => format!(
            "{}; short by {short} for all of it: {}",
            placed(estimate),
            instead(estimate).unwrap_or_else(|| "nothing smaller would fit".into())
        ),
        (true, None) => fitting(estimate),
        (false, _) => format!(
            "short by {short_bytes}{}: {}",
            whereabouts(estimate),
            instead(estimate).unwrap_or_else(|| nothing(estimate).into())
        ),
    }
}

/// `fits with 3.1 GiB to spare`, with what llama.cpp had to change for it.
fn fitting(estimate: &Estimate) -> String {
    let mut words = String::from("fits");
    let streams = if estimate.settings.kv_unified { 1 } else { estimate.settings.parallel.max(1) };
    let trained = u64::from(estimate.model.context_train.get()) * u64::from(streams);
    let context = u64::from(estimate.n_ctx.get());
    if estimate.context_shrank {
        let _ = write!(words, " at {} of {} tokens", grouped(context), grouped(trained));
    }
    let spare = estimate.spare_bytes.filter(|spare| *spare > Bytes::ZERO);
    match (&estimate.devices[..], spare) {
        ([], None) if estimate.host.memory_bytes.is_none() => {
            words = format!("takes {} of main memory", estimate.host.used());
        }
        (_, None) => words += " with nothing to spare",
        ([] | [_], Some(spare)) => {
            let _ = write!(words, " with {spare} to spare");
        }
        (_, Some(spare)) => {
            let _ = write!(words, " with at least {spare} to spare on each device");
        }
    }
    if !estimate.devices.is_empty() && (left(estimate) || estimate.partial_layers > 0) {
        let _ = write!(words, ", {}", placed(estimate));
    }
    words
}

/// Whether layers are in main memory.
fn left(estimate: &Estimate) -> bool {
    estimate.gpu_layers < estimate.total_layers
}

/// `20 of 33 layers on the device`, `the experts of 12 layers in main memory`.
fn placed(estimate: &Estimate) -> String {
    let devices = if estimate.devices.len() == 1 { "the device" } else { "the devices" };
    let layers = format!("{} of {} layers on {devices}", estimate.gpu_layers, estimate.total_layers);
    let parts = partial(estimate, estimate.partial_layers);
    match (left(estimate), estimate.partial_layers > 0) {
        (_, false) => layers,
        (false, true) => parts,
        (true, true) => format!("{layers}, {parts}"),
    }
}

/// `the experts of 12 layers in main memory`.
fn partial(estimate: &Estimate, layers: u32) -> String {
    let what = if estimate.model.experts > 0 { "the experts" } else { "a part" };
    let layers = if layers == 1 { "one layer".to_owned() } else { format!("{layers} layers") };
    format!("{what} of {layers} in main memory")
}

/// Where it is short, where there is more than one place.
fn whereabouts(estimate: &Estimate) -> String {
    let short: Vec<&str> = estimate
        .devices
        .iter()
        .filter(|device| device.short_bytes > Bytes::ZERO)
        .map(|device| device.name.as_str())
        .collect();
    match (&short[..], estimate.devices.len()) {
        ([], _) => " of main memory".into(),
        (_, 1) => String::new(),
        (names, _) => format!(" on {}", names.join(", ")),
    }
}

/// `would fit at 4,096 tokens or Q4_K_S`.
fn instead(estimate: &Estimate) -> Option<String> {
    let said: Vec<String> = estimate
        .alternatives
        .iter()
        .map(|alternative| match &alternative.change {
            Change::Context { n_ctx } => format!("at {} tokens", grouped(n_ctx.get())),
            Change::KvCache { kv_type } => format!("with a {kv_type} KV cache"),
            Change::Quantization { quantization } => format!("as {quantization}"),
            Change::Offload { gpu_layers, partial_layers: 0 } => {
                format!("with {gpu_layers} of {} layers on devices", estimate.total_layers)
            }
            Change::Offload { gpu_layers, partial_layers } if *gpu_layers == estimate.total_layers => {
                format!("with {}", partial(estimate, *partial_layers))
            }
            Change::Offload { gpu_layers, partial_layers } => format!(
                "with {gpu_layers} of {} layers on devices and {}",
                estimate.total_layers,
                partial(estimate, *partial_layers)
            ),
        })
        .collect();
    let (last, others) = said.split_last()?;
    Some(if others.is_empty() {
        format!("would fit {last}")
    } else {
        format!("would fit {} or {last}", others.join(", "))
    })
}

fn nothing(estimate: &Estimate) -> &'static str {
    if estimate.devices.is_empty() {
        "it needs a machine with more memory"
    } else {
        "it needs a larger or another device"
    }
}
