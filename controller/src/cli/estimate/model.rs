//! Which model a question is about: a file, a reference model, or one of a controller's catalog, in that order.

use std::path::{Path, PathBuf};

use muster_engine::estimate::Sibling;
use muster_engine::worker::WorkerCommand;
use muster_proto::ModelSource;

use super::super::Failure;
use super::super::args::Global;
use super::catalog;

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

pub(super) async fn find(
    global: &Global,
    model: &Path,
    _command: &WorkerCommand,
    _scratch: &Path,
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
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
        Err(error) => return Err(Failure::model(format!("{shown}: {error}"))),
    }
    if is_path(model) {
        return Err(Failure::model(format!("{shown}: no such file")));
    }
    let Some(name) = model.to_str() else {
        return Err(Failure::model(format!("{shown}: no such file")));
    };
    let asked = catalog::find(global, name).await?;
    if let catalog::Asked::Found(found) = asked {
        return Ok(found);
    }
    Err(Failure::model(format!("{name:?} is no file and no reference model, and {}", asked.words())))
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
