//! [`Survey`]: what a worker found out about one model on so many devices of one kind, and how the findings are compact.

use serde::{Deserialize, Serialize};

use super::shape::Rules;
use super::sizes::{Features, Size};
use super::trace::{Ask, Asks, Choice, Copies, Further, Order, Place, Reach, Trace, reach, replay};

/// Type of the KV cache and flash attention: the combinations that llama.cpp takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Attention {
    /// F16 cache, fused.
    Fused16,
    /// Q8_0 cache, fused.
    Fused8,
    /// Q4_0 cache, fused.
    Fused4,
    /// F16 cache, not fused.
    Plain16,
}

impl Attention {
    /// All.
    pub const ALL: [Self; 4] = [Self::Fused16, Self::Fused8, Self::Fused4, Self::Plain16];

    /// Its place in [`ALL`](Self::ALL).
    pub fn index(self) -> usize {
        self as usize
    }
}

/// What lies where.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Layout {
    /// All on the CPU.
    Host,
    /// All layers on GPUs.
    Whole,
    /// The last layers on GPUs: so many, where the output counts as one.
    Part(u32),
    /// All layers on GPUs, but the experts of the first so many on the host.
    Experts(u32),
}

/// Compute buffers in one layout.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Placed {
    /// The layout.
    #[serde(rename = "l")]
    pub layout: Layout,
    /// Whether `auto` is flash attention there.
    #[serde(rename = "f")]
    pub auto_fused: bool,
    /// The allocators.
    #[serde(rename = "p")]
    pub places: Vec<Place>,
    /// Which trace a context has, by attention; none where llama.cpp makes no such context.
    #[serde(rename = "c")]
    pub choices: [Option<Choice>; 4],
}

/// All traces, each with what it shares with others.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[expect(clippy::struct_field_names, reason = "a trace is what the others are parts of")]
pub struct Traces {
    orders: Vec<Order>,
    asks: Vec<Asks>,
    sizes: Vec<Size>,
    traces: Vec<Trace>,
}

impl Traces {
    /// Adds a trace whose sizes are of this list.
    pub fn add(&mut self, order: &[u16], asks: &[Ask], sizes: &[Size]) -> u16 {
        // Traces whose sizes alone differ have the same asks when each numbers its sizes for itself.
        let mut mine: Vec<u16> = Vec::new();
        let mut moved = |size: u16| {
            let size = index_of(&mut self.sizes, sizes.get(usize::from(size)).cloned().unwrap_or_default());
            index_of(&mut mine, size)
        };
        let asks = asks.iter().map(|ask| match *ask {
            Ask::Allocate(allocator, slot, size) => Ask::Allocate(allocator, slot, moved(size)),
            Ask::Shrink(slot, size) => Ask::Shrink(slot, moved(size)),
            other => other,
        });
        let asks = Asks(asks.collect());
        let trace = Trace(index_of(&mut self.orders, order.to_vec()), index_of(&mut self.asks, asks), mine);
        index_of(&mut self.traces, trace)
    }

    /// Adds all of another list; says the new number of each trace.
    pub fn merge(&mut self, other: &Self) -> Vec<u16> {
        let all = (0..).zip(&other.traces).filter_map(|(trace, _)| other.trace(trace));
        let owned = all.map(|(order, asks, sizes)| (order, asks, sizes.into_iter().cloned().collect::<Vec<_>>()));
        owned.map(|(order, asks, sizes)| self.add(order, asks, &sizes)).collect()
    }

    /// What each allocator takes.
    pub fn bytes(
        &self,
        trace: u16,
        places: &[Place],
        features: &Features,
        copies: &Copies<'_>,
        reach: Reach,
    ) -> Vec<u64> {
        let Some((order, asks, sizes)) = self.trace(trace) else { return Vec::new() };
        replay(order, asks, &sizes, places, features, copies, reach)
    }

    /// Whether and how a trace holds for other layers.
    pub fn reach(&self, trace: u16, further: Further) -> Option<Reach> {
        let (order, asks, _) = self.trace(trace)?;
        reach(order, asks, further)
    }

    /// The different sizes.
    pub fn sizes(&self) -> &[Size] {
        &self.sizes
    }

    fn trace(&self, trace: u16) -> Option<(&Order, &[Ask], Vec<&Size>)> {
        let Trace(order, asks, sizes) = self.traces.get(usize::from(trace))?;
        let sizes = sizes.iter().filter_map(|size| self.sizes.get(usize::from(*size))).collect();
        Some((self.orders.get(usize::from(*order))?, &self.asks.get(usize::from(*asks))?.0, sizes))
    }
}

/// The number of a thing in a list, to which it is added where it is new.
pub fn index_of<T: PartialEq>(list: &mut Vec<T>, one: T) -> u16 {
    let index = list.iter().position(|known| *known == one).unwrap_or_else(|| {
        list.push(one);
        list.len() - 1
    });
    u16::try_from(index).unwrap_or(u16::MAX)
}

/// What a tensor takes where it lies.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct BlockWeights {
    /// On a device.
    pub device: u64,
    /// On the host, beside a GPU.
    pub host: u64,
    /// On the host without a GPU, where weights may be repacked.
    pub alone: u64,
    /// Of the experts alone, on a device.
    pub experts_on_device: u64,
    /// Of the experts alone, on the host.
    pub experts_on_host: u64,
    /// Of each weight on a device, in the order of the names that any block has.
    pub copies: Vec<u64>,
}

/// Weights by block, and those that belong to none.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Weights {
    /// Kinds of blocks.
    pub kinds: Vec<BlockWeights>,
    /// The kind of each block, in order: runs of (kind, blocks).
    pub runs: Vec<(u16, u32)>,
    /// Beside the blocks: on the host when all layers are on GPUs.
    pub input: u64,
    /// Beside the blocks: on the host when some layers are.
    pub input_part: u64,
    /// Beside the blocks: on the host without a GPU.
    pub alone: u64,
    /// On the device that has the output.
    pub output: u64,
    /// On each device that has a block.
    pub shared: u64,
}

/// What one block keeps of the past: bytes for each cell, window cell and sequence, and for padding.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct BlockCache(pub f64, pub f64, pub f64, pub f64);

/// KV cache and recurrent state by block.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Cache {
    /// Kinds of blocks, each for all [`Attention`]s.
    pub kinds: Vec<[BlockCache; 4]>,
    /// The kind of each block, in order: runs of (kind, blocks).
    pub runs: Vec<(u16, u32)>,
}

/// What a worker found out.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Survey {
    /// How contexts are rounded.
    pub rules: Rules,
    /// Blocks that count as layers.
    pub blocks: u32,
    /// The context it was trained with.
    pub context_train: u32,
    /// Where weights go; only of a survey of one device.
    pub weights: Weights,
    /// What blocks keep; only of a survey of one device.
    pub cache: Cache,
    /// Compute buffers by layout.
    pub placed: Vec<Placed>,
    /// After how many blocks their kinds come again.
    pub period: u32,
    /// Their traces.
    pub traces: Traces,
    /// The worst miss at a point that no curve was made from, as a share.
    pub worst: f64,
    /// How often llama.cpp was asked.
    pub asked: u32,
}

impl Survey {
    /// The same of another quantization.
    pub fn with_weights(self, weights: Weights) -> Self {
        Self { weights, ..self }
    }
}

/// Runs of equal things, and the list of different ones.
pub fn runs<T: PartialEq + Clone>(all: &[T]) -> (Vec<T>, Vec<(u16, u32)>) {
    let mut kinds: Vec<T> = Vec::new();
    let mut runs: Vec<(u16, u32)> = Vec::new();
    for one in all {
        let kind = kinds.iter().position(|known| known == one).unwrap_or_else(|| {
            kinds.push(one.clone());
            kinds.len() - 1
        });
        let kind = u16::try_from(kind).unwrap_or(u16::MAX);
        match runs.last_mut() {
            Some((last, count)) if *last == kind => *count += 1,
            _ => runs.push((kind, 1)),
        }
    }
    (kinds, runs)
}

/// Each thing again.
pub fn unrolled<'a, T>(kinds: &'a [T], runs: &'a [(u16, u32)]) -> impl Iterator<Item = &'a T> {
    runs.iter().flat_map(|(kind, count)| {
        std::iter::repeat_n(kinds.get(usize::from(*kind)), usize::try_from(*count).unwrap_or(0)).flatten()
    })
}
