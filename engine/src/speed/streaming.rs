//! [`Streaming`]: seconds of decoding on one device, fitted to its own benchmark. Pure arithmetic.
//!
//! A token waits for each node of its graph, and all its weights pass once: those that a cache still holds as fast as they
//! are computed with, those that it does not as fast as the slower of arithmetic and memory allows, and each matrix that
//! comes from memory costs a start. A cache of size `C` over which `S` bytes pass round and round, with lines replaced at
//! random, still holds the share `h` of them: a line survives a round with the probability `h = exp(−(1 − h)·S/C)`. Entry
//! points: [`Streaming::fit`] and [`Streaming::seconds`].

use std::collections::BTreeMap;

use super::measured::{between, eliminate};

/// How sharply the slower of memory and arithmetic hides the other.
const SHARPNESS: i32 = 6;
/// Relative error of a point that counts as much as a deviation from what is usual by its whole width.
const NOISE: f64 = 0.02;
/// Bytes of a usual desk's last cache.
const USUAL_CACHE: f64 = 32e6;
/// Seconds that a matrix from memory usually takes to start.
const USUAL_START: f64 = 2e-6;
/// Steps of the fit, at most.
const STEPS: usize = 40;
/// The largest change of a logarithm in one step.
const STRIDE: f64 = 0.7;

/// What a token takes, counted.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Load {
    /// Nodes of its graph.
    pub nodes: f64,
    /// Matrices.
    pub matrices: f64,
    /// Products of attention.
    pub products: f64,
    /// Bytes of weights by type.
    pub bytes: Vec<(String, f64)>,
    /// Bytes among which those are: more where experts are chosen.
    pub live: f64,
}

/// Seconds of each.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Streaming {
    /// A node.
    pub node: f64,
    /// The start of a matrix that comes from memory.
    start: f64,
    /// A byte from memory.
    memory: f64,
    /// Bytes of the cache.
    cache: f64,
    /// A product of attention.
    context: f64,
    /// A byte of each type, computed with.
    compute: BTreeMap<String, f64>,
}

/// Places of the unknowns' logarithms; types follow.
const NODE: usize = 0;
const START: usize = 1;
const MEMORY: usize = 2;
const CACHE: usize = 3;
const CONTEXT: usize = 4;
const TYPES: usize = 5;

/// How far unknowns are from what is usual, in the logarithm: roughly a factor of five for nodes and starts, three for memory,
/// cache and types, seven for attention.
const WIDTHS: [f64; TYPES] = [1.5, 1.5, 1.0, 1.0, 2.0];
const WIDTH_OF_TYPES: f64 = 1.0;

impl Streaming {
    /// Fits to loads with the seconds that they were measured to take. Types of mixtures that were not measured alone
    /// count as the first type of their load. `None` where nothing was measured.
    pub fn fit(measured: &[(Load, f64)]) -> Option<Self> {
        let best = measured.iter().map(|(load, seconds)| load.all() / seconds).fold(0.0, f64::max);
        let least = measured.iter().map(|(load, seconds)| seconds / load.nodes.max(1.0)).fold(f64::INFINITY, f64::min);
        if !(best.is_finite() && best > 0.0 && least.is_finite()) {
            return None;
        }
        let pure = |load: &Load| load.bytes.iter().all(|(kind, _)| *kind == load.bytes[0].0);
        let mut types: Vec<&str> =
            measured.iter().filter(|(load, _)| pure(load)).filter_map(|(load, _)| load.first()).collect();
        if types.is_empty() {
            types = measured.iter().filter_map(|(load, _)| load.first()).collect();
        }
        types.sort_unstable();
        types.dedup();
        let rows: Vec<Row> = measured.iter().filter_map(|(load, seconds)| Row::of(load, *seconds, &types)).collect();
        if rows.is_empty() {
            return None;
        }
        let mut usual = [0.5 * least, USUAL_START, 1.0 / best, USUAL_CACHE, 0.6 / best].map(f64::ln).to_vec();
        usual.extend(types.iter().map(|_| (0.7 / best).ln()));
        let found = solve(&rows, &usual)?;
        let value = |index: usize| found[index].exp();
        Some(Self {
            node: value(NODE),
            start: value(START),
            memory: value(MEMORY),
            cache: value(CACHE),
            context: value(CONTEXT),
            compute: types.iter().enumerate().map(|(at, kind)| ((*kind).to_owned(), value(TYPES + at))).collect(),
        })
    }

    /// Seconds of a token; `None` where a type tells nothing.
    pub fn seconds(&self, load: &Load) -> Option<f64> {
        let held = held(load.live / self.cache);
        let weights: Option<f64> =
            load.bytes.iter().map(|(kind, bytes)| Some(bytes * self.byte(self.compute_of(kind)?, held))).sum();
        let starts = load.matrices * self.start * (1.0 - held);
        Some(load.nodes * self.node + starts + load.products * self.context + weights?)
    }

    /// Seconds of weights that pass once, from memory: an output matrix after a prompt.
    pub fn once(&self, kind: &str, bytes: f64) -> Option<f64> {
        Some(bytes * self.byte(self.compute_of(kind)?, 0.0))
    }

    fn byte(&self, compute: f64, held: f64) -> f64 {
        held * compute + (1.0 - held) * slower(compute, self.memory)
    }

    fn compute_of(&self, kind: &str) -> Option<f64> {
        between(&self.compute, kind)
    }
}

impl Load {
    fn all(&self) -> f64 {
        self.bytes.iter().map(|(_, bytes)| bytes).sum()
    }

    fn first(&self) -> Option<&str> {
        self.bytes.first().map(|(kind, _)| kind.as_str())
    }
}

/// Seconds a byte of memory and arithmetic that overlap.
fn slower(compute: f64, memory: f64) -> f64 {
    let (most, other) = if compute > memory { (compute, memory) } else { (memory, compute) };
    most * (1.0 + (other / most).powi(SHARPNESS)).powf(1.0 / f64::from(SHARPNESS))
}

/// The share that a cache holds of so many times its size: the lesser root of `h = exp(−(1 − h)·x)`.
fn held(times: f64) -> f64 {
    if times <= 1.0 {
        return 1.0;
    }
    // Newton's steps from below converge to the lesser root from one side.
    let mut share: f64 = 0.0;
    for _ in 0..8 {
        let survives = (-(1.0 - share) * times).exp();
        let step = (survives - share) / (1.0 - times * survives).max(0.05);
        share += step;
        if step.abs() < 1e-6 {
            break;
        }
    }
    share.clamp(0.0, 1.0)
}

/// One measurement, with types by their places among the unknowns.
struct Row {
    nodes: f64,
    matrices: f64,
    products: f64,
    bytes: Vec<(usize, f64)>,
    live: f64,
    seconds: f64,
}

impl Row {
    fn of(load: &Load, seconds: f64, types: &[&str]) -> Option<Self> {
        let place = |kind: &str| types.iter().position(|known| *known == kind);
        let body = place(load.first()?);
        let bytes = load.bytes.iter().map(|(kind, bytes)| Some((TYPES + place(kind).or(body)?, *bytes)));
        Some(Self {
            nodes: load.nodes,
            matrices: load.matrices,
            products: load.products,
            bytes: bytes.collect::<Option<_>>()?,
            live: load.live,
            seconds,
        })
    }

    /// The logarithm of expected over measured seconds, and how it changes with each unknown's logarithm.
    fn miss(&self, unknowns: &[f64], slope: &mut [f64]) -> f64 {
        slope.fill(0.0);
        let value = |index: usize| unknowns[index].exp();
        let (memory, start) = (value(MEMORY), value(START));
        let times = self.live / value(CACHE);
        let held = held(times);
        slope[NODE] = self.nodes * value(NODE);
        slope[CONTEXT] = self.products * value(CONTEXT);
        slope[START] = self.matrices * start * (1.0 - held);
        // What it would save if the cache held everything.
        let mut saved = -self.matrices * start;
        let mut seconds = slope[NODE] + slope[CONTEXT] + slope[START];
        for (place, bytes) in &self.bytes {
            let compute = value(*place);
            let both = slower(compute, memory);
            let share = |part: f64| (part / both).powi(SHARPNESS);
            seconds += bytes * (held * compute + (1.0 - held) * both);
            slope[*place] += bytes * (held * compute + (1.0 - held) * both * share(compute));
            slope[MEMORY] += bytes * (1.0 - held) * both * share(memory);
            saved += bytes * (compute - both);
        }
        if times > 1.0 {
            let change = times * (1.0 - held) * held / (1.0 - times * held).max(0.05);
            slope[CACHE] = change * saved;
        }
        for slope in slope {
            *slope /= seconds;
        }
        (seconds / self.seconds).ln()
    }
}

/// Logarithms that fit the rows, each held to what is usual by its width: Gauss's and Newton's steps, halved where they
/// make it worse.
fn solve(rows: &[Row], usual: &[f64]) -> Option<Vec<f64>> {
    let count = usual.len();
    let width = |index: usize| WIDTHS.get(index).copied().unwrap_or(WIDTH_OF_TYPES);
    let mut slope = vec![0.0; count];
    let mut cost = |unknowns: &[f64]| {
        let held: f64 = (0..count).map(|at| ((unknowns[at] - usual[at]) / width(at)).powi(2)).sum();
        rows.iter().map(|row| (row.miss(unknowns, &mut slope) / NOISE).powi(2)).sum::<f64>() + held
    };
    let mut unknowns = usual.to_vec();
    let mut now = cost(&unknowns);
    let mut slope = vec![0.0; count];
    for _ in 0..STEPS {
        let mut matrix = vec![vec![0.0; count + 1]; count];
        for row in rows {
            let miss = row.miss(&unknowns, &mut slope) / NOISE;
            for (i, line) in matrix.iter_mut().enumerate() {
                let own = slope[i] / NOISE;
                if own != 0.0 {
                    line[..count].iter_mut().zip(&slope).for_each(|(cell, slope)| *cell += own * slope / NOISE);
                    line[count] -= own * miss;
                }
            }
        }
        for (i, line) in matrix.iter_mut().enumerate() {
            let weight = width(i).powi(-2);
            line[i] += weight;
            line[count] -= weight * (unknowns[i] - usual[i]);
        }
        let step: Vec<f64> = eliminate(matrix)?.iter().map(|step| step.clamp(-STRIDE, STRIDE)).collect();
        let mut share = 1.0;
        let next = loop {
            let next: Vec<f64> = unknowns.iter().zip(&step).map(|(value, step)| value + share * step).collect();
            let then = cost(&next);
            if then < now {
                now = then;
                break Some(next);
            }
            share *= 0.5;
            if share < 0.02 {
                break None;
            }
        };
        let Some(next) = next else { break };
        unknowns = next;
        if step.iter().all(|step| step.abs() * share < 1e-3) {
            break;
        }
    }
    unknowns.iter().all(|value| value.is_finite()).then_some(unknowns)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cache_holds_all_of_what_is_smaller_and_nothing_of_what_is_much_larger() {
        assert!((held(0.5) - 1.0).abs() < 1e-9);
        assert!((held(2.0) - 0.2032).abs() < 1e-3, "{}", held(2.0));
        assert!((held(1.2) - 0.6863).abs() < 5e-3, "{}", held(1.2));
        assert!(held(10.0) < 1e-4);
    }

    /// Seconds on a machine with 2 µs a node, 5 µs a start, 30 GB/s from memory, and a cache of this size.
    fn truth(load: &Load, cache: f64) -> f64 {
        let compute = |kind: &str| if kind == "Q5_K" { 1.0 / 24e9 } else { 1.0 / 60e9 };
        let held = held(load.live / cache);
        let weights = |(kind, bytes): &(String, f64)| {
            bytes * (held * compute(kind) + (1.0 - held) * slower(compute(kind), 1.0 / 30e9))
        };
        load.nodes * 2e-6
            + load.matrices * 5e-6 * (1.0 - held)
            + load.products * 20e-12
            + load.bytes.iter().map(weights).sum::<f64>()
    }

    fn load(kind: &str, megabytes: f64, layers: f64, products: f64) -> Load {
        Load {
            nodes: 19.0 * layers + 4.0,
            matrices: 7.0 * layers + 1.0,
            products,
            bytes: vec![(kind.to_owned(), megabytes * 1e6)],
            live: megabytes * 1e6,
        }
    }

    #[test]
    fn machines_with_small_and_large_caches_are_found_again() {
        for cache in [12e6, 32e6, 110e6] {
            let measured: Vec<(Load, f64)> = [
                load("Q8_0", 9.0, 8.0, 3e5),
                load("Q4_K", 38.0, 8.0, 8e5),
                load("Q8_0", 65.0, 8.0, 8e5),
                load("Q5_K", 42.0, 8.0, 8e5),
                load("Q8_0", 320.0, 10.0, 2e6),
                load("Q4_K", 170.0, 10.0, 2e6),
                load("Q4_K", 128.0, 32.0, 3e6),
                load("Q8_0", 65.0, 8.0, 26e6),
            ]
            .into_iter()
            .map(|load| (load.clone(), truth(&load, cache)))
            .collect();
            let found = Streaming::fit(&measured).expect("eight points");
            for other in
                [load("Q8_0", 160.0, 20.0, 2e6), load("Q5_K", 115.0, 12.0, 2e6), load("Q4_K", 4900.0, 32.0, 20e6)]
            {
                let ratio = found.seconds(&other).expect("known types") / truth(&other, cache);
                assert!((ratio - 1.0).abs() < 0.06, "{cache} {other:?}: {ratio}");
            }
        }
    }

    #[test]
    fn what_was_never_measured_is_between_its_neighbours_and_nonsense_is_refused() {
        let measured =
            [("Q4_K", 40.0), ("Q6_K", 60.0)].map(|(kind, size)| (load(kind, size, 8.0, 1e6), size * 1e6 / 20e9));
        let found = Streaming::fit(&measured).expect("two points");
        let of = |kind: &str| found.seconds(&load(kind, 50.0, 8.0, 1e6)).expect("known");
        assert!(of("Q5_K") > 0.0);
        assert_eq!(found.seconds(&load("Q9", 50.0, 8.0, 1e6)), None);
        assert_eq!(Streaming::fit(&[]), None);
        assert_eq!(Streaming::fit(&[(load("Q4_K", 40.0, 8.0, 1e6), 0.0)]), None);
    }
}
