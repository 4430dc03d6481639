//! The report as a workbook: sheets with typed columns, frozen headers and filters.

use muster_proto::{Bytes, ReadinessReport, SpeedRange, Timestamp};
use rust_xlsxwriter::{DocProperties, ExcelDateTime, Format, Workbook, Worksheet, XlsxError};

use super::page::bin_words;
use super::{change_words, gpu_names, gpu_use, reason_words, role_words, verdict_word};
use crate::layout::clean;

/// The workbook could not be made.
#[derive(Debug, thiserror::Error)]
#[error("cannot make the workbook")]
pub struct WorkbookError(#[from] XlsxError);

/// What a cell holds.
enum Value {
    Text(String),
    Number(f64),
    /// Bytes, shown as GiB.
    Gib(Bytes),
    Moment(Timestamp),
    Truth(bool),
    Empty,
}

impl Value {
    fn text(text: impl AsRef<str>) -> Self {
        Self::Text(clean(text.as_ref()))
    }

    fn optional_text(text: Option<impl AsRef<str>>) -> Self {
        text.map_or(Self::Empty, Self::text)
    }

    fn bytes(bytes: Option<Bytes>) -> Self {
        bytes.map_or(Self::Empty, Self::Gib)
    }

    fn moment(moment: Option<Timestamp>) -> Self {
        moment.map_or(Self::Empty, Self::Moment)
    }
}

/// A column: its title and width.
type Column = (&'static str, f64);

struct Formats {
    header: Format,
    decimal: Format,
    whole: Format,
    moment: Format,
    title: Format,
}

impl Formats {
    fn new() -> Self {
        Self {
            header: Format::new().set_bold().set_background_color("#E3E8EF").set_text_wrap(),
            decimal: Format::new().set_num_format("#,##0.0"),
            whole: Format::new().set_num_format("#,##0"),
            moment: Format::new().set_num_format("yyyy-mm-dd hh:mm"),
            title: Format::new().set_bold().set_font_size(14),
        }
    }
}

/// A workbook with the sheets Summary, Machines, GPUs and Models. Memory is in GiB, speed in tokens a second, moments are
/// dates in UTC.
///
/// # Errors
/// [`WorkbookError`]; for more rows than a sheet has.
pub fn readiness_xlsx(report: &ReadinessReport) -> Result<Vec<u8>, WorkbookError> {
    let mut workbook = Workbook::new();
    // The moment of the report, so that the same report makes the same file.
    workbook.set_properties(&DocProperties::new().set_title("Readiness").set_creation_datetime(&moment(report.at)?));
    let formats = Formats::new();
    summary(workbook.add_worksheet().set_name("Summary")?, report, &formats)?;
    machines(workbook.add_worksheet().set_name("Machines")?, report, &formats)?;
    gpus(workbook.add_worksheet().set_name("GPUs")?, report, &formats)?;
    models(workbook.add_worksheet().set_name("Models")?, report, &formats)?;
    Ok(workbook.save_to_buffer()?)
}

fn moment(moment: Timestamp) -> Result<ExcelDateTime, XlsxError> {
    // Workbooks begin in 1900 and end with 9999.
    ExcelDateTime::from_timestamp(moment.unix_millis().div_euclid(1000).clamp(-2_208_988_800, 253_402_300_799))
}

fn write(sheet: &mut Worksheet, row: u32, column: u16, value: &Value, formats: &Formats) -> Result<(), XlsxError> {
    match value {
        Value::Text(text) => sheet.write_string(row, column, text.chars().take(32_000).collect::<String>())?,
        Value::Number(number) => {
            let whole = number.fract() == 0.0;
            sheet.write_number_with_format(
                row,
                column,
                *number,
                if whole { &formats.whole } else { &formats.decimal },
            )?
        }
        Value::Gib(bytes) => {
            sheet.write_number_with_format(row, column, bytes.get() as f64 / (1u64 << 30) as f64, &formats.decimal)?
        }
        Value::Moment(time) => sheet.write_datetime_with_format(row, column, moment(*time)?, &formats.moment)?,
        Value::Truth(truth) => sheet.write_boolean(row, column, *truth)?,
        Value::Empty => sheet,
    };
    Ok(())
}

/// A header that stays, rows, and filters over all of it.
fn table(
    sheet: &mut Worksheet,
    columns: &[Column],
    rows: impl Iterator<Item = Vec<Value>>,
    formats: &Formats,
) -> Result<(), XlsxError> {
    for (column, (title, width)) in (0..).zip(columns) {
        sheet.write_string_with_format(0, column, *title, &formats.header)?;
        sheet.set_column_width(column, *width)?;
    }
    let mut last = 0;
    for (row, values) in (1..).zip(rows) {
        for (column, value) in (0..).zip(&values) {
            write(sheet, row, column, value, formats)?;
        }
        last = row;
    }
    sheet.set_freeze_panes(1, 1)?;
    let last_column = u16::try_from(columns.len().saturating_sub(1)).unwrap_or(u16::MAX);
    sheet.autofilter(0, 0, last, last_column)?;
    sheet.set_landscape().set_print_fit_to_pages(1, 0).set_repeat_rows(0, 0)?;
    Ok(())
}

fn summary(sheet: &mut Worksheet, report: &ReadinessReport, formats: &Formats) -> Result<(), XlsxError> {
    let summary = &report.summary;
    sheet.set_column_width(0, 34)?.set_column_width(1, 34)?.set_column_width(2, 12)?;
    sheet.write_string_with_format(0, 0, format!("Readiness for {}", clean(&report.role.name)), &formats.title)?;
    let mut row = 1;
    let mut line = |name: &str, values: &[Value]| -> Result<(), XlsxError> {
        sheet.write_string(row, 0, name)?;
        for (column, value) in (1..).zip(values) {
            write(sheet, row, column, value, formats)?;
        }
        row += 1;
        Ok(())
    };
    let number = |count: u32| Value::Number(count.into());
    line("wanted", &[Value::text(role_words(&report.role))])?;
    line("group", &[Value::text(report.group.as_deref().unwrap_or("all machines"))])?;
    line("made (UTC)", &[Value::Moment(report.at)])?;
    line("machines", &[number(summary.machines)])?;
    line("ready", &[number(summary.ready)])?;
    line("not ready", &[number(summary.not_ready)])?;
    line("unknown", &[number(summary.unknown)])?;
    line("", &[])?;
    line("What stands in the way", &[Value::text("machines")])?;
    for (word, machines) in &summary.reasons {
        line(&reason_words(word), &[number(*machines)])?;
    }
    if let Some(words) = change_words(report) {
        line("", &[])?;
        line("What if", &[Value::text(words)])?;
    }
    if !report.remedies.is_empty() {
        line("", &[])?;
        line("Makes machines ready, alone", &[Value::text("machines")])?;
        for remedy in &report.remedies {
            line(&remedy.change.to_string(), &[number(remedy.machines)])?;
        }
    }
    line("", &[])?;
    line("Memory of discrete GPUs", &[Value::text("machines")])?;
    for bin in &summary.vram {
        line(&bin_words(bin), &[number(bin.machines)])?;
    }
    line("", &[])?;
    line("Largest model for a share of the machines", &[Value::text("model"), Value::text("machines")])?;
    for level in &summary.coverage {
        let model = Value::text(level.name.as_deref().unwrap_or("no model runs on so many"));
        line(&format!("{} %", level.percent), &[model, number(level.machines)])?;
    }
    Ok(())
}

fn range(range: Option<SpeedRange>) -> [Value; 3] {
    match range {
        Some(range) => {
            [range.expected, range.low, range.high].map(|rate| Value::Number((rate.get() * 10.0).round() / 10.0))
        }
        None => [Value::Empty, Value::Empty, Value::Empty],
    }
}

const MACHINES: [Column; 32] = [
    ("Machine", 24.0),
    ("Verdict", 11.0),
    ("Reasons", 40.0),
    ("Remedies", 40.0),
    ("Model", 30.0),
    ("Quantization", 13.0),
    ("Context (tokens)", 11.0),
    ("Placement", 11.0),
    ("Prefill (tok/s)", 10.0),
    ("Prefill low", 10.0),
    ("Prefill high", 10.0),
    ("Decode (tok/s)", 10.0),
    ("Decode low", 10.0),
    ("Decode high", 10.0),
    ("Speed measured", 10.0),
    ("Model on GPU (GiB)", 11.0),
    ("Model in RAM (GiB)", 11.0),
    ("GPUs", 32.0),
    ("GPU memory (GiB)", 11.0),
    ("RAM (GiB)", 10.0),
    ("Disk free (GiB)", 10.0),
    ("Processor", 30.0),
    ("System", 24.0),
    ("Groups", 20.0),
    ("Online", 8.0),
    ("Last seen (UTC)", 17.0),
    ("Inventory (UTC)", 17.0),
    ("Benchmark (UTC)", 17.0),
    ("Typical use until (UTC)", 17.0),
    ("What if: verdict", 11.0),
    ("What if: model", 36.0),
    ("Id", 38.0),
];

fn machines(sheet: &mut Worksheet, report: &ReadinessReport, formats: &Formats) -> Result<(), XlsxError> {
    let rows = report.machines.iter().map(|row| {
        let assessment = &row.assessment;
        let best = assessment.best.as_ref();
        let fitting = best.filter(|best| best.placement.is_some());
        let causes: Vec<String> = assessment.reasons.iter().map(|reason| reason.cause.to_string()).collect();
        let remedies: Vec<&str> = assessment.reasons.iter().filter_map(|reason| reason.remedy.as_deref()).collect();
        let [prefill, prefill_low, prefill_high] = range(fitting.and_then(|best| best.prefill));
        let [decode, decode_low, decode_high] = range(fitting.and_then(|best| best.decode));
        vec![
            Value::text(&row.hostname),
            Value::text(verdict_word(assessment.verdict)),
            Value::text(causes.join("; ")),
            Value::text(remedies.join("; ")),
            Value::optional_text(best.map(|best| &best.name)),
            Value::optional_text(best.map(|best| &best.quantization)),
            best.and_then(|best| best.context).map_or(Value::Empty, |context| Value::Number(context.get().into())),
            Value::optional_text(best.and_then(|best| best.placement).map(|placement| placement.to_string())),
            prefill,
            prefill_low,
            prefill_high,
            decode,
            decode_low,
            decode_high,
            fitting.map_or(Value::Empty, |best| Value::Truth(best.measured)),
            Value::bytes(best.map(|best| best.vram)),
            Value::bytes(best.map(|best| best.ram)),
            Value::text(gpu_names(row)),
            Value::bytes(row.discrete_memory()),
            Value::bytes(row.memory_total),
            Value::bytes(row.disk_free),
            Value::optional_text(row.cpu.as_ref()),
            Value::optional_text(row.os.as_ref()),
            Value::text(row.groups.join(", ")),
            Value::Truth(row.online),
            Value::moment(row.facts.seen),
            Value::moment(row.facts.inventory),
            Value::moment(row.facts.benchmark),
            Value::moment(row.facts.typical),
            Value::optional_text(row.what_if.as_ref().map(|then| verdict_word(then.verdict))),
            Value::optional_text(row.what_if.as_ref().and_then(|then| then.model.clone()).map(|model| {
                let quantization = row.what_if.as_ref().and_then(|then| then.quantization.as_deref());
                format!("{model} {}", quantization.unwrap_or_default())
            })),
            Value::text(row.machine.to_string()),
        ]
    });
    table(sheet, &MACHINES, rows, formats)
}

const GPUS: [Column; 8] = [
    ("Machine", 24.0),
    ("GPU", 36.0),
    ("Vendor", 10.0),
    ("Kind", 15.0),
    ("Memory (GiB)", 11.0),
    ("Free (GiB)", 11.0),
    ("Driver", 24.0),
    ("Use", 60.0),
];

fn gpus(sheet: &mut Worksheet, report: &ReadinessReport, formats: &Formats) -> Result<(), XlsxError> {
    let rows = report.machines.iter().flat_map(|row| {
        row.gpus.iter().map(move |gpu| {
            vec![
                Value::text(&row.hostname),
                Value::text(&gpu.name),
                Value::optional_text(gpu.vendor.map(|vendor| vendor.to_string())),
                Value::text(gpu.kind.to_string().replace('_', " ")),
                Value::bytes(gpu.memory_total),
                Value::bytes(gpu.memory_free),
                Value::optional_text(gpu.driver.as_ref()),
                Value::text(gpu_use(gpu)),
            ]
        })
    });
    table(sheet, &GPUS, rows, formats)
}

const MODELS: [Column; 5] =
    [("Model", 36.0), ("Id", 30.0), ("Parameters (billions)", 13.0), ("Counts for the role", 12.0), ("Machines", 11.0)];

fn models(sheet: &mut Worksheet, report: &ReadinessReport, formats: &Formats) -> Result<(), XlsxError> {
    let rows = report.models.iter().map(|model| {
        vec![
            Value::text(&model.name),
            Value::text(&model.model),
            Value::Number(model.parameters as f64 / 1e9),
            Value::Truth(model.counts),
            Value::Number(model.machines.into()),
        ]
    });
    table(sheet, &MODELS, rows, formats)
}
