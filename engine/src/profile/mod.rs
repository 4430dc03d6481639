//! Sizing profiles: what an artifact takes in memory with any settings, by arithmetic.
//!
//! Owns: [`SizingProfile`] and how memory follows from it, and the profiles of the reference models that ship with Muster
//! ([`shipped`]). A worker makes one ([`worker::profile`](crate::worker::profile)): it opens the model without allocating,
//! once for each layout, asks llama.cpp for some dozens of contexts, and records what the graph of each asks its allocator
//! for. It knows no formula of an architecture: weights and caches are what each tensor takes by llama.cpp's own word, and
//! compute buffers are what the allocator makes of the same requests with other sizes. Pure: no clock, no files, no
//! llama.cpp.

pub(crate) mod allocator;
pub(crate) mod shape;
pub mod shipped;
pub(crate) mod sizes;
pub(crate) mod survey;
pub(crate) mod trace;

use muster_proto::{Bytes, ContextTokens, DeviceMemory, EngineSettings, FlashAttention, KvType, MemoryNeed};
use serde::{Deserialize, Serialize};

use shape::{Shape, Wanted};
use survey::{Attention, BlockCache, BlockWeights, Layout, Placed, Survey, unrolled};
use trace::{Copies, Further, Reach};

/// What one artifact takes in memory on one kind of device.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SizingProfile {
    /// The llama.cpp build that was asked: another one may size otherwise.
    pub engine: String,
    /// The kind of device: backend and generation, e.g. `cuda-890`; `cpu` for the host alone.
    pub backend: String,
    /// llama.cpp's name of the model's architecture.
    pub architecture: String,
    /// What was found with one device, or with none.
    survey: Survey,
    /// Compute buffers with several devices: the first, those in the middle, the last. Their traces are the survey's.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    several: Vec<Placed>,
}

/// A device and its share of the layers.
#[derive(Clone, Debug, PartialEq)]
pub struct DeviceShare {
    /// llama.cpp's name of it.
    pub name: String,
    /// Its share, of any sum; llama.cpp takes free memory where nobody says.
    pub share: f32,
}

impl DeviceShare {
    /// One device that gets all that goes to GPUs.
    pub fn only(name: impl Into<String>) -> Vec<Self> {
        vec![Self { name: name.into(), share: 1.0 }]
    }
}

/// What a need depends on beside the settings.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Needed<'a> {
    /// GPUs in llama.cpp's order; none means on the CPU alone.
    pub devices: &'a [DeviceShare],
    /// Context over all sequences; `None` takes that of the settings, times `parallel`.
    pub total_context: Option<ContextTokens>,
    /// Logits for a whole micro-batch, as llama.cpp's own programs reserve them, instead of one row for each sequence.
    pub all_outputs: bool,
}

/// Why a profile says no size.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NeedError {
    /// llama.cpp refuses it too.
    #[error("llama.cpp makes no context of this model with {kv:?} and flash attention {flash:?}")]
    Refused {
        /// The type of the cache.
        kv: KvType,
        /// Flash attention.
        flash: FlashAttention,
    },
    /// The settings make no sense.
    #[error("{0} must be at least 1")]
    Zero(&'static str),
    /// The profile was made for fewer placements.
    #[error("the profile for {backend} does not say what {layers} layers take on {devices} devices: make a dry run")]
    Placement {
        /// The profile's backend.
        backend: String,
        /// Layers on GPUs.
        layers: u32,
        /// Devices asked for.
        devices: usize,
    },
    /// Whatever lies on 32 bits.
    #[error("a context of {0} tokens is too large")]
    TooLong(u64),
}

impl SizingProfile {
    /// Out of what workers found.
    pub(crate) fn new(backend: String, architecture: String, one: Survey, several: Option<Survey>) -> Self {
        let mut profile =
            Self { engine: crate::BUILD.to_owned(), backend, architecture, survey: one, several: Vec::new() };
        if let Some(several) = several {
            let moved = profile.survey.traces.merge(&several.traces);
            profile.several = several.placed;
            for choice in profile.several.iter_mut().flat_map(|placed| placed.choices.iter_mut().flatten()) {
                *choice = choice.map(&|trace| moved.get(usize::from(trace)).copied().unwrap_or(0));
            }
            profile.survey.worst = profile.survey.worst.max(several.worst);
            profile.survey.asked += several.asked;
        }
        profile
    }

    /// For a file or a store; [`from_bytes`](Self::from_bytes) reads it.
    pub fn to_bytes(&self) -> Vec<u8> {
        // A profile has no map with keys that are no strings, and nothing that fails to serialize.
        let text = serde_json::to_vec(self).unwrap_or_default();
        miniz_oxide::deflate::compress_to_vec(&text, 9)
    }

    /// What [`to_bytes`](Self::to_bytes) wrote; `None` for anything else.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        const MOST: usize = 1 << 24;
        let text = miniz_oxide::inflate::decompress_to_vec_with_limit(bytes, MOST).ok()?;
        serde_json::from_slice(&text).ok()
    }

    /// Layers, where the output counts as one: what `gpu_layers` can be at most.
    pub fn total_layers(&self) -> u32 {
        self.survey.blocks + 1
    }

    /// The context that the model was trained with.
    pub fn context_train(&self) -> u32 {
        self.survey.context_train
    }

    /// The largest miss of a compute buffer at points that were not used in making the profile, as a share of it.
    pub fn worst_miss(&self) -> f64 {
        self.survey.worst
    }

    /// How often llama.cpp was asked for this profile.
    pub fn dry_runs(&self) -> u32 {
        self.survey.asked
    }

    /// What the model takes with these settings.
    ///
    /// # Errors
    /// [`NeedError`]: what llama.cpp refuses too, or what the profile was not made for.
    pub fn need(&self, settings: &EngineSettings, needed: &Needed<'_>) -> Result<MemoryNeed, NeedError> {
        let survey = &self.survey;
        let wanted = wanted(settings, needed)?;
        let shape = Shape::of(&wanted, survey.rules);
        let layers = if needed.devices.is_empty() { 0 } else { settings.gpu_layers.unwrap_or(u32::MAX) };
        let layers = layers.min(self.total_layers());
        let devices = if layers == 0 { &[][..] } else { needed.devices };
        let spread = spread(survey.blocks, layers, devices);
        let experts = settings.expert_layers_on_host.min(survey.blocks);

        let mut need =
            MemoryNeed { devices: devices.iter().map(|device| empty(&device.name)).collect(), host: empty("Host") };
        let layouts = self.layouts(layers, experts, devices.len());
        let Some((first, _)) = layouts.first().and_then(|layouts| layouts.first()) else {
            return Err(NeedError::Placement { backend: self.backend.clone(), layers, devices: devices.len() });
        };
        let attention = attention(settings, first.auto_fused)?;
        self.weigh(&spread, layers, experts, &mut need);
        self.keep(&spread, attention, &shape, &mut need);
        self.compute(&spread, &layouts, attention, &shape, &mut need)
            .ok_or(NeedError::Refused { kv: settings.kv_type, flash: settings.flash_attention })?;
        need.devices.retain(|device| device.total() > Bytes::ZERO);
        Ok(need)
    }

    /// The layouts whose fullest moments a placement has: for each those that it may follow from, the likeliest first, with
    /// how many more blocks have weights on the host than there.
    fn layouts(&self, layers: u32, experts: u32, devices: usize) -> Vec<Vec<(&Placed, i64)>> {
        let placed = if devices > 1 { &self.several } else { &self.survey.placed };
        let nearest = |number: &dyn Fn(&Layout) -> Option<i64>| {
            let mut all: Vec<(&Placed, i64)> =
                placed.iter().filter_map(|placed| number(&placed.layout).map(|further| (placed, further))).collect();
            all.sort_by_key(|(_, further)| further.abs());
            all
        };
        let only = |wanted: Layout| nearest(&|layout: &Layout| (*layout == wanted).then_some(0));
        let within = self.experts_within(experts, layers);
        let mut all = Vec::new();
        if layers == 0 {
            let host = self.survey.placed.iter().filter(|placed| placed.layout == Layout::Host);
            all.push(host.map(|placed| (placed, 0)).collect());
        } else if layers < self.total_layers() {
            all.push(nearest(&|layout| match layout {
                Layout::Part(known) => Some(i64::from(*known) - i64::from(layers)),
                _ => None,
            }));
        } else if !within {
            all.push(only(Layout::Whole));
        }
        if layers > 0 && within {
            all.push(nearest(&|layout| match layout {
                Layout::Experts(known) => Some(i64::from(experts) - i64::from(*known)),
                _ => None,
            }));
        }
        all.retain(|layouts| !layouts.is_empty());
        all
    }

    /// Whether experts are kept on the host of a layer that is on a GPU.
    fn experts_within(&self, experts: u32, layers: u32) -> bool {
        let on_host = self.total_layers().saturating_sub(layers);
        let weights = unrolled(&self.survey.weights.kinds, &self.survey.weights.runs);
        weights.take(experts as usize).skip(on_host as usize).any(|block| block.experts_on_device > 0)
    }

    fn blocks(&self) -> impl Iterator<Item = (&BlockWeights, Option<&[BlockCache; 4]>)> {
        let mut cache = unrolled(&self.survey.cache.kinds, &self.survey.cache.runs);
        unrolled(&self.survey.weights.kinds, &self.survey.weights.runs).map(move |weights| (weights, cache.next()))
    }

    fn weigh(&self, spread: &[Option<usize>], layers: u32, experts: u32, need: &mut MemoryNeed) {
        let weights = &self.survey.weights;
        let output = spread.last().copied().flatten();
        let mut has_block = vec![false; need.devices.len()];
        for (index, ((block, _), place)) in self.blocks().zip(spread).enumerate() {
            match place {
                None if layers == 0 => add(&mut need.host.model, block.alone),
                None => add(&mut need.host.model, block.host),
                Some(device) => {
                    has_block[*device] = true;
                    let here = &mut need.devices[*device].model;
                    if index < experts as usize {
                        add(here, block.device.saturating_sub(block.experts_on_device));
                        add(&mut need.host.model, block.experts_on_host);
                    } else {
                        add(here, block.device);
                    }
                }
            }
        }
        let beside = match layers {
            0 => weights.alone,
            _ if layers < self.total_layers() => weights.input_part,
            _ => weights.input,
        };
        add(&mut need.host.model, beside);
        for (device, has_block) in need.devices.iter_mut().zip(has_block) {
            add(&mut device.model, if has_block { weights.shared } else { 0 });
        }
        if let Some(device) = output {
            add(&mut need.devices[device].model, weights.output);
        }
    }

    fn keep(&self, spread: &[Option<usize>], attention: Attention, shape: &Shape, need: &mut MemoryNeed) {
        #[expect(clippy::cast_precision_loss, reason = "far below 2^53")]
        let (cells, windows, sequences) =
            (shape.total_cells() as f64, shape.total_window_cells() as f64, shape.sequences as f64);
        for ((_, cache), place) in self.blocks().zip(spread) {
            let Some(BlockCache(cell, window, sequence, padding)) = cache.map(|cache| cache[attention.index()]) else {
                continue;
            };
            let bytes = cell * cells + window * windows + sequence * sequences;
            match place {
                None => add(&mut need.host.context, rounded(bytes).get()),
                Some(device) => add(&mut need.devices[*device].context, rounded(bytes + padding).get()),
            }
        }
    }

    /// `None` where llama.cpp makes no such context.
    fn compute(
        &self,
        spread: &[Option<usize>],
        layouts: &[Vec<(&Placed, i64)>],
        attention: Attention,
        shape: &Shape,
        need: &mut MemoryNeed,
    ) -> Option<()> {
        let survey = &self.survey;
        let features = shape.features(survey.rules);
        let used: Vec<usize> = (0..need.devices.len()).filter(|device| spread.contains(&Some(*device))).collect();
        let weights = &survey.weights;
        let kinds: Vec<u16> = weights
            .runs
            .iter()
            .flat_map(|(kind, count)| std::iter::repeat_n(*kind, usize::try_from(*count).unwrap_or(0)))
            .collect();
        let bytes = |kind: u16, name: u16| {
            let copies = weights.kinds.get(usize::from(kind)).map(|kind| &kind.copies);
            copies.and_then(|copies| copies.get(usize::from(name))).copied().unwrap_or(0)
        };
        let copies = Copies { kinds: &kinds, bytes: &bytes };
        for layouts in layouts {
            let found = layouts.iter().find_map(|(placed, further)| {
                let trace = placed.choices[attention.index()].as_ref()?.trace(&features);
                let blocks = i64::from(survey.blocks);
                let on_device = match placed.layout {
                    Layout::Part(layers) => i64::from(layers) - 1,
                    Layout::Experts(experts) => blocks - i64::from(experts),
                    Layout::Host | Layout::Whole => blocks,
                };
                let further = Further { on_host: *further, on_device, period: i64::from(survey.period) };
                Some((*placed, trace, survey.traces.reach(trace, further)?))
            });
            let (placed, trace, reach) = if let Some(found) = found {
                found
            } else {
                // Where no trace reaches, the nearest, as it is.
                let trace = layouts[0].0.choices[attention.index()].as_ref()?.trace(&features);
                (layouts[0].0, trace, Reach::default())
            };
            let bytes = survey.traces.bytes(trace, &placed.places, &features, &copies, reach);
            let at = |wanted: usize| -> Bytes {
                let here = placed.places.iter().zip(&bytes).filter(|((place, _, _), _)| usize::from(*place) == wanted);
                Bytes::new(here.map(|(_, bytes)| bytes).sum())
            };
            let last = placed.places.iter().map(|(place, _, _)| usize::from(*place)).max().unwrap_or(0);
            need.host.compute = need.host.compute.max(at(0));
            for (order, device) in used.iter().enumerate() {
                // The first, those in the middle, the last.
                let place = match order {
                    0 => 1,
                    _ if order + 1 == used.len() => 3,
                    _ => 2,
                };
                let compute = &mut need.devices[*device].compute;
                *compute = (*compute).max(at(place.min(last)));
            }
        }
        Some(())
    }

    /// The longest context of each sequence that takes no more than `free` on each device (in the order of
    /// `needed.devices`) and on the host; `None` where not even llama.cpp's shortest fits.
    ///
    /// # Errors
    /// As [`need`](Self::need).
    pub fn max_context(
        &self,
        settings: &EngineSettings,
        needed: &Needed<'_>,
        free: &[Bytes],
        host: Bytes,
    ) -> Result<Option<ContextTokens>, NeedError> {
        let needed = Needed { total_context: None, ..needed.clone() };
        let most = self.survey.context_train.max(256) / 256;
        largest_fitting(most, |steps| {
            let settings = EngineSettings { context: ContextTokens::new(steps * 256), ..settings.clone() };
            Ok(fits(&self.need(&settings, &needed)?, &needed, free, host))
        })
        .map(|steps| steps.map(|steps| ContextTokens::new(steps * 256)))
    }

    /// The most layers on GPUs that take no more than `free` on each device and `host` beside them; `None` where not even
    /// the CPU alone has room.
    ///
    /// # Errors
    /// As [`need`](Self::need).
    pub fn max_gpu_layers(
        &self,
        settings: &EngineSettings,
        needed: &Needed<'_>,
        free: &[Bytes],
        host: Bytes,
    ) -> Result<Option<u32>, NeedError> {
        // More layers on GPUs need less on the host and more on them, so the answer is not the end of one range.
        for layers in (0..=self.total_layers()).rev() {
            let settings = EngineSettings { gpu_layers: Some(layers), ..settings.clone() };
            if fits(&self.need(&settings, needed)?, needed, free, host) {
                return Ok(Some(layers));
            }
        }
        Ok(None)
    }
}

/// What a model takes at each of some contexts: for whoever asks the same of many machines.
#[derive(Clone, Debug, PartialEq)]
pub struct ContextLadder {
    /// Context, bytes on the device, bytes on the host; rising.
    steps: Vec<(ContextTokens, Bytes, Bytes)>,
}

impl ContextLadder {
    /// For one device, or none, and contexts of each sequence; those that are longer than the model was trained for, or that
    /// llama.cpp does not make, are left out.
    pub fn new(profile: &SizingProfile, settings: &EngineSettings, needed: &Needed<'_>, contexts: &[u32]) -> Self {
        let step = |context: u32| {
            let settings = EngineSettings { context: ContextTokens::new(context), ..settings.clone() };
            let need = profile.need(&settings, needed).ok()?;
            let device = need.devices.first().map_or(Bytes::ZERO, DeviceMemory::total);
            Some((ContextTokens::new(context), device, need.host.total()))
        };
        let mut wanted: Vec<u32> =
            contexts.iter().copied().filter(|context| *context <= profile.context_train()).collect();
        wanted.sort_unstable();
        Self { steps: wanted.into_iter().filter_map(step).collect() }
    }

    /// The longest of the contexts that takes no more than `free` on the device and `host` beside it.
    pub fn largest(&self, free: Bytes, host: Bytes) -> Option<ContextTokens> {
        let fitting = self.steps.partition_point(|(_, device, beside)| *device <= free && *beside <= host);
        fitting.checked_sub(1).map(|index| self.steps[index].0)
    }

    /// Context, bytes on the device and bytes on the host of each step, rising.
    pub fn steps(&self) -> &[(ContextTokens, Bytes, Bytes)] {
        &self.steps
    }
}

/// Whether every device has room.
fn fits(need: &MemoryNeed, needed: &Needed<'_>, free: &[Bytes], host: Bytes) -> bool {
    let room = |device: &DeviceMemory| {
        let index = needed.devices.iter().position(|known| known.name == device.name);
        index.and_then(|index| free.get(index)).is_some_and(|free| device.total() <= *free)
    };
    need.host.total() <= host && need.devices.iter().all(room)
}

/// The largest number from 1 to `most` that fits, where smaller ones fit as well.
fn largest_fitting(most: u32, mut fits: impl FnMut(u32) -> Result<bool, NeedError>) -> Result<Option<u32>, NeedError> {
    if !fits(1)? {
        return Ok(None);
    }
    let (mut fitting, mut beyond) = (1, most + 1);
    while beyond - fitting > 1 {
        let middle = fitting.midpoint(beyond);
        if fits(middle)? { fitting = middle } else { beyond = middle }
    }
    Ok(Some(fitting))
}

/// Where each block and, last, the output goes: llama.cpp's rule (`load_tensors` in `llama-model.cpp`).
fn spread(blocks: u32, layers: u32, devices: &[DeviceShare]) -> Vec<Option<usize>> {
    let total = blocks + 1;
    let layers = layers.min(total);
    let start = total.saturating_sub(layers);
    let sum: f32 = devices.iter().map(|device| device.share).sum();
    let mut border = 0.0;
    let borders: Vec<f32> = devices
        .iter()
        .map(|device| {
            border += device.share;
            border / sum
        })
        .collect();
    (0..total)
        .map(|layer| {
            if layer < start || devices.is_empty() {
                return None;
            }
            #[expect(clippy::cast_precision_loss, reason = "as llama.cpp does")]
            let position = (layer - start) as f32 / layers as f32;
            Some(borders.iter().position(|border| position < *border).unwrap_or(devices.len() - 1))
        })
        .collect()
}

/// The attention that llama.cpp takes: a quantized cache needs the fused one.
fn attention(settings: &EngineSettings, auto_fused: bool) -> Result<Attention, NeedError> {
    Ok(match (settings.kv_type, settings.flash_attention) {
        (KvType::Q8_0, FlashAttention::Auto | FlashAttention::On) => Attention::Fused8,
        (KvType::Q4_0, FlashAttention::Auto | FlashAttention::On) => Attention::Fused4,
        (KvType::F16, FlashAttention::On) => Attention::Fused16,
        (KvType::F16, FlashAttention::Off) => Attention::Plain16,
        (KvType::F16, FlashAttention::Auto) => {
            if auto_fused {
                Attention::Fused16
            } else {
                Attention::Plain16
            }
        }
        (kv, flash) => return Err(NeedError::Refused { kv, flash }),
    })
}

fn wanted(settings: &EngineSettings, needed: &Needed<'_>) -> Result<Wanted, NeedError> {
    let numbers = [("parallel", settings.parallel), ("batch", settings.batch), ("ubatch", settings.ubatch)];
    if let Some((name, _)) = numbers.iter().find(|(_, number)| *number == 0) {
        return Err(NeedError::Zero(name));
    }
    let context = needed
        .total_context
        .map_or(u64::from(settings.context.get()) * u64::from(settings.parallel), |total| total.get().into());
    if context == 0 {
        return Err(NeedError::Zero("context"));
    }
    Ok(Wanted {
        context: u32::try_from(context)
            .ok()
            .filter(|c| i32::try_from(*c).is_ok())
            .ok_or(NeedError::TooLong(context))?,
        parallel: settings.parallel,
        batch: settings.batch,
        ubatch: settings.ubatch,
        unified: settings.kv_unified,
        all_outputs: needed.all_outputs,
    })
}

fn empty(name: &str) -> DeviceMemory {
    DeviceMemory { name: name.to_owned(), model: Bytes::ZERO, context: Bytes::ZERO, compute: Bytes::ZERO }
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a size, far below 2^53")]
fn rounded(bytes: f64) -> Bytes {
    Bytes::new(bytes.max(0.0).round() as u64)
}

fn add(to: &mut Bytes, bytes: u64) {
    *to = *to + Bytes::new(bytes);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shares(all: &[f32]) -> Vec<DeviceShare> {
        all.iter().enumerate().map(|(i, share)| DeviceShare { name: format!("GPU{i}"), share: *share }).collect()
    }

    #[test]
    fn the_last_layers_go_to_gpus_and_the_output_with_them() {
        assert_eq!(spread(4, 2, &shares(&[1.0])), [None, None, None, Some(0), Some(0)]);
        assert_eq!(spread(4, 99, &shares(&[1.0, 1.0])), [Some(0), Some(0), Some(0), Some(1), Some(1)]);
        assert_eq!(spread(4, 5, &shares(&[3.0, 1.0])), [Some(0), Some(0), Some(0), Some(0), Some(1)]);
        assert_eq!(spread(2, 0, &[]), [None, None, None]);
    }

    #[test]
    fn the_largest_that_fits_is_found() {
        let least = |most| move |number| Ok(number <= most);
        assert_eq!(largest_fitting(100, least(37)), Ok(Some(37)));
        assert_eq!(largest_fitting(100, least(1000)), Ok(Some(100)));
        assert_eq!(largest_fitting(100, least(0)), Ok(None));
    }
}
