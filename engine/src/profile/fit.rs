//! From sizes that llama.cpp said to the pieces that explain them.
//!
//! For each sample the program asks for the linear function that meets it and lies above no sample. Where the size is the
//! largest of linear pieces, that is the true piece. Where the allocator puts one tensor into the hole of another, it is
//! not: such samples are told apart by their cells, and get pieces of their own.

use super::planes::{FEATURES, Features, Plane, largest, value};
use super::simplex;

/// A size that llama.cpp said.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sample {
    /// Where.
    pub features: Features,
    /// Cells of each cache there, by which pieces are told apart.
    pub cells: u64,
    /// Bytes.
    pub bytes: f64,
}

/// Pieces that hold up to some number of cells.
#[derive(Clone, Debug, PartialEq)]
pub struct Region {
    /// Cells of each cache up to which they hold; `None` for the last.
    pub up_to: Option<u64>,
    /// Their largest is the size.
    pub planes: Vec<Plane>,
}

/// A sample is met when the pieces come so near to it.
const MET: f64 = 1e-3;
/// What divides samples into regions when pieces miss them by more.
const MISSED: f64 = 4e-3;
/// Samples that a region needs, so that its pieces mean something.
const FEWEST: usize = 6;
/// Regions at most.
const MOST_REGIONS: usize = 4;

/// The pieces of all samples.
pub fn regions(samples: &[Sample]) -> Vec<Region> {
    let mut all = Vec::new();
    divide(samples, None, MOST_REGIONS, &mut all);
    all
}

fn divide(samples: &[Sample], up_to: Option<u64>, most: usize, out: &mut Vec<Region>) {
    let planes = planes(samples);
    let missed = worst(&planes, samples);
    if missed > MISSED && most > 1 {
        let mut cells: Vec<u64> = samples.iter().map(|sample| sample.cells).collect();
        cells.sort_unstable();
        cells.dedup();
        let better = cells
            .windows(2)
            .filter_map(|pair| {
                // Between two sampled sizes of a cache: where exactly nobody has asked.
                let border = (pair[0].midpoint(pair[1]) / 256) * 256;
                let (low, high): (Vec<Sample>, Vec<Sample>) = samples.iter().partition(|s| s.cells <= border);
                if low.len() < FEWEST || high.len() < FEWEST {
                    return None;
                }
                let missed = worst(&self::planes(&low), &low).max(worst(&self::planes(&high), &high));
                Some((missed, border, low, high))
            })
            .min_by(|a, b| a.0.total_cmp(&b.0));
        if let Some((less, border, low, high)) = better
            && less < missed * 0.7
        {
            divide(&low, Some(border), most - 1, out);
            divide(&high, up_to, most - 1, out);
            return;
        }
    }
    out.push(Region { up_to, planes });
}

/// How far the pieces miss the worst sample, as a share of it.
pub fn worst(planes: &[Plane], samples: &[Sample]) -> f64 {
    samples.iter().map(|sample| (largest(planes, &sample.features) / sample.bytes.max(1.0) - 1.0).abs()).fold(0.0, f64::max)
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
        let meets: Vec<usize> =
            (0..samples.len()).filter(|i| value(&plane, &samples[*i].features) > samples[*i].bytes * (1.0 - MET)).collect();
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
        let size = |x: &Features| largest(&[
            [1e5, 240_000.0, 0.0, 0.0, 2.0, 0.0, 0.0, 0.0, 0.0],
            [0.0, 60_000.0, 500_000.0, 0.0, 2.0, 0.0, 0.0, 0.0, 0.0],
            [0.0, 90_000.0, 0.0, 0.0, 130.0, 0.0, 0.0, 0.0, 0.0],
        ], x);
        let features = |tokens: f64, outputs: f64, cells: f64| -> Features {
            [1.0, tokens, outputs, 1.0, tokens * cells, cells, 0.0, 0.0, tokens]
        };
        let mut samples = Vec::new();
        for cells in [512.0, 4096.0, 32768.0] {
            for tokens in [64.0, 512.0, 2048.0] {
                for outputs in [1.0, tokens * 0.9, tokens] {
                    let features = features(tokens, outputs, cells);
                    samples.push(Sample { features, cells: 0, bytes: size(&features) });
                }
            }
        }
        let found = regions(&samples);
        for (tokens, outputs, cells) in [(100.0, 1.0, 700.0), (300.0, 300.0, 100_000.0), (1500.0, 1.0, 256.0), (800.0, 800.0, 900.0)] {
            let x = features(tokens, outputs, cells);
            let error = largest(&found[0].planes, &x) / size(&x) - 1.0;
            assert!(error.abs() < 2e-3, "{error} at {tokens} tokens, {outputs} outputs, {cells} cells: {found:?}");
        }
    }
}
