//! Leave one device out: every row predicted by what was learnt without its device, and the interval likewise.

use std::collections::BTreeMap;

use muster_engine::speed::{Priors, Spread};

use super::data::{Data, Row};
use super::fit::Problem;

/// Gauss-Newton steps from nothing, and from the fit of all devices.
const STEPS: (usize, usize) = (60, 12);
/// How much a row of another backend counts for a backend's spread.
const OTHERS: f64 = 0.05;

/// One row, predicted without its device.
pub struct Judged<'a> {
    /// The row.
    pub row: &'a Row,
    /// Logarithm of measured over predicted seconds.
    pub error: f64,
    /// Whether the interval, also learnt without the device, holds it.
    pub held: bool,
}

impl Judged<'_> {
    /// Relative error of the speed.
    pub fn relative(&self) -> f64 {
        // predicted / measured speed = exp(error)
        (self.error.exp() - 1.0).abs()
    }
}

/// Learns from everything, and judges each device by the others.
pub fn run(data: &Data) -> (Priors, Vec<Judged<'_>>) {
    let mut priors = Priors::default();
    let mut judged = Vec::new();
    for decode in [true, false] {
        let problem = Problem::new(&data.rows, decode);
        let all = problem.learn(None, problem.centre(), STEPS.0);
        problem.store(&all, &mut priors);
        let errors: Vec<(&Row, f64)> = problem
            .devices()
            .iter()
            .flat_map(|device| problem.errors(&problem.learn(Some(device), &all, STEPS.1), Some(device)))
            .collect();
        let mut counts: BTreeMap<&str, f64> = BTreeMap::new();
        for (row, _) in &errors {
            *counts.entry(row.device.key.as_str()).or_default() += 1.0;
        }
        let weight = |row: &Row| 1.0 / counts[row.device.key.as_str()];
        let spread = |backend: Option<&str>, without: Option<&str>| {
            let mut samples: Vec<(f64, f64)> = errors
                .iter()
                .filter(|(row, _)| Some(row.device.key.as_str()) != without)
                .map(|(row, error)| {
                    let own = backend.is_none_or(|backend| row.backend.name() == backend);
                    (*error, weight(row) * if own { 1.0 } else { OTHERS })
                })
                .collect();
            // Of n devices, the next one lies beyond the outermost tenth of them more often than in a tenth of cases.
            // Conformal prediction takes the level 0.9 · (n + 1) / n for single values; a device's rows are several, so half
            // of that correction.
            let devices: f64 = samples.iter().map(|(_, weight)| weight).sum();
            let level = (0.9 * (devices + 0.5) / devices).min(0.98);
            let (slower, faster) = (quantile(&mut samples, level), -quantile(&mut samples, 1.0 - level));
            Spread { slower: slower.max(0.03), faster: faster.max(0.03) }
        };
        let known = priors.clone();
        let table = if decode { &mut priors.decode } else { &mut priors.prefill };
        table.insert("all".into(), spread(None, None));
        for backend in ["cuda", "rocm", "vulkan", "metal", "cpu"] {
            table.insert(backend.into(), spread(Some(backend), None));
        }
        table.insert("calibrated".into(), own_spread(&errors));
        for (row, error) in &errors {
            let spread = spread(Some(row.backend.name()), Some(&row.device.key)).widened(known.uncertain(&row.terms));
            let held = (-spread.faster..=spread.slower).contains(error);
            judged.push(Judged { row, error: *error, held });
        }
    }
    (priors, judged)
}

/// How far a device's rows scatter around the middle of its other rows on the same backend: what stays uncertain once a
/// benchmark of the device itself says by how much it differs from the priors.
fn own_spread(errors: &[(&Row, f64)]) -> Spread {
    let mut samples = Vec::new();
    for (index, (row, error)) in errors.iter().enumerate() {
        let same = |other: &Row| other.device.key == row.device.key && other.backend == row.backend;
        let mut others: Vec<(f64, f64)> = errors
            .iter()
            .enumerate()
            .filter(|(place, (other, _))| *place != index && same(other))
            .map(|(_, (_, error))| (*error, 1.0))
            .collect();
        if !others.is_empty() {
            let weight = 1.0 / (others.len() + 1) as f64;
            samples.push((error - quantile(&mut others, 0.5), weight));
        }
    }
    Spread { slower: quantile(&mut samples, 0.9).max(0.03), faster: (-quantile(&mut samples, 0.1)).max(0.03) }
}

/// The weighted quantile.
pub fn quantile(samples: &mut [(f64, f64)], share: f64) -> f64 {
    samples.sort_by(|a, b| a.0.total_cmp(&b.0));
    let total: f64 = samples.iter().map(|(_, weight)| weight).sum();
    let mut sum = 0.0;
    for (value, weight) in samples.iter() {
        sum += weight;
        if sum >= total * share {
            return *value;
        }
    }
    samples.last().map_or(f64::NAN, |(value, _)| *value)
}

/// Figures of some rows, every device weighted equally.
pub struct Figures {
    /// Rows.
    pub rows: usize,
    /// Devices.
    pub devices: usize,
    /// Median relative error.
    pub median: f64,
    /// The error that a tenth exceeds.
    pub p90: f64,
    /// Share that the interval holds.
    pub held: f64,
}

impl Figures {
    /// Of the rows that pass, each device's weighing one together.
    pub fn of(judged: &[Judged], pass: impl Fn(&Row) -> bool) -> Option<Self> {
        let mut counts: BTreeMap<&str, f64> = BTreeMap::new();
        let rows: Vec<&Judged> = judged.iter().filter(|judged| pass(judged.row)).collect();
        for judged in &rows {
            *counts.entry(judged.row.device.key.as_str()).or_default() += 1.0;
        }
        let weight = |judged: &Judged| 1.0 / counts[judged.row.device.key.as_str()];
        let mut errors: Vec<(f64, f64)> = rows.iter().map(|judged| (judged.relative(), weight(judged))).collect();
        let held: f64 = rows.iter().filter(|judged| judged.held).map(|judged| weight(judged)).sum();
        (!rows.is_empty()).then(|| Self {
            rows: rows.len(),
            devices: counts.len(),
            median: quantile(&mut errors, 0.5),
            p90: quantile(&mut errors, 0.9),
            held: held / counts.len() as f64,
        })
    }
}
