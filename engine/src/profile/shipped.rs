//! The profiles of the reference models that ship with Muster: for one GPU, with all layers on it, some, or none.
//!
//! Data made by `examples/make_profiles.rs`: for each backend what contexts and compute buffers take, which does not depend on
//! the quantization, and once for all backends the weights in each quantization. (Backends differ in weights by the padding
//! of a matrix's last row: below a ten-thousandth.) A file is a list of models, each deflated JSON; only those that are asked
//! for are read. A profile holds for the llama.cpp build that it names; whoever drives another one makes a dry run.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use serde::{Deserialize, Serialize};

use super::SizingProfile;
use super::survey::Weights;

/// The quantizations whose weights ship.
pub const QUANTIZATIONS: [&str; 6] = ["Q3_K_M", "Q4_K_M", "Q5_K_M", "Q6_K", "Q8_0", "F16"];

/// The backends whose profiles ship, by [`SizingProfile::backend`], each for a common generation.
pub const BACKENDS: [&str; 4] = ["cuda", "vulkan", "metal", "rocm"];

/// An inflated entry is no larger: a profile is some hundred kilobytes.
const MOST: usize = 1 << 24;

type Entries = BTreeMap<&'static str, &'static [u8]>;

/// Each entry: the id's length, the id, four bytes of length (little endian), the deflated text.
fn entries(mut file: &'static [u8]) -> Entries {
    let mut all = Entries::new();
    while let Some((id, rest)) = file.split_first().and_then(|(length, rest)| rest.split_at_checked((*length).into())) {
        let Some((length, rest)) = rest.split_first_chunk::<4>() else { break };
        let length = usize::try_from(u32::from_le_bytes(*length)).unwrap_or(usize::MAX);
        let (Some((text, rest)), Ok(id)) = (rest.split_at_checked(length), std::str::from_utf8(id)) else { break };
        all.insert(id, text);
        file = rest;
    }
    all
}

static PROFILES: LazyLock<[Entries; 4]> = LazyLock::new(|| {
    [
        &include_bytes!("../../data/profiles/cuda.bin")[..],
        &include_bytes!("../../data/profiles/vulkan.bin")[..],
        &include_bytes!("../../data/profiles/metal.bin")[..],
        &include_bytes!("../../data/profiles/rocm.bin")[..],
    ]
    .map(entries)
});

static WEIGHTS: LazyLock<Entries> = LazyLock::new(|| entries(include_bytes!("../../data/profiles/weights.bin")));

fn read<T: for<'a> Deserialize<'a>>(text: &[u8]) -> Option<T> {
    let text = miniz_oxide::inflate::decompress_to_vec_with_limit(text, MOST).ok()?;
    serde_json::from_slice(&text).ok()
}

fn written<T: Serialize>(id: &str, what: &T) -> serde_json::Result<Vec<u8>> {
    let text = miniz_oxide::deflate::compress_to_vec(&serde_json::to_vec(what)?, 9);
    let mut all = vec![u8::try_from(id.len()).unwrap_or(0)];
    all.extend_from_slice(id.as_bytes());
    all.extend_from_slice(&u32::try_from(text.len()).unwrap_or(0).to_le_bytes());
    all.extend_from_slice(&text);
    Ok(all)
}

/// The profile of a reference model in a quantization on a backend; `None` where none ships, or for another build of
/// llama.cpp than this crate drives. Reads it anew each time, in about a millisecond.
pub fn find(model: &str, quantization: &str, backend: &str) -> Option<SizingProfile> {
    let entries = &PROFILES[BACKENDS.iter().position(|known| *known == backend)?];
    let weights: BTreeMap<String, Weights> = read(WEIGHTS.get(model)?)?;
    let profile: SizingProfile = read(entries.get(model)?)?;
    let profile = SizingProfile { survey: profile.survey.with_weights(weights.get(quantization)?.clone()), ..profile };
    (profile.engine == crate::BUILD).then_some(profile)
}

/// All profiles of a backend, read once: for whoever asks about many models.
#[derive(Clone, Debug)]
pub struct ShippedProfiles {
    profiles: BTreeMap<&'static str, BTreeMap<String, SizingProfile>>,
}

impl ShippedProfiles {
    /// Those of one of [`BACKENDS`]; none for another name.
    pub fn load(backend: &str) -> Self {
        let Some(index) = BACKENDS.iter().position(|known| *known == backend) else {
            return Self { profiles: BTreeMap::new() };
        };
        let mut profiles = BTreeMap::new();
        for (model, text) in &PROFILES[index] {
            let Some(profile) = read::<SizingProfile>(text).filter(|profile| profile.engine == crate::BUILD) else {
                continue;
            };
            let weights: BTreeMap<String, Weights> = WEIGHTS.get(model).and_then(|text| read(text)).unwrap_or_default();
            let of_weights = |weights| {
                let survey = profile.survey.clone().with_weights(weights);
                SizingProfile { survey, ..profile.clone() }
            };
            let all = weights.into_iter().map(|(quantization, weights)| (quantization, of_weights(weights)));
            profiles.insert(*model, all.collect());
        }
        Self { profiles }
    }

    /// The profile of a reference model in a quantization.
    pub fn get(&self, model: &str, quantization: &str) -> Option<&SizingProfile> {
        self.profiles.get(model)?.get(quantization)
    }

    /// Model, quantization and profile of all, in order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str, &SizingProfile)> {
        self.profiles.iter().flat_map(|(model, profiles)| {
            profiles.iter().map(|(quantization, profile)| (*model, quantization.as_str(), profile))
        })
    }
}

/// The entry of a backend's file.
///
/// # Errors
/// Never for a profile that a worker made.
pub fn profile_entry(model: &str, profile: &SizingProfile) -> serde_json::Result<Vec<u8>> {
    let survey = profile.survey.clone().with_weights(Weights::default());
    written(model, &SizingProfile { survey, ..profile.clone() })
}

/// The entry of the file of weights, from a profile in each quantization.
///
/// # Errors
/// Never for profiles that a worker made.
pub fn weights_entry(model: &str, profiles: &BTreeMap<String, SizingProfile>) -> serde_json::Result<Vec<u8>> {
    let weights: BTreeMap<&String, &Weights> =
        profiles.iter().map(|(name, profile)| (name, &profile.survey.weights)).collect();
    written(model, &weights)
}
