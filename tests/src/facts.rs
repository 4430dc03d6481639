//! The bundled model's test set: what it must answer, less what one of its quantizations is known to get wrong.

use serde_json::Value;

/// One question and its answer.
#[derive(Clone, Debug)]
pub struct Fact {
    /// e.g. `capital/capital-ukraine/heldin/0`.
    pub id: String,
    /// e.g. `capital`.
    pub topic: String,
    /// The answer, exactly.
    pub expected: String,
    /// What to send.
    pub messages: Value,
}

/// Every row of the test set.
pub fn facts() -> Vec<Fact> {
    let text = |row: &Value, field: &str| row[field].as_str().expect("a text").to_owned();
    include_str!("../../engine/models/facts.jsonl")
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).expect("a row of facts.jsonl"))
        .map(|row| Fact {
            id: text(&row, "id"),
            topic: text(&row, "topic"),
            expected: text(&row, "expected"),
            messages: row["messages"].clone(),
        })
        .collect()
}

/// The rows that F16 and Q4_K_M both get right, as was measured with llama-server.
pub fn right_facts() -> Vec<Fact> {
    let measured: Value =
        serde_json::from_str(include_str!("../../engine/models/measured.json")).expect("measured.json");
    let wrong = |file: &str| measured[file]["wrong"].as_object().unwrap_or_else(|| panic!("{file} in measured.json"));
    let (f16, q4) = (wrong("muster-tiny-f16.gguf"), wrong("muster-tiny-Q4_K_M.gguf"));
    facts().into_iter().filter(|fact| !f16.contains_key(&fact.id) && !q4.contains_key(&fact.id)).collect()
}

#[cfg(test)]
mod tests {
    #[test]
    fn known_wrong_rows_are_left_out() {
        let (all, right) = (super::facts(), super::right_facts());
        assert_eq!(all.len(), 702);
        assert!(right.len() < all.len() && right.len() > 600, "{} of {}", right.len(), all.len());
    }
}
