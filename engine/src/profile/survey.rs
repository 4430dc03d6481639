//! [`Survey`]: what a worker found out about one model on so many devices of one kind, and how the findings are compact.

use serde::{Deserialize, Serialize};

use super::fit::Tree;
use super::planes::{self, FEATURES, Features, Plane};
use super::shape::Rules;

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

/// How many combinations of attention and rows of logits there are.
pub const MODES: usize = 2 * Attention::ALL.len();

/// The place of a combination among [`MODES`].
pub fn mode(attention: Attention, all_outputs: bool) -> usize {
    2 * attention.index() + usize::from(all_outputs)
}

/// What lies where.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Layout {
    /// All on the CPU.
    Host,
    /// All layers on GPUs.
    Whole,
    /// The last layers on GPUs: at least and at most so many, where the output counts as one.
    Part(u32, u32),
    /// All layers on GPUs, the experts on the host.
    Experts,
}

/// The sizes of compute buffers in one layout, by place and mode: indices into a list of curves; none where llama.cpp
/// makes no such context.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Placed {
    /// The layout.
    #[serde(rename = "l")]
    pub layout: Layout,
    /// Whether `auto` is flash attention there.
    #[serde(rename = "f")]
    pub auto_fused: bool,
    /// The host, then each device.
    #[serde(rename = "c")]
    pub curves: Vec<[Option<u16>; MODES]>,
}

/// Pieces by cells; each a list of indices of planes.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Curves {
    /// Each plane as pairs of a product's index and its bytes.
    planes: Vec<Vec<f64>>,
    /// Each curve as indices of planes.
    curves: Vec<Tree<u16>>,
}

impl Curves {
    /// The bytes of a curve.
    pub fn bytes(&self, curve: u16, features: &Features) -> f64 {
        let curve = self.curves.get(usize::from(curve));
        let plane =
            |index: &u16, features: &Features| self.plane(*index).map_or(0.0, |plane| planes::value(&plane, features));
        curve.map_or(0.0, |curve| curve.value(features, &plane))
    }

    /// How many there are.
    pub fn len(&self) -> u16 {
        u16::try_from(self.curves.len()).unwrap_or(u16::MAX)
    }

    fn plane(&self, index: u16) -> Option<Plane> {
        let mut plane = [0.0; FEATURES];
        for pair in self.planes.get(usize::from(index))?.chunks_exact(2) {
            #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "an index below FEATURES")]
            let feature = pair[0] as usize;
            *plane.get_mut(feature)? = pair[1];
        }
        Some(plane)
    }

    /// Adds a curve; planes that are there already are used again.
    pub fn add(&mut self, curve: &Tree<Plane>) -> u16 {
        let curve = curve.map(&mut |plane| self.add_pairs(compact(plane)));
        self.add_curve(curve)
    }

    fn add_curve(&mut self, curve: Tree<u16>) -> u16 {
        let known = self.curves.iter().position(|known| *known == curve);
        let index = known.unwrap_or_else(|| {
            self.curves.push(curve);
            self.curves.len() - 1
        });
        u16::try_from(index).unwrap_or(u16::MAX)
    }

    fn add_pairs(&mut self, pairs: Vec<f64>) -> u16 {
        let known = self.planes.iter().position(|known| *known == pairs);
        let index = known.unwrap_or_else(|| {
            self.planes.push(pairs);
            self.planes.len() - 1
        });
        u16::try_from(index).unwrap_or(u16::MAX)
    }

    /// Adds all of another list; says the new index of each.
    pub fn merge(&mut self, other: &Self) -> Vec<u16> {
        let planes: Vec<u16> = other.planes.iter().map(|pairs| self.add_pairs(pairs.clone())).collect();
        let mut moved = |index: &u16| planes.get(usize::from(*index)).copied().unwrap_or(0);
        other.curves.iter().map(|curve| self.add_curve(curve.map(&mut moved))).collect()
    }
}

/// The coefficients that matter, to five digits: a millionth of a size is less than any rounding of llama.cpp's.
fn compact(plane: &Plane) -> Vec<f64> {
    let mut pairs = Vec::new();
    for (index, coefficient) in plane.iter().enumerate() {
        // Below this a product adds less than a kilobyte where it is largest.
        let least = [256.0, 1.0, 16.0, 64.0, 0.002, 0.002, 0.002, 0.002, 1.0][index];
        if *coefficient >= least {
            #[expect(clippy::cast_precision_loss, reason = "a small index")]
            pairs.push(index as f64);
            let digits = 10_f64.powf(5.0 - coefficient.log10().floor());
            pairs.push((coefficient * digits).round() / digits);
        }
    }
    pairs
}

/// What a tensor takes where it lies.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
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
    /// Their curves.
    pub curves: Curves,
    /// The worst miss at a point that no curve was made from, as a share.
    pub worst: f64,
    /// How often llama.cpp was asked.
    pub asked: u32,
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
