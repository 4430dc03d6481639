//! [`Judge`]: holds a desk against reference models and roles.

use std::cmp::Ordering;

use muster_proto::{
    Assessment, Benchmark, Bytes, ContextTokens, Inventory, ModelPlacement, ModelVerdict, Phase, Readiness,
    ReadinessReason, ReasonCause, RoleProfile, Timestamp, TokensPerSecond,
};

use super::desk::Desk;
use super::roles::{counts, roles, serves};
use super::sizes::{CONTEXTS, QUANTIZATIONS, Size, Sizes, sizes};
use super::speeds::{DeskSpeeds, Memory, STEPS, Speeds};
use crate::reference::{self, ReferenceModel};

/// How far apart the ends of an interval may be, as a factor, for published figures alone to decide about a floor in it.
pub const WIDE: f64 = 1.6;

/// How many days what a silent machine said is believed.
pub const STALE_DAYS: u64 = 30;

/// What stays free on the volume of the model store.
const DISK_RESERVE: u64 = 1 << 30;

/// Judges machines, and remembers what it worked out for one of a kind; threads share it.
#[derive(Debug, Default)]
pub struct Judge {
    memory: Memory,
}

/// Whether a machine can do a role; see [`Judge::evaluate`].
pub fn evaluate(inventory: &Inventory, benchmark: Option<&Benchmark>, role: &RoleProfile) -> Assessment {
    Judge::default().evaluate(inventory, benchmark, role)
}

/// Every reference model on a machine; see [`Judge::table`].
pub fn table(inventory: &Inventory, benchmark: Option<&Benchmark>) -> Vec<ModelVerdict> {
    Judge::default().table(inventory, benchmark)
}

/// Where a model would go.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Fit {
    /// Sixteenths of the layers on GPUs.
    pub share: u8,
    pub vram: u64,
    pub ram: u64,
}

/// What is missing for a model.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Short {
    /// For all layers on GPUs; nothing without a GPU.
    pub vram: Option<u64>,
    /// For all layers in main memory.
    pub ram: u64,
}

/// How a model stands on a desk.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Standing {
    Ready,
    /// Published figures alone do not tell.
    Uncertain(Phase),
    /// Nothing is known of the speed.
    NoSpeed,
    /// The file has no room.
    Disk(u64),
    /// Would do with so many tokens of context, which are fewer than the role wants.
    Context(u32),
    /// Reaches so much of a floor.
    Slow(Phase, f64),
    Short(Short),
}

impl Standing {
    fn verdict(self) -> Readiness {
        match self {
            Self::Ready => Readiness::Ready,
            Self::Uncertain(_) | Self::NoSpeed => Readiness::Unknown,
            Self::Disk(_) | Self::Context(_) | Self::Slow(..) | Self::Short(_) => Readiness::NotReady,
        }
    }

    /// Nearer to ready is less.
    pub fn order(self, other: Self) -> Ordering {
        let class = |standing: Self| match standing {
            Self::Ready => 0,
            Self::Uncertain(_) => 1,
            Self::NoSpeed => 2,
            Self::Disk(_) => 3,
            Self::Context(_) => 4,
            Self::Slow(..) => 5,
            Self::Short(_) => 6,
        };
        let within = match (self, other) {
            (Self::Disk(one), Self::Disk(two)) => one.cmp(&two),
            (Self::Context(one), Self::Context(two)) => two.cmp(&one),
            (Self::Slow(_, one), Self::Slow(_, two)) => two.total_cmp(&one),
            (Self::Short(one), Self::Short(two)) => one.least().cmp(&two.least()),
            _ => Ordering::Equal,
        };
        class(self).cmp(&class(other)).then(within)
    }
}

impl Short {
    fn least(self) -> u64 {
        self.vram.map_or(self.ram, |vram| vram.min(self.ram))
    }
}

/// One model in one quantization on one desk.
#[derive(Clone, Copy, Debug)]
pub(super) struct Outcome {
    pub model: usize,
    pub quantization: usize,
    pub fit: Option<Fit>,
    pub speeds: Option<Speeds>,
    pub standing: Standing,
}

impl Outcome {
    /// Whether all layers are on GPUs.
    pub fn whole(&self) -> bool {
        self.fit.is_some_and(|fit| fit.share == STEPS)
    }
}

/// A desk, its speeds and a role, as one question.
pub(super) struct Case<'a> {
    pub desk: &'a Desk,
    pub role: &'a RoleProfile,
    pub speeds: DeskSpeeds<'a>,
}

impl Case<'_> {
    /// Sizes with the wanted context, or with the longest that the model was trained for where `shorter` will do.
    pub fn wanted<'s>(&self, sizes: &'s Sizes, shorter: bool) -> Option<&'s Size> {
        let wanted = context_index(self.role.context).and_then(|index| sizes.by_context.get(index));
        wanted.or_else(|| if shorter { sizes.by_context.last() } else { None })
    }

    /// The smallest quantization that counts.
    pub fn least(&self) -> usize {
        let named = QUANTIZATIONS.iter().position(|name| *name == self.role.least_quantization);
        named.unwrap_or(QUANTIZATIONS.len() - 1)
    }

    /// A model in the best quantization that does, wholly on GPUs before partly, else in the one that comes nearest. Nothing
    /// where no size is known, or
    /// the model was trained with less context and that will not do.
    pub fn model(&self, model: usize, shorter: bool) -> Option<Outcome> {
        let mut nearest: Option<Outcome> = None;
        for quantization in 0..=self.least() {
            let outcome = self.quantized(model, quantization, shorter, false)?;
            if outcome.standing == Standing::Ready && outcome.whole() {
                return Some(outcome);
            }
            if nearest.is_none_or(|nearest| outcome.standing.order(nearest.standing) == Ordering::Less) {
                nearest = Some(outcome);
            }
        }
        nearest
    }

    /// A model in one quantization; with speeds of this very model where `exact`.
    pub fn quantized(&self, model: usize, quantization: usize, shorter: bool, exact: bool) -> Option<Outcome> {
        let sizes = sizes(self.desk.backend(), model, quantization)?;
        Some(self.sized((model, quantization), sizes, self.wanted(sizes, shorter)?, exact))
    }

    /// The same with sizes of one context.
    pub fn sized(&self, (model, quantization): (usize, usize), sizes: &Sizes, size: &Size, exact: bool) -> Outcome {
        let outcome = |fit, speeds, standing| Outcome { model, quantization, fit, speeds, standing };
        let fit = match fit(self.desk, size) {
            Ok(fit) => fit,
            Err(short) => return outcome(None, None, Standing::Short(short)),
        };
        let speeds = if exact {
            self.speeds.exact(model, quantization, fit.share)
        } else {
            self.speeds.quick(model, quantization, fit.share)
        };
        let mut standing = speeds.map_or(Standing::NoSpeed, |speeds| self.hold(&speeds));
        let file = sizes.file.saturating_add(DISK_RESERVE);
        if let Some(missing) = self.desk.disk.and_then(|free| file.checked_sub(free)).filter(|missing| *missing > 0)
            && !matches!(standing, Standing::Slow(..))
        {
            standing = Standing::Disk(missing);
        }
        outcome(Some(fit), speeds, standing)
    }

    /// Speeds against the role's floors.
    fn hold(&self, speeds: &Speeds) -> Standing {
        let floors = [
            (Phase::Prefill, self.role.prefill_floor, &speeds.prefill),
            (Phase::Decode, self.role.decode_floor, &speeds.decode),
        ];
        let mut worst = Standing::Ready;
        for (phase, floor, speed) in floors {
            let Some(floor) = floor.map(TokensPerSecond::get).filter(|floor| *floor > 0.0) else { continue };
            let (low, high) = (speed.low.get(), speed.high.get());
            let straddles = low < floor && floor <= high;
            let standing = if !speeds.measured && straddles && high > low * WIDE {
                Standing::Uncertain(phase)
            } else if speed.expected.get() < floor {
                Standing::Slow(phase, speed.expected.get() / floor)
            } else {
                continue;
            };
            if worst.order(standing) == Ordering::Less {
                worst = standing;
            }
        }
        worst
    }

    /// What is told of an outcome.
    pub fn tell(&self, outcome: &Outcome) -> Option<ModelVerdict> {
        let model = reference::all().get(outcome.model)?;
        let sizes = sizes(self.desk.backend(), outcome.model, outcome.quantization)?;
        let size = self.wanted(sizes, true)?;
        let speeds = outcome.speeds;
        let share = outcome.fit.map(|fit| fit.share);
        Some(ModelVerdict {
            model: model.id.clone(),
            name: model.name.clone(),
            parameters: model.parameters(),
            quantization: QUANTIZATIONS[outcome.quantization].to_owned(),
            context: outcome.fit.and_then(|fit| longest(self.desk, sizes, fit.share)).map(ContextTokens::new),
            placement: share.map(|share| match share {
                0 => ModelPlacement::Cpu,
                STEPS => ModelPlacement::Gpu,
                _ => ModelPlacement::Partial,
            }),
            on_gpu: share.map_or(0.0, |share| f64::from(share) / f64::from(STEPS)),
            vram: Bytes::new(outcome.fit.map_or_else(|| whole_vram(self.desk, size), |fit| fit.vram)),
            ram: Bytes::new(outcome.fit.map_or(size.alone + size.alone_compute, |fit| fit.ram)),
            file: Bytes::new(sizes.file),
            prefill: speeds.map(|speeds| speeds.prefill),
            decode: speeds.map(|speeds| speeds.decode).filter(|_| !is_embedder(model)),
            measured: speeds.is_some_and(|speeds| speeds.measured),
            verdict: outcome.standing.verdict(),
            reasons: self.reasons(outcome),
        })
    }
}

pub(super) fn context_index(context: ContextTokens) -> Option<usize> {
    CONTEXTS.iter().position(|known| *known >= context.get())
}

fn is_embedder(model: &ReferenceModel) -> bool {
    model.roles == [reference::ModelRole::Embed]
}

/// What weights and caches can have of all GPUs, when each also holds compute buffers.
fn room(desk: &Desk, size: &Size) -> u64 {
    desk.gpus.iter().map(|gpu| gpu.budget.saturating_sub(size.device_compute)).fold(0, u64::saturating_add)
}

/// GPU memory with all layers there, drivers included.
fn whole_vram(desk: &Desk, size: &Size) -> u64 {
    let each = |surcharge: u64| size.device_compute + surcharge;
    size.device + desk.gpus.iter().map(|gpu| each(gpu.surcharge)).sum::<u64>()
}

/// What is missing for all layers on GPUs; nothing without a GPU.
pub(super) fn vram_short(desk: &Desk, size: &Size) -> Option<u64> {
    let first = desk.gpus.first()?;
    let mut missing = size.device.saturating_sub(room(desk, size));
    if first.shared {
        // Main memory holds all of it.
        missing = missing.max((whole_vram(desk, size) + size.beside).saturating_sub(desk.ram));
    } else if size.beside > desk.ram {
        missing = missing.max(1);
    }
    Some(missing)
}

/// As many layers on GPUs as have room; all others in main memory.
pub(super) fn fit(desk: &Desk, size: &Size) -> Result<Fit, Short> {
    let short = vram_short(desk, size);
    if short == Some(0) {
        return Ok(Fit { share: STEPS, vram: whole_vram(desk, size), ram: size.beside });
    }
    if short.is_some() && !desk.shared() {
        let steps = room(desk, size).saturating_mul(u64::from(STEPS)) / size.device.max(1);
        let steps = steps.min(u64::from(STEPS) - 1);
        let on_host = size.alone / u64::from(STEPS) * (u64::from(STEPS) - steps);
        let ram = on_host + size.beside.max(size.alone_compute);
        if steps > 0 && ram <= desk.ram {
            let drivers = whole_vram(desk, size) - size.device;
            let share = u8::try_from(steps).unwrap_or(STEPS - 1);
            return Ok(Fit { share, vram: size.device / u64::from(STEPS) * steps + drivers, ram });
        }
    }
    let alone = size.alone + size.alone_compute;
    if alone <= desk.ram {
        return Ok(Fit { share: 0, vram: 0, ram: alone });
    }
    Err(Short { vram: short, ram: alone - desk.ram })
}

/// The longest context that leaves as many layers on GPUs.
fn longest(desk: &Desk, sizes: &Sizes, share: u8) -> Option<u32> {
    let fits = |size: &Size| fit(desk, size).is_ok_and(|fit| fit.share >= share);
    let index = sizes.by_context.iter().rposition(fits)?;
    CONTEXTS.get(index).copied()
}

/// Nearer to ready first; then wholly on GPUs, the best quantization, the largest model; later ones of a size are newer.
pub(super) fn nearer(one: &Outcome, other: &Outcome) -> Ordering {
    let parameters = |outcome: &Outcome| reference::all()[outcome.model].parameters();
    (one.standing.order(other.standing))
        .then(other.whole().cmp(&one.whole()))
        .then(one.quantization.cmp(&other.quantization))
        .then(parameters(other).cmp(&parameters(one)))
        .then(other.model.cmp(&one.model))
}

/// What a role comes to on a desk, and which models would do.
pub(super) struct Found {
    pub assessment: Assessment,
    /// Indices of models that are for the role's purpose and would do.
    pub running: Vec<usize>,
}

impl Judge {
    /// A judge that knows nothing yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Whether a machine can do a role.
    pub fn evaluate(&self, inventory: &Inventory, benchmark: Option<&Benchmark>, role: &RoleProfile) -> Assessment {
        self.find(inventory, benchmark, role).assessment
    }

    pub(super) fn find(&self, inventory: &Inventory, benchmark: Option<&Benchmark>, role: &RoleProfile) -> Found {
        let desk = self.desk(inventory);
        let mut found = self.on_desk(&desk, speaking(benchmark, inventory), role);
        if found.assessment.verdict != Readiness::Ready && !desk.obstructed.is_empty() {
            self.clear(&desk, role, &mut found.assessment);
        }
        found
    }

    pub(super) fn desk(&self, inventory: &Inventory) -> Desk {
        Desk::of(inventory, &|name| self.memory.find(name))
    }

    /// Whether any model of the role's class does on a desk: what [`Judge::evaluate`] would say, with less work.
    pub(super) fn does(&self, desk: &Desk, benchmark: Option<&Benchmark>, role: &RoleProfile) -> bool {
        let case = Case { desk, role, speeds: DeskSpeeds::new(&self.memory, desk, benchmark) };
        let ready = |outcome: &Outcome| outcome.standing == Standing::Ready;
        reference::all().iter().enumerate().filter(|(_, model)| counts(model, role)).any(|(index, _)| {
            let outcome = case.model(index, false).filter(ready);
            outcome.and_then(|found| case.quantized(index, found.quantization, false, true)).is_some_and(|o| ready(&o))
        })
    }

    pub(super) fn on_desk(&self, desk: &Desk, benchmark: Option<&Benchmark>, role: &RoleProfile) -> Found {
        let case = Case { desk, role, speeds: DeskSpeeds::new(&self.memory, desk, benchmark) };
        let mut running = Vec::new();
        let mut candidates = Vec::new();
        for (index, model) in reference::all().iter().enumerate().filter(|(_, model)| serves(model, role)) {
            let Some(outcome) = case.model(index, false) else { continue };
            if outcome.standing == Standing::Ready {
                running.push(index);
            }
            if counts(model, role) {
                candidates.push(outcome);
            }
        }
        candidates.sort_by(nearer);
        let exact = |outcome: &Outcome| case.quantized(outcome.model, outcome.quantization, false, true);
        let ready = candidates.iter().take_while(|outcome| outcome.standing == Standing::Ready);
        let best = ready
            .filter_map(exact)
            .find(|outcome| outcome.standing == Standing::Ready)
            .or_else(|| candidates.first().and_then(exact));
        let mut best = best.and_then(|best| case.tell(&best));
        if best.as_ref().is_none_or(|best| best.verdict == Readiness::NotReady)
            && let Some(mut shortened) = case.shortened().and_then(|shortened| case.tell(&shortened))
        {
            // What helps the model that comes nearest with the whole context is told as well.
            shortened.reasons.extend(best.into_iter().flat_map(|best| best.reasons));
            best = Some(shortened);
        }
        let verdict = best.as_ref().map_or(Readiness::Unknown, |best| best.verdict);
        let assessment = Assessment {
            role: role.name.clone(),
            verdict,
            reasons: best.as_ref().map(|best| best.reasons.clone()).unwrap_or_default(),
            best,
            memory_basis: Some(desk.basis),
            ram: Some(Bytes::new(desk.ram)),
            vram: desk.vram().map(Bytes::new),
        };
        Found { assessment, running }
    }

    /// Says of a machine that is not ready what it would be if its obstructed GPUs could be used.
    fn clear(&self, desk: &Desk, role: &RoleProfile, assessment: &mut Assessment) {
        let cleared = desk.without_obstacles();
        let then = self.on_desk(&cleared, None, role).assessment;
        let ready = match (&then.best, then.verdict) {
            (Some(best), Readiness::Ready) => Some(format!("{} {}", best.name, best.quantization)),
            _ => None,
        };
        let reason = |obstructed: &super::desk::Obstructed| {
            let cause = ReasonCause::obstacle(obstructed.label.clone(), &obstructed.obstacle);
            let remedy = match (&obstructed.obstacle.remedy, &ready) {
                (Some(remedy), Some(ready)) => Some(format!("{remedy}: ready then with {ready}")),
                (None, Some(ready)) => Some(format!("without this obstacle ready with {ready}")),
                (remedy, None) => remedy.clone(),
            };
            ReadinessReason { cause, remedy }
        };
        let mut reasons: Vec<ReadinessReason> = desk.obstructed.iter().map(reason).collect();
        if ready.is_some() {
            // That there is no GPU would be wrong: there is one.
            assessment.reasons.retain(|reason| reason.cause != ReasonCause::NoDevice);
            assessment.verdict = Readiness::NotReady;
            reasons.append(&mut assessment.reasons);
            assessment.reasons = reasons;
        } else {
            assessment.reasons.append(&mut reasons);
        }
    }

    /// Every reference model in the best quantization that does, judged by the floors of its own class; the largest first.
    pub fn table(&self, inventory: &Inventory, benchmark: Option<&Benchmark>) -> Vec<ModelVerdict> {
        let desk = self.desk(inventory);
        let benchmark = speaking(benchmark, inventory);
        let roles = roles();
        let mut rows: Vec<ModelVerdict> = Vec::new();
        for (index, model) in reference::all().iter().enumerate() {
            let own = roles.iter().find(|role| counts(model, role));
            let Some(role) = own.or_else(|| roles.iter().find(|role| serves(model, role))) else { continue };
            let case = Case { desk: &desk, role, speeds: DeskSpeeds::new(&self.memory, &desk, benchmark) };
            let outcome = case.model(index, true);
            let outcome = outcome.and_then(|outcome| case.quantized(index, outcome.quantization, true, true));
            rows.extend(outcome.and_then(|outcome| case.tell(&outcome)));
        }
        rows.sort_by(|one, other| (other.parameters, &one.model).cmp(&(one.parameters, &other.model)));
        rows
    }
}

/// A benchmark if it is of this hardware and this engine.
pub(super) fn speaking<'a>(benchmark: Option<&'a Benchmark>, inventory: &Inventory) -> Option<&'a Benchmark> {
    benchmark.filter(|benchmark| {
        benchmark.hardware_fingerprint == inventory.hardware_fingerprint
            && benchmark.engine_build == inventory.engine_build
    })
}

/// That nothing is known of a machine.
pub(super) fn without_facts(role: &RoleProfile) -> Assessment {
    Assessment {
        role: role.name.clone(),
        verdict: Readiness::Unknown,
        reasons: vec![ReadinessReason {
            cause: ReasonCause::NoFacts,
            remedy: Some("start its agent once (muster-agent run)".to_owned()),
        }],
        best: None,
        memory_basis: None,
        ram: None,
        vram: None,
    }
}

/// Days since `then` if they are too many.
pub(super) fn stale(then: Timestamp, now: Timestamp) -> Option<u32> {
    let days = now.since(then).as_secs() / 86_400;
    (days > STALE_DAYS).then(|| u32::try_from(days).unwrap_or(u32::MAX))
}
