//! How fast a model will run on a machine that was benchmarked with others. Pure arithmetic.
//!
//! Decoding one token takes a fixed time and the time in which its weights pass from memory; one token of a prefill takes
//! a fixed time and the time of its multiplications. Both lines are fitted to what was measured. Entry point: [`predict`].

use muster_proto::{BenchPoint, Benchmark, Bytes, TokensPerSecond};

/// Predicts (prefill, decode) of a model on one device of a benchmarked machine, from the bytes and parameters that each
/// of its tokens takes; `None` where nothing was measured to tell from.
///
/// Decode: `seconds per token = fixed + bytes / bandwidth`. Prefill: `seconds per token = fixed + parameters / rate`, over
/// the points of the largest models only, since small ones do not fill the arithmetic units.
pub fn predict(
    benchmark: &Benchmark,
    device: &str,
    bytes_per_token: Bytes,
    parameters_per_token: u64,
) -> (Option<TokensPerSecond>, Option<TokensPerSecond>) {
    let points: Vec<&BenchPoint> = benchmark.points.iter().filter(|point| point.device == device).collect();
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
}
