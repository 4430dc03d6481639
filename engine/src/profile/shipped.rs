//! The profiles of the reference models that ship with Muster: all layers on one GPU, or none.
//!
//! Data made by `examples/make_profiles.rs`, a line for each model: for each backend what contexts and compute buffers take,
//! which does not depend on the quantization, and once for all backends the weights in each quantization. (Backends differ
//! in weights by the padding of a matrix's last row: below a ten-thousandth.) Only the lines that are asked for are parsed.
//! A profile holds for the llama.cpp build that it names; whoever drives another one makes a dry run.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use serde::{Deserialize, Serialize};

use super::SizingProfile;
use super::survey::Weights;

/// The quantizations whose weights ship.
pub const QUANTIZATIONS: [&str; 6] = ["Q3_K_M", "Q4_K_M", "Q5_K_M", "Q6_K", "Q8_0", "F16"];

/// The backends whose profiles ship, by [`SizingProfile::backend`], each for a common generation.
pub const BACKENDS: [&str; 4] = ["cuda", "vulkan", "metal", "rocm"];

#[derive(Serialize, Deserialize)]
struct ProfileLine<P> {
    id: String,
    profile: P,
}

#[derive(Serialize, Deserialize)]
struct WeightsLine {
    id: String,
    weights: BTreeMap<String, Weights>,
}

type Lines = BTreeMap<&'static str, &'static str>;

fn by_id(text: &'static str) -> Lines {
    // Each line begins with its id, as the writer below makes them.
    let id = |line: &'static str| line.strip_prefix(r#"{"id":""#).and_then(|rest| rest.split('"').next());
    text.lines().filter_map(|line| Some((id(line)?, line))).collect()
}

static PROFILES: LazyLock<[Lines; 4]> = LazyLock::new(|| {
    [
        include_str!("../../data/profiles/cuda.jsonl"),
        include_str!("../../data/profiles/vulkan.jsonl"),
        include_str!("../../data/profiles/metal.jsonl"),
        include_str!("../../data/profiles/rocm.jsonl"),
    ]
    .map(by_id)
});

static WEIGHTS: LazyLock<Lines> = LazyLock::new(|| by_id(include_str!("../../data/profiles/weights.jsonl")));

/// The profile of a reference model in a quantization on a backend; `None` where none ships, or for another build of
/// llama.cpp than this crate drives.
pub fn find(model: &str, quantization: &str, backend: &str) -> Option<SizingProfile> {
    let lines = &PROFILES[BACKENDS.iter().position(|known| *known == backend)?];
    let line: ProfileLine<SizingProfile> = serde_json::from_str(lines.get(model)?).ok()?;
    let weights: WeightsLine = serde_json::from_str(WEIGHTS.get(model)?).ok()?;
    let mut profile = line.profile;
    profile.survey.weights = weights.weights.get(quantization)?.clone();
    (profile.engine == crate::BUILD).then_some(profile)
}

/// The line of a backend's file.
///
/// # Errors
/// Never for a profile that a worker made.
pub fn profile_line(model: &str, profile: &SizingProfile) -> serde_json::Result<String> {
    let mut profile = profile.clone();
    profile.survey.weights = Weights::default();
    serde_json::to_string(&ProfileLine { id: model.to_owned(), profile })
}

/// The line of the file of weights, from a profile in each quantization.
///
/// # Errors
/// Never for profiles that a worker made.
pub fn weights_line(model: &str, profiles: &BTreeMap<String, SizingProfile>) -> serde_json::Result<String> {
    let weights = profiles.iter().map(|(name, profile)| (name.clone(), profile.survey.weights.clone())).collect();
    serde_json::to_string(&WeightsLine { id: model.to_owned(), weights })
}
