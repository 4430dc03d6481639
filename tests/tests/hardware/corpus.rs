//! The files of the corpus.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use muster_agent::probe::raw::RawMachine;
use serde::Deserialize;
use serde_json::Value;

/// One file.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Captured {
    /// What it stands for.
    pub quirks: Vec<String>,
    /// What the probes said.
    pub raw: RawMachine,
    /// What must come of it.
    pub expected: Expected,
}

/// What must come of a machine.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Expected {
    /// Fields of each GPU, in order; `obstacle` is the obstacle's kind, `remedy` a part of its remedy.
    pub gpus: Vec<BTreeMap<String, Value>>,
    /// Names of llama.cpp's devices, in order.
    pub devices: Vec<String>,
    /// Fields of the chassis.
    pub chassis: BTreeMap<String, Value>,
    /// Whether it was looked at from afar.
    pub remote_session: bool,
    /// All failures.
    pub failures: Vec<ExpectedFailure>,
}

/// A failure.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ExpectedFailure {
    /// Whose.
    pub probe: String,
    /// A part of the reason.
    pub says: String,
}

/// All files by name, without `.json`.
pub fn machines() -> BTreeMap<String, Captured> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("hardware");
    let mut machines = BTreeMap::new();
    for entry in fs::read_dir(&folder).expect("the corpus").flatten() {
        let path = entry.path();
        let text = fs::read_to_string(&path).expect("a file of the corpus");
        let machine = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let name = path.file_stem().expect("a name").to_string_lossy().into_owned();
        machines.insert(name, machine);
    }
    machines
}
