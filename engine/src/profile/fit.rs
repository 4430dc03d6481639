//! From sizes that llama.cpp said to the pieces that explain them.
//!
//! For each sample a linear program asks for the linear function that meets it and lies above no sample. Where the size is
//! the largest of linear pieces, that is the true piece. Where the allocator puts one tensor into the hole of another, it is
//! not. Two ways lead on. Samples are divided by cells, which is what makes a hole large enough for the logits. And where
//! copies of weights compete with masks and activations for holes, as with layers on the host, each size of micro-batch gets
//! pieces of its own (a band), between which the size is interpolated: it is exact at the bands.

use serde::{Deserialize, Serialize};

use super::planes::{FEATURES, Features, Plane, largest, value};
use super::simplex;

/// A size that llama.cpp said.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sample {
    /// Where.
    pub features: Features,
    /// Bytes.
    pub bytes: f64,
}

/// Pieces, or what tells them apart.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Tree<P> {
    /// The largest is the size.
    #[serde(rename = "p")]
    Pieces(Vec<P>),
    /// Up to so many cells of each cache, and from there.
    #[serde(rename = "b")]
    Border(f64, Box<Tree<P>>, Box<Tree<P>>),
    /// By tokens of a micro-batch, rising; interpolated between them.
    #[serde(rename = "t")]
    Bands(Vec<(f64, Tree<P>)>),
}

impl<P> Tree<P> {
    /// The size, where `value` says that of a piece.
    pub fn value(&self, features: &Features, value: &impl Fn(&P, &Features) -> f64) -> f64 {
        match self {
            Self::Pieces(pieces) => pieces.iter().map(|piece| value(piece, features)).fold(0.0, f64::max),
            Self::Border(border, low, high) => {
                let side = if cells(features) <= *border { low } else { high };
                side.value(features, value)
            }
            Self::Bands(bands) => {
                let tokens = features[1];
                let at = |(band, tree): &(f64, Self)| tree.value(&with_tokens(features, *band), value);
                let above = bands.iter().position(|(band, _)| *band >= tokens).unwrap_or(bands.len());
                let below = above.saturating_sub(1);
                match (bands.get(below), bands.get(above.max(1).min(bands.len().saturating_sub(1)))) {
                    (Some(low), Some(high)) if high.0 > low.0 => {
                        let (at_low, at_high) = (at(low), at(high));
                        (at_low + (at_high - at_low) * (tokens - low.0) / (high.0 - low.0)).max(0.0)
                    }
                    (Some(only), _) => at(only) * tokens / only.0,
                    (None, _) => 0.0,
                }
            }
        }
    }

    /// The same with other pieces.
    pub fn map<Q>(&self, change: &mut impl FnMut(&P) -> Q) -> Tree<Q> {
        match self {
            Self::Pieces(pieces) => Tree::Pieces(pieces.iter().map(change).collect()),
            Self::Border(border, low, high) => {
                Tree::Border(*border, Box::new(low.map(change)), Box::new(high.map(change)))
            }
            Self::Bands(bands) => Tree::Bands(bands.iter().map(|(band, tree)| (*band, tree.map(change))).collect()),
        }
    }
}

/// Cells of each cache.
fn cells(features: &Features) -> f64 {
    features[4] / features[1].max(1.0)
}

/// The same context with another micro-batch.
fn with_tokens(features: &Features, tokens: f64) -> Features {
    let mut changed = *features;
    let ratio = tokens / features[1].max(1.0);
    // Rows of logits are few, or grow with the tokens.
    if features[2] > features[1] * 0.5 {
        changed[2] *= ratio;
    }
    for product in [1, 4, 6, 8] {
        changed[product] *= ratio;
    }
    changed
}

/// A sample is met when the pieces come so near to it.
const MET: f64 = 1e-3;
/// What divides samples when pieces miss them by more.
const MISSED: f64 = 4e-3;
/// Samples that a part needs, so that its pieces mean something.
const FEWEST: usize = 6;
/// Borders one within the other at most.
const DEEPEST: u32 = 3;

/// The pieces of all samples.
pub fn fit(samples: &[Sample]) -> Tree<Plane> {
    divide(samples, DEEPEST)
}

/// Pieces for each size of micro-batch that was sampled often enough.
pub fn fit_bands(samples: &[Sample]) -> Tree<Plane> {
    let mut sizes: Vec<f64> = samples.iter().map(|sample| sample.features[1]).collect();
    sizes.sort_by(f64::total_cmp);
    let mut bands = Vec::new();
    for group in sizes.chunk_by(|a, b| a.total_cmp(b).is_eq()).filter(|group| group.len() >= FEWEST - 1) {
        let here: Vec<Sample> =
            samples.iter().copied().filter(|sample| sample.features[1].total_cmp(&group[0]).is_eq()).collect();
        bands.push((group[0], divide(&here, DEEPEST)));
    }
    if bands.is_empty() { fit(samples) } else { Tree::Bands(bands) }
}

/// The size at a sample's place.
pub fn size(tree: &Tree<Plane>, features: &Features) -> f64 {
    tree.value(features, &value)
}

fn divide(samples: &[Sample], deepest: u32) -> Tree<Plane> {
    let planes = planes(samples);
    if deepest == 0 || samples.len() < 2 * FEWEST || worst(&planes, samples) < MISSED {
        return Tree::Pieces(planes);
    }
    let all = missed(&planes, samples);
    let mut best: Option<(f64, f64)> = None;
    let mut known: Vec<f64> = samples.iter().map(|sample| cells(&sample.features)).collect();
    known.sort_by(f64::total_cmp);
    known.dedup();
    for pair in known.windows(2) {
        // Between two samples: where exactly nobody has asked.
        let border = (pair[0] * pair[1]).sqrt().floor().max(pair[0]);
        let (low, high) = parted(samples, border);
        if low.len() < FEWEST / 2 || high.len() < FEWEST / 2 {
            continue;
        }
        let missed = missed(&self::planes(&low), &low) + missed(&self::planes(&high), &high);
        if best.is_none_or(|best| missed < best.0) {
            best = Some((missed, border));
        }
    }
    match best {
        Some((missed, border)) if missed < all * 0.7 => {
            let (low, high) = parted(samples, border);
            let [low, high] = [low, high].map(|part| Box::new(divide(&part, deepest - 1)));
            Tree::Border(border, low, high)
        }
        _ => Tree::Pieces(planes),
    }
}

fn parted(samples: &[Sample], border: f64) -> (Vec<Sample>, Vec<Sample>) {
    samples.iter().partition(|sample| cells(&sample.features) <= border)
}

/// How far the pieces miss all samples together, as shares of them.
fn missed(planes: &[Plane], samples: &[Sample]) -> f64 {
    samples.iter().map(|sample| (largest(planes, &sample.features) / sample.bytes.max(1.0) - 1.0).abs()).sum()
}

/// How far the pieces miss the worst sample, as a share of it.
pub fn worst(planes: &[Plane], samples: &[Sample]) -> f64 {
    samples
        .iter()
        .map(|sample| (largest(planes, &sample.features) / sample.bytes.max(1.0) - 1.0).abs())
        .fold(0.0, f64::max)
}

/// Linear functions that lie above no sample, until each sample is met by one of them, or by the best there is.
fn planes(samples: &[Sample]) -> Vec<Plane> {
    let samples: Vec<Sample> = samples.iter().copied().filter(|sample| sample.bytes > 0.0).collect();
    // Each product by its largest share of a size, so that the program's numbers are near 1.
    let mut scale = [0.0; FEATURES];
    for sample in &samples {
        for (most, feature) in scale.iter_mut().zip(sample.features) {
            *most = f64::max(*most, feature / sample.bytes);
        }
    }
    let rows: Vec<[f64; FEATURES]> = samples
        .iter()
        .map(|sample| {
            std::array::from_fn(|i| if scale[i] > 0.0 { sample.features[i] / sample.bytes / scale[i] } else { 0.0 })
        })
        .collect();
    let mut found: Vec<(Plane, Vec<usize>)> = Vec::new();
    let mut met = vec![false; samples.len()];
    for (index, row) in rows.iter().enumerate() {
        if met[index] {
            continue;
        }
        // Meets this sample, and comes as near to the others as it can: what is left open there is decided by its
        // neighbours, most by the nearest.
        let mut goal = row.map(|value| value * 16.0);
        for other in &rows {
            let distance: f64 = other.iter().zip(row).map(|(a, b)| (a - b).abs()).sum();
            for (goal, value) in goal.iter_mut().zip(other) {
                *goal += value / (1.0 + 8.0 * distance) / 8.0;
            }
        }
        // A product that no sample has would be unbounded.
        for i in 0..FEATURES {
            if scale[i] == 0.0 {
                goal[i] = 0.0;
            }
        }
        let Some(best) = simplex::maximize(&goal, &rows) else { continue };
        let plane: Plane = std::array::from_fn(|i| if scale[i] > 0.0 { best[i] / scale[i] } else { 0.0 });
        let meets: Vec<usize> = (0..samples.len())
            .filter(|i| value(&plane, &samples[*i].features) > samples[*i].bytes * (1.0 - MET))
            .collect();
        for i in &meets {
            met[*i] = true;
        }
        found.push((plane, meets));
    }
    needed(found)
}

/// Without those planes whose samples others meet as well; the ones that meet most are kept.
fn needed(mut found: Vec<(Plane, Vec<usize>)>) -> Vec<Plane> {
    found.sort_by_key(|(_, meets)| std::cmp::Reverse(meets.len()));
    let mut met = std::collections::BTreeSet::new();
    let mut kept = Vec::new();
    for (plane, meets) in found {
        if meets.is_empty() || meets.iter().any(|i| !met.contains(i)) {
            met.extend(meets);
            kept.push(plane);
        }
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A size of three pieces, sampled at few points, is known everywhere.
    #[test]
    fn pieces_are_found_again() {
        let size = |x: &Features| {
            largest(
                &[
                    [1e5, 240_000.0, 0.0, 0.0, 2.0, 0.0, 0.0, 0.0, 0.0],
                    [0.0, 60_000.0, 500_000.0, 0.0, 2.0, 0.0, 0.0, 0.0, 0.0],
                    [0.0, 90_000.0, 0.0, 0.0, 130.0, 0.0, 0.0, 0.0, 0.0],
                ],
                x,
            )
        };
        let features = |tokens: f64, outputs: f64, cells: f64| -> Features {
            [1.0, tokens, outputs, 0.0, tokens * cells, cells, 0.0, 0.0, 0.0]
        };
        let mut samples = Vec::new();
        for cells in [256.0, 1024.0, 4096.0, 32768.0, 131_072.0] {
            for tokens in [64.0, 256.0, 512.0, 1024.0, 2048.0] {
                for outputs in [1.0, tokens * 0.9, tokens] {
                    let features = features(tokens, outputs, cells);
                    samples.push(Sample { features, bytes: size(&features) });
                }
            }
        }
        let found = fit(&samples);
        for (tokens, outputs, cells) in
            [(100.0, 1.0, 700.0), (300.0, 300.0, 100_000.0), (1500.0, 1.0, 256.0), (800.0, 800.0, 900.0)]
        {
            let x = features(tokens, outputs, cells);
            let error = super::size(&found, &x) / size(&x) - 1.0;
            assert!(error.abs() < 2e-3, "{error} at {tokens} tokens, {outputs} outputs, {cells} cells: {found:?}");
        }
    }
}
