//! [`Priors`]: learnt efficiencies, and how far speeds scatter around what they predict.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use serde_json::{Map, Value, json};

use super::parameters::{self, Parameters};
use super::physics::Term;

/// How far 80 % of measurements scatter, as logarithms of seconds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Spread {
    /// A tenth is slower than expected by more than this.
    pub slower: f64,
    /// A tenth is faster than expected by more than this.
    pub faster: f64,
}

impl Spread {
    /// The narrower of both, on each side.
    #[must_use]
    pub fn narrower(self, other: Self) -> Self {
        Self { slower: self.slower.min(other.slower), faster: self.faster.min(other.faster) }
    }

    /// Wider by something independent of it.
    #[must_use]
    pub fn widened(self, by: f64) -> Self {
        Self { slower: self.slower.hypot(by), faster: self.faster.hypot(by) }
    }
}

/// Parameters of [`Term`]s by name, and spreads by backend.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Priors {
    /// Values by name; one that is missing is 0.
    pub parameters: BTreeMap<String, f64>,
    /// Spreads of decoding by backend; `all` for the others, `calibrated` for a machine's own benchmark.
    pub decode: BTreeMap<String, Spread>,
    /// Spreads of prefilling.
    pub prefill: BTreeMap<String, Spread>,
}

static SHIPPED: LazyLock<Priors> = LazyLock::new(|| {
    Priors::from_json(include_str!("../../data/speed_priors.json"))
        .expect("the data file is part of the program and tested")
});

impl Priors {
    /// What ships with the program: `data/speed_priors.json`, written by `examples/fit_speed.rs`.
    pub fn shipped() -> &'static Self {
        &SHIPPED
    }

    /// How much wider than the backend's spread the terms' is, in the logarithm of seconds: attention over a long context
    /// and experts differ more between devices than weights that stream, in proportion to their share of the time.
    pub fn uncertain(&self, terms: &[Term]) -> f64 {
        parameters::uncertain(terms, &self.each(terms))
    }

    /// The spread of a backend.
    pub fn spread(&self, decode: bool, backend: &str) -> Spread {
        let table = if decode { &self.decode } else { &self.prefill };
        let unknown = Spread { slower: 0.7, faster: 0.7 };
        table.get(backend).or_else(|| table.get("all")).copied().unwrap_or(unknown)
    }

    /// Reads the data file.
    ///
    /// # Errors
    /// A sentence that says what is wrong.
    pub fn from_json(text: &str) -> Result<Self, String> {
        let value: Value = serde_json::from_str(text).map_err(|error| error.to_string())?;
        let object = |name: &str| value[name].as_object().ok_or(format!("no object {name:?}"));
        let parameters = object("parameters")?
            .iter()
            .map(|(name, value)| Ok((name.clone(), value.as_f64().ok_or(format!("{name:?} is not a number"))?)))
            .collect::<Result<_, String>>()?;
        let spreads = |name: &str| -> Result<BTreeMap<String, Spread>, String> {
            object(name)?
                .iter()
                .map(|(backend, value)| {
                    let number = |field: &str| {
                        value[field].as_f64().ok_or(format!("{field:?} of {name:?}.{backend:?} is not a number"))
                    };
                    Ok((backend.clone(), Spread { slower: number("slower")?, faster: number("faster")? }))
                })
                .collect()
        };
        Ok(Self { parameters, decode: spreads("decode")?, prefill: spreads("prefill")? })
    }

    /// Writes the data file: sorted, rounded to five decimals, so that the same fit gives the same bytes.
    ///
    /// # Panics
    /// Never: a tree of numbers has a text.
    pub fn to_json(&self) -> String {
        let round = |number: f64| (number * 1e5).round() / 1e5;
        let spreads = |table: &BTreeMap<String, Spread>| -> Map<String, Value> {
            table
                .iter()
                .map(|(name, spread)| {
                    (name.clone(), json!({"slower": round(spread.slower), "faster": round(spread.faster)}))
                })
                .collect()
        };
        let parameters: Map<String, Value> = self
            .parameters
            .iter()
            .filter(|(_, value)| round(**value) != 0.0)
            .map(|(name, value)| (name.clone(), json!(round(*value))))
            .collect();
        let value = json!({
            "written_by": "engine/examples/fit_speed.rs",
            "parameters": parameters,
            "decode": spreads(&self.decode),
            "prefill": spreads(&self.prefill),
        });
        serde_json::to_string_pretty(&value).expect("a tree of numbers has a text") + "\n"
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_data_file_is_what_it_would_be_written_as() {
        let text = include_str!("../../data/speed_priors.json");
        assert_eq!(Priors::from_json(text).expect("whole").to_json(), text);
    }

    #[test]
    fn a_wrong_file_is_named() {
        for (text, said) in [
            ("{", "EOF"),
            ("{}", "parameters"),
            (r#"{"parameters":{"a":"b"}}"#, "not a number"),
            (r#"{"parameters":{},"decode":{"cuda":{"slower":1}},"prefill":{}}"#, "faster"),
        ] {
            let error = Priors::from_json(text).expect_err(text);
            assert!(error.contains(said), "{error}");
        }
    }
}
