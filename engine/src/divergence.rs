//! How far one model's predictions are from another's: KL divergence and perplexity over the tokens of a text.
//!
//! Owns: the arithmetic of `llama-perplexity --kl-divergence` (ggml-org/llama.cpp, `tools/perplexity`): for each scored
//! token the divergence of the candidate's distribution from the source's, over all tokens to which the source gives more
//! than e⁻¹⁶; mean and its standard error; percentiles by linear interpolation. Unlike there, the source's logarithms of
//! probabilities are exact unless [`Precision::SixteenBit`] asks for the 16 bits in which that program keeps them. Pure.

use muster_proto::{Divergence, Statistic};

/// How the source's logarithms of probabilities are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Precision {
    /// As they are.
    Exact,
    /// Rounded to 65,536 steps over the 16 below the largest, as `llama-perplexity` keeps them in its file.
    SixteenBit,
}

/// Below this logarithm a probability of the source does not count.
const FLOOR: f32 = -16.0;

/// What one token's two distributions say.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Score {
    /// KL divergence of the candidate from the source, in nats.
    pub divergence: f64,
    /// Minus the logarithm of the source's probability of the token that came.
    pub source_loss: f64,
    /// The same of the candidate.
    pub loss: f64,
    /// Whether both think the same token the likeliest.
    pub same_top: bool,
}

/// The largest logit, its index (the first of equals), and the logarithm of the sum of all exponentials.
fn normalizer(logits: &[f32]) -> (f32, usize, f32) {
    let mut top = 0;
    for (index, logit) in logits.iter().enumerate() {
        if *logit > logits[top] {
            top = index;
        }
    }
    let largest = logits[top];
    let sum: f64 = logits.iter().map(|logit| f64::from((logit - largest).exp())).sum();
    #[expect(clippy::cast_possible_truncation, reason = "as upstream")]
    (largest, top, sum.ln() as f32)
}

/// Scores one position: the logits of both models there, and the token that the text has next. Both rows must be equally
/// long and hold `next`; `None` where a logit is not a number.
pub fn score(source: &[f32], candidate: &[f32], next: usize, precision: Precision) -> Option<Score> {
    let (largest, top, log_sum) = normalizer(candidate);
    let (source_largest, source_top, source_log_sum) = normalizer(source);
    let total = largest + log_sum;
    let source_total = source_largest + source_log_sum;
    let smallest = source.iter().copied().fold(source_largest, f32::min).max(source_largest - 16.0);
    let step = (source_largest - smallest) / 65535.0;
    let log_probability = |logit: f32| match precision {
        Precision::Exact => logit - source_total,
        Precision::SixteenBit if step > 0.0 => {
            let rounded = if logit > smallest { ((logit - smallest) / step).round_ties_even() } else { 0.0 };
            step * rounded + (smallest - source_total)
        }
        Precision::SixteenBit => smallest - source_total,
    };
    let mut divergence = 0.0;
    // Upstream looks for the likeliest among the rounded ones: the first of equals.
    let (mut likeliest, mut most) = (source_top, f32::NEG_INFINITY);
    for (index, (logit, other)) in source.iter().zip(candidate).enumerate() {
        let log = log_probability(*logit);
        if precision == Precision::SixteenBit && log > most {
            (likeliest, most) = (index, log);
        }
        if log > FLOOR {
            divergence += f64::from(log.exp() * (log - (other - total)));
        }
    }
    let score = Score {
        divergence,
        source_loss: -f64::from(log_probability(source[next])),
        loss: f64::from(total - candidate[next]),
        same_top: top == likeliest,
    };
    [score.divergence, score.source_loss, score.loss].iter().all(|figure| figure.is_finite()).then_some(score)
}

/// Sums over many positions.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    divergences: Vec<f32>,
    sum: [f64; 3],
    squares: [f64; 3],
    /// Of both losses.
    product: f64,
    same_top: u64,
}

impl Tally {
    /// Adds a position.
    pub fn add(&mut self, score: &Score) {
        let Score { divergence, source_loss, loss, same_top } = *score;
        #[expect(clippy::cast_possible_truncation, reason = "for percentiles alone, as upstream")]
        self.divergences.push(divergence as f32);
        for (index, figure) in [divergence, source_loss, loss].into_iter().enumerate() {
            self.sum[index] += figure;
            self.squares[index] += figure * figure;
        }
        self.product += source_loss * loss;
        self.same_top += u64::from(same_top);
    }

    fn estimate(&self, index: usize) -> Statistic {
        let count = self.divergences.len() as f64;
        let value = self.sum[index] / count;
        let variance = self.squares[index] / count - value * value;
        let error = if variance > 0.0 && count > 1.0 { (variance / (count - 1.0)).sqrt() } else { 0.0 };
        Statistic { value, error }
    }

    /// Mean KL divergence until now; 0 before the first position.
    pub fn mean(&self) -> f64 {
        if self.divergences.is_empty() { 0.0 } else { self.estimate(0).value }
    }

    /// What it comes to; `None` below 100 positions, on which upstream does no statistics either.
    pub fn finish(mut self) -> Option<Divergence> {
        if self.divergences.len() < 100 {
            return None;
        }
        self.divergences.sort_by(f32::total_cmp);
        let count = self.divergences.len() as f64;
        let (source, candidate) = (self.estimate(1), self.estimate(2));
        let covariance = (self.product / count - source.value * candidate.value) / (count - 1.0);
        let variance = source.error * source.error + candidate.error * candidate.error - 2.0 * covariance;
        let perplexity = |loss: Statistic| Statistic { value: loss.value.exp(), error: loss.value.exp() * loss.error };
        let same = self.same_top as f64 / count;
        Some(Divergence {
            positions: self.divergences.len() as u64,
            mean: self.estimate(0),
            median: percentile(&self.divergences, 0.5),
            p90: percentile(&self.divergences, 0.9),
            p99: percentile(&self.divergences, 0.99),
            p999: percentile(&self.divergences, 0.999),
            largest: percentile(&self.divergences, 1.0),
            same_top: Statistic { value: same, error: (same * (1.0 - same) / (count - 1.0)).sqrt() },
            perplexity: perplexity(candidate),
            source_perplexity: perplexity(source),
            log_ratio: Statistic { value: candidate.value - source.value, error: variance.max(0.0).sqrt() },
        })
    }
}

/// Of sorted values, by linear interpolation.
fn percentile(sorted: &[f32], share: f64) -> f64 {
    let place = share * (sorted.len() - 1) as f64;
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "an index of the slice")]
    let index = place.floor() as usize;
    let above = sorted[(index + 1).min(sorted.len() - 1)];
    let part = place - index as f64;
    (1.0 - part) * f64::from(sorted[index]) + part * f64::from(above)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_position_by_hand() {
        // Source (0.5, 0.25, 0.25), candidate (0.25, 0.25, 0.5): 0.5 ln 2 + 0.25 ln 1 + 0.25 ln 0.5.
        let (source, candidate) = ([2.0_f32, 1.0, 1.0].map(f32::ln), [1.0_f32, 1.0, 2.0].map(f32::ln));
        for precision in [Precision::Exact, Precision::SixteenBit] {
            let score = score(&source, &candidate, 0, precision).expect("numbers");
            assert!((score.divergence - 0.25 * 2_f64.ln()).abs() < 1e-5, "{score:?}");
            assert!((score.source_loss - 2_f64.ln()).abs() < 1e-5 && (score.loss - 4_f64.ln()).abs() < 1e-5);
            assert!(!score.same_top);
        }
    }

    #[test]
    fn a_model_is_not_far_from_itself() {
        let logits: Vec<f32> = (0..1000_u32).map(|i| (i * 7919 % 1000) as f32 / 90.0).collect();
        let same = score(&logits, &logits, 5, Precision::Exact).expect("numbers");
        assert_eq!((same.divergence, same.same_top, same.loss), (0.0, true, same.source_loss));
        let rounded = score(&logits, &logits, 5, Precision::SixteenBit).expect("numbers");
        assert!(rounded.divergence.abs() < 1e-4 && rounded.same_top, "{rounded:?}");
    }

    #[test]
    fn what_the_source_thinks_impossible_does_not_count_and_no_number_is_none() {
        let (source, candidate) = ([0.0, -40.0], [0.0, -80.0]);
        assert_eq!(score(&source, &candidate, 0, Precision::Exact).map(|score| score.divergence), Some(0.0));
        assert_eq!(score(&[f32::NAN, 0.0], &[0.0, 0.0], 0, Precision::Exact), None);
        assert_eq!(score(&[0.0, 0.0], &[f32::INFINITY, 0.0], 0, Precision::Exact), None);
    }

    #[test]
    fn sums_become_means_errors_and_percentiles() {
        let mut tally = Tally::default();
        for index in 0..101_u32 {
            let figure = f64::from(index);
            tally.add(&Score { divergence: figure, source_loss: 1.0, loss: 1.5, same_top: index % 2 == 0 });
        }
        let found = tally.clone().finish().expect("enough");
        assert_eq!((found.positions, found.mean.value, found.median, found.largest), (101, 50.0, 50.0, 100.0));
        // The standard deviation of 0 to 100 is √850.
        assert!((found.mean.error - (850_f64 / 100.0).sqrt()).abs() < 1e-9, "{found:?}");
        assert!((found.p90 - 90.0).abs() < 1e-9 && (found.p999 - 99.9).abs() < 1e-4);
        assert!((found.perplexity.value - 1.5_f64.exp()).abs() < 1e-9 && found.perplexity.error < 1e-6);
        assert!((found.log_ratio.value - 0.5).abs() < 1e-9 && found.log_ratio.error < 1e-6);
        assert!((found.same_top.value - 51.0 / 101.0).abs() < 1e-9);
        let few = (0..99).fold(Tally::default(), |mut tally, _| {
            tally.add(&Score { divergence: 0.0, source_loss: 0.0, loss: 0.0, same_top: true });
            tally
        });
        assert_eq!(few.finish(), None);
    }
}
