//! Public measurements as questions: `tests/data/throughput.jsonl` joined with models and devices.
//!
//! Each row names its model in `data/reference_models.jsonl` or `tests/data/throughput_models.jsonl` (`reference`), and
//! its engine's age (`year`; where a source gives only months of collecting, their middle).

use std::collections::BTreeMap;
use std::error::Error;

use muster_engine::device_table::{self, KnownDevice};
use muster_engine::speed::{
    Backend, DeviceShare, Engine, ModelCosts, ModelFacts, Placement, SpeedQuestion, physics, physics::Term, work,
};
use serde_json::Value;

/// One measurement.
pub struct Row {
    /// Its number in the data.
    pub id: String,
    /// The device, which is left out as a whole.
    pub device: &'static KnownDevice,
    /// The backend.
    pub backend: Backend,
    /// What runs.
    pub test: String,
    /// Model, quantization, flash attention and year, for people.
    pub label: String,
    /// When the engine was built.
    pub year: f64,
    /// Whether it decodes.
    pub decode: bool,
    /// Tokens in the context before.
    pub depth: u64,
    /// Whether the model has experts.
    pub experts: bool,
    /// Whether part of the model is on the host.
    pub split: bool,
    /// Tokens a second.
    pub measured: f64,
    /// Seconds per token, as terms.
    pub terms: Vec<Term>,
}

/// Rows of the data, and why some were left out.
pub struct Data {
    /// Rows of backends that the product has.
    pub rows: Vec<Row>,
    /// Those of others.
    pub left_out: Vec<String>,
}

/// Reads the files of the repository.
///
/// # Errors
/// A row that cannot be joined.
pub fn read() -> Result<Data, Box<dyn Error>> {
    let mut facts = BTreeMap::new();
    for text in
        [include_str!("../../data/reference_models.jsonl"), include_str!("../../tests/data/throughput_models.jsonl")]
    {
        for line in text.lines() {
            let value: Value = serde_json::from_str(line)?;
            facts.insert(value["id"].as_str().ok_or("a model without id")?.to_owned(), ModelFacts::from_json(&value));
        }
    }
    let mut data = Data { rows: Vec::new(), left_out: Vec::new() };
    for line in include_str!("../../tests/data/throughput.jsonl").lines() {
        let value: Value = serde_json::from_str(line)?;
        let id = value["id"].as_str().ok_or("a row without id")?.to_owned();
        match row(&value, &facts).map_err(|error| format!("{id}: {error}"))? {
            Some(row) => data.rows.push(row),
            None => data.left_out.push(format!("{id}: no backend {}", value["backend"])),
        }
    }
    Ok(data)
}

fn row(value: &Value, facts: &BTreeMap<String, ModelFacts>) -> Result<Option<Row>, Box<dyn Error>> {
    let text = |field: &str| value[field].as_str().unwrap_or_default();
    let number = |field: &str| value[field].as_f64();
    let Some(backend) = Backend::from_name(text("backend")) else { return Ok(None) };
    let reference = text("reference");
    let model = facts.get(reference).ok_or_else(|| format!("no model {reference:?}"))?;
    // "Q4_0 (5.61 GiB file)": its embedding and output are F16, which only the size tells.
    let quantization = quantization(text("quant"));
    let gib = number("size_gib").ok_or("no size")?;
    let costs = ModelCosts::from_facts(model, quantization, Some(gib * f64::from(1 << 30)))?;
    let device =
        device_table::by_key(text("device_key")).ok_or_else(|| format!("no device {}", value["device_key"]))?;
    let mut question = SpeedQuestion::on(&costs, device, backend);
    let decode = text("test_kind") == "tg";
    let tokens = value["n_tokens"].as_u64().ok_or("no tokens")?;
    question.prompt_tokens = tokens;
    question.decode_tokens = tokens;
    question.depth = value["depth"].as_u64().unwrap_or(0);
    question.flash_attention = value["flash_attn"].as_u64().map(|on| on == 1);
    if let Some(ubatch) = value["n_ubatch"].as_u64() {
        question.ubatch = u32::try_from(ubatch)?;
    }
    if !decode || backend == Backend::Cpu {
        question.threads = value["threads"].as_u64().map(u32::try_from).transpose()?;
    }
    question.built = number("year");
    if text("engine").starts_with("ik_") {
        question.engine = Engine::IkLlamaCpp;
    }
    question.first_matrix_extension = text("settings") == "KHR_coopmat";
    let devices = number("n_devices").unwrap_or(1.0).max(1.0);
    let split = matches!(text("offload"), "partial" | "experts_cpu");
    if split {
        let host_layers = number("host_layers").unwrap_or(0.0);
        let host_experts = number("host_experts").unwrap_or(0.0);
        question.placement =
            Placement { host_layers, host_experts, host_output: value["host_output"].as_bool().unwrap_or(false) };
        question.host = value["host_key"].as_str().and_then(device_table::by_key);
    }
    if backend != Backend::Cpu {
        let each = (1.0 - question.placement.host_layers) / devices;
        let share = DeviceShare { device, calibration: None, layers: each };
        question.devices = std::iter::repeat_n(share, devices.round().to_string().parse()?).collect();
    }
    let work = work(&question, decode)?;
    let terms = if decode { physics::decode(&work) } else { physics::prefill(&work) };
    Ok(Some(Row {
        id: text("id").to_owned(),
        device,
        backend,
        test: text("test").to_owned(),
        label: format!(
            "{reference} {} x{devices} fa {} {} {}",
            text("quant"),
            value["flash_attn"],
            number("year").unwrap_or(0.0),
            if split { "split" } else { "" },
        ),
        year: number("year").unwrap_or(0.0),
        decode,
        depth: question.depth,
        experts: costs.expert_count > 0.0,
        split,
        measured: number("tps").ok_or("no speed")?,
        terms,
    }))
}

/// llama.cpp's name of what the sources write.
fn quantization(written: &str) -> &str {
    match written.split(' ').next().unwrap_or_default() {
        "Q4_K_R4" => "Q4_K_S",
        "Q4_K_XL" => "Q4_K_M",
        "smol-IQ3_K" => "IQ3_K",
        other => other,
    }
}
