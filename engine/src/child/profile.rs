//! Surveys of a model for its sizing profile: opened to count, once in each layout, and asked for many contexts.

use std::collections::{BTreeMap, BTreeSet};

use super::jobs::{DryRun, check_header, path_of, settings_of};
use super::outbox::Outbox;
use crate::ffi;
use crate::profile::fit::{Sample, Tree, fit, fit_bands, size};
use crate::profile::planes::Plane;
use crate::profile::shape::{Rules, Shape, Wanted};
use crate::profile::survey::{
    Attention, BlockCache, BlockWeights, Cache, Curves, Layout, MODES, Placed, Survey, Weights, mode, runs,
};
use crate::wire::{self, from_worker::Reply};

/// Intervals of partial offload at most.
const MOST_PARTS: usize = 5;
/// A curve is good when it misses no point by more, as a share.
const GOOD: f64 = 2e-3;
/// Rounds of checking at points that were not used, and of adding those that were missed.
const ROUNDS: u32 = 3;
/// Points in the first round; each later one has so many more, as something was missed.
const CHECKS: u32 = 5;
/// Sizes of micro-batches that get pieces of their own, where copies of weights are among the tensors.
const BANDS: [u32; 6] = [64, 128, 256, 512, 1024, 2048];

pub fn run(request: &wire::Profile, id: u64, outbox: &Outbox) -> Result<Reply, String> {
    let path = path_of(&request.path);
    check_header(&path)?;
    let devices = if request.phantom.is_some() { request.devices.max(1) } else { 0 };
    if let Some(kind) = &request.phantom {
        let phantom = |index| ffi::Phantom {
            name: format!("{}{index}", kind.name),
            backend: kind.backend,
            // More than any model takes.
            total: 1 << 46,
            free: 1 << 46,
            capability: kind.capability,
            integrated: kind.integrated,
        };
        ffi::register_phantoms(&(0..devices).map(phantom).collect::<Vec<_>>(), &ffi::Earlier::default())?;
    }
    let mut surveyor =
        Surveyor { path, devices, depth: request.depth, f16_only: request.f16_only, survey: None, random: 1 };
    let survey = surveyor.survey(&mut |share| {
        outbox.progress(id, share, "sizing");
    })?;
    let profile = serde_json::to_vec(&survey).map_err(|error| error.to_string())?;
    Ok(Reply::Profiled(wire::Profiled { profile }))
}

struct Surveyor {
    path: std::path::PathBuf,
    devices: u32,
    /// 0 weights and caches, 1 all on GPUs or all on the host, 2 everything.
    depth: u32,
    f16_only: bool,
    survey: Option<Survey>,
    random: u64,
}

/// An opened model.
struct Opened {
    model: ffi::Model,
    places: usize,
    host_only: bool,
    gpu_layers: Option<u32>,
    experts_on_host: u32,
}

impl Opened {
    fn settings(&self, wanted: &Wanted, attention: Attention) -> ffi::Settings {
        let (kv_type, flash_attention) = match attention {
            Attention::Fused16 => (1, 2),
            Attention::Fused8 => (2, 2),
            Attention::Fused4 => (3, 2),
            Attention::Plain16 => (1, 3),
        };
        self.raw_settings(wanted, kv_type, flash_attention)
    }

    fn raw_settings(&self, wanted: &Wanted, kv_type: i32, flash_attention: i32) -> ffi::Settings {
        raw_settings(wanted, kv_type, flash_attention, self.host_only, self.gpu_layers, self.experts_on_host)
    }

    fn ask(&mut self, rules: Rules, wanted: &Wanted, attention: Attention) -> Result<Vec<ffi::Reserved>, String> {
        let shape = Shape::of(wanted, rules);
        let number = |value: u64| u32::try_from(value).map_err(|_| format!("a context of {value} cells"));
        let shape = ffi::Shape {
            tokens: number(shape.tokens)?,
            outputs: number(shape.outputs)?,
            cells: number(shape.cells)?,
            streams: number(shape.streams)?,
        };
        self.model.reserve(&self.settings(wanted, attention), &shape, self.places - 1)
    }
}

fn raw_settings(
    wanted: &Wanted,
    kv_type: i32,
    flash_attention: i32,
    host_only: bool,
    gpu_layers: Option<u32>,
    experts_on_host: u32,
) -> ffi::Settings {
    let settings = wire::Settings {
        context: wanted.context,
        parallel: wanted.parallel,
        batch: wanted.batch,
        ubatch: wanted.ubatch,
        kv_type,
        gpu_layers: if host_only { Some(0) } else { gpu_layers },
        kv_unified: wanted.unified,
        flash_attention,
        expert_layers_on_host: experts_on_host,
    };
    let options = wire::SizeOptions {
        total_context: Some(wanted.context),
        all_outputs: wanted.all_outputs,
        ..wire::SizeOptions::default()
    };
    // An encoder has no matrix of logits, and so the same buffers for any number of outputs.
    settings_of(&settings, false, 1, Some(DryRun { phantoms: !host_only, options }))
}

/// One sequence with a micro-batch of llama.cpp's size.
const PLAIN: Wanted =
    Wanted { context: 4096, parallel: 1, batch: 4096, ubatch: 2048, unified: false, all_outputs: false };

impl Surveyor {
    fn open(&self, host_only: bool, gpu_layers: Option<u32>, experts_on_host: u32) -> Result<Opened, String> {
        let settings = raw_settings(&PLAIN, 1, 1, host_only, gpu_layers, experts_on_host);
        let model = ffi::Model::open(&self.path, &settings, &ffi::Layout::default(), |_| true)?;
        let places = if host_only { 1 } else { 1 + self.devices as usize };
        Ok(Opened { model, places, host_only, gpu_layers, experts_on_host })
    }

    fn survey(&mut self, progress: &mut dyn FnMut(f32)) -> Result<Survey, String> {
        let mut first = self.open(self.devices == 0, None, 0)?;
        let facts = first.model.sizing_facts();
        let rules = Rules {
            window: facts.window,
            bidirectional: !facts.causal,
            all_outputs: facts.all_outputs,
            cacheless: !facts.cache,
        };
        let blocks = facts.blocks;
        self.survey = Some(Survey {
            rules,
            blocks,
            context_train: first.model.facts().context_train,
            weights: Weights::default(),
            cache: Cache::default(),
            placed: Vec::new(),
            curves: Curves::default(),
            worst: 0.0,
            asked: 0,
        });
        let possible = if self.depth > 0 { possible(&mut first, self.f16_only) } else { [false; 4] };
        let whole = Blocks::of(&first.model.tensors()?, blocks);
        let moe = whole.blocks.iter().any(|block| block.tensors.keys().any(|name| is_expert(name)));
        let cache = cache(&mut first, rules, blocks, possible)?;
        if self.depth > 0 {
            let layout = if self.devices == 0 { Layout::Host } else { Layout::Whole };
            self.place(first, layout, possible)?;
        }
        progress(0.2);

        let mut parts = Vec::new();
        if self.devices == 1 {
            let mut alone = self.open(true, None, 0)?;
            let alone_blocks = Blocks::of(&alone.model.tensors()?, blocks);
            if self.depth > 0 {
                self.place(alone, Layout::Host, possible)?;
            }
            let mut least = self.open(false, Some(1), 0)?;
            let least_blocks = Blocks::of(&least.model.tensors()?, blocks);
            let weights = weights(&whole, &least_blocks, &alone_blocks);
            let cache_kinds = runs(&cache).1;
            parts = intervals(&least_blocks, &cache_kinds, blocks);
            if let Some(survey) = &mut self.survey {
                survey.weights = weights;
            }
            let first = parts.remove(0);
            if self.depth > 1 {
                self.place(least, Layout::Part(first.0, first.1), possible)?;
            }
        } else if self.devices > 1 {
            parts.push((1, blocks));
        }
        if self.devices == 0 {
            let survey = self.survey.as_mut().ok_or("no survey")?;
            survey.weights = weights(&whole, &whole, &whole);
        }
        if self.depth < 2 {
            parts.clear();
        }
        let steps = parts.len() + 1;
        for (step, (from, to)) in parts.into_iter().enumerate() {
            let opened = self.open(false, Some(from.midpoint(to)), 0)?;
            self.place(opened, Layout::Part(from, to), possible)?;
            #[expect(clippy::cast_precision_loss, reason = "small numbers")]
            progress(0.4 + 0.5 * (step + 1) as f32 / steps as f32);
        }
        if moe && self.devices > 0 && self.depth > 1 {
            let opened = self.open(false, None, blocks)?;
            self.place(opened, Layout::Experts, possible)?;
        }
        let mut survey = self.survey.take().ok_or("no survey")?;
        let (kinds, runs) = runs(&cache);
        survey.cache = Cache { kinds, runs };
        Ok(survey)
    }

    /// The curves of one layout.
    fn place(&mut self, mut opened: Opened, layout: Layout, possible: [bool; 4]) -> Result<(), String> {
        let auto_fused = opened.model.try_context(&opened.raw_settings(&PLAIN, 1, 1))?;
        let banded = !matches!(layout, Layout::Host | Layout::Whole);
        let mut placed = Placed { layout, auto_fused, curves: vec![[None; MODES]; opened.places] };
        for attention in Attention::ALL.into_iter().filter(|attention| possible[attention.index()]) {
            for all_outputs in [false, true] {
                let curves = self.curves(&mut opened, banded, attention, all_outputs)?;
                for (place, curve) in placed.curves.iter_mut().zip(curves) {
                    place[mode(attention, all_outputs)] = Some(curve);
                }
            }
        }
        if let Some(survey) = &mut self.survey {
            survey.placed.push(placed);
        }
        Ok(())
    }

    /// A curve for each place.
    fn curves(
        &mut self,
        opened: &mut Opened,
        banded: bool,
        attention: Attention,
        all_outputs: bool,
    ) -> Result<Vec<u16>, String> {
        let survey = self.survey.as_ref().ok_or("no survey")?;
        let train = survey.context_train;
        let mut points = if banded { design_of_bands(train, all_outputs) } else { design(train, all_outputs) };
        let rest = points.split_off(if banded { 12 } else { PROBES });
        let mut samples: Vec<Vec<Sample>> = vec![Vec::new(); opened.places];
        self.take(opened, attention, &points, &mut samples)?;
        if let Some(known) = self.known(&samples) {
            return Ok(known);
        }
        self.take(opened, attention, &rest, &mut samples)?;
        let mut found: Vec<Tree<Plane>> = samples.iter().map(|samples| pieces(samples, banded)).collect();
        let mut worst = 0.0;
        for round in 0..if banded { 1 } else { ROUNDS } {
            let checks: Vec<Wanted> =
                (0..CHECKS * (1 + round)).map(|_| self.somewhere(train, banded, all_outputs)).collect();
            let mut fresh: Vec<Vec<Sample>> = vec![Vec::new(); opened.places];
            self.take(opened, attention, &checks, &mut fresh)?;
            worst = 0.0;
            let mut missed = BTreeSet::new();
            for (found, fresh) in found.iter().zip(&fresh) {
                for (index, sample) in fresh.iter().enumerate() {
                    let error = (bytes(found, sample) / sample.bytes.max(1.0) - 1.0).abs();
                    worst = f64::max(worst, error);
                    if error > GOOD {
                        missed.insert(index);
                    }
                }
            }
            if missed.is_empty() {
                break;
            }
            for ((samples, found), fresh) in samples.iter_mut().zip(&mut found).zip(fresh) {
                samples.extend(missed.iter().map(|index| fresh[*index]));
                if samples.iter().any(|sample| (bytes(found, sample) / sample.bytes.max(1.0) - 1.0).abs() > GOOD) {
                    *found = pieces(samples, banded);
                }
            }
        }
        let survey = self.survey.as_mut().ok_or("no survey")?;
        survey.worst = survey.worst.max(worst);
        Ok(found
            .iter()
            .zip(&samples)
            .map(|(found, samples)| {
                let known = (0..survey.curves.len()).find(|curve| meets(&survey.curves, *curve, samples));
                known.unwrap_or_else(|| survey.curves.add(found))
            })
            .collect())
    }

    /// Curves that are known already and go through these samples, one for each place.
    fn known(&self, samples: &[Vec<Sample>]) -> Option<Vec<u16>> {
        let curves = &self.survey.as_ref()?.curves;
        samples.iter().map(|samples| (0..curves.len()).find(|curve| meets(curves, *curve, samples))).collect()
    }

    fn take(
        &mut self,
        opened: &mut Opened,
        attention: Attention,
        points: &[Wanted],
        out: &mut [Vec<Sample>],
    ) -> Result<(), String> {
        let survey = self.survey.as_mut().ok_or("no survey")?;
        for wanted in points {
            let shape = Shape::of(wanted, survey.rules);
            let answer = opened.ask(survey.rules, wanted, attention)?;
            survey.asked += 1;
            for (samples, reserved) in out.iter_mut().zip(answer) {
                #[expect(clippy::cast_precision_loss, reason = "below 2^53")]
                let bytes = reserved.compute as f64;
                samples.push(Sample { features: shape.features(survey.rules), bytes });
            }
        }
        Ok(())
    }

    /// A point anywhere in the range, by a generator whose order never changes (Knuth's MMIX).
    fn somewhere(&mut self, train: u32, banded: bool, all_outputs: bool) -> Wanted {
        let mut log = |least: f64, most: f64| {
            self.random = self.random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            #[expect(clippy::cast_precision_loss, reason = "24 bits")]
            let share = (self.random >> 40) as f64 / f64::from(1 << 24);
            #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "within the range")]
            let value = (least * (most / least).powf(share)).round() as u32;
            value
        };
        let context = log(512.0, f64::from(longest(train)));
        let parallel = log(0.3, 16.0).max(1);
        // In a band only what divides it.
        let parallel = if banded { 1 << parallel.ilog2() } else { parallel };
        let mut ubatch = log(64.0, 2048.0).next_multiple_of(parallel);
        if banded {
            ubatch = 1 << ubatch.ilog2().clamp(6, 11);
        }
        let unified = log(1.0, 3.0) == 1;
        Wanted { context: context.saturating_mul(parallel), parallel, batch: 4096, ubatch, unified, all_outputs }
    }
}

/// The bytes of pieces.
fn bytes(found: &Tree<Plane>, sample: &Sample) -> f64 {
    size(found, &sample.features)
}

fn meets(curves: &Curves, curve: u16, samples: &[Sample]) -> bool {
    samples
        .iter()
        .all(|sample| (curves.bytes(curve, &sample.features) / sample.bytes.max(1.0) - 1.0).abs() < GOOD / 2.0)
}

/// Pieces that meet the samples.
fn pieces(samples: &[Sample], banded: bool) -> Tree<Plane> {
    let plain = fit(samples);
    if banded && samples.iter().any(|sample| (bytes(&plain, sample) / sample.bytes.max(1.0) - 1.0).abs() > GOOD) {
        fit_bands(samples)
    } else {
        plain
    }
}

/// The longest context that a profile is made for, in tokens of a sequence.
fn longest(train: u32) -> u32 {
    train.clamp(2048, 262_144)
}

/// Points that are asked first: where they meet a curve that is known, no other is asked.
const PROBES: usize = 5;

/// Where llama.cpp is asked: the corners of the range, its middle, several sequences in both kinds of cache.
fn design(train: u32, all_outputs: bool) -> Vec<Wanted> {
    let long = longest(train);
    let middle = f64::from(long * 512).sqrt();
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "between 512 and 262144")]
    let middle = middle as u32;
    let one = |context: u32, ubatch: u32| Wanted { context, ubatch, all_outputs, ..PLAIN };
    let many = |context: u32, ubatch: u32, parallel: u32, unified: bool| Wanted {
        context: context.saturating_mul(parallel),
        ubatch,
        parallel,
        unified,
        all_outputs,
        ..PLAIN
    };
    vec![
        one(long, 2048),
        one(long, 64),
        one(512, 512),
        many(middle, 512, 4, false),
        many(1024, 128, 16, true),
        one(512, 64),
        one(long, 512),
        one(middle, 64),
        one(middle, 512),
        one(middle, 2048),
        one(2048, 2048),
        one(2048, 128),
        many(long, 1024, 2, false),
        many(long, 96, 8, true),
        many(1024, 2048, 16, false),
        many(512, 256, 16, false),
        many(4096, 2048, 8, true),
        many(middle, 64, 8, false),
    ]
}

/// The same for bands.
fn design_of_bands(train: u32, all_outputs: bool) -> Vec<Wanted> {
    let long = f64::from(longest(train));
    let mut all = Vec::new();
    for ubatch in BANDS {
        let short = f64::from(ubatch.max(512));
        for (step, parallel, unified) in
            [(0.0, 1, false), (1.0, 1, false), (0.5, 4, false), (0.75, 1, false), (0.6, 8, true), (0.25, 16, false)]
        {
            #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "between 512 and 262144")]
            let context = (short * (long / short).max(1.0).powf(step)) as u32;
            all.push(Wanted {
                context: context.saturating_mul(parallel),
                parallel,
                unified,
                ubatch,
                all_outputs,
                ..PLAIN
            });
        }
    }
    // The probes come first, and should be from everywhere.
    let (mut first, mut rest) = (Vec::new(), Vec::new());
    for (index, wanted) in all.into_iter().enumerate() {
        if index % 3 == 0 { first.push(wanted) } else { rest.push(wanted) }
    }
    first.extend(rest);
    first
}

/// Which attentions llama.cpp makes contexts with.
fn possible(opened: &mut Opened, f16_only: bool) -> [bool; 4] {
    Attention::ALL.map(|attention| {
        if f16_only && matches!(attention, Attention::Fused8 | Attention::Fused4) {
            return false;
        }
        let settings = opened.settings(&PLAIN, attention);
        let fused = opened.model.try_context(&settings);
        fused.is_ok_and(|fused| fused == (attention != Attention::Plain16))
    })
}

/// The tensors of a model by block and place.
struct Blocks {
    blocks: Vec<Block>,
    /// Beside the blocks: on the host, on the first device.
    beside: [u64; 2],
}

#[derive(Clone, Default)]
struct Block {
    /// Name without the block's, place, bytes.
    tensors: BTreeMap<String, (usize, u64)>,
}

impl Blocks {
    fn of(tensors: &[ffi::TensorPlace], blocks: u32) -> Self {
        let mut all = Self { blocks: vec![Block::default(); blocks as usize], beside: [0, 0] };
        for tensor in tensors.iter().filter(|tensor| !is_cache(&tensor.name)) {
            let block = tensor.name.strip_prefix("blk.").and_then(|rest| {
                let (number, name) = rest.split_once('.')?;
                Some((number.parse::<usize>().ok()?, name))
            });
            match block.and_then(|(number, name)| Some((all.blocks.get_mut(number)?, name))) {
                Some((block, name)) => {
                    block.tensors.insert(name.to_owned(), (tensor.place, tensor.bytes));
                }
                None => all.beside[tensor.place.min(1)] += tensor.bytes,
            }
        }
        all
    }
}

/// llama.cpp's pattern for the matrices of experts.
fn is_expert(name: &str) -> bool {
    ["up", "down", "gate", "gate_up"]
        .iter()
        .any(|part| name.starts_with(&format!("ffn_{part}_exps")) || name.starts_with(&format!("ffn_{part}_chexps")))
}

/// Caches and states are named by what they are and their layer.
fn is_cache(name: &str) -> bool {
    cache_block(name).is_some()
}

fn cache_block(name: &str) -> Option<usize> {
    let (what, number) = name.rsplit_once("_l")?;
    if what.contains('.') { None } else { number.parse().ok() }
}

fn weights(whole: &Blocks, least: &Blocks, alone: &Blocks) -> Weights {
    let sum = |block: &Block, which: &dyn Fn(&str) -> bool| -> u64 {
        block.tensors.iter().filter(|(name, _)| which(name)).map(|(_, (_, bytes))| bytes).sum()
    };
    let all: Vec<BlockWeights> = whole
        .blocks
        .iter()
        .zip(&least.blocks)
        .zip(&alone.blocks)
        .map(|((whole, least), alone)| BlockWeights {
            device: sum(whole, &|_| true),
            host: sum(least, &|_| true),
            alone: sum(alone, &|_| true),
            experts_on_device: sum(whole, &is_expert),
            experts_on_host: sum(least, &is_expert),
        })
        .collect();
    let (kinds, runs) = runs(&all);
    Weights {
        kinds,
        runs,
        input: whole.beside[0],
        input_part: least.beside[0],
        alone: alone.beside[0] + alone.beside[1],
        output: least.beside[1],
        shared: whole.beside[1].saturating_sub(least.beside[1]),
    }
}

/// What each block keeps, from four caches that differ in one number each.
fn cache(opened: &mut Opened, rules: Rules, blocks: u32, possible: [bool; 4]) -> Result<Vec<[BlockCache; 4]>, String> {
    let mut all = vec![[BlockCache::default(); 4]; blocks as usize];
    if rules.cacheless {
        return Ok(all);
    }
    for attention in Attention::ALL.into_iter().filter(|attention| possible[attention.index()]) {
        let mut kept = |context: u32, parallel: u32, ubatch: u32| -> Result<(Shape, Vec<f64>), String> {
            let wanted = Wanted { context, parallel, ubatch, ..PLAIN };
            opened.ask(rules, &wanted, attention)?;
            let mut bytes = vec![0.0; blocks as usize];
            for tensor in opened.model.tensors()? {
                if let Some(of_block) = cache_block(&tensor.name).and_then(|block| bytes.get_mut(block)) {
                    #[expect(clippy::cast_precision_loss, reason = "below 2^53")]
                    let size = tensor.bytes as f64;
                    *of_block += size;
                }
            }
            Ok((Shape::of(&wanted, rules), bytes))
        };
        let base = kept(65_536, 1, 512)?;
        let longer = kept(131_072, 1, 512)?;
        let wider = kept(65_536, 1, 2048)?;
        let several = kept(65_536, 4, 512)?;
        #[expect(clippy::cast_precision_loss, reason = "below 2^53")]
        let difference = |a: u64, b: u64| a as f64 - b as f64;
        for (index, block) in all.iter_mut().enumerate() {
            let windows = difference(wider.0.total_window_cells(), base.0.total_window_cells());
            let window = if windows > 0.0 { (wider.1[index] - base.1[index]) / windows } else { 0.0 };
            let more_windows = difference(longer.0.total_window_cells(), base.0.total_window_cells());
            let cell = (longer.1[index] - base.1[index] - window * more_windows)
                / difference(longer.0.total_cells(), base.0.total_cells());
            let others = difference(several.0.total_cells(), base.0.total_cells()) * cell
                + difference(several.0.total_window_cells(), base.0.total_window_cells()) * window;
            let sequence =
                (several.1[index] - base.1[index] - others) / difference(several.0.sequences, base.0.sequences);
            #[expect(clippy::cast_precision_loss, reason = "below 2^53")]
            let explained = cell * base.0.total_cells() as f64
                + window * base.0.total_window_cells() as f64
                + sequence * base.0.sequences as f64;
            // Some backends pad the last row of a quantized cache.
            block[attention.index()] = BlockCache(cell, window, sequence, base.1[index] - explained);
        }
    }
    Ok(all)
}

/// Numbers of layers on GPUs between which the kinds of blocks on either side are the same: (from, to), from 1 on.
fn intervals(least: &Blocks, cache_runs: &[(u16, u32)], blocks: u32) -> Vec<(u32, u32)> {
    let cache: Vec<u16> = cache_runs
        .iter()
        .flat_map(|(kind, count)| std::iter::repeat_n(*kind, usize::try_from(*count).unwrap_or(0)))
        .collect();
    // What a block is to a GPU: the names of its tensors and what it keeps; their types do not matter there. To the host the
    // types matter: some are repacked, and a GPU computes long prompts with a copy of each matrix.
    let on_gpu = |index: usize| {
        let names = least.blocks[index].tensors.keys().map(|name| (name.as_str(), 0)).collect::<Vec<_>>();
        (names, cache[index])
    };
    let on_host = |index: usize| {
        let sized = least.blocks[index].tensors.iter().map(|(name, (_, bytes))| (name.as_str(), *bytes));
        (sized.collect::<Vec<_>>(), cache[index])
    };
    let mut starts = BTreeSet::from([1]);
    // A second block of a kind is new as well: between two of them a graph keeps other tensors than around one.
    let mut seen = BTreeMap::new();
    for layers in 2..=blocks {
        let kind = on_gpu((blocks + 1 - layers) as usize);
        let count = seen.entry(kind.clone()).or_insert(0);
        *count += 1;
        if !kind.0.is_empty() && *count <= 2 {
            starts.insert(layers);
        }
    }
    let mut seen = BTreeSet::new();
    for layers in (1..=blocks).rev() {
        let kind = on_host((blocks - layers) as usize);
        // From here on downwards something is new, so what is above is an interval of its own.
        if !kind.0.is_empty() && seen.insert(kind) && layers < blocks {
            starts.insert(layers + 1);
        }
    }
    // Too many: those in the middle, which differ least, are one.
    let mut starts: Vec<u32> = starts.into_iter().collect();
    while starts.len() > MOST_PARTS {
        starts.remove(starts.len() / 2);
    }
    let ends = starts.iter().skip(1).map(|start| start - 1).chain([blocks]);
    starts.iter().copied().zip(ends).collect()
}
