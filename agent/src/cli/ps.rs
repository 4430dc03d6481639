//! `muster-agent ps`.

use std::fmt::Write as _;
use std::process::ExitCode;

use anyhow::bail;

use super::Context;
use super::status::ask;
use crate::control::{ModelProcess, Reply, Request};

/// Shows the models that run and what they take.
pub async fn run(context: &Context) -> anyhow::Result<ExitCode> {
    match ask(context, Request::Ps).await? {
        Reply::Ps { models } => {
            context.output.show(&models, |_| table(&models))?;
            Ok(ExitCode::SUCCESS)
        }
        Reply::Failed { reason } => bail!(reason),
        _ => bail!("the agent answered something else than was asked"),
    }
}

fn table(models: &[ModelProcess]) -> String {
    if models.is_empty() {
        return "no model is assigned to this desk\n".into();
    }
    let header = ["MODEL", "QUANTIZATION", "STATE", "PID", "CONTEXT", "BUFFERS", "RESIDENT"].map(String::from);
    let mut rows = vec![header.to_vec()];
    let dash = || "-".to_owned();
    for process in models {
        rows.push(vec![
            process.model.clone(),
            process.quantization.clone(),
            process.state.clone(),
            process.pid.map_or_else(dash, |pid| pid.to_string()),
            process.context.map_or_else(dash, |context| context.to_string()),
            process.memory.as_ref().map_or_else(dash, |memory| memory.total().to_string()),
            process.resident.map_or_else(dash, |resident| resident.to_string()),
        ]);
    }
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..rows[0].len()).map(width).collect();
    let mut text = String::new();
    for row in &rows {
        let cells: Vec<String> = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
        text.push_str(cells.join("  ").trim_end());
        text.push('\n');
    }
    for process in models {
        if let Some(reason) = &process.reason {
            let _ = writeln!(text, "{}: {reason}", process.model);
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use muster_proto::ModelDigest;

    use super::*;

    #[test]
    fn columns_line_up_and_reasons_are_below() {
        let process = |model: &str, state: &str, pid| ModelProcess {
            model: model.into(),
            role: "chat".into(),
            quantization: "Q8_0".into(),
            digest: ModelDigest::new([1; 32]),
            state: state.into(),
            reason: (state == "loading").then(|| "downloading".to_owned()),
            pid,
            context: None,
            memory: None,
            resident: None,
        };
        let text = table(&[process("tiny", "ready", Some(17)), process("a-longer-name", "loading", None)]);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[0].find("STATE"), lines[1].find("ready"));
        assert_eq!(lines[3], "a-longer-name: downloading");
        assert_eq!(table(&[]), "no model is assigned to this desk\n");
    }
}
