//! Learning the parameters: penalized least squares of the logarithm of the error, robust, by Gauss and Newton.
//!
//! A parameter is pulled to zero (to the one above it) with a strength that depends on its level, so that an
//! architecture's own value moves only as far as its measurements carry it. Every device weighs the square root of its
//! number of rows.

use std::collections::BTreeMap;

use muster_engine::speed::Priors;

use super::data::Row;

/// Error beyond which a row pulls no harder, as a logarithm.
const ROBUST: f64 = 0.15;
/// What a row's error is compared with the pull to zero: a typical scatter between sources.
const SCATTER: f64 = 0.10;

/// Rows with their parameters as indices.
pub struct Problem<'a> {
    rows: Vec<(&'a Row, Vec<Indexed>)>,
    names: Vec<String>,
    pull: Vec<f64>,
}

struct Indexed {
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
                    quantity: term.quantity,
                    factors: term.factors.iter().map(|(name, weight)| (index[name.as_str()], *weight)).collect(),
                });
                (*row, terms.collect())
            })
            .collect();
        let pull = names.iter().map(|name| 1.0 / freedom(name).powi(2)).collect();
        Self { rows: indexed, names, pull }
    }

    /// Learns from the rows of all devices but one, starting from `start`.
    pub fn learn(&self, without: Option<&str>, start: &[f64], steps: usize) -> Vec<f64> {
        let mut counts: BTreeMap<&str, f64> = BTreeMap::new();
        for (row, _) in &self.rows {
            *counts.entry(row.device.key.as_str()).or_default() += 1.0;
        }
        let used: Vec<&(&Row, Vec<Indexed>)> =
            self.rows.iter().filter(|(row, _)| Some(row.device.key.as_str()) != without).collect();
        let weight = |row: &Row| 1.0 / counts[row.device.key.as_str()].sqrt() / SCATTER.powi(2);
        let loss = |values: &[f64]| {
            let data: f64 = used
                .iter()
                .map(|(row, terms)| {
                    let error = (seconds(terms, values) * row.measured).ln() / ROBUST;
                    weight(row) * ROBUST * ROBUST * 2.0 * ((1.0 + error * error).sqrt() - 1.0)
                })
                .sum();
            data + values.iter().zip(&self.pull).map(|(value, pull)| value * value * pull).sum::<f64>()
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
                let mut total = 0.0;
                for term in terms {
                    let time = term.seconds(&values);
                    total += time;
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
                gradient[i] -= self.pull[i] * values[i];
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

    /// As many zeros as there are parameters.
    pub fn zeros(&self) -> Vec<f64> {
        vec![0.0; self.names.len()]
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

fn seconds(terms: &[Indexed], values: &[f64]) -> f64 {
    terms.iter().map(|term| term.seconds(values)).sum()
}

/// How far a parameter is expected from zero, by its level: the logarithm of a factor.
fn freedom(name: &str) -> f64 {
    let level = name.matches('/').count();
    if name.contains(".power") || name.contains(".age") {
        0.4
    } else if name.contains(".unit.") {
        0.6
    } else if name.contains(".ik") {
        if level == 1 && name.matches('.').count() == 2 { 0.6 } else { 0.3 }
    } else if name.contains('@') {
        0.25
    } else if level == 2 {
        0.2
    } else if level == 1 {
        if name.matches('.').count() >= 2 { 0.25 } else { 0.5 }
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
