//! How fast a desk is.

use std::time::Duration;

use muster_proto::{BenchPoint, Benchmark, Spread};

use crate::age::{date, span};
use crate::layout::{Grid, count, plain, sentence, toned};
use crate::style::{Style, Tone};

/// Every point: median ± median absolute deviation, in tokens a second.
pub fn benchmark_table(benchmark: &Benchmark, style: &Style) -> String {
    let Benchmark { measured_at, took_ms, engine_build, hardware_fingerprint: _, points, conditions: _, parts: _ } =
        benchmark;
    if points.is_empty() {
        return sentence("nothing was measured: run `muster-agent bench`", Tone::Quiet, style);
    }
    let mut grid = Grid::new(style, &["DEVICE", "MODEL", "PREFILL", "DECODE"]).right(&[2, 3]).whole(&[0]);
    for point in points {
        let BenchPoint { device, threads, model, prefill_tokens, decode_tokens, prefill, decode, depth: _ } = point;
        let device = match threads {
            Some(threads) => format!("{device}, {}", count(*threads as usize, "thread", "threads")),
            None => device.clone(),
        };
        grid.row(vec![
            plain(device),
            plain(format!("{} {}", model.name, model.quantization)),
            plain(format!("{}\nof {prefill_tokens} tokens", rate(prefill))),
            plain(format!("{}\nof {decode_tokens} tokens", rate(decode))),
        ]);
    }
    let runs = points.iter().map(|point| point.prefill.samples.len()).max().unwrap_or(0);
    let note = format!(
        "median ± median absolute deviation of {}, by {engine_build}, took {}, {}",
        count(runs, "run", "runs"),
        span(Duration::from_millis(*took_ms)),
        date(*measured_at)
    );
    grid.render() + &sentence(note, Tone::Quiet, style)
}

/// `1250 ± 9 tok/s`: the deviation with as many decimals as the median.
fn rate(spread: &Spread) -> String {
    let median = spread.median.to_string();
    let number = median.split(' ').next().unwrap_or_default();
    let decimals = number.split_once('.').map_or(0, |(_, decimals)| decimals.len());
    format!("{number} ± {:.decimals$} tok/s", spread.median_absolute_deviation)
}

/// The fastest decode of a benchmark, for one line.
pub(crate) fn fastest(benchmark: &Benchmark) -> Option<comfy_table::Cell> {
    let best =
        benchmark.points.iter().max_by(|one, other| one.decode.median.get().total_cmp(&other.decode.median.get()))?;
    Some(toned(format!("{} ({} on {})", best.decode.median, best.model.name, best.device), Tone::Plain))
}
