//! [`ReadinessReport`]: which machines can do a role, with which model, and what stands in the way of the others.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::open_enum::open_enum;
use crate::{
    Bytes, ChassisKind, ContextTokens, DeviceKind, GpuVendor, Hypothetical, MachineId, Obstacle, ObstacleKind,
    RemedyCount, Timestamp, TokensPerSecond, WhatIf, WhatIfTotals,
};

open_enum! {
    /// Whether a machine can do a role.
    Readiness {
        /// It can.
        Ready = 1 => "ready",
        /// It cannot; the reasons say why.
        NotReady = 2 => "not_ready",
        /// Too little is known, or what is known is too old or too vague.
        Unknown = 3 => "unknown",
    }
}

open_enum! {
    /// Where a model's layers would be.
    ModelPlacement {
        /// All on GPUs.
        Gpu = 1 => "gpu",
        /// Some on GPUs, the others in main memory.
        Partial = 2 => "partial",
        /// All in main memory.
        Cpu = 3 => "cpu",
    }
}

open_enum! {
    /// What of a model's work a speed is of.
    Phase {
        /// Reading the prompt.
        Prefill = 1 => "prefill",
        /// Writing the answer.
        Decode = 2 => "decode",
    }
}

open_enum! {
    /// What free memory was taken from.
    MemoryBasis {
        /// What is free 95 % of a working day.
        Typical = 1 => "typical",
        /// What was free when the inventory was collected.
        Momentary = 2 => "momentary",
    }
}

/// What a machine must be able to do.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RoleProfile {
    /// Its name, e.g. `chat-14b`.
    pub name: String,
    /// What the reference models that count are for: `chat`, `code` or `embed`.
    pub purpose: String,
    /// The fewest parameters of a model that counts.
    pub parameters_least: u64,
    /// The most.
    pub parameters_most: u64,
    /// The context that a model must have room for.
    pub context: ContextTokens,
    /// The smallest quantization that counts.
    pub least_quantization: String,
    /// The slowest prefill that is still worth having.
    pub prefill_floor: Option<TokensPerSecond>,
    /// The slowest decode.
    pub decode_floor: Option<TokensPerSecond>,
}

/// A speed with the interval that four of five real ones are in.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct SpeedRange {
    /// The most likely.
    pub expected: TokensPerSecond,
    /// The lower end.
    pub low: TokensPerSecond,
    /// The upper end.
    pub high: TokensPerSecond,
}

/// What stands in the way, with the figures that decided.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "reason", rename_all = "snake_case")]
pub enum ReasonCause {
    /// The machine has not said yet what it is.
    NoFacts,
    /// What it said is old.
    Stale {
        /// Days since then.
        days: u32,
    },
    /// The GPUs have too little memory.
    VramShort {
        /// What is missing.
        by: Bytes,
    },
    /// Main memory is too small.
    RamShort {
        /// What is missing.
        by: Bytes,
    },
    /// The model's file has no room.
    DiskShort {
        /// What is missing.
        by: Bytes,
    },
    /// Slower than the role wants.
    TooSlow {
        /// Prefill or decode.
        phase: Phase,
        /// The most likely speed.
        predicted: TokensPerSecond,
        /// What the role wants.
        wanted: TokensPerSecond,
    },
    /// It may be fast enough or not: published figures alone do not tell.
    Uncertain {
        /// Prefill or decode.
        phase: Phase,
        /// The lower end of the interval.
        low: TokensPerSecond,
        /// The upper end.
        high: TokensPerSecond,
        /// What the role wants.
        wanted: TokensPerSecond,
    },
    /// A model would do, with less context than the role wants: it was trained with less, or more has no room.
    ContextShort {
        /// With how much.
        has: ContextTokens,
        /// What the role wants.
        wanted: ContextTokens,
    },
    /// A GPU is there and its driver, or a part of it, is not.
    DriverMissing {
        /// The GPU.
        gpu: String,
        /// The agent's words.
        text: String,
    },
    /// A GPU is there and the agent may not open it.
    NoPermission {
        /// The GPU.
        gpu: String,
        /// The agent's words.
        text: String,
    },
    /// A GPU is there and this build of the engine cannot use it.
    GpuUnusable {
        /// The GPU.
        gpu: String,
        /// What kind of obstacle.
        kind: ObstacleKind,
        /// The agent's words.
        text: String,
    },
    /// There is no GPU, and the processor alone does not do it.
    NoDevice,
    /// Nothing is known of the speed of these parts, and nothing was measured.
    NotBenchmarked,
    /// A reason of a newer peer, in its words.
    Other {
        /// The words.
        text: String,
    },
}

impl ReasonCause {
    /// The word that reasons are counted by.
    pub const fn word(&self) -> &'static str {
        match self {
            Self::NoFacts => "no_facts",
            Self::Stale { .. } => "stale",
            Self::VramShort { .. } => "vram_short",
            Self::RamShort { .. } => "ram_short",
            Self::DiskShort { .. } => "disk_short",
            Self::TooSlow { .. } => "too_slow",
            Self::Uncertain { .. } => "uncertain",
            Self::ContextShort { .. } => "context_short",
            Self::DriverMissing { .. } => "driver_missing",
            Self::NoPermission { .. } => "no_permission",
            Self::GpuUnusable { .. } => "gpu_unusable",
            Self::NoDevice => "no_device",
            Self::NotBenchmarked => "not_benchmarked",
            Self::Other { .. } => "other",
        }
    }

    /// That a GPU cannot be used, for this obstacle.
    pub fn obstacle(gpu: String, obstacle: &Obstacle) -> Self {
        let text = obstacle.text.clone();
        match obstacle.kind {
            ObstacleKind::DriverMissing
            | ObstacleKind::ComputeDriverMissing
            | ObstacleKind::DriverBroken
            | ObstacleKind::TimedOut => Self::DriverMissing { gpu, text },
            ObstacleKind::NoPermission => Self::NoPermission { gpu, text },
            kind => Self::GpuUnusable { gpu, kind, text },
        }
    }
}

impl fmt::Display for ReasonCause {
    /// One short clause: `2.1 GiB of GPU memory short`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoFacts => f.write_str("nothing is known of the machine yet"),
            Self::Stale { days } => write!(f, "last heard of {days} days ago"),
            Self::VramShort { by } => write!(f, "{by} of GPU memory short"),
            Self::RamShort { by } => write!(f, "{by} of main memory short"),
            Self::DiskShort { by } => write!(f, "{by} short on the model store's volume"),
            Self::TooSlow { phase, predicted, wanted } => write!(f, "{phase} {predicted}, wanted {wanted}"),
            Self::Uncertain { phase, low, high, wanted } => {
                write!(f, "{phase} somewhere between {low} and {high}, wanted {wanted}")
            }
            Self::ContextShort { has, wanted } => {
                write!(f, "{} tokens of context at most, wanted {}", has.get(), wanted.get())
            }
            Self::DriverMissing { gpu, text }
            | Self::NoPermission { gpu, text }
            | Self::GpuUnusable { gpu, text, .. } => write!(f, "{gpu}: {text}"),
            Self::NoDevice => f.write_str("no GPU that llama.cpp can use"),
            Self::NotBenchmarked => f.write_str("its speed was never measured, and these parts are not known"),
            Self::Other { text } => f.write_str(text),
        }
    }
}

/// Why a machine is not ready, and what to do about it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ReadinessReason {
    /// What stands in the way.
    #[serde(flatten)]
    pub cause: ReasonCause,
    /// The cheapest that is known to help, e.g. `install mesa-vulkan-drivers`.
    pub remedy: Option<String>,
}

impl fmt::Display for ReadinessReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.remedy {
            Some(remedy) => write!(f, "{}: {remedy}", self.cause),
            None => self.cause.fmt(f),
        }
    }
}

/// One reference model on one machine, in the best quantization that it has room and speed for.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ModelVerdict {
    /// The reference model's id, e.g. `llama-3.1-8b`.
    pub model: String,
    /// Its name for people.
    pub name: String,
    /// Parameters, as its makers say.
    pub parameters: u64,
    /// The best quantization, or the smallest that was judged if none fits.
    pub quantization: String,
    /// The longest context that fits with it; nothing if not even the least does.
    pub context: Option<ContextTokens>,
    /// Where its layers would be; nothing if it does not fit.
    pub placement: Option<ModelPlacement>,
    /// Share of the layers on GPUs, 0 to 1.
    pub on_gpu: f64,
    /// GPU memory that it takes with the wanted context, the driver's part included.
    pub vram: Bytes,
    /// Main memory.
    pub ram: Bytes,
    /// Size of its file.
    pub file: Bytes,
    /// Prefill, from an empty context.
    pub prefill: Option<SpeedRange>,
    /// Decode, from an empty context.
    pub decode: Option<SpeedRange>,
    /// Whether the machine's own benchmark is behind the speeds.
    pub measured: bool,
    /// Whether it would do.
    pub verdict: Readiness,
    /// Why not.
    pub reasons: Vec<ReadinessReason>,
}

/// Whether a machine can do a role.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Assessment {
    /// The role's name.
    pub role: String,
    /// The verdict.
    pub verdict: Readiness,
    /// Why it is not ready, the cheapest remedy first.
    pub reasons: Vec<ReadinessReason>,
    /// The best model, or the one that comes nearest.
    pub best: Option<ModelVerdict>,
    /// What free memory was taken from; nothing without facts.
    pub memory_basis: Option<MemoryBasis>,
    /// Main memory that models can have.
    pub ram: Option<Bytes>,
    /// GPU memory that models can have, all usable GPUs together.
    pub vram: Option<Bytes>,
}

/// How old what is known of a machine is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FactTimes {
    /// When the controller last heard of it.
    pub seen: Option<Timestamp>,
    /// When its inventory was collected.
    pub inventory: Option<Timestamp>,
    /// When it was benchmarked.
    pub benchmark: Option<Timestamp>,
    /// The last sample of what is typically free.
    pub typical: Option<Timestamp>,
}

/// A GPU of the fleet.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct FleetGpu {
    /// The vendor's name for it.
    pub name: String,
    /// Who made it, where that is known.
    pub vendor: Option<GpuVendor>,
    /// Discrete or integrated.
    pub kind: DeviceKind,
    /// Its own memory.
    pub memory_total: Option<Bytes>,
    /// What was free of it.
    pub memory_free: Option<Bytes>,
    /// Its driver.
    pub driver: Option<String>,
    /// llama.cpp's name of it; nothing where llama.cpp cannot use it.
    pub engine_device: Option<String>,
    /// Why not.
    pub obstacle: Option<Obstacle>,
}

/// One machine of a report.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct MachineReadiness {
    /// Which.
    pub machine: MachineId,
    /// Its name.
    pub hostname: String,
    /// Its groups, in order.
    pub groups: Vec<String>,
    /// Whether its stream is up.
    pub online: bool,
    /// Its operating system.
    pub os: Option<String>,
    /// Its processor.
    pub cpu: Option<String>,
    /// Its kind.
    pub chassis: Option<ChassisKind>,
    /// Its main memory.
    pub memory_total: Option<Bytes>,
    /// What is free on the volume of its model store.
    pub disk_free: Option<Bytes>,
    /// Its GPUs.
    pub gpus: Vec<FleetGpu>,
    /// How old all this is.
    pub facts: FactTimes,
    /// The verdict.
    #[serde(flatten)]
    pub assessment: Assessment,
    /// What it would be after the report's change; nothing where that does not apply.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub what_if: Option<Hypothetical>,
}

impl MachineReadiness {
    /// Memory of its discrete GPUs, all together; nothing where it has none, or none whose memory is known.
    pub fn discrete_memory(&self) -> Option<Bytes> {
        let discrete = self.gpus.iter().filter(|gpu| gpu.kind != DeviceKind::IntegratedGpu);
        let sizes: Vec<Bytes> = discrete.filter_map(|gpu| gpu.memory_total).collect();
        (!sizes.is_empty()).then(|| sizes.into_iter().sum())
    }
}

/// On how many machines a reference model would run as the role wants it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModelCoverage {
    /// The reference model's id.
    pub model: String,
    /// Its name for people.
    pub name: String,
    /// Parameters, as its makers say.
    pub parameters: u64,
    /// Whether it is of the role's class.
    pub counts: bool,
    /// Machines.
    pub machines: u32,
}

/// Machines with so much memory on discrete GPUs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VramBin {
    /// At least so much; nothing is for no discrete GPU.
    pub from: Bytes,
    /// Less than so much; the last bin has no end.
    pub to: Option<Bytes>,
    /// Machines.
    pub machines: u32,
}

/// The largest reference model that runs on a share of the fleet.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CoverageLevel {
    /// The share, in percent.
    pub percent: u32,
    /// That model's id; nothing if no model runs on so many.
    pub model: Option<String>,
    /// Its name.
    pub name: Option<String>,
    /// The machines that it runs on.
    pub machines: u32,
}

/// What all machines come to.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReadinessSummary {
    /// All machines.
    pub machines: u32,
    /// Those that are ready.
    pub ready: u32,
    /// Those that are not.
    pub not_ready: u32,
    /// Those of which it is not known.
    pub unknown: u32,
    /// On how many machines each reason stands, the most frequent first.
    pub reasons: Vec<(String, u32)>,
    /// Machines by memory of their discrete GPUs.
    pub vram: Vec<VramBin>,
    /// The largest model for half, four fifths and nearly all of the machines.
    pub coverage: Vec<CoverageLevel>,
    /// The totals after the report's change.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub what_if: Option<WhatIfTotals>,
}

/// The readiness of a fleet for one role.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ReadinessReport {
    /// When it was made.
    pub at: Timestamp,
    /// The role.
    pub role: RoleProfile,
    /// The group that it is of; nothing for all machines.
    pub group: Option<String>,
    /// What it comes to.
    pub summary: ReadinessSummary,
    /// Every machine, by name.
    pub machines: Vec<MachineReadiness>,
    /// Every reference model of the role's purpose, the largest first.
    pub models: Vec<ModelCoverage>,
    /// How many machines that are not ready each single change would make ready, the cheapest kind first; those that help
    /// nobody are left out.
    #[serde(default)]
    pub remedies: Vec<RemedyCount>,
    /// The change that was asked about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub what_if: Option<WhatIf>,
}

/// Where bins of the histogram begin, in GiB; those of common cards are apart.
const VRAM_BINS: [u64; 10] = [0, 1, 5, 7, 9, 13, 17, 25, 33, 49];

/// The shares that models are named for, in percent.
const LEVELS: [u32; 3] = [50, 80, 95];

impl ReadinessReport {
    /// Sums up what was found; rows and models are put in order.
    pub fn new(
        at: Timestamp,
        role: RoleProfile,
        group: Option<String>,
        mut machines: Vec<MachineReadiness>,
        mut models: Vec<ModelCoverage>,
    ) -> Self {
        machines.sort_by(|one, other| (&one.hostname, one.machine).cmp(&(&other.hostname, other.machine)));
        models.sort_by(|one, other| (other.parameters, &one.model).cmp(&(one.parameters, &other.model)));
        let summary = ReadinessSummary::of(&machines, &models);
        Self { at, role, group, summary, machines, models, remedies: Vec::new(), what_if: None }
    }

    /// With what changes would do; the rows say what comes of `what_if`.
    #[must_use]
    pub fn with_changes(mut self, remedies: Vec<RemedyCount>, what_if: Option<WhatIf>) -> Self {
        self.summary.what_if = what_if.is_some().then(|| totals_then(&self.machines));
        Self { remedies, what_if, ..self }
    }
}

fn totals_then(machines: &[MachineReadiness]) -> WhatIfTotals {
    let mut totals = WhatIfTotals::default();
    for row in machines {
        let now = row.assessment.verdict;
        let then = row.what_if.as_ref().map_or(now, |what_if| what_if.verdict);
        match then {
            Readiness::Ready => totals.ready += 1,
            Readiness::NotReady => totals.not_ready += 1,
            _ => totals.unknown += 1,
        }
        totals.made_ready += u32::from(then == Readiness::Ready && now != Readiness::Ready);
    }
    totals
}

impl ReadinessSummary {
    fn of(machines: &[MachineReadiness], models: &[ModelCoverage]) -> Self {
        let count = |wanted: Readiness| whole(machines.iter().filter(|row| row.assessment.verdict == wanted).count());
        let all = whole(machines.len());
        let (ready, not_ready) = (count(Readiness::Ready), count(Readiness::NotReady));
        Self {
            machines: all,
            ready,
            not_ready,
            unknown: all - ready - not_ready,
            reasons: reasons(machines),
            vram: histogram(machines),
            coverage: LEVELS.iter().map(|percent| level(*percent, all, models)).collect(),
            what_if: None,
        }
    }
}

fn whole(count: usize) -> u32 {
    u32::try_from(count).unwrap_or(u32::MAX)
}

fn reasons(machines: &[MachineReadiness]) -> Vec<(String, u32)> {
    let mut counts: BTreeMap<&str, u32> = BTreeMap::new();
    for row in machines {
        let mut words: Vec<&str> = row.assessment.reasons.iter().map(|reason| reason.cause.word()).collect();
        words.sort_unstable();
        words.dedup();
        for word in words {
            *counts.entry(word).or_default() += 1;
        }
    }
    let mut counts: Vec<(String, u32)> = counts.into_iter().map(|(word, count)| (word.to_owned(), count)).collect();
    counts.sort_by(|one, other| (other.1, &one.0).cmp(&(one.1, &other.0)));
    counts
}

fn histogram(machines: &[MachineReadiness]) -> Vec<VramBin> {
    let bin = |index: usize| VramBin {
        from: Bytes::from_gib(VRAM_BINS[index]),
        to: VRAM_BINS.get(index + 1).map(|gib| Bytes::from_gib(*gib)),
        machines: 0,
    };
    let mut bins: Vec<VramBin> = (0..VRAM_BINS.len()).map(bin).collect();
    for row in machines.iter().filter(|row| row.facts.inventory.is_some()) {
        let memory = row.discrete_memory().unwrap_or(Bytes::ZERO);
        if let Some(bin) = bins.iter_mut().rev().find(|bin| bin.from <= memory) {
            bin.machines += 1;
        }
    }
    bins
}

/// The largest of the models, which are in order, that runs on `percent` of `all`.
fn level(percent: u32, all: u32, models: &[ModelCoverage]) -> CoverageLevel {
    let enough =
        |model: &&ModelCoverage| all > 0 && u64::from(model.machines) * 100 >= u64::from(percent) * u64::from(all);
    let found = models.iter().find(enough);
    CoverageLevel {
        percent,
        model: found.map(|model| model.model.clone()),
        name: found.map(|model| model.name.clone()),
        machines: found.map_or(0, |model| model.machines),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn coverage(model: &str, parameters: u64, machines: u32) -> ModelCoverage {
        ModelCoverage { model: model.into(), name: model.into(), parameters, counts: true, machines }
    }

    #[test]
    fn the_largest_model_for_a_share_is_found() {
        let models = [coverage("large", 70, 4), coverage("middle", 14, 8), coverage("small", 1, 10)];
        let named = |percent| level(percent, 10, &models).model;
        assert_eq!(named(50).as_deref(), Some("middle"));
        assert_eq!(named(80).as_deref(), Some("middle"));
        assert_eq!(named(95).as_deref(), Some("small"));
        assert_eq!(level(50, 0, &[]).model, None);
    }

    #[test]
    fn a_reason_reads_and_comes_back() {
        let reason = ReadinessReason {
            cause: ReasonCause::VramShort { by: Bytes::from_mib(2150) },
            remedy: Some("a GPU with 12 GiB".into()),
        };
        assert_eq!(reason.to_string(), "2.1 GiB of GPU memory short: a GPU with 12 GiB");
        let json = serde_json::to_string(&reason).expect("JSON");
        assert_eq!(json, r#"{"reason":"vram_short","by":2254438400,"remedy":"a GPU with 12 GiB"}"#);
        assert_eq!(serde_json::from_str::<ReadinessReason>(&json).expect("its own"), reason);
    }
}
