//! The planner, first form: which artifact each machine gets, and why the others lost. Pure.
//!
//! One role. Models in the order that the policy wants them; of each, artifacts with the most bits per weight first; the
//! first one that fits is chosen. What a model needs in memory was computed before by llama.cpp's own dry run and comes in
//! with [`PlanInput`], as do fresh identifiers: no clock, no I/O, no randomness. "Does not fit" is an entry with a reason.
//!
//! Entry point: [`plan`].

use std::collections::BTreeMap;

use muster_engine::speed;
use muster_proto::{
    Artifact, AssignmentId, Benchmark, Bytes, Candidate, Closeness, ContextTokens, DesiredAssignment, Device,
    DeviceKind, Inventory, MachineId, MachinePlan, MemoryNeed, ModelDigest, Plan, Policy, Prediction, Rejection,
    RejectionReason, RolePolicy, TokensPerSecond,
};

mod closeness;

/// Everything that a plan follows from.
#[derive(Clone, Debug, Default)]
pub struct PlanInput {
    /// What the operator wants; `None` before any policy was applied.
    pub policy: Option<Policy>,
    /// The catalog.
    pub models: Vec<PlanModel>,
    /// The accepted machines.
    pub machines: Vec<PlanMachine>,
}

/// A model of the catalog.
#[derive(Clone, Debug)]
pub struct PlanModel {
    /// Its name.
    pub name: String,
    /// The context it was trained with.
    pub context_train: Option<ContextTokens>,
    /// Its artifacts.
    pub artifacts: Vec<PlanArtifact>,
}

/// An artifact, with what predicts its speed.
#[derive(Clone, Debug)]
pub struct PlanArtifact {
    /// The artifact.
    pub artifact: Artifact,
    /// Bytes of weights that each decoded token reads.
    pub bytes_per_token: Bytes,
    /// Parameters that each token is multiplied with.
    pub parameters_per_token: u64,
}

/// A machine that may get something.
#[derive(Clone, Debug)]
pub struct PlanMachine {
    /// Which.
    pub id: MachineId,
    /// Its newest inventory.
    pub inventory: Option<Inventory>,
    /// Its newest benchmark.
    pub benchmark: Option<Benchmark>,
    /// What it is meant to run now.
    pub current: Vec<DesiredAssignment>,
    /// What llama.cpp's dry runs say for this machine's devices and the policy's settings, by file.
    pub sizings: BTreeMap<ModelDigest, Sizing>,
    /// The identifier that a new assignment gets.
    pub fresh_id: AssignmentId,
}

/// What a dry run said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Sizing {
    /// So much.
    Needs(MemoryNeed),
    /// llama.cpp does not take it, in its words.
    Refused(String),
}

/// Decides what every machine gets.
pub fn plan(input: &PlanInput) -> Plan {
    let models: BTreeMap<&str, &PlanModel> = input.models.iter().map(|model| (model.name.as_str(), model)).collect();
    let machines = input.machines.iter().map(|machine| (machine.id, plan_machine(input, &models, machine))).collect();
    Plan { machines }
}

fn blocked(reason: impl Into<String>) -> MachinePlan {
    MachinePlan { blocked: Some(reason.into()), ..MachinePlan::default() }
}

fn plan_machine(input: &PlanInput, models: &BTreeMap<&str, &PlanModel>, machine: &PlanMachine) -> MachinePlan {
    let Some((policy, role)) = input.policy.as_ref().and_then(|policy| Some((policy, policy.roles.first()?))) else {
        return blocked("no policy was applied yet: write one and run muster policy apply FILE");
    };
    let Some(inventory) = &machine.inventory else {
        return blocked("the machine has sent no inventory yet");
    };
    let wanted = wanted(models, role);
    if wanted.is_empty() {
        let names = role.models.join(", ");
        return blocked(format!(
            "none of the wanted models has a file in the catalog: {names}; run muster models import"
        ));
    }
    let room = Room::of(inventory, policy.reserve);
    let mut chosen: Option<(&PlanModel, &PlanArtifact, Prediction)> = None;
    let mut candidates = Vec::new();
    for (model, artifact) in wanted {
        let sizing = machine.sizings.get(&artifact.artifact.digest);
        let need = match sizing {
            Some(Sizing::Needs(need)) => Some(need),
            _ => None,
        };
        let (prefill, decode) = need.map_or((None, None), |need| predict(machine, inventory, need, artifact));
        let reason = match sizing {
            None => Some(RejectionReason::NotSized { error: "it was not sized yet".to_owned() }),
            Some(Sizing::Refused(error)) => Some(RejectionReason::NotSized { error: error.clone() }),
            Some(Sizing::Needs(need)) => context_short(model, role)
                .or_else(|| room.memory_short(need))
                .or_else(|| room.disk_short(machine, &artifact.artifact))
                .or_else(|| too_slow(role, decode)),
        };
        let reason = reason.or_else(|| {
            let (winner, better, _) = chosen.as_ref()?;
            if winner.name != model.name {
                return Some(RejectionReason::Outranked { by: winner.name.clone(), closeness: None });
            }
            let figures = closeness::divergences(model.artifacts.iter().map(|artifact| &artifact.artifact));
            let figure = |artifact: &PlanArtifact| figures.get(&artifact.artifact.digest).copied();
            let closeness = figure(better).zip(figure(artifact)).map(|(winner, this)| Closeness { winner, this });
            Some(RejectionReason::Outranked { by: better.artifact.quantization.clone(), closeness })
        });
        if let (None, Some(need)) = (&reason, need) {
            chosen = Some((model, artifact, Prediction { memory: need.clone(), prefill, decode }));
        }
        candidates.push(Candidate {
            model: model.name.clone(),
            quantization: artifact.artifact.quantization.clone(),
            digest: artifact.artifact.digest,
            bits_per_weight: artifact.artifact.bits_per_weight,
            needs: need.map(MemoryNeed::total),
            decode,
            rejected: reason.map(|reason| Rejection { reason }),
        });
    }
    let assignment = chosen.map(|(model, artifact, prediction)| assign(machine, role, model, artifact, prediction));
    MachinePlan { assignment, candidates, blocked: None }
}

/// The artifacts of the wanted models, the best first.
fn wanted<'a>(models: &BTreeMap<&str, &'a PlanModel>, role: &RolePolicy) -> Vec<(&'a PlanModel, &'a PlanArtifact)> {
    let mut wanted: Vec<(&PlanModel, &PlanArtifact)> = Vec::new();
    for name in &role.models {
        let Some(model) = models.get(name.as_str()) else { continue };
        if wanted.iter().any(|(earlier, _)| earlier.name == *name) {
            continue;
        }
        let mut artifacts: Vec<_> = model.artifacts.iter().collect();
        closeness::sort(&mut artifacts, |artifact| &artifact.artifact);
        wanted.extend(artifacts.into_iter().map(|artifact| (*model, artifact)));
    }
    wanted
}

/// The current assignment keeps its identifier where machine, role, file and settings are the same.
fn assign(
    machine: &PlanMachine,
    role: &RolePolicy,
    model: &PlanModel,
    artifact: &PlanArtifact,
    prediction: Prediction,
) -> DesiredAssignment {
    let settings = role.settings();
    let digest = artifact.artifact.digest;
    let same = |current: &&DesiredAssignment| {
        current.role == role.name && current.digest == digest && current.settings == settings
    };
    let id = machine.current.iter().find(same).map_or(machine.fresh_id, |current| current.id);
    DesiredAssignment {
        id,
        role: role.name.clone(),
        model: model.name.clone(),
        quantization: artifact.artifact.quantization.clone(),
        digest,
        size: artifact.artifact.size,
        settings,
        prediction,
    }
}

/// What may be had of a memory.
#[derive(Clone, Copy, Debug)]
struct Free {
    bytes: Bytes,
    /// Whether that is less than what is free now, because it is typically in use.
    typical: bool,
}

impl Free {
    fn of(planned: Bytes, now: Bytes, reserve: Bytes) -> Self {
        Self { bytes: planned.saturating_sub(reserve), typical: planned < now }
    }
}

/// What a machine may give, the reserve taken off.
#[derive(Clone, Debug)]
pub(crate) struct Room {
    host: Free,
    /// By llama.cpp's name of the device; `None` where it is not known what is free.
    devices: BTreeMap<String, Option<Free>>,
    /// Devices whose memory is main memory.
    shared: Vec<String>,
    disk: Option<Bytes>,
}

impl Room {
    /// What models may count on ([`Inventory::memory_to_plan`]), less the reserve on each device and on the host.
    pub fn of(inventory: &Inventory, reserve: Bytes) -> Self {
        let gpu = |device: &&Device| device.kind != DeviceKind::Cpu;
        let free = |device: &Device| {
            let free = inventory.free_to_plan(device);
            let of = |planned| Free::of(planned, device.memory_free.unwrap_or(planned), reserve);
            (device.name.clone(), free.map(of))
        };
        Self {
            host: Free::of(inventory.memory_to_plan(), inventory.memory.available, reserve),
            devices: inventory.devices.iter().filter(gpu).map(free).collect(),
            shared: inventory
                .devices
                .iter()
                .filter(|device| device.kind == DeviceKind::IntegratedGpu)
                .map(|device| device.name.clone())
                .collect(),
            disk: inventory.store_disk.map(|disk| disk.free),
        }
    }

    fn memory_short(&self, need: &MemoryNeed) -> Option<RejectionReason> {
        let short = |device: &str, needs: Bytes, Free { bytes: free, typical }: Free| {
            (needs > free).then(|| RejectionReason::MemoryShort { device: device.to_owned(), needs, free, typical })
        };
        let mut host = need.host.total();
        for device in &need.devices {
            if self.shared.contains(&device.name) {
                host = host + device.total();
            }
            let reason = match self.devices.get(&device.name) {
                Some(Some(free)) => short(&device.name, device.total(), *free),
                _ => Some(RejectionReason::Other {
                    text: format!("needs {} on {}, where it is not known what is free", device.total(), device.name),
                }),
            };
            if reason.is_some() {
                return reason;
            }
        }
        short("Host", host, self.host)
    }

    /// A file that the machine was given before is the machine's own matter: taking it away because it filled the disk
    /// would start it all over.
    fn disk_short(&self, machine: &PlanMachine, artifact: &Artifact) -> Option<RejectionReason> {
        let given = machine.current.iter().any(|current| current.digest == artifact.digest);
        let free = self.disk.filter(|free| !given && artifact.size > *free)?;
        Some(RejectionReason::DiskShort { needs: artifact.size, free })
    }
}

fn context_short(model: &PlanModel, role: &RolePolicy) -> Option<RejectionReason> {
    let has = model.context_train.filter(|has| *has < role.context)?;
    Some(RejectionReason::ContextShort { has: has.get(), wanted: role.context.get() })
}

fn too_slow(role: &RolePolicy, decode: Option<TokensPerSecond>) -> Option<RejectionReason> {
    let wanted = TokensPerSecond::new(role.min_decode.filter(|wanted| *wanted > 0.0)?)?;
    match decode {
        Some(predicted) if predicted < wanted => Some(RejectionReason::TooSlow { predicted, wanted }),
        Some(_) => None,
        None => Some(RejectionReason::Other {
            text: format!("policy wants {wanted} and no benchmark of this machine says whether it reaches that"),
        }),
    }
}

/// The speed on the device that holds most of the model. A benchmark of other hardware says nothing.
fn predict(
    machine: &PlanMachine,
    inventory: &Inventory,
    need: &MemoryNeed,
    artifact: &PlanArtifact,
) -> (Option<TokensPerSecond>, Option<TokensPerSecond>) {
    let Some(benchmark) =
        machine.benchmark.as_ref().filter(|b| b.hardware_fingerprint == inventory.hardware_fingerprint)
    else {
        return (None, None);
    };
    let gpu = need.devices.iter().max_by_key(|device| device.model).filter(|device| device.model > Bytes::ZERO);
    let cpu = inventory.devices.iter().find(|device| device.kind == DeviceKind::Cpu);
    let device = gpu.map(|gpu| gpu.name.as_str()).or(cpu.map(|cpu| cpu.name.as_str())).unwrap_or("CPU");
    speed::predict(benchmark, device, artifact.bytes_per_token, artifact.parameters_per_token)
}
