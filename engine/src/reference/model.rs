//! [`ReferenceModel`] and the data of all of them.

use std::fmt;
use std::sync::LazyLock;

use serde::Deserialize;

use crate::maker::{Quantization, Shape};

/// What a model is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ModelRole {
    /// Talks.
    Chat,
    /// Writes program text.
    Code,
    /// Turns texts into vectors.
    Embed,
}

impl fmt::Display for ModelRole {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Chat => "chat",
            Self::Code => "code",
            Self::Embed => "embed",
        })
    }
}

/// A model that everybody knows.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct ReferenceModel {
    /// Its id here, e.g. `llama-3.1-8b`.
    pub id: String,
    /// Its name for people.
    pub name: String,
    /// Who its relatives are, e.g. `Llama 3`.
    pub family: String,
    /// What it is for.
    pub roles: Vec<ModelRole>,
    /// llama.cpp's name of its architecture.
    #[serde(rename = "arch")]
    pub architecture: String,
    /// Its repository on the Hugging Face hub.
    pub hf_repo: String,
    /// Its licence, by the hub's word.
    pub licence: String,
    /// Parameters in billions, as its makers say.
    #[serde(rename = "params_b_published")]
    published: f64,
    /// The numbers that make its tensors.
    #[serde(flatten)]
    pub shape: Shape,
    /// Patterns of names that people write for it, on lower case.
    aliases: Vec<String>,
    /// Where the facts come from.
    pub source: String,
}

impl ReferenceModel {
    /// Parameters as its makers say, rounded as they round.
    pub fn parameters(&self) -> u64 {
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a positive number below 2^53")]
        let parameters = (self.published * 1e9).round() as u64;
        parameters
    }

    /// Longest context that it was trained with, in tokens.
    pub fn context(&self) -> u32 {
        self.shape.n_ctx_train
    }

    /// What to take where nobody says a quantization: gpt-oss is published in MXFP4, all others are not quantized, and
    /// `Q4_K_M` is what most people take.
    pub fn default_quantization(&self) -> Quantization {
        if self.architecture == "gpt-oss" { Quantization::MXFP4 } else { Quantization::DEFAULT }
    }

    pub(super) fn aliases(&self) -> &[String] {
        &self.aliases
    }
}

static MODELS: LazyLock<Vec<ReferenceModel>> = LazyLock::new(|| {
    let lines = include_str!("../../data/reference_models.jsonl").lines();
    lines.map(|line| serde_json::from_str(line).expect("the crate's own data, which a test reads")).collect()
});

/// All reference models, in the order of the data.
pub fn all() -> &'static [ReferenceModel] {
    &MODELS
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_model_is_complete() {
        assert_eq!(all().len(), 110);
        assert_eq!(all().iter().map(|model| model.architecture.as_str()).collect::<BTreeSet<_>>().len(), 28);
        assert_eq!(all().iter().map(|model| model.id.as_str()).collect::<BTreeSet<_>>().len(), 110);
        for model in all() {
            assert!(model.hf_repo.split('/').count() == 2 && !model.licence.is_empty(), "{}", model.id);
            assert!(!model.source.is_empty() && !model.roles.is_empty() && !model.family.is_empty(), "{}", model.id);
            assert!(model.parameters() > 30_000_000 && model.context() >= 512, "{}", model.id);
            assert!(!model.aliases().is_empty(), "{}", model.id);
        }
    }

    /// A field of the data that the shape does not know would be lost in silence.
    #[test]
    fn every_fact_has_a_field() {
        let own = serde_json::to_value(Shape::default()).expect("plain data");
        let others = [
            "id",
            "name",
            "family",
            "roles",
            "arch",
            "hf_repo",
            "licence",
            "params_b_published",
            "params_b_zoo",
            "aliases",
            "source",
            // What llama.cpp has in its own code for these architectures: the length of Gemma 4's factors is half of a head,
            // and Llama 4's window.
            "rope_freqs_len",
            "n_swa_note",
        ];
        for line in include_str!("../../data/reference_models.jsonl").lines() {
            let facts: serde_json::Map<String, serde_json::Value> = serde_json::from_str(line).expect("JSON");
            for fact in facts.keys() {
                assert!(own.get(fact).is_some() || others.contains(&fact.as_str()), "{fact}");
            }
        }
    }
}
