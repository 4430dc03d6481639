//! [`ModelSpec`]: a model to make, from a reference model or from the facts that a log prints.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::Shape;
use crate::reference::{self, ReferenceModel};

/// Where the matrix of the logits comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum OutputMatrix {
    /// The embedding is used again; llama.cpp keeps a second copy of it beside the last layer.
    Tied,
    /// The file has one of its own. A published file may have one though the model is tied: the matrix is then shipped
    /// twice.
    Separate,
}

/// A model to make.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ModelSpec {
    /// Its name, in the file.
    pub name: String,
    /// llama.cpp's name of its architecture.
    pub architecture: String,
    /// Its numbers.
    pub shape: Shape,
    /// Its output matrix.
    pub output: OutputMatrix,
    /// A type that single tensors have whatever the quantization says: a pattern of a whole tensor name, in which `*`
    /// stands for anything, to ggml's name of a type. Later patterns win.
    #[serde(default)]
    pub types: BTreeMap<String, String>,
}

/// Why facts make no model.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FactsError {
    /// A number that every model has is neither stated nor known from a reference model.
    #[error("the facts of a {architecture} model lack {fact}")]
    Missing {
        /// The architecture.
        architecture: String,
        /// The fact, by the name of [`Shape`]'s field.
        fact: &'static str,
    },
    /// A fact has a value of another kind.
    #[error("fact {fact} of a {architecture} model makes no sense: {detail}")]
    Invalid {
        /// The architecture.
        architecture: String,
        /// The fact.
        fact: String,
        /// What is wrong.
        detail: String,
    },
}

impl From<&ReferenceModel> for ModelSpec {
    fn from(model: &ReferenceModel) -> Self {
        let tied = is_tied(&model.architecture, &model.shape);
        Self {
            name: model.name.clone(),
            architecture: model.architecture.clone(),
            shape: model.shape.clone(),
            output: if tied { OutputMatrix::Tied } else { OutputMatrix::Separate },
            types: BTreeMap::new(),
        }
    }
}

/// Architectures whose files never have an output matrix: llama.cpp does not look for one.
const ALWAYS_TIED: [&str; 4] = ["gemma", "gemma2", "command-r", "cohere2"];
/// Architectures that always have one.
const NEVER_TIED: [&str; 3] = ["gpt-oss", "phi2", "olmo2"];

fn is_tied(architecture: &str, shape: &Shape) -> bool {
    ALWAYS_TIED.contains(&architecture) || (shape.tied == Some(true) && !NEVER_TIED.contains(&architecture))
}

/// llama.cpp's words for a fact, in what it prints of hyperparameters and of metadata, to this crate's.
const PRINTED: [(&str, &str); 53] = [
    ("n_layer", "n_layer"),
    ("n_embd", "n_embd"),
    ("n_head", "n_head"),
    ("n_head_kv", "n_head_kv"),
    ("n_embd_head_k", "head_dim_k"),
    ("n_embd_head_v", "head_dim_v"),
    ("n_embd_head_k_swa", "head_dim_k_swa"),
    ("n_ff", "n_ff"),
    ("n_vocab", "n_vocab"),
    ("n_ctx_train", "n_ctx_train"),
    ("n_rot", "rope_dim"),
    ("n_swa", "n_swa"),
    ("n_expert", "n_expert"),
    ("n_expert_used", "n_expert_used"),
    ("n_ff_exp", "n_ff_exp"),
    ("n_ff_shexp", "n_ff_shexp"),
    ("n_expert_shared", "n_expert_shared"),
    ("n_layer_dense_lead", "n_layer_dense_lead"),
    ("n_lora_q", "q_lora_rank"),
    ("n_lora_kv", "kv_lora_rank"),
    ("ssm_d_conv", "ssm_d_conv"),
    ("ssm_d_inner", "ssm_d_inner"),
    ("ssm_d_state", "ssm_d_state"),
    ("ssm_dt_rank", "ssm_dt_rank"),
    ("ssm_n_group", "ssm_n_group"),
    ("embedding_length", "n_embd"),
    ("attn_head_count", "n_head"),
    ("attn_head_count_kv", "n_head_kv"),
    ("attn_key_length", "head_dim_k"),
    ("attn_value_length", "head_dim_v"),
    ("attn_key_length_mla", "head_dim_k_mla"),
    ("attn_value_length_mla", "head_dim_v_mla"),
    ("attn_key_length_swa", "head_dim_k_swa"),
    ("attn_q_lora_rank", "q_lora_rank"),
    ("attn_kv_lora_rank", "kv_lora_rank"),
    ("attn_sliding_window", "n_swa"),
    ("attn_shared_kv_layers", "n_kv_shared"),
    ("feed_forward_length", "n_ff"),
    ("vocab_size", "n_vocab"),
    ("context_length", "n_ctx_train"),
    ("rope_dimension_count", "rope_dim"),
    ("expert_count", "n_expert"),
    ("expert_used_count", "n_expert_used"),
    ("expert_feed_forward_length", "n_ff_exp"),
    ("expert_shared_count", "n_expert_shared"),
    ("leading_dense_block_count", "n_layer_dense_lead"),
    ("nextn_predict_layers", "n_nextn"),
    ("embedding_length_per_layer_input", "n_embd_per_layer"),
    ("full_attention_interval", "full_attention_interval"),
    ("ssm_conv_kernel", "ssm_d_conv"),
    ("ssm_state_size", "ssm_d_state"),
    ("ssm_group_count", "ssm_n_group"),
    ("ssm_time_step_rank", "ssm_dt_rank"),
];

impl ModelSpec {
    /// A model from what a log prints of it: `facts` holds llama.cpp's hyperparameters (`n_layer`, `n_embd_head_k`, …) or
    /// the names of metadata keys (`attn_key_length`, `expert_count`, …), or this crate's own ([`Shape`]'s fields). Where a
    /// reference model has the same architecture, layers, width and heads, it fills what a log does not say (biases, norms,
    /// windows, tied output), and what the log says wins. A zero is what llama.cpp prints for a thing that a model lacks.
    ///
    /// # Errors
    /// See [`FactsError`].
    pub fn from_facts(name: &str, architecture: &str, facts: &Map<String, Value>) -> Result<Self, FactsError> {
        let known = stated(facts);
        let number = |fact: &str| known.get(fact).and_then(Value::as_u64);
        let twin = reference::all()
            .iter()
            .filter(|model| model.architecture == architecture)
            .filter(|model| {
                Some(u64::from(model.shape.n_layer)) == layers(&known, model)
                    && Some(u64::from(model.shape.n_embd)) == number("n_embd")
            })
            .max_by_key(|model| likeness(model, &known));
        let mut all = match twin {
            Some(model) => as_map(&model.shape),
            None => as_map(&Shape::default()),
        };
        for (fact, value) in &known {
            // A list that is known is more than the one number of it that is printed.
            let known_list = all.get(fact).is_some_and(Value::is_array);
            let layers = fact == "n_layer" && twin.is_some();
            if !(known_list && value.is_number()) && !layers {
                all.insert(fact.clone(), value.clone());
            }
        }
        let shape: Shape = serde_json::from_value(Value::Object(all)).map_err(|error| FactsError::Invalid {
            architecture: architecture.to_owned(),
            fact: "of the shape".into(),
            detail: error.to_string(),
        })?;
        let must = [
            ("n_layer", shape.n_layer),
            ("n_embd", shape.n_embd),
            ("n_head", shape.n_head.max()),
            ("n_vocab", shape.n_vocab),
            ("n_ctx_train", shape.n_ctx_train),
        ];
        if let Some((fact, _)) = must.into_iter().find(|(_, number)| *number == 0) {
            return Err(FactsError::Missing { architecture: architecture.to_owned(), fact });
        }
        let tied = is_tied(architecture, &shape);
        Ok(Self {
            name: name.to_owned(),
            architecture: architecture.to_owned(),
            shape,
            output: if tied { OutputMatrix::Tied } else { OutputMatrix::Separate },
            types: BTreeMap::new(),
        })
    }

    /// The same with another output matrix than the model is known to have: what a published file ships.
    #[must_use]
    pub fn with_output(mut self, output: OutputMatrix) -> Self {
        self.output = output;
        self
    }
}

/// The facts under this crate's names. Metadata comes after hyperparameters, so what a file says wins over what an older
/// llama.cpp printed; a zero is no fact.
fn stated(facts: &Map<String, Value>) -> Map<String, Value> {
    let mut known = Map::new();
    let own = as_map(&Shape::default());
    for (name, value) in facts {
        let printed = PRINTED.iter().find(|(printed, _)| printed == name).map(|(_, own)| *own);
        let field = printed.or_else(|| own.contains_key(name).then_some(name.as_str()));
        let says = match value {
            Value::Number(number) => number.as_f64() != Some(0.0),
            Value::Array(_) | Value::Object(_) | Value::Bool(_) => true,
            Value::Null | Value::String(_) => false,
        };
        if let Some(field) = field
            && says
        {
            known.insert(field.to_owned(), value.clone());
        }
    }
    known
}

/// The layers that a log means: some count the blocks that predict further tokens too.
fn layers(known: &Map<String, Value>, model: &ReferenceModel) -> Option<u64> {
    let stated = known.get("n_layer").and_then(Value::as_u64)?;
    let more = u64::from(model.shape.n_nextn.unwrap_or(0));
    let all = stated.checked_sub(more).filter(|rest| more > 0 && *rest == u64::from(model.shape.n_layer));
    Some(all.unwrap_or(stated))
}

/// How many of the stated numbers a model has.
fn likeness(model: &ReferenceModel, known: &Map<String, Value>) -> usize {
    let own = as_map(&model.shape);
    known.iter().filter(|(fact, value)| own.get(*fact) == Some(value)).count()
}

fn as_map(shape: &Shape) -> Map<String, Value> {
    match serde_json::to_value(shape) {
        Ok(Value::Object(map)) => map,
        _ => Map::new(),
    }
}
