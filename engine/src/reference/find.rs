//! Finding a reference model by what people write.

use std::sync::LazyLock;

use regex_lite::Regex;

use super::model::{ReferenceModel, all};
use crate::maker::{Quantization, UnknownQuantization};

/// No reference model has this name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no reference model is called {given:?}; the nearest {}", listed(nearest))]
pub struct UnknownModel {
    /// What was asked for.
    pub given: String,
    /// Ids that are most alike, the best first; or all that the name could mean.
    pub nearest: Vec<String>,
}

fn listed(names: &[String]) -> String {
    match names {
        [] => "is unknown".into(),
        [one] => format!("is {one}"),
        many => format!("are {}", many.join(", ")),
    }
}

/// A model and a quantization as text, of which one is unknown.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ParseError {
    /// The model.
    #[error(transparent)]
    Model(#[from] UnknownModel),
    /// The quantization.
    #[error(transparent)]
    Quantization(#[from] UnknownQuantization),
}

static ALIASES: LazyLock<Vec<(usize, Regex)>> = LazyLock::new(|| {
    let models = all().iter().enumerate();
    let patterns = models.flat_map(|(index, model)| model.aliases().iter().map(move |alias| (index, alias)));
    patterns
        .map(|(index, alias)| (index, Regex::new(alias).expect("the crate's own pattern, which a test reads")))
        .collect()
});

/// The reference model of this name: its id, its repository on the hub, its name for people, or anything that its alias
/// patterns know, in any case (`llama-3.1-8b`, `meta-llama/Llama-3.1-8B-Instruct`, `Llama 3.1 8B Instruct`, `llama3.1:8b`,
/// `unsloth/Qwen3-8B-GGUF`).
///
/// # Errors
/// The ids that are most alike, or those that the name could all mean.
pub fn find(name: &str) -> Result<&'static ReferenceModel, UnknownModel> {
    let plain = plain(name);
    let same = |text: &str| self::plain(text) == plain;
    let exact = all()
        .iter()
        .find(|model| same(&model.id))
        .or_else(|| all().iter().find(|model| same(&model.name) || plain_repo(&model.hf_repo) == plain_repo(name)));
    if let Some(model) = exact {
        return Ok(model);
    }
    let spaced = name.trim().to_lowercase();
    let mut hits: Vec<(usize, std::ops::Range<usize>)> = Vec::new();
    for (index, alias) in ALIASES.iter() {
        if let Some(hit) = alias.find(&plain).or_else(|| alias.find(&spaced)) {
            match hits.iter_mut().find(|(known, _)| known == index) {
                Some((_, range)) if range.len() < hit.len() => *range = hit.range(),
                Some(_) => {}
                None => hits.push((*index, hit.range())),
            }
        }
    }
    let unknown = |nearest: Vec<String>| UnknownModel { given: name.trim().to_owned(), nearest };
    let Some((best, range)) = hits.iter().max_by_key(|(_, range)| range.len()).cloned() else {
        return Err(unknown(nearest(&plain)));
    };
    // A name of two models ("DeepSeek-R1-0528-Qwen3-8B") is neither for certain.
    if hits.iter().any(|(_, other)| other.start < range.start || other.end > range.end) {
        return Err(unknown(hits.into_iter().map(|(index, _)| all()[index].id.clone()).collect()));
    }
    Ok(&all()[best])
}

/// A model and a quantization, as in `llama-3.1-8b:Q4_K_M`; without a quantization, the
/// [model's default](ReferenceModel::default_quantization). A tag as ollama writes it (`llama3.1:8b-instruct-q4_K_M`) is
/// understood too.
///
/// # Errors
/// Which of the two is unknown, with the nearest names.
pub fn parse(text: &str) -> Result<(&'static ReferenceModel, Quantization), ParseError> {
    let Some((name, tag)) = text.trim().rsplit_once(':') else {
        let model = find(text)?;
        return Ok((model, model.default_quantization()));
    };
    match tag.parse::<Quantization>() {
        Ok(quantization) => Ok((find(name)?, quantization)),
        Err(error) => {
            // Not a quantization: the size of a model, as in ollama's names, perhaps with a quantization behind it.
            let size = tag.trim_start_matches(['e', 'E']).starts_with(|c: char| c.is_ascii_digit());
            if let Some(model) = size.then(|| find(&format!("{name}-{tag}")).ok()).flatten() {
                let last = tag.rsplit('-').next().unwrap_or_default();
                return Ok((model, last.parse().unwrap_or_else(|_| model.default_quantization())));
            }
            find(name)?;
            Err(error.into())
        }
    }
}

/// Lower case, without an owner, a file's ending and what only says that it is a GGUF; dashes for all that stands between.
fn plain(name: &str) -> String {
    let lower = name.trim().to_lowercase();
    let last = lower.rsplit('/').next().unwrap_or_default();
    let last = last.strip_suffix(".gguf").unwrap_or(last);
    let last = last.strip_suffix("-gguf").unwrap_or(last);
    last.replace([' ', '_', ':'], "-")
}

fn plain_repo(name: &str) -> String {
    name.trim().to_lowercase()
}

/// The three ids that are most alike.
fn nearest(plain: &str) -> Vec<String> {
    let mut ids: Vec<&str> = all().iter().map(|model| model.id.as_str()).collect();
    // Half of a letter for the beginning: "qwen3" is nearer to "qwen3-32b" than to "phi-2".
    ids.sort_by_key(|id| {
        let common = id.chars().zip(plain.chars()).take_while(|(one, other)| one == other).count();
        (2 * strsim::levenshtein(id, plain)).saturating_sub(3 * common)
    });
    ids.into_iter().take(3).map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_model_is_found_by_what_people_write() {
        for model in all() {
            for name in [&model.id, &model.hf_repo, &model.name] {
                assert_eq!(find(name).map(|found| found.id.as_str()), Ok(model.id.as_str()), "{name}");
                assert_eq!(find(&name.to_uppercase()).map(|found| found.id.as_str()), Ok(model.id.as_str()), "{name}");
            }
        }
        for (written, meant) in [
            ("Meta-Llama-3.1-8B-Instruct", "llama-3.1-8b"),
            ("llama3.1:8b", "llama-3.1-8b"),
            ("llama3.2:3b", "llama-3.2-3b"),
            ("Llama 3.1 8B", "llama-3.1-8b"),
            ("LLaMA-7B", "llama-2-7b"),
            ("unsloth/Qwen3-8B-GGUF", "qwen3-8b"),
            ("qwen3:8b", "qwen3-8b"),
            ("Qwen3-30B-A3B-Instruct-2507", "qwen3-30b-a3b"),
            ("Qwen3-Coder-30B-A3B-Instruct-Q4_K_M.gguf", "qwen3-coder-30b-a3b"),
            ("gemma3:12b", "gemma-3-12b"),
            ("gemma-3-12b-it-UD-Q8_K_XL", "gemma-3-12b"),
            ("ggml-org/gpt-oss-20b-GGUF", "gpt-oss-20b"),
            ("DeepSeek-R1-Distill-Qwen-7B", "deepseek-r1-distill-qwen-7b"),
            ("DeepSeek-R1-0528", "deepseek-r1"),
            ("GLM-4.5-Air", "glm-4.5-air"),
            ("GLM-4.6", "glm-4.5"),
            ("phi4", "phi-4"),
            ("Shisa-V2-Llama3.3-70B", "llama-3.3-70b"),
        ] {
            assert_eq!(find(written).map(|found| found.id.as_str()), Ok(meant), "{written}");
        }
    }

    #[test]
    fn an_unknown_name_is_refused_with_the_nearest() {
        let error = find("lama-3.1-8b").expect_err("a typing error");
        assert_eq!(error.nearest[0], "llama-3.1-8b");
        assert_eq!(
            error.to_string(),
            format!("no reference model is called \"lama-3.1-8b\"; the nearest are {}", error.nearest.join(", "))
        );
        assert_eq!(find("").expect_err("nothing").nearest.len(), 3);
        let both = find("DeepSeek-R1-0528-Qwen3-8B").expect_err("two names");
        assert_eq!(both.nearest, ["qwen3-8b", "deepseek-r1"]);
    }

    #[test]
    fn a_quantization_stands_behind_a_colon() {
        let parsed = |text: &str| parse(text).map(|(model, quantization)| (model.id.as_str(), quantization.name()));
        assert_eq!(parsed("llama-3.1-8b:Q4_K_M"), Ok(("llama-3.1-8b", "Q4_K_M")));
        assert_eq!(parsed("llama-3.1-8b"), Ok(("llama-3.1-8b", "Q4_K_M")));
        assert_eq!(parsed("gpt-oss-20b"), Ok(("gpt-oss-20b", "MXFP4_MOE")));
        assert_eq!(parsed("Qwen/Qwen3-8B:q8_0"), Ok(("qwen3-8b", "Q8_0")));
        assert_eq!(parsed("llama3.1:8b"), Ok(("llama-3.1-8b", "Q4_K_M")));
        assert_eq!(parsed("llama3.1:8b-instruct-q5_K_M"), Ok(("llama-3.1-8b", "Q5_K_M")));
        assert_eq!(parsed("qwen3-8b:Q4_K - Medium"), Ok(("qwen3-8b", "Q4_K_M")));
        assert!(matches!(parse("qwen3-8b:UD-Q4_K_XL"), Err(ParseError::Quantization(_))));
        assert!(matches!(parse("qwen-77:Q4_K_M"), Err(ParseError::Model(_))));
    }
}
