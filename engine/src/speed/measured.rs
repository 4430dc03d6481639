//! How fast a model will run on a machine that was benchmarked with others. Pure arithmetic.
//!
//! A prefilled token takes a time for each node of its graph, for each parameter by its type, for each product of attention
//! over the context, and for what passes between matrices; a decoded one is [`Streaming`]'s. [`Measured`] solves for these
//! times from the benchmark's points, whose shapes are known by name. Entry points: [`Measured::from_points`], and
//! [`predict`] where of a model only bytes and parameters are known.

use std::collections::BTreeMap;

use muster_proto::{BenchPoint, Benchmark, Bytes, TokensPerSecond};

use super::costs::{ModelCosts, Weights};
use super::physics::{Part, Work};
use super::streaming::{Load, Streaming};
use crate::bench_models::BenchShape;
use crate::gguf::TensorType;

/// Predicts (prefill, decode) of a model on one device of a benchmarked machine, from the bytes and parameters that each
/// of its tokens takes; `None` where nothing was measured to tell from.
///
/// Decode: `seconds per token = fixed + bytes / bandwidth`. Prefill: `seconds per token = fixed + parameters / rate`. Over the
/// points of dense models from an empty context.
pub fn predict(
    benchmark: &Benchmark,
    device: &str,
    bytes_per_token: Bytes,
    parameters_per_token: u64,
) -> (Option<TokensPerSecond>, Option<TokensPerSecond>) {
    let points: Vec<&BenchPoint> = benchmark
        .points
        .iter()
        .filter(|point| point.device == device && point.depth == 0 && !has_experts(point))
        .collect();
    let seconds = |rate: TokensPerSecond| (rate.get() > 0.0).then(|| 1.0 / rate.get());
    let decode: Vec<(f64, f64)> =
        points.iter().filter_map(|p| Some((p.model.bytes_per_token.get() as f64, seconds(p.decode.median)?))).collect();
    let prefill: Vec<(f64, f64)> =
        points.iter().filter_map(|p| Some((p.model.parameters_per_token as f64, seconds(p.prefill.median)?))).collect();
    let rate = |line: Option<Line>, x: f64| TokensPerSecond::new(1.0 / line?.at(x)?);
    (rate(Line::fit(&prefill), parameters_per_token as f64), rate(Line::fit(&decode), bytes_per_token.get() as f64))
}

/// `y = fixed + slope · x`, neither of them negative.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Line {
    fixed: f64,
    slope: f64,
}

impl Line {
    /// Least squares of the relative errors, so that a fast small model counts as much as a slow large one. With points of
    /// one x only, or where the fit would go below zero, a line through the origin.
    fn fit(points: &[(f64, f64)]) -> Option<Self> {
        if points.is_empty() || points.iter().any(|(x, y)| *x <= 0.0 || *y <= 0.0) {
            return None;
        }
        // Weighted with 1/y²: minimizes Σ ((fixed + slope·x − y) / y)².
        let sum = |term: fn(f64, f64) -> f64| points.iter().map(|(x, y)| term(*x, *y) / (y * y)).sum::<f64>();
        let (n, sx, sy) = (sum(|_, _| 1.0), sum(|x, _| x), sum(|_, y| y));
        let (sxx, sxy) = (sum(|x, _| x * x), sum(|x, y| x * y));
        let determinant = n * sxx - sx * sx;
        let through_origin = Self { fixed: 0.0, slope: sxy / sxx };
        if determinant <= 1e-9 * n * sxx {
            return Some(through_origin);
        }
        let slope = (n * sxy - sx * sy) / determinant;
        let fixed = (sxx * sy - sx * sxy) / determinant;
        if slope <= 0.0 {
            // Larger models measured faster: noise. Nothing is known of how it grows but the largest one's rate.
            return points.iter().max_by(|a, b| a.0.total_cmp(&b.0)).map(|(x, y)| Self { fixed: 0.0, slope: y / x });
        }
        if fixed < 0.0 {
            return Some(through_origin);
        }
        Some(Self { fixed, slope })
    }

    fn at(self, x: f64) -> Option<f64> {
        let y = self.fixed + self.slope * x;
        (y.is_finite() && y > 0.0).then_some(y)
    }
}

/// Seconds of each kind of work on one device, from its own benchmark.
#[derive(Clone, Debug, PartialEq)]
pub struct Measured {
    decode: Streaming,
    /// Seconds of a node that experts add to decoding.
    expert_node: f64,
    prefill: Phase,
}

/// Seconds of prefilling.
#[derive(Clone, Debug, Default, PartialEq)]
struct Phase {
    /// A node of a graph, of each batch.
    node: f64,
    /// What passes between matrices, for each layer and its width.
    passing: f64,
    /// A parameter of each type.
    weights: BTreeMap<String, f64>,
    /// A product of attention with one token of the context.
    context: f64,
    /// An expert's parameter over the same in a dense matrix.
    experts: f64,
}

/// What a prefill's experts cost more, where none were measured: their matrices are multiplied in smaller pieces.
const USUAL_EXPERTS: f64 = 1.3;
/// Matrices of a layer: four of attention and three of the feed-forward part, or of all its experts together.
const MATRICES: f64 = 7.0;
/// Tokens of a physical batch in the benchmark.
const BATCH: f64 = 512.0;

fn has_experts(point: &BenchPoint) -> bool {
    BenchShape::named(&point.model.name).is_some_and(|shape| shape.experts.0 > 0)
}

/// One equation: so much of each unknown takes so many seconds.
struct Row {
    amounts: BTreeMap<String, f64>,
    seconds: f64,
}

const NODE: &str = "node";
const PASSING: &str = "passing";
const CONTEXT: &str = "context";

impl Measured {
    /// Solves for the times of a device; `None` where the points are of unknown shapes or too few to tell weights from the
    /// rest.
    pub fn from_points(points: &[&BenchPoint]) -> Option<Self> {
        let known: Vec<(&BenchPoint, ModelCosts)> = points
            .iter()
            .filter_map(|point| Some((*point, BenchShape::named(&point.model.name)?.costs(&point.model)?)))
            .collect();
        let dense: Vec<&(&BenchPoint, ModelCosts)> = known.iter().filter(|(point, _)| !has_experts(point)).collect();
        let fresh = dense.iter().filter(|(point, _)| point.depth == 0);
        let sizes: std::collections::BTreeSet<&str> = fresh.map(|(point, _)| point.model.name.as_str()).collect();
        if sizes.len() < 2 {
            return None;
        }
        // Types that only mixtures have are taken as slow for their bits as the mixtures' other type.
        let pure: Vec<&str> = dense
            .iter()
            .map(|(point, _)| point.model.quantization.as_str())
            .filter(|name| bits(name).is_some())
            .collect();
        let decoded = dense.iter().filter_map(|(point, costs)| {
            let rate = point.decode.median.get();
            let load = load(costs, Share::WHOLE, point.depth.into(), point.decode_tokens.into())?;
            (rate > 0.0).then(|| (load, 1.0 / rate))
        });
        let decode = Streaming::fit(&decoded.collect::<Vec<_>>())?;
        let prefill_rows = dense.iter().filter_map(|(point, costs)| prefill_row(point, costs, &pure, &decode));
        let mut prefill = Phase::solve(&prefill_rows.collect::<Vec<_>>())?;
        prefill.experts = USUAL_EXPERTS;
        let mut own = Self { expert_node: decode.node, decode, prefill };
        if let Some((point, costs)) = known.iter().find(|(point, _)| has_experts(point) && point.depth == 0) {
            own.learn_experts(point, costs);
        }
        Some(own)
    }

    /// What experts take beyond the same arithmetic in dense matrices.
    fn learn_experts(&mut self, point: &BenchPoint, costs: &ModelCosts) {
        let (prefill, decode) = (point.prefill.median.get(), point.decode.median.get());
        let load = load(costs, Share::WHOLE, 0.0, point.decode_tokens.into());
        if let Some(dense) = load.and_then(|load| self.decode.seconds(&load)).filter(|_| decode > 0.0) {
            let nodes = costs.expert_layers * expert_nodes(costs);
            self.expert_node = ((1.0 / decode - dense) / nodes).clamp(0.0, 1e-3);
        }
        let mut seconds = |experts: f64| {
            self.prefill.experts = experts;
            self.prefill_seconds(costs, Share::WHOLE, 0.0, point.prefill_tokens.into(), BATCH)
        };
        // The time is a line in the unknown: two of its points say where it meets what was measured.
        let solved = seconds(1.0).zip(seconds(0.0)).filter(|(with, without)| with > without && prefill > 0.0);
        let experts = solved.map(|(with, without)| (1.0 / prefill - without) / (with - without));
        self.prefill.experts = experts.unwrap_or(USUAL_EXPERTS).clamp(0.3, 10.0);
    }

    /// Seconds of a token of a part of a model; `None` where the model has something that no benchmark measures, or a type
    /// that tells nothing.
    pub fn seconds(&self, work: &Work, part: &Part, decode: bool) -> Option<f64> {
        if work.costs.state_elements > 0.0 || work.costs.output.is_none() || !work.flash_attention {
            return None;
        }
        let share = Share { layers: part.layers, experts: part.experts, output: part.output };
        self.of(work.costs, share, decode, work.depth, work.tokens, work.ubatch)
    }

    fn of(&self, costs: &ModelCosts, share: Share, decode: bool, depth: f64, tokens: f64, ubatch: f64) -> Option<f64> {
        let seconds = if decode {
            let experts = costs.expert_layers * share.experts * expert_nodes(costs) * self.expert_node;
            self.decode.seconds(&load(costs, share, depth, tokens)?)? + experts
        } else {
            self.prefill_seconds(costs, share, depth, tokens, ubatch)?
        };
        (seconds.is_finite() && seconds > 0.0).then_some(seconds)
    }

    fn prefill_seconds(&self, costs: &ModelCosts, share: Share, depth: f64, tokens: f64, ubatch: f64) -> Option<f64> {
        let phase = &self.prefill;
        let mut seconds = nodes(costs) * share.layers * phase.node / ubatch.min(tokens).max(1.0);
        seconds += phase.passing * costs.layers * costs.width * share.layers;
        seconds += phase.context * products(costs, depth, tokens) * share.layers;
        for weights in &costs.dense {
            seconds += weights.parameters * share.layers * phase.parameter(&weights.kind)?;
        }
        for weights in &costs.experts {
            let active = weights.parameters * share.experts * costs.experts_active();
            seconds += active * phase.parameter(&weights.kind)? * phase.experts;
        }
        if let Some(output) = costs.output.as_ref().filter(|_| share.output) {
            // Only the last token of a prompt needs its output.
            seconds += self.decode.once(&output.kind, output.bytes)? / tokens.max(1.0);
        }
        Some(seconds)
    }
}

#[derive(Clone, Copy)]
struct Share {
    layers: f64,
    experts: f64,
    output: bool,
}

impl Share {
    const WHOLE: Self = Self { layers: 1.0, experts: 1.0, output: true };
}

/// What a decoded token takes of a part of a model, on average over `tokens` that follow `depth`; `None` of a model
/// without weights.
fn load(costs: &ModelCosts, share: Share, depth: f64, tokens: f64) -> Option<Load> {
    let output = costs.output.as_ref().filter(|_| share.output);
    let dense = costs.dense.iter().map(|weights| (weights.kind.clone(), weights.bytes * share.layers));
    let active = share.experts * costs.experts_active();
    let experts = costs.experts.iter().map(|weights| (weights.kind.clone(), weights.bytes * active));
    let output_bytes = output.map(|output| (output.kind.clone(), output.bytes));
    // Norms and biases pass as well, and are too small to count.
    let counted = |(kind, _): &(String, f64)| kind != "F32";
    let bytes: Vec<(String, f64)> = dense.chain(experts).chain(output_bytes).filter(counted).collect();
    let idle: f64 = costs.experts.iter().map(|weights| weights.bytes * (share.experts - active)).sum();
    let live = bytes.iter().map(|(_, bytes)| bytes).sum::<f64>() + idle;
    (!bytes.is_empty()).then(|| Load {
        nodes: nodes(costs) * share.layers,
        matrices: costs.layers * MATRICES * share.layers + f64::from(u8::from(output.is_some())),
        products: products(costs, depth, tokens) * share.layers,
        bytes,
        live,
    })
}

impl Phase {
    fn solve(rows: &[Row]) -> Option<Self> {
        let found = least_squares(rows)?;
        let mut phase = Self::default();
        for (name, value) in found {
            match name.as_str() {
                NODE => phase.node = value,
                PASSING => phase.passing = value,
                CONTEXT => phase.context = value,
                _ if value > 0.0 => {
                    phase.weights.insert(name, value);
                }
                _ => {}
            }
        }
        (!phase.weights.is_empty()).then_some(phase)
    }

    /// Seconds a parameter.
    fn parameter(&self, kind: &str) -> Option<f64> {
        if let Some(measured) = self.weights.get(kind) {
            return Some(*measured);
        }
        let by_byte = self.weights.iter().filter_map(|(name, each)| Some((name.clone(), each * 8.0 / bits(name)?)));
        Some(between(&by_byte.collect(), kind)? * bits(kind)? / 8.0)
    }
}

/// Seconds a byte of a type, given those of others: as measured, or so that a parameter is between the measured types of its
/// family with more and fewer bits, or of the nearest type at all with a parameter's time as the root of its bits.
pub(super) fn between(measured: &BTreeMap<String, f64>, kind: &str) -> Option<f64> {
    if let Some(measured) = measured.get(kind) {
        return Some(*measured);
    }
    let own = bits(kind)?;
    let mut others: Vec<(f64, f64, bool)> = measured
        .iter()
        .filter_map(|(name, byte)| {
            let bits = bits(name)?;
            Some((bits, byte * bits, family(name) == family(kind)))
        })
        .collect();
    if others.iter().any(|(_, _, same)| *same) {
        others.retain(|(_, _, same)| *same);
    }
    let below = others.iter().filter(|(bits, ..)| *bits <= own).max_by(|a, b| a.0.total_cmp(&b.0));
    let above = others.iter().filter(|(bits, ..)| *bits >= own).min_by(|a, b| a.0.total_cmp(&b.0));
    let parameter = match (below, above) {
        (Some(below), Some(above)) if above.0 > below.0 => {
            below.1 + (above.1 - below.1) * (own - below.0) / (above.0 - below.0)
        }
        (Some(only), _) | (_, Some(only)) => only.1 * (own / only.0).sqrt(),
        (None, None) => return None,
    };
    Some(parameter / own)
}

/// Types whose kernels are built alike: floats, blocks of 32 with one scale, blocks of 256, and those with a table of values.
fn family(kind: &str) -> &'static str {
    match kind {
        "F32" | "F16" | "BF16" => "float",
        "IQ4_NL" | "IQ4_XS" | "MXFP4" | "NVFP4" => "table",
        kind if kind.starts_with("IQ") || kind.starts_with("TQ") => "grid",
        kind if kind.ends_with("_K") => "k",
        _ => "legacy",
    }
}

fn bits(kind: &str) -> Option<f64> {
    TensorType::from_name(kind).map(|kind| kind.bytes as f64 * 8.0 / kind.block as f64)
}

/// Nodes of a graph that compute, counted in llama.cpp's graphs: each is a meeting of threads, or a launch. Twelve for
/// attention and seven for the feed-forward part in llama, more where queries and keys are normalized, have biases, or where
/// norms also follow.
fn nodes(costs: &ModelCosts) -> f64 {
    let each = match costs.architecture.as_str() {
        "qwen2" | "qwen2moe" => 22.0,
        "qwen3" | "qwen3moe" | "olmo2" | "gemma2" => 23.0,
        "gemma3" | "gemma3n" | "gemma4" => 27.0,
        _ => 19.0,
    };
    costs.layers * each + 4.0
}

/// Nodes that experts add to a layer: choosing, weighing, and adding up.
fn expert_nodes(costs: &ModelCosts) -> f64 {
    7.0 + costs.experts_used
}

/// Products of attention of a token on average, over `tokens` that follow `depth`.
fn products(costs: &ModelCosts, depth: f64, tokens: f64) -> f64 {
    let mean = depth + tokens / 2.0;
    costs
        .attention
        .iter()
        .map(|attention| {
            let seen = attention.window.map_or(mean, |window| mean.min(window as f64));
            attention.layers * attention.products * seen
        })
        .sum()
}

/// Adds parameters of a type to a row, under the name of a type that was measured alone.
fn add_weights(amounts: &mut BTreeMap<String, f64>, weights: &Weights, all: &[Weights], pure: &[&str]) {
    let own = weights.kind.as_str();
    let (name, slower) = match all.first().map(|body| body.kind.as_str()) {
        Some(body) if !pure.contains(&own) && body != own => {
            (body, bits(own).unwrap_or(1.0) / bits(body).unwrap_or(1.0))
        }
        _ => (own, 1.0),
    };
    *amounts.entry(name.to_owned()).or_default() += weights.parameters * slower;
}

fn prefill_row(point: &BenchPoint, costs: &ModelCosts, pure: &[&str], decode: &Streaming) -> Option<Row> {
    let tokens = f64::from(point.prefill_tokens).max(1.0);
    let mut amounts = BTreeMap::from([
        (NODE.to_owned(), nodes(costs) / tokens.min(BATCH)),
        (PASSING.to_owned(), costs.layers * costs.width),
        (CONTEXT.to_owned(), products(costs, point.depth.into(), tokens)),
    ]);
    for weights in &costs.dense {
        add_weights(&mut amounts, weights, &costs.dense, pure);
    }
    let output = costs.output.as_ref()?;
    let once = decode.once(&output.kind, output.bytes)? / tokens;
    let rate = point.prefill.median.get();
    (rate > 0.0).then(|| Row { amounts, seconds: (1.0 / rate - once).max(0.1 / rate) })
}

/// The unknowns, none below zero, with the least squares of relative errors: normal equations, from which the most
/// negative unknown is left out until none is.
fn least_squares(rows: &[Row]) -> Option<BTreeMap<String, f64>> {
    let mut names: Vec<&String> = rows.iter().flat_map(|row| row.amounts.keys()).collect();
    names.sort();
    names.dedup();
    while !names.is_empty() {
        let count = names.len();
        // In units in which each unknown's amounts are about 1.
        let scaled = |row: &Row, name: &String| row.amounts.get(name).copied().unwrap_or(0.0) / row.seconds;
        let units: Vec<f64> =
            names.iter().map(|name| rows.iter().map(|row| scaled(row, name).powi(2)).sum::<f64>().sqrt()).collect();
        let mut matrix = vec![vec![0.0; count + 1]; count];
        for (i, line) in matrix.iter_mut().enumerate() {
            for (j, cell) in line.iter_mut().enumerate() {
                let other = |row: &Row| if j < count { scaled(row, names[j]) / units[j] } else { 1.0 };
                *cell = rows.iter().map(|row| scaled(row, names[i]) / units[i] * other(row)).sum();
            }
            // Unknowns that no point tells apart share what they take.
            line[i] += 1e-7;
        }
        let solved = eliminate(matrix)?;
        let worst = (0..count).min_by(|a, b| solved[*a].total_cmp(&solved[*b]))?;
        if solved[worst] >= 0.0 {
            return Some(
                names.iter().zip(solved.iter().zip(&units)).map(|(n, (x, u))| ((*n).clone(), x / u)).collect(),
            );
        }
        names.remove(worst);
    }
    None
}

/// Gauss's elimination with pivots of a matrix with its right side as last column.
pub(super) fn eliminate(mut matrix: Vec<Vec<f64>>) -> Option<Vec<f64>> {
    let count = matrix.len();
    for column in 0..count {
        let pivot = (column..count).max_by(|a, b| matrix[*a][column].abs().total_cmp(&matrix[*b][column].abs()))?;
        if matrix[pivot][column].abs() < 1e-14 {
            return None;
        }
        matrix.swap(column, pivot);
        let lead = matrix[column].clone();
        for (index, row) in matrix.iter_mut().enumerate() {
            if index != column {
                let factor = row[column] / lead[column];
                row.iter_mut().zip(&lead).for_each(|(cell, lead)| *cell -= factor * lead);
            }
        }
    }
    Some(matrix.iter().enumerate().map(|(index, row)| row[count] / row[index]).collect())
}

#[cfg(test)]
mod tests {
    use muster_proto::{BenchModel, Spread, Timestamp};

    use super::*;

    fn point(device: &str, bytes: u64, parameters: u64, prefill: f64, decode: f64) -> BenchPoint {
        BenchPoint {
            device: device.into(),
            threads: None,
            model: BenchModel {
                name: "m".into(),
                quantization: "Q8_0".into(),
                bytes_per_token: Bytes::new(bytes),
                parameters_per_token: parameters,
                layers: 1,
            },
            prefill_tokens: 128,
            decode_tokens: 16,
            prefill: Spread::of(vec![prefill]).expect("a rate"),
            decode: Spread::of(vec![decode]).expect("a rate"),
            depth: 0,
        }
    }

    fn benchmark(points: Vec<BenchPoint>) -> Benchmark {
        Benchmark {
            measured_at: Timestamp::from_unix_millis(0),
            took_ms: 1,
            engine_build: "test".into(),
            hardware_fingerprint: "test".into(),
            points,
            conditions: muster_proto::Conditions::default(),
            parts: vec![],
            on_battery: vec![],
        }
    }

    #[test]
    fn a_line_through_two_points_is_found_again() {
        // 1 ms and 10 GB/s; 0.1 ms and 100 G parameters/s.
        let decode = |bytes: f64| 1.0 / (1e-3 + bytes / 10e9);
        let prefill = |parameters: f64| 1.0 / (1e-4 + parameters / 100e9);
        let known = benchmark(vec![
            point("CPU", 10_000_000, 8_000_000, prefill(8e6), decode(1e7)),
            point("CPU", 100_000_000, 113_000_000, prefill(113e6), decode(1e8)),
        ]);
        let (p, d) = predict(&known, "CPU", Bytes::new(4_000_000_000), 7_000_000_000);
        assert!((d.expect("known").get() / decode(4e9) - 1.0).abs() < 1e-6);
        assert!((p.expect("known").get() / prefill(7e9) - 1.0).abs() < 1e-6);
    }

    #[test]
    fn one_point_scales_and_no_point_says_nothing() {
        let known = benchmark(vec![point("CPU", 1000, 1000, 100.0, 10.0)]);
        let (p, d) = predict(&known, "CPU", Bytes::new(2000), 4000);
        assert!((p.expect("known").get() - 25.0).abs() < 1e-9);
        assert!((d.expect("known").get() - 5.0).abs() < 1e-9);
        assert_eq!(predict(&known, "CUDA0", Bytes::new(2000), 4000), (None, None));
        let stopped = benchmark(vec![point("CPU", 1000, 1000, 0.0, 0.0)]);
        assert_eq!(predict(&stopped, "CPU", Bytes::new(2000), 4000), (None, None));
    }

    #[test]
    fn noise_never_predicts_a_negative_time() {
        for (small, large) in [(100.0, 200.0), (1000.0, 10.0), (50.0, 50.0)] {
            let known = benchmark(vec![
                point("CPU", 1_000_000, 1_000_000, small, small),
                point("CPU", 50_000_000, 50_000_000, large, large),
            ]);
            let (p, d) = predict(&known, "CPU", Bytes::new(1), 1);
            for rate in [p, d].into_iter().flatten() {
                assert!(rate.get() > 0.0 && rate.get().is_finite());
            }
            let (_, bigger) = predict(&known, "CPU", Bytes::new(1_000_000_000), 1);
            assert!(bigger.expect("known").get() <= large, "a model 20 times larger is no faster");
        }
    }

    /// Points of a made-up machine: a time of each node, parameter (by bits) and product.
    fn machine(of: &[(&str, &str, u32)]) -> Vec<BenchPoint> {
        of.iter()
            .map(|(name, quantization, depth)| {
                let shape = BenchShape::named(name).expect("a shape");
                let parameters = shape.parameters();
                let mut point = point("CPU", 1, 1, 1.0, 1.0);
                point.threads = Some(2);
                (point.prefill_tokens, point.decode_tokens, point.depth) = (512, 128, *depth);
                point.model.name = (*name).into();
                point.model.quantization = (*quantization).into();
                let bits = if *quantization == "Q4_K_M" { 4.8 } else { bits(quantization).expect("a type") };
                #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a count")]
                let bytes = (parameters * bits / 8.0) as u64;
                point.model.bytes_per_token = Bytes::new(bytes);
                let costs = shape.costs(&point.model).expect("types");
                let spread = |seconds: f64| Spread::of(vec![1.0 / seconds]).expect("a rate");
                point.decode = spread(truth(&costs, true, f64::from(*depth)));
                point.prefill = spread(truth(&costs, false, f64::from(*depth)));
                point
            })
            .collect()
    }

    fn truth(costs: &ModelCosts, decode: bool, depth: f64) -> f64 {
        let each = |weights: &Weights, by: f64| weights.parameters * bits(&weights.kind).expect("a type") * by;
        let sum = |by: f64| costs.dense.iter().map(|weights| each(weights, by)).sum::<f64>();
        let output = each(costs.output.as_ref().expect("one"), 2e-12);
        if decode {
            nodes(costs) * 5e-6 + sum(2e-12) + output + products(costs, depth, 128.0) * 1e-11
        } else {
            let passing = costs.layers * costs.width * 1e-9;
            nodes(costs) * 2e-5 / 512.0 + passing + sum(1e-13) + output / 512.0 + products(costs, depth, 512.0) * 1e-12
        }
    }

    #[test]
    fn the_times_of_a_machine_are_found_again() {
        let points = machine(&[
            ("muster-8m", "Q8_0", 0),
            ("muster-61m", "Q4_K_M", 0),
            ("muster-61m", "Q6_K", 0),
            ("muster-61m", "Q8_0", 0),
            ("muster-61m", "F16", 0),
            ("muster-61m", "Q8_0", 4096),
            ("muster-300m", "Q8_0", 0),
            ("muster-226m-deep", "Q4_K", 0),
        ]);
        let own = Measured::from_points(&points.iter().collect::<Vec<_>>()).expect("known shapes");
        let whole = Share::WHOLE;
        // Another shape in measured types, and in one between them.
        let facts = serde_json::json!({
            "arch": "llama", "n_layer": 22, "n_embd": 2048, "n_head": 32, "n_head_kv": 4, "n_ff": 5632, "n_vocab": 32000,
        });
        for (quantization, within) in [("Q8_0", 0.02), ("F16", 0.02), ("Q5_K_M", 0.05)] {
            let facts = super::super::ModelFacts::from_json(&facts);
            let costs = ModelCosts::from_facts(&facts, quantization, None).expect("whole");
            for (decode, tokens, depth) in [(true, 128.0, 0.0), (false, 512.0, 0.0), (true, 128.0, 2048.0)] {
                let found = own.of(&costs, whole, decode, depth, tokens, 512.0).expect("known types");
                let ratio = found / truth(&costs, decode, depth);
                assert!((ratio - 1.0).abs() < within, "{quantization} {decode} at {depth}: {ratio}");
            }
        }
        // One shape tells nothing apart.
        let same: Vec<&BenchPoint> = points[1..5].iter().collect();
        assert_eq!(Measured::from_points(&same), None);
    }

    #[test]
    fn an_unmeasured_type_is_between_its_neighbours() {
        let phase = Phase {
            weights: [("Q4_K", 4.0), ("Q6_K", 6.0), ("Q8_0", 5.0)].map(|(name, x)| (name.to_owned(), x)).into(),
            ..Phase::default()
        };
        let between = phase.parameter("Q5_K").expect("between");
        assert!(between > 4.0 && between < 6.0, "{between}");
        assert!(phase.parameter("Q3_K").expect("below") < 4.0);
        assert_eq!(phase.parameter("Q9"), None);
    }
}
