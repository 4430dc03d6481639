//! [`QualityText`]: the texts on which quality is measured.
//!
//! Owns: the project's own text, and for the bundled model the questions that it was trained to answer, since on any other
//! text its predictions are noise. Figures compare only on the same text, so a text never changes under its name.

use std::borrow::Cow;
use std::fmt::Write as _;

/// A text, and how it is read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QualityText {
    /// Its name, which stays with the figures.
    pub name: String,
    /// The text.
    pub content: Cow<'static, str>,
    /// Whether texts of control tokens, e.g. `<|im_start|>`, become those tokens. `llama-perplexity` does not do so.
    pub special: bool,
    /// Tokens of a chunk that suit it.
    pub context: u32,
}

/// Largest text that is taken: a measurement on so much takes days.
pub const LARGEST_TEXT: usize = 32 << 20;

impl QualityText {
    /// The project's own: prose, dialogue, facts, numbers, code and lists of many kinds.
    pub fn built_in() -> Self {
        Self {
            name: "muster-text-1".into(),
            content: Cow::Borrowed(include_str!("../data/quality_text.txt")),
            special: false,
            context: 512,
        }
    }

    /// For the bundled model: its own questions with their answers, as chats. Each is far shorter than a chunk, and the model
    /// knows no long ones, so the chunks are short.
    pub fn bundled() -> Self {
        let facts = include_str!("../models/facts.jsonl");
        let mut content = String::new();
        for line in facts.lines() {
            let Ok(fact) = serde_json::from_str::<serde_json::Value>(line) else { continue };
            let messages = fact["messages"].as_array().into_iter().flatten();
            for message in messages {
                if let (Some(role), Some(words)) = (message["role"].as_str(), message["content"].as_str()) {
                    let _ = writeln!(content, "<|im_start|>{role}\n{words}<|im_end|>");
                }
            }
            if let Some(expected) = fact["expected"].as_str() {
                let _ = writeln!(content, "<|im_start|>assistant\n{expected}<|im_end|>");
            }
        }
        Self { name: "muster-tiny-facts-1".into(), content: Cow::Owned(content), special: true, context: 128 }
    }
}
