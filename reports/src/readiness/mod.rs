//! What a fleet or a machine is ready for: for a terminal, as CSV, as a workbook, as a page with charts.
//!
//! Owns: the forms. What is true of a machine is decided elsewhere; here is only said in words. Names of machines and parts
//! come from desks, which may be hostile: every form disarms them in its own way (terminal: no control characters; CSV: no
//! formulas; HTML: escaped; workbook: written as text).

mod audit;
mod chart;
mod csv;
mod html;
mod page;
mod workbook;

use muster_proto::{
    FleetGpu, MachineReadiness, ModelPlacement, ModelVerdict, Readiness, ReadinessReason, ReadinessReport, RoleProfile,
    SpeedRange,
};

use crate::style::Tone;

pub use audit::{audit_html, audit_table};
pub use csv::{CsvError, readiness_csv};
pub use html::readiness_html;
pub use page::{assessments_table, readiness_page};
pub use workbook::{WorkbookError, readiness_xlsx};

/// `not ready`.
fn verdict_word(verdict: Readiness) -> String {
    verdict.to_string().replace('_', " ")
}

fn verdict_tone(verdict: Readiness) -> Tone {
    match verdict {
        Readiness::Ready => Tone::Good,
        Readiness::NotReady => Tone::Bad,
        _ => Tone::Waiting,
    }
}

/// `Llama 3.1 8B Instruct Q4_K_M`.
fn model_words(best: &ModelVerdict) -> String {
    format!("{} {}", best.name, best.quantization)
}

/// `on GPU`, `9/16 on GPU`, `in main memory`.
fn placement_words(best: &ModelVerdict) -> Option<String> {
    Some(match best.placement? {
        ModelPlacement::Gpu => "on GPU".to_owned(),
        ModelPlacement::Cpu => "in main memory".to_owned(),
        ModelPlacement::Partial => format!("{:.0} % on GPU", best.on_gpu * 100.0),
        other => other.to_string(),
    })
}

/// `45.1 (38.0–52.3)`, in tokens a second.
fn range_words(range: &SpeedRange) -> String {
    let number = |rate: f64| match rate {
        rate if rate < 10.0 => format!("{rate:.1}"),
        rate => format!("{rate:.0}"),
    };
    let [expected, low, high] = [range.expected, range.low, range.high].map(|rate| number(rate.get()));
    format!("{expected} ({low}–{high})")
}

/// `vram short`, from the word that reasons are counted by.
fn reason_words(word: &str) -> String {
    word.replace('_', " ")
}

/// All reasons, the first first.
fn reasons_words(reasons: &[ReadinessReason]) -> String {
    reasons.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
}

/// `8.0 B`.
fn parameters_words(parameters: u64) -> String {
    let billions = parameters as f64 / 1e9;
    if billions < 10.0 { format!("{billions:.1} B") } else { format!("{billions:.0} B") }
}

/// What the role wants, in one sentence.
fn role_words(role: &RoleProfile) -> String {
    let mut wanted = vec![
        format!(
            "{} model of {} to {}",
            role.purpose,
            parameters_words(role.parameters_least),
            parameters_words(role.parameters_most)
        ),
        format!("{} or better", role.least_quantization),
        format!("{} of context", role.context),
    ];
    wanted.extend(role.prefill_floor.map(|floor| format!("prefill from {floor}")));
    wanted.extend(role.decode_floor.map(|floor| format!("decode from {floor}")));
    wanted.join(", ")
}

/// What keeps a GPU from being used, or what it is used as.
fn gpu_use(gpu: &FleetGpu) -> String {
    match (&gpu.engine_device, &gpu.obstacle) {
        (Some(device), _) => format!("usable as {device}"),
        (None, Some(obstacle)) => match &obstacle.remedy {
            Some(remedy) => format!("{}: {remedy}", obstacle.text),
            None => obstacle.text.clone(),
        },
        (None, None) => "not used".to_owned(),
    }
}

/// `ready with Llama 3.1 8B Instruct Q8_0`, of a machine that the report's change would make ready.
fn ready_then(row: &MachineReadiness) -> Option<String> {
    let then = row.what_if.as_ref().filter(|then| then.verdict == Readiness::Ready)?;
    let model = [then.model.as_deref(), then.quantization.as_deref()].into_iter().flatten().collect::<Vec<_>>();
    Some(format!("ready with {}", model.join(" ")))
}

/// What the report's change comes to, in one sentence.
fn change_words(report: &ReadinessReport) -> Option<String> {
    let (change, then) = (report.what_if.as_ref()?, report.summary.what_if?);
    let machines =
        if then.made_ready == 1 { "1 machine more".into() } else { format!("{} machines more", then.made_ready) };
    Some(format!("{change}: {} ready, {machines}; {} not ready, {} unknown", then.ready, then.not_ready, then.unknown))
}

fn gpu_names(row: &MachineReadiness) -> String {
    row.gpus.iter().map(|gpu| gpu.name.as_str()).collect::<Vec<_>>().join(", ")
}
