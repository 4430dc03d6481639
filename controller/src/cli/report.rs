//! `muster report`.

use std::fs;
use std::io::{IsTerminal as _, Write as _};
use std::path::Path;

use muster_proto::{ReadinessReport, WhatIf, wire};
use muster_reports::{readiness_csv, readiness_html, readiness_page, readiness_xlsx};

use super::args::{ReadinessArgs, ReportFormat};
use super::estimate::WrittenSize;
use super::output::Output;
use super::{Client, Failure};

pub(super) async fn readiness(client: &mut Client, arguments: &ReadinessArgs, output: &Output) -> Result<(), Failure> {
    let file = arguments.output.as_deref();
    let format = arguments.format.or_else(|| file.and_then(by_ending));
    let format = format.unwrap_or(if output.json { ReportFormat::Json } else { ReportFormat::Table });
    if format == ReportFormat::Xlsx && file.is_none() && std::io::stdout().is_terminal() {
        return Err(Failure::usage("a workbook is nothing for a terminal: say where with --output FILE.xlsx"));
    }
    let what_if = WhatIf {
        add_memory: arguments.add_memory.map(|WrittenSize(size)| size),
        gpu: arguments.gpu.clone(),
        fix_drivers: arguments.fix_drivers,
    };
    let request = wire::GetReadinessRequest {
        role: arguments.role.clone(),
        group: arguments.group.clone().unwrap_or_default(),
        what_if: (what_if != WhatIf::default()).then(|| what_if.into()),
    };
    let report = ReadinessReport::try_from(client.get_readiness(request).await?.into_inner())?;
    let content = match format {
        ReportFormat::Table => {
            let style = if file.is_some() { muster_reports::Style::default() } else { output.style };
            readiness_page(&report, &style).into_bytes()
        }
        ReportFormat::Json => {
            let json = serde_json::to_vec_pretty(&report);
            [json.map_err(|error| Failure::new(format!("cannot write JSON: {error}")))?, b"\n".to_vec()].concat()
        }
        ReportFormat::Csv => readiness_csv(&report).map_err(|error| Failure::of(&error))?.into_bytes(),
        ReportFormat::Xlsx => readiness_xlsx(&report).map_err(|error| Failure::of(&error))?,
        ReportFormat::Html => readiness_html(&report).into_bytes(),
    };
    match file {
        Some(file) => {
            fs::write(file, content)
                .map_err(|error| Failure::new(format!("cannot write {}: {error}", file.display())))?;
            Output::hint(&format!("written to {}", file.display()));
            Ok(())
        }
        None => print(&content),
    }
}

/// The form that a file's name tells.
fn by_ending(file: &Path) -> Option<ReportFormat> {
    match file.extension()?.to_str()?.to_ascii_lowercase().as_str() {
        "json" => Some(ReportFormat::Json),
        "csv" => Some(ReportFormat::Csv),
        "xlsx" => Some(ReportFormat::Xlsx),
        "html" | "htm" => Some(ReportFormat::Html),
        "txt" => Some(ReportFormat::Table),
        _ => None,
    }
}

/// To standard output; a reader that has gone is no failure.
fn print(content: &[u8]) -> Result<(), Failure> {
    let mut stdout = std::io::stdout().lock();
    match stdout.write_all(content).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => {
            Err(Failure::new(format!("cannot write to standard output: {error}")))
        }
        _ => Ok(()),
    }
}
