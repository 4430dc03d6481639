//! [`WhatIf`]: a change to machines that is judged before anybody makes it, and what would come of it.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::{Bytes, Readiness};

/// A change to every machine that is not ready.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct WhatIf {
    /// More main memory.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub add_memory: Option<Bytes>,
    /// A graphics card in place of what is there, by its name in the table of known devices.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gpu: Option<String>,
    /// Whatever keeps GPUs from being used is mended: drivers, rights, backends.
    #[serde(default)]
    pub fix_drivers: bool,
}

impl fmt::Display for WhatIf {
    /// `16 GiB more main memory and GeForce RTX 4060 Ti 16GB`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let parts: Vec<String> = [
            self.fix_drivers.then(|| "drivers and rights of GPUs mended".to_owned()),
            self.add_memory.map(|bytes| match bytes.get() {
                whole if whole % (1 << 30) == 0 => format!("{} GiB more main memory", whole >> 30),
                _ => format!("{bytes} more main memory"),
            }),
            self.gpu.clone(),
        ]
        .into_iter()
        .flatten()
        .collect();
        f.write_str(if parts.is_empty() { "nothing changed" } else { "" })?;
        f.write_str(&parts.join(" and "))
    }
}

/// What a machine that is not ready would be after a change.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hypothetical {
    /// The verdict then.
    pub verdict: Readiness,
    /// The best model then, or the one that comes nearest, for people.
    pub model: Option<String>,
    /// Its quantization.
    pub quantization: Option<String>,
}

/// How many machines that are not ready one change alone would make ready.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RemedyCount {
    /// The change.
    pub change: WhatIf,
    /// Machines.
    pub machines: u32,
}

/// A report's totals after a change.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct WhatIfTotals {
    /// Machines that would be ready.
    pub ready: u32,
    /// That would not.
    pub not_ready: u32,
    /// Of which it is not known.
    pub unknown: u32,
    /// Machines that the change makes ready.
    pub made_ready: u32,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_reads() {
        let memory = WhatIf { add_memory: Some(Bytes::from_gib(16)), ..WhatIf::default() };
        assert_eq!(memory.to_string(), "16 GiB more main memory");
        let both = WhatIf { gpu: Some("GeForce RTX 4090".into()), fix_drivers: true, ..WhatIf::default() };
        assert_eq!(both.to_string(), "drivers and rights of GPUs mended and GeForce RTX 4090");
        assert_eq!(serde_json::to_string(&memory).expect("JSON"), r#"{"add_memory":17179869184,"fix_drivers":false}"#);
    }
}
