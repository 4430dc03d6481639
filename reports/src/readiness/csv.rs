//! The report as comma-separated values: one line for each machine.

use muster_proto::{Bytes, MachineReadiness, ReadinessReport, SpeedRange, Timestamp};

use super::gpu_names;
use crate::layout::clean;

/// The values could not be written.
#[derive(Debug, thiserror::Error)]
#[error("cannot write the report as CSV")]
pub struct CsvError(#[source] Box<dyn std::error::Error + Send + Sync>);

const HEADER: [&str; 34] = [
    "hostname",
    "machine",
    "groups",
    "online",
    "role",
    "verdict",
    "model",
    "quantization",
    "context_tokens",
    "placement",
    "model_vram_bytes",
    "model_ram_bytes",
    "model_file_bytes",
    "prefill_tokens_per_second",
    "prefill_low",
    "prefill_high",
    "decode_tokens_per_second",
    "decode_low",
    "decode_high",
    "speed_measured",
    "reasons",
    "remedies",
    "gpus",
    "gpu_memory_bytes",
    "memory_bytes",
    "disk_free_bytes",
    "cpu",
    "os",
    "last_seen",
    "inventory_at",
    "benchmark_at",
    "what_if_verdict",
    "what_if_model",
    "what_if_quantization",
];

/// One line for each machine under a header. A text that a spreadsheet would take for a formula begins with an apostrophe.
///
/// # Errors
/// [`CsvError`]; not for any report.
pub fn readiness_csv(report: &ReadinessReport) -> Result<String, CsvError> {
    let mut writer = csv::Writer::from_writer(Vec::new());
    writer.write_record(HEADER).map_err(|error| CsvError(error.into()))?;
    for row in &report.machines {
        writer.write_record(record(row)).map_err(|error| CsvError(error.into()))?;
    }
    let bytes = writer.into_inner().map_err(|error| CsvError(error.into_error().into()))?;
    String::from_utf8(bytes).map_err(|error| CsvError(error.into()))
}

fn record(row: &MachineReadiness) -> [String; HEADER.len()] {
    let assessment = &row.assessment;
    let best = assessment.best.as_ref();
    let then = row.what_if.as_ref();
    let fitting = best.filter(|best| best.placement.is_some());
    let bytes = |bytes: Option<Bytes>| bytes.map_or_else(String::new, |bytes| bytes.get().to_string());
    let moment = |moment: Option<Timestamp>| moment.map_or_else(String::new, |moment| moment.to_string());
    let [prefill, prefill_low, prefill_high] = range(fitting.and_then(|best| best.prefill));
    let [decode, decode_low, decode_high] = range(fitting.and_then(|best| best.decode));
    let reasons: Vec<&str> = assessment.reasons.iter().map(|reason| reason.cause.word()).collect();
    let remedies: Vec<&str> = assessment.reasons.iter().filter_map(|reason| reason.remedy.as_deref()).collect();
    [
        text(&row.hostname),
        row.machine.to_string(),
        text(&row.groups.join(" ")),
        row.online.to_string(),
        text(&assessment.role),
        assessment.verdict.to_string(),
        best.map_or_else(String::new, |best| text(&best.model)),
        best.map_or_else(String::new, |best| text(&best.quantization)),
        best.and_then(|best| best.context).map_or_else(String::new, |context| context.get().to_string()),
        best.and_then(|best| best.placement).map_or_else(String::new, |placement| placement.to_string()),
        bytes(best.map(|best| best.vram)),
        bytes(best.map(|best| best.ram)),
        bytes(best.map(|best| best.file)),
        prefill,
        prefill_low,
        prefill_high,
        decode,
        decode_low,
        decode_high,
        fitting.map_or_else(String::new, |best| best.measured.to_string()),
        reasons.join(" "),
        text(&remedies.join("; ")),
        text(&gpu_names(row)),
        bytes(row.discrete_memory()),
        bytes(row.memory_total),
        bytes(row.disk_free),
        text(row.cpu.as_deref().unwrap_or_default()),
        text(row.os.as_deref().unwrap_or_default()),
        moment(row.facts.seen),
        moment(row.facts.inventory),
        moment(row.facts.benchmark),
        then.map_or_else(String::new, |then| then.verdict.to_string()),
        text(then.and_then(|then| then.model.as_deref()).unwrap_or_default()),
        text(then.and_then(|then| then.quantization.as_deref()).unwrap_or_default()),
    ]
}

fn range(range: Option<SpeedRange>) -> [String; 3] {
    let number = |rate: f64| format!("{rate:.2}");
    match range {
        Some(range) => [range.expected, range.low, range.high].map(|rate| number(rate.get())),
        None => Default::default(),
    }
}

/// On one line, and no formula to any spreadsheet.
fn text(value: &str) -> String {
    let value = clean(value).replace('\n', " ");
    if value.trim_start().starts_with(['=', '+', '-', '@']) { format!("'{value}") } else { value }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_name_is_a_formula() {
        for evil in ["=HYPERLINK(\"http://x\")", "+1", "-1", "@SUM(A1)", " =1", "\t=1"] {
            assert!(text(evil).starts_with('\''), "{evil}");
        }
        assert_eq!(text("desk-7"), "desk-7");
        assert_eq!(text("two\nlines"), "two lines");
    }
}
