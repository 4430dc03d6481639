//! Learning the parameters: penalized least squares of the logarithm of the error, robust, by Gauss and Newton.
//!
//! A parameter is pulled to zero (to the one above it) with a strength that depends on its level, so that an
//! architecture's own value moves only as far as its measurements carry it. A row weighs the less
//! the more rows its device has ([`CROWDED`]).

use std::collections::BTreeMap;

use muster_engine::speed::Priors;
use muster_engine::speed::physics::{self, Lane};

use super::data::Row;

/// Error beyond which a row pulls no harder, as a logarithm.
const ROBUST: f64 = 0.05;
/// What a row's error is compared with the pull to zero: a typical scatter between sources.
const SCATTER: f64 = 0.10;
/// The power of a device's number of rows by which each counts less: rows of one device share its deviation, but tell
/// models and types apart.
const CROWDED: f64 = 0.25;

/// Rows with their parameters as indices.
pub struct Problem<'a> {
    rows: Vec<(&'a Row, Vec<Indexed>)>,
    names: Vec<String>,
    pull: Vec<f64>,
    centre: Vec<f64>,
}

struct Indexed {
    lane: Lane,
    cpu: bool,
    quantity: f64,
    factors: Vec<(usize, f64)>,
}

impl<'a> Problem<'a> {
    /// Of the rows that decode, or of those that prefill.
    pub fn new(rows: &'a [Row], decode: bool) -> Self {
        let mut index: BTreeMap<&str, usize> = BTreeMap::new();
        let rows: Vec<&Row> = rows.iter().filter(|row| row.decode == decode).collect();
        for row in &rows {
            for (name, _) in row.terms.iter().flat_map(|term| &term.factors) {
                index.entry(name).or_default();
            }
        }
        for (number, value) in index.values_mut().enumerate() {
            *value = number;
        }
        let names: Vec<String> = index.keys().map(|name| (*name).to_owned()).collect();
        let indexed = rows
            .iter()
            .map(|row| {
                let terms = row.terms.iter().map(|term| Indexed {
                    lane: term.lane,
                    cpu: term.cpu,
                    quantity: term.quantity,
                    factors: term.factors.iter().map(|(name, weight)| (index[name.as_str()], *weight)).collect(),
                });
                (*row, terms.collect())
            })
            .collect();
        let pull = names.iter().map(|name| 1.0 / freedom(name).powi(2)).collect();
        let centre = names.iter().map(|name| centre(name)).collect();
        Self { rows: indexed, names, pull, centre }
    }

    /// Learns from the rows of all devices but one, starting from `start`.
    pub fn learn(&self, without: Option<&str>, start: &[f64], steps: usize) -> Vec<f64> {
        let mut counts: BTreeMap<&str, f64> = BTreeMap::new();
        for (row, _) in &self.rows {
            *counts.entry(row.device.key.as_str()).or_default() += 1.0;
        }
        let used: Vec<&(&Row, Vec<Indexed>)> =
            self.rows.iter().filter(|(row, _)| Some(row.device.key.as_str()) != without).collect();
        let weight = |row: &Row| counts[row.device.key.as_str()].powf(-CROWDED) / SCATTER.powi(2);
        let loss = |values: &[f64]| {
            let data: f64 = used
                .iter()
                .map(|(row, terms)| {
                    let error = (seconds(terms, values) * row.measured).ln() / ROBUST;
                    weight(row) * ROBUST * ROBUST * 2.0 * ((1.0 + error * error).sqrt() - 1.0)
                })
                .sum();
            data + (0..values.len()).map(|i| (values[i] - self.centre[i]).powi(2) * self.pull[i]).sum::<f64>()
        };
        let size = self.names.len();
        let mut values = start.to_vec();
        let mut best = loss(&values);
        let mut damping = 1e-3;
        for _ in 0..steps {
            let mut matrix = vec![0.0; size * size];
            let mut gradient = vec![0.0; size];
            let mut slope = vec![0.0; size];
            for (row, terms) in &used {
                let mut touched: Vec<usize> = Vec::new();
                let total = seconds(terms, &values);
                for term in terms {
                    let time = term.seconds(&values) * passed_on(term, terms, &values);
                    for (index, share) in &term.factors {
                        if slope[*index] == 0.0 {
                            touched.push(*index);
                        }
                        slope[*index] += time * share;
                    }
                }
                touched.sort_unstable();
                touched.dedup();
                let error = (total * row.measured).ln();
                let weight = weight(row) / (1.0 + (error / ROBUST).powi(2)).sqrt();
                for &i in &touched {
                    slope[i] /= total;
                }
                for &i in &touched {
                    gradient[i] -= weight * error * slope[i];
                    for &j in &touched {
                        matrix[i * size + j] += weight * slope[i] * slope[j];
                    }
                }
                for &i in &touched {
                    slope[i] = 0.0;
                }
            }
            for i in 0..size {
                matrix[i * size + i] += self.pull[i];
                gradient[i] -= self.pull[i] * (values[i] - self.centre[i]);
            }
            let mut improved = false;
            for _ in 0..8 {
                let mut damped = matrix.clone();
                for i in 0..size {
                    damped[i * size + i] *= 1.0 + damping;
                }
                let step = solve(damped, gradient.clone(), size);
                let next: Vec<f64> =
                    values.iter().zip(&step).map(|(value, step)| value + step.clamp(-1.0, 1.0)).collect();
                let new = loss(&next);
                if new < best {
                    improved = best - new > 1e-6 * best;
                    (values, best) = (next, new);
                    damping = (damping * 0.2).max(1e-9);
                    break;
                }
                damping *= 10.0;
            }
            if !improved {
                break;
            }
        }
        values
    }

    /// What is known before any measurement.
    pub fn centre(&self) -> &[f64] {
        &self.centre
    }

    /// Adds the values to priors.
    pub fn store(&self, values: &[f64], priors: &mut Priors) {
        priors.parameters.extend(self.names.iter().cloned().zip(values.iter().copied()));
    }

    /// (row, logarithm of measured over predicted seconds) of one device, or of all.
    pub fn errors(&self, values: &[f64], device: Option<&str>) -> Vec<(&'a Row, f64)> {
        self.rows
            .iter()
            .filter(|(row, _)| device.is_none_or(|device| row.device.key == device))
            .map(|(row, terms)| (*row, -(seconds(terms, values) * row.measured).ln()))
            .collect()
    }

    /// Keys of all devices.
    pub fn devices(&self) -> Vec<&'a str> {
        let mut keys: Vec<&str> = self.rows.iter().map(|(row, _)| row.device.key.as_str()).collect();
        keys.sort_unstable();
        keys.dedup();
        keys
    }
}

impl Indexed {
    fn seconds(&self, values: &[f64]) -> f64 {
        self.quantity * self.factors.iter().map(|(index, weight)| values[*index] * weight).sum::<f64>().exp()
    }
}

/// Of a change in one term, the share that reaches the total: all of it, but for a term that overlaps with another.
fn passed_on(term: &Indexed, terms: &[Indexed], values: &[f64]) -> f64 {
    let sum = |lane: Lane| terms.iter().filter(|t| t.lane == lane).map(|t| t.seconds(values)).sum::<f64>();
    let (own, other) = match term.lane {
        Lane::Alone => return 1.0,
        Lane::Memory(part) => (sum(term.lane), sum(Lane::Arithmetic(part))),
        Lane::Arithmetic(part) => (sum(term.lane), sum(Lane::Memory(part))),
    };
    let sharp = physics::sharpness(term.cpu);
    (1.0 + (other / own).powf(sharp)).powf(1.0 / sharp - 1.0)
}

fn seconds(terms: &[Indexed], values: &[f64]) -> f64 {
    physics::total(terms.iter().map(|term| (term.lane, term.cpu, term.seconds(values))))
}

/// What is known of a parameter before any measurement: mostly nothing.
#[expect(clippy::match_same_arms, reason = "each has a reason of its own")]
fn centre(name: &str) -> f64 {
    match name {
        // Without a dot product of four bytes: eight instructions in place of one, of some four for a parameter.
        "d.compute.scalar" => 0.9,
        // FP16 pairs in place of the dot product: half the products an instruction.
        "p.matmul.unit.scalar" => 0.7,
        // Of twice the matrix rate, two thirds arrive.
        "p.matmul.rate.float" => -0.6,
        // And of those of quantized types less, since shaders multiply the scales.
        "p.matmul.rate" => -0.3,
        // Instructions that exchange operands between lanes, beside the dot products of four bytes: 24 slots to 8.
        "p.matmul.unit.emulated" => 1.4,
        // Attention on the shaders, against matrix units of some four times their rate.
        "p.attention.unit.tile" | "p.attention.unit.coopmat" | "p.attention.unit.xmx" => 1.0,
        "p.attention.unit.shader" => 1.2,
        // Half of the memory is behind the other processor's link, a third as fast; and for prefilling, two processors do
        // not gain on one.
        "d.sockets" => 0.5,
        // Kernels that became one: some of a dense layer's, more of what routes to experts.
        "d.launch.fused" => -0.2,
        "d.launch.experts.fused" => -0.3,
        "p.sockets" => 0.7,
        // Four fifths of the GPUs' overlap arrive.
        "p.pipeline" => -0.8,
        _ => 0.0,
    }
}

/// How far a parameter is expected from its centre, by its level: the logarithm of a factor.
fn freedom(name: &str) -> f64 {
    let level = name.matches('/').count();
    if name.contains(".size") {
        0.3
    } else if name.starts_with("d.cache") {
        // The cache streams as weights do, more or less.
        if level == 0 { 0.15 } else { 0.3 }
    } else if name == "p.pipeline" {
        0.3
    } else if name.contains(".power") || name.contains(".age") {
        0.4
    } else if name.contains("attention") && level < 2 {
        0.6
    } else if name.contains(".fused") {
        if level == 0 { 0.3 } else { 0.2 }
    } else if name.contains(".unit.") {
        if level == 0 { 0.8 } else { 0.1 }
    } else if name.contains(".ik") && name.ends_with("/cpu") {
        if name.matches('.').count() == 2 { 0.5 } else { 0.3 }
    } else if name.contains(".ik") {
        if name.matches('.').count() == 2 { 0.6 } else { 0.3 }
    } else if name.contains('@') {
        0.1
    } else if level == 1 && name.ends_with("/cpu") && (name.starts_with("d.compute.") || name.starts_with("p.matmul."))
    {
        // Every type has kernels of its own there, and each instruction set some of them; memory hides less of that in
        // prefilling.
        if name.starts_with("p.") { 0.8 } else { 0.4 }
    } else if level == 2 {
        0.2
    } else if level == 1 {
        if name.matches('.').count() >= 2 { 0.2 } else { 0.4 }
    } else if name.matches('.').count() >= 2 {
        0.5
    } else {
        1.0
    }
}

/// Cholesky's method; the matrix is symmetric and, by the pull, positive definite.
fn solve(mut matrix: Vec<f64>, mut right: Vec<f64>, size: usize) -> Vec<f64> {
    for i in 0..size {
        for j in 0..=i {
            let (before, row) = matrix.split_at_mut(i * size);
            let other = if i == j { None } else { Some(&before[j * size..j * size + j]) };
            let dot: f64 = match other {
                Some(other) => other.iter().zip(&row[..j]).map(|(a, b)| a * b).sum(),
                None => row[..j].iter().map(|a| a * a).sum(),
            };
            let value = row[j] - dot;
            row[j] = if i == j { value.max(1e-12).sqrt() } else { value / before[j * size + j] };
        }
    }
    for i in 0..size {
        let dot: f64 = (0..i).map(|j| matrix[i * size + j] * right[j]).sum();
        right[i] = (right[i] - dot) / matrix[i * size + i];
    }
    for i in (0..size).rev() {
        let dot: f64 = (i + 1..size).map(|j| matrix[j * size + i] * right[j]).sum();
        right[i] = (right[i] - dot) / matrix[i * size + i];
    }
    right
}
