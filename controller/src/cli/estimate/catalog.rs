//! Models of a controller's catalog, whose files are in its data directory.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use muster_engine::estimate::Sibling;
use muster_proto::{Artifact, Model, ModelSource, wire};

use super::super::args::Global;
use super::super::{Failure, connect, data};
use super::model::{FoundModel, split};
use super::nearest::nearest;
use crate::app::ADMIN_SOCKET;
use crate::blobs;

/// What the catalog says to a name.
pub(super) enum Asked {
    Found(FoundModel),
    /// It has no such model, but these, the nearest first.
    Unknown(Vec<String>),
    /// It could not be asked.
    Unreachable(String),
}

impl Asked {
    /// The end of a sentence about a model that is nowhere.
    pub fn words(&self) -> String {
        match self {
            Self::Found(_) => "it is in the catalog".into(),
            Self::Unknown(names) if names.is_empty() => "the catalog is empty".into(),
            Self::Unknown(names) => format!("the catalog has no such model, but {}", names.join(", ")),
            Self::Unreachable(why) => format!("no catalog was asked: {why}"),
        }
    }
}

pub(super) async fn find(global: &Global, name: &str) -> Result<Asked, Failure> {
    let socket = data(global).map(|data| data.join(ADMIN_SOCKET));
    if global.controller.is_none() {
        // The usual case: nobody runs a controller here, and no connection needs to be tried.
        match socket {
            Ok(socket) if socket.exists() => {}
            Ok(socket) => return Ok(Asked::Unreachable(format!("no controller runs on {}", socket.display()))),
            Err(failure) => return Ok(Asked::Unreachable(failure.message)),
        }
    }
    let mut client = match connect::connect(global).await {
        Ok(client) => client,
        Err(failure) => return Ok(Asked::Unreachable(failure.message)),
    };
    let models: Vec<Model> = client.list_models(wire::ListModelsRequest {}).await?.into_inner().try_into()?;
    let Some((model, quantization)) = choose(&models, name) else {
        let names = nearest(models.iter().map(|model| model.name.as_str()), name, 5);
        return Ok(Asked::Unknown(names.into_iter().map(str::to_owned).collect()));
    };
    let artifact = match quantization {
        // Most bits first.
        None => model.artifacts.first(),
        Some(wanted) => model.artifacts.iter().find(|artifact| artifact.quantization.eq_ignore_ascii_case(wanted)),
    };
    let Some(artifact) = artifact else {
        let there: Vec<&str> = model.artifacts.iter().map(|artifact| artifact.quantization.as_str()).collect();
        return Err(Failure::model(format!(
            "the catalog has {} as {}, not as {}",
            model.name,
            there.join(", "),
            quantization.unwrap_or("a file")
        )));
    };
    if global.controller.is_some() {
        return Err(Failure::new(format!(
            "the file of {} is on the controller's host: run muster estimate there",
            model.name
        )));
    }
    let root = data(global)?.join(blobs::FOLDER);
    let path =
        file(&root, artifact).map_err(|error| Failure::new(format!("cannot read the file of {name}: {error}")))?;
    let siblings = model.artifacts.iter().filter(|other| other.digest != artifact.digest);
    Ok(Asked::Found(FoundModel {
        path,
        name: Some(model.name.clone()),
        source: ModelSource::Catalog,
        siblings: siblings.map(|artifact| sibling(&root, artifact)).collect(),
    }))
}

/// The model of this name, or of the name before the last colon and the quantization after it. Names may have colons.
fn choose<'a, 'b>(models: &'a [Model], name: &'b str) -> Option<(&'a Model, Option<&'b str>)> {
    let called = |name: &str| models.iter().find(|model| model.name == name);
    if let Some(model) = called(name) {
        return Some((model, None));
    }
    let (name, quantization) = split(name)?;
    Some((called(name)?, Some(quantization)))
}

fn file(root: &Path, artifact: &Artifact) -> io::Result<PathBuf> {
    let path = blobs::path_in(root, artifact.digest);
    path.metadata().map(|_| path)
}

fn sibling(root: &Path, artifact: &Artifact) -> Sibling {
    let (root, artifact) = (root.to_owned(), artifact.clone());
    Sibling {
        quantization: artifact.quantization.clone(),
        weights: artifact.size,
        file: Arc::new(move || {
            let found = file(&root, &artifact).map_err(|error| error.to_string());
            Box::pin(async move { found })
        }),
    }
}
