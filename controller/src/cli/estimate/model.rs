//! Which model a question is about: a file, a reference model, or one of a controller's catalog, in that order.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use muster_engine::estimate::Sibling;
use muster_engine::maker::Quantization;
use muster_engine::reference::{self, ParseError, ReferenceModel};
use muster_engine::worker::WorkerCommand;
use muster_proto::{Bytes, ModelSource};

use super::super::Failure;
use super::super::args::Global;
use super::catalog;
use crate::error_chain;

/// A model's file, and what else there is of it.
#[derive(Debug)]
pub(super) struct FoundModel {
    pub path: PathBuf,
    pub name: Option<String>,
    pub source: ModelSource,
    pub siblings: Vec<Sibling>,
}

/// Whether a word can only be meant as a file.
fn is_path(model: &Path) -> bool {
    let starts = ["/", "./", "../", "~/"];
    let text = model.to_string_lossy();
    starts.iter().any(|start| text.starts_with(start))
        || text.contains('\\')
        || model.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("gguf"))
}

/// A name and a quantization, as `llama-3.1-8b:Q4_K_M` has them.
pub(super) fn split(name: &str) -> Option<(&str, &str)> {
    name.rsplit_once(':').filter(|(name, quantization)| !name.is_empty() && !quantization.is_empty())
}

/// Finds it, or says where it was looked for and what is like it.
pub(super) async fn find(
    global: &Global,
    model: &Path,
    command: &WorkerCommand,
    scratch: &Path,
) -> Result<FoundModel, Failure> {
    let shown = model.display();
    match model.metadata() {
        Ok(_) => {
            return Ok(FoundModel {
                path: model.to_owned(),
                name: None,
                source: ModelSource::File,
                siblings: Vec::new(),
            });
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(Failure::model(format!("{shown}: {error}"))),
    }
    let no_file = || Failure::model(format!("{shown}: no such file"));
    if is_path(model) {
        return Err(no_file());
    }
    let name = model.to_str().ok_or_else(no_file)?;
    let parsed = reference::parse(name);
    // The very id of a reference model is one; a name that only looks like one may be that of a model of the catalog.
    if let Ok((known, quantization)) = &parsed
        && split(name).map_or(name, |(name, _)| name).eq_ignore_ascii_case(&known.id)
    {
        return made(command, known, *quantization, scratch).await;
    }
    let asked = catalog::find(global, name).await?;
    if let catalog::Asked::Found(found) = asked {
        return Ok(found);
    }
    match parsed {
        Ok((known, quantization)) => made(command, known, quantization, scratch).await,
        Err(ParseError::Quantization(error)) => Err(Failure::model(format!("{name}: {error}"))),
        Err(ParseError::Model(error)) => {
            Err(Failure::model(format!("{name:?} is no file; {error}; {}", asked.words())))
        }
    }
}

/// A header of a reference model, and the ways to its other quantizations.
async fn made(
    command: &WorkerCommand,
    model: &'static ReferenceModel,
    quantization: Quantization,
    scratch: &Path,
) -> Result<FoundModel, Failure> {
    let path = reference::header_file(command, model, quantization, scratch).await.map_err(|error| {
        Failure::new(format!("cannot make a header of {} in {quantization}: {}", model.id, error_chain(&error)))
    })?;
    let others = QUANTIZATIONS.iter().filter(|(name, _)| *name != quantization.name());
    Ok(FoundModel {
        path,
        name: Some(model.name.clone()),
        source: ModelSource::Reference,
        siblings: others.filter_map(|(name, bits)| sibling(command, model, name, *bits, scratch)).collect(),
    })
}

/// Quantizations that are offered instead of another, with bits per parameter: a little less than most models have, since
/// a dry run checks what is offered.
const QUANTIZATIONS: [(&str, f64); 11] = [
    ("Q8_0", 8.4),
    ("Q6_K", 6.5),
    ("Q5_K_M", 5.6),
    ("Q5_K_S", 5.4),
    ("Q4_K_M", 4.7),
    ("Q4_K_S", 4.5),
    ("IQ4_XS", 4.2),
    ("Q3_K_M", 3.8),
    ("Q3_K_S", 3.4),
    ("Q2_K", 2.8),
    ("IQ2_XS", 2.3),
];

fn sibling(
    command: &WorkerCommand,
    model: &'static ReferenceModel,
    quantization: &str,
    bits: f64,
    scratch: &Path,
) -> Option<Sibling> {
    let quantization: Quantization = quantization.parse().ok()?;
    let (command, scratch) = (command.clone(), scratch.to_owned());
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a positive number of bytes")]
    let weights = Bytes::new((model.parameters() as f64 * bits / 8.0) as u64);
    Some(Sibling {
        quantization: quantization.name().to_owned(),
        weights,
        file: Arc::new(move || {
            let (command, scratch) = (command.clone(), scratch.clone());
            Box::pin(async move {
                let file = reference::header_file(&command, model, quantization, &scratch).await;
                file.map_err(|error| error.to_string())
            })
        }),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_told_from_a_name() {
        for path in ["/m", "./m", "../m", "m.gguf", "models/m.GGUF", "C:\\m"] {
            assert!(is_path(Path::new(path)), "{path}");
        }
        for name in ["llama-3.1-8b:Q4_K_M", "acme/model", "m"] {
            assert!(!is_path(Path::new(name)), "{name}");
        }
        assert_eq!(split("a:b:Q8_0"), Some(("a:b", "Q8_0")));
        assert_eq!((split("a"), split("a:"), split(":a")), (None, None, None));
    }
}
