//! Surveys of a model for its sizing profile: opened to count, once in each layout, and asked for many contexts.

use std::collections::{BTreeMap, BTreeSet};

use super::jobs::{DryRun, check_header, path_of, settings_of};
use super::outbox::Outbox;
use super::trace::{Learnt, Recorder};
use crate::ffi;
use crate::profile::shape::{Rules, Shape, Wanted};
use crate::profile::survey::{
    Attention, BlockCache, BlockWeights, Cache, Layout, Placed, Survey, Traces, Weights, runs, unrolled,
};
use crate::profile::trace::{Choice, Place};
use crate::wire::{self, from_worker::Reply};

/// A record is met when no place misses its bytes by more, as a share.
const GOOD: f64 = 1e-3;
/// Rounds of checking at points that were not used, and of learning from them where one was missed.
const ROUNDS: u32 = 3;
/// Points in a round.
const CHECKS: u32 = 5;
/// Records that an order wants before its sizes are certain, and more points near one that was met less often. Where a model
/// lies on a GPU only in part, most sizes are known from the whole.
const ENOUGH: (usize, u32) = (5, 4);
const ENOUGH_OF_PARTS: (usize, u32) = (3, 2);

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
    let mut surveyor = Surveyor {
        path,
        devices,
        depth: request.depth,
        f16_only: request.f16_only,
        survey: None,
        random: 1,
        names: Vec::new(),
        kinds: Vec::new(),
        copies: Vec::new(),
    };
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
    /// Names of the weights that any block has, sorted.
    names: Vec<String>,
    /// The kind of each block.
    kinds: Vec<u16>,
    /// What a kind's weights take on a device, by name.
    copies: Vec<Vec<u64>>,
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

    #[allow(clippy::too_many_lines, reason = "one step after the other")]
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
            period: 1,
            traces: Traces::default(),
            worst: 0.0,
            asked: 0,
        });
        let possible = if self.depth > 0 { possible(&mut first, self.f16_only) } else { [false; 4] };
        let whole = Blocks::of(&first.model.tensors()?, blocks);
        let moe = whole.blocks.iter().any(|block| block.tensors.keys().any(|name| is_expert(name)));
        let cache = cache(&mut first, rules, blocks, possible)?;
        self.names = whole.names();
        if let Some(survey) = &mut self.survey {
            survey.period = period(&whole, &cache);
        }
        let (mut alone, mut least) = (None, None);
        let weights = if self.devices == 1 {
            let (mut opened_alone, mut opened_least) = (self.open(true, None, 0)?, self.open(false, Some(1), 0)?);
            let alone_blocks = Blocks::of(&opened_alone.model.tensors()?, blocks);
            let least_blocks = Blocks::of(&opened_least.model.tensors()?, blocks);
            (alone, least) = (Some(opened_alone), Some(opened_least));
            weights(&whole, &least_blocks, &alone_blocks, &self.names)
        } else {
            weights(&whole, &whole, &whole, &self.names)
        };
        self.kinds = unrolled(&(0..).take(weights.kinds.len()).collect::<Vec<u16>>(), &weights.runs).copied().collect();
        self.copies = weights.kinds.iter().map(|kind| kind.copies.clone()).collect();
        if let (Some(survey), true) = (&mut self.survey, self.devices < 2) {
            survey.weights = weights;
        }
        if self.depth > 0 {
            let layout = if self.devices == 0 { Layout::Host } else { Layout::Whole };
            self.place(first, layout, possible)?;
            if let Some(alone) = alone {
                self.place(alone, Layout::Host, possible)?;
            }
        }
        progress(0.2);

        let mut layouts = Vec::new();
        if self.depth > 1 && self.devices > 0 {
            layouts.extend(parts(&whole, &cache, self.devices).into_iter().map(Layout::Part));
            if moe {
                let mut experts = vec![blocks];
                if blocks > 8 && self.devices == 1 {
                    experts.extend([blocks / 2, 2]);
                }
                layouts.extend(experts.into_iter().map(Layout::Experts));
            }
        }
        let steps = layouts.len().max(1);
        for (step, layout) in layouts.into_iter().enumerate() {
            let opened = match (layout, least.take()) {
                (Layout::Part(1), Some(least)) => least,
                (Layout::Experts(experts), _) => self.open(false, None, experts)?,
                (Layout::Part(layers), _) => self.open(false, Some(layers), 0)?,
                _ => continue,
            };
            self.place(opened, layout, possible)?;
            #[expect(clippy::cast_precision_loss, reason = "small numbers")]
            progress(0.2 + 0.8 * (step + 1) as f32 / steps as f32);
        }
        let mut survey = self.survey.take().ok_or("no survey")?;
        let (kinds, runs) = runs(&cache);
        survey.cache = Cache { kinds, runs };
        Ok(survey)
    }

    /// The traces of one layout.
    fn place(&mut self, mut opened: Opened, layout: Layout, possible: [bool; 4]) -> Result<(), String> {
        let auto_fused = opened.model.try_context(&opened.raw_settings(&PLAIN, 1, 1))?;
        let mut placed = Placed { layout, auto_fused, places: Vec::new(), choices: [const { None }; 4] };
        let thorough = matches!(layout, Layout::Host | Layout::Whole);
        for attention in Attention::ALL.into_iter().filter(|attention| possible[attention.index()]) {
            let choice = self.traces(&mut opened, attention, thorough, &mut placed.places)?;
            placed.choices[attention.index()] = Some(choice);
        }
        if let Some(survey) = &mut self.survey {
            survey.placed.push(placed);
        }
        Ok(())
    }

    /// Which trace contexts with this attention have.
    fn traces(
        &mut self,
        opened: &mut Opened,
        attention: Attention,
        thorough: bool,
        places: &mut Vec<Place>,
    ) -> Result<Choice, String> {
        let train = self.survey.as_ref().ok_or("no survey")?.context_train;
        let mut recorder = Recorder::new(&self.names);
        for wanted in design(train).into_iter().filter(|(_, of_parts)| thorough || *of_parts).map(|(wanted, _)| wanted)
        {
            self.record(opened, attention, &wanted, &mut recorder)?;
        }
        let mut learnt = self.learn(opened, attention, thorough, &mut recorder)?;
        let mut worst = 0.0;
        for _ in 0..ROUNDS {
            worst = 0.0;
            let mut missed = 0;
            for _ in 0..if thorough { CHECKS } else { 1 } {
                let wanted = self.somewhere(train);
                self.record(opened, attention, &wanted, &mut recorder)?;
                let miss = recorder.miss_of_last(&learnt, &self.kinds, &self.copies);
                worst = f64::max(worst, miss);
                if miss > GOOD {
                    missed += 1;
                }
            }
            if missed == 0 {
                break;
            }
            learnt = self.learn(opened, attention, thorough, &mut recorder)?;
        }
        let survey = self.survey.as_mut().ok_or("no survey")?;
        survey.worst = survey.worst.max(worst);
        places.clone_from(&recorder.places);
        let moved: Vec<u16> =
            learnt.traces.iter().map(|(order, asks)| survey.traces.add(order, asks, &learnt.sizes)).collect();
        Ok(learnt.choice.map(&|trace| moved.get(usize::from(trace)).copied().unwrap_or(0)))
    }

    /// What the records say, with more of them where an order was met too seldom to tell its sizes.
    fn learn(
        &mut self,
        opened: &mut Opened,
        attention: Attention,
        thorough: bool,
        recorder: &mut Recorder,
    ) -> Result<Learnt, String> {
        let (enough, neighbours) = if thorough { ENOUGH } else { ENOUGH_OF_PARTS };
        for wanted in recorder.seldom(enough) {
            for step in 1..=neighbours {
                let less = |number: u32, by: u32| (number - number * by * step / 100).max(1);
                let near = Wanted { context: less(wanted.context, 6), ubatch: less(wanted.ubatch, 5), ..wanted };
                self.record(opened, attention, &near, recorder)?;
            }
        }
        Ok(recorder.learn(self.survey.as_ref().map_or(&[], |survey| survey.traces.sizes())))
    }

    fn record(
        &mut self,
        opened: &mut Opened,
        attention: Attention,
        wanted: &Wanted,
        recorder: &mut Recorder,
    ) -> Result<(), String> {
        let survey = self.survey.as_mut().ok_or("no survey")?;
        let answer = opened.ask(survey.rules, wanted, attention)?;
        survey.asked += 1;
        let reserved = answer.iter().map(|place| place.compute).collect();
        let features = Shape::of(wanted, survey.rules).features(survey.rules);
        recorder.take(*wanted, features, &opened.model.trace()?, reserved);
        Ok(())
    }

    /// A point anywhere in the range, by a generator whose order never changes (Knuth's MMIX).
    fn somewhere(&mut self, train: u32) -> Wanted {
        let mut log = |least: f64, most: f64| {
            self.random = self.random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            #[expect(clippy::cast_precision_loss, reason = "24 bits")]
            let share = (self.random >> 40) as f64 / f64::from(1 << 24);
            #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "within the range")]
            let value = (least * (most / least).powf(share)).round() as u32;
            value
        };
        let parallel = log(0.3, 16.0).max(1);
        // Of many long contexts the caches alone take a second to make; sizes there follow from shorter ones.
        let context = log(512.0, f64::from(longest(train)) / f64::from(parallel).sqrt());
        let ubatch = log(64.0, 2048.0);
        let unified = log(1.0, 3.0) == 1;
        let all_outputs = log(1.0, 3.0) == 1;
        let context = context.max(512).saturating_mul(parallel);
        Wanted { context, parallel, batch: 4096, ubatch, unified, all_outputs }
    }
}

/// The longest context that a profile is made for, in tokens of a sequence.
fn longest(train: u32) -> u32 {
    train.clamp(2048, 262_144)
}

/// Where llama.cpp is asked, and whether for parts as well: short and long contexts, one sequence and several in both kinds of
/// cache, each with two sizes of micro-batch and of logits. Numbers that are no multiples of each other tell products apart.
/// Contexts that follow each other share their cache.
fn design(train: u32) -> Vec<(Wanted, bool)> {
    let long = longest(train);
    let mut all = Vec::new();
    for (context, parallel, unified, points) in [
        (512, 1, false, [(512, true), (200, false)]),
        (3328.min(long), 1, false, [(2048, false), (333, true)]),
        (long, 1, false, [(2048, true), (96, false)]),
        (1280, 3, false, [(777, true), (1536, false)]),
        (768, 16, false, [(640, false), (2048, true)]),
        (1792, 2, true, [(444, true), (1300, false)]),
        (1024, 8, true, [(136, false), (2048, true)]),
    ] {
        for ((ubatch, of_parts), all_outputs) in points.into_iter().zip([false, true]) {
            let wanted = Wanted { context: context * parallel, parallel, unified, ubatch, all_outputs, ..PLAIN };
            all.push((wanted, of_parts));
        }
    }
    all
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

    /// Names that any block has.
    fn names(&self) -> Vec<String> {
        let all: BTreeSet<&String> = self.blocks.iter().flat_map(|block| block.tensors.keys()).collect();
        all.into_iter().cloned().collect()
    }
}

/// Numbers of layers on GPUs that are recorded: the fewest and the most, where each block counts. Those between follow, as the
/// blocks of a period come more or less often.
fn parts(whole: &Blocks, cache: &[[BlockCache; 4]], devices: u32) -> Vec<u32> {
    let blocks = u32::try_from(whole.blocks.len()).unwrap_or(0);
    if devices > 1 {
        return [1, 2, blocks / 2, blocks].into_iter().filter(|layers| (1..=blocks).contains(layers)).collect();
    }
    let period = period(whole, cache);
    let mut all: BTreeSet<u32> =
        (1..=(period + 1).max(4)).chain(blocks.saturating_sub(period.max(3))..=blocks).collect();
    all.extend((0..period).map(|step| blocks / 2 + step));
    // The first and the second block of a kind that begins late, from either end.
    let (mut first, mut last) = (Vec::new(), Vec::new());
    for index in 0..blocks / 3 {
        let (low, high) = (kind_of(whole, cache, index), kind_of(whole, cache, blocks - 1 - index));
        if !first.contains(&low) {
            all.extend([blocks - index, (blocks - index).saturating_sub(1)]);
            first.push(low);
        }
        if !last.contains(&high) {
            all.extend([index + 2, index + 3]);
            last.push(high);
        }
    }
    all.into_iter().filter(|layers| (1..=blocks).contains(layers)).collect()
}

/// A block as a graph sees it: its weights' names, and what it keeps.
fn kind_of<'a>(whole: &'a Blocks, cache: &'a [[BlockCache; 4]], index: u32) -> (Vec<&'a String>, &'a [BlockCache; 4]) {
    let index = index as usize;
    (whole.blocks[index].tensors.keys().collect(), &cache[index])
}

/// After how many blocks their kinds come again; 8 at most.
fn period(whole: &Blocks, cache: &[[BlockCache; 4]]) -> u32 {
    let kind = |index: u32| kind_of(whole, cache, index);
    let count = u32::try_from(whole.blocks.len()).unwrap_or(0);
    // Models begin, and some end, with blocks of other kinds.
    let repeats =
        |period: &u32| (count / 4..count.saturating_sub(period + 2)).all(|index| kind(index) == kind(index + period));
    (1..=8).find(repeats).unwrap_or(1)
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

fn weights(whole: &Blocks, least: &Blocks, alone: &Blocks, names: &[String]) -> Weights {
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
            copies: names.iter().map(|name| whole.tensors.get(name).map_or(0, |(_, bytes)| *bytes)).collect(),
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
