//! The benchmarks that are kept: the one that speeds are predicted from, on mains where that was ever measured, and beside it
//! the last one on battery, so that the two can be compared.
//!
//! [`keep`] is pure but for the two files that [`store`] writes; neither knows how they were measured.

use std::collections::BTreeMap;

use muster_proto::{BenchPoint, Benchmark, OnBattery, Spread};

use crate::state::Paths;

/// What is kept.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Held {
    /// What predictions are made from.
    pub main: Option<Benchmark>,
    /// The last one on battery.
    pub battery: Option<Benchmark>,
}

/// Reads what is kept; a file that is missing or damaged is made again anyway.
pub fn read(paths: &Paths) -> Held {
    let read = |path: std::path::PathBuf| serde_json::from_slice(&std::fs::read(path).ok()?).ok();
    Held { main: read(paths.benchmark()), battery: read(paths.battery_benchmark()) }
}

/// Takes a new benchmark among those that are kept; returns it with what it says beside the other power's.
pub fn store(paths: &Paths, new: Benchmark) -> (Benchmark, Held) {
    let (new, held) = keep(read(paths), new);
    let files = [(paths.benchmark(), &held.main), (paths.battery_benchmark(), &held.battery)];
    for (path, benchmark) in files {
        match benchmark {
            Some(benchmark) => crate::survey::store(&path, benchmark),
            // Of other hardware; there is none already where it was never measured.
            None => drop(std::fs::remove_file(path)),
        }
    }
    (new, held)
}

fn keep(held: Held, mut new: Benchmark) -> (Benchmark, Held) {
    let same = |known: &Benchmark| {
        known.hardware_fingerprint == new.hardware_fingerprint
            && known.engine_build == new.engine_build
            && known.conditions.drivers == new.conditions.drivers
    };
    // One that was cut off replaces no whole one of the same machine.
    let better = |known: &Benchmark| is_whole(known) && !is_whole(&new);
    let main = held.main.filter(same);
    let battery = held.battery.filter(same);
    let mut held = if is_on_battery(&new) {
        let stays = |known: &Benchmark| better(known) || (is_whole(known) && !is_on_battery(known));
        Held {
            main: Some(main.filter(stays).unwrap_or_else(|| new.clone())),
            battery: Some(battery.filter(better).unwrap_or_else(|| new.clone())),
        }
    } else {
        Held { main: Some(main.filter(better).unwrap_or_else(|| new.clone())), battery }
    };
    let ratios = match (&held.main, &held.battery) {
        (Some(mains), Some(battery)) if !is_on_battery(mains) && is_whole(mains) && is_whole(battery) => {
            compare(mains, battery)
        }
        _ => Vec::new(),
    };
    for kept in [&mut held.main, &mut held.battery].into_iter().flatten() {
        kept.on_battery.clone_from(&ratios);
    }
    if is_whole(&new) {
        new.on_battery = ratios;
    }
    (new, held)
}

/// Whether it was measured on battery.
pub fn is_on_battery(benchmark: &Benchmark) -> bool {
    benchmark.conditions.on_mains == Some(false)
}

fn is_whole(benchmark: &Benchmark) -> bool {
    benchmark.conditions.stopped_by.is_none()
}

/// Speeds on battery over those on mains, device by device, as the median over the points that both have.
fn compare(mains: &Benchmark, battery: &Benchmark) -> Vec<OnBattery> {
    let alike = |one: &&BenchPoint, other: &&BenchPoint| {
        one.device == other.device
            && one.threads == other.threads
            && one.model == other.model
            && one.depth == other.depth
    };
    let mut ratios: BTreeMap<&str, (Vec<f64>, Vec<f64>)> = BTreeMap::new();
    for point in &battery.points {
        if let Some(other) = mains.points.iter().find(|other| alike(&point, other)) {
            let (prefill, decode) = ratios.entry(&point.device).or_default();
            prefill.push(point.prefill.median.get() / other.prefill.median.get());
            decode.push(point.decode.median.get() / other.decode.median.get());
        }
    }
    let of_device = |(device, (prefill, decode)): (&str, (Vec<f64>, Vec<f64>))| {
        let points = u32::try_from(prefill.len()).unwrap_or(u32::MAX);
        let median = |ratios| Spread::of(ratios).map(|spread| spread.median.get());
        Some(OnBattery { device: device.to_owned(), prefill: median(prefill)?, decode: median(decode)?, points })
    };
    ratios.into_iter().filter_map(of_device).collect()
}

#[cfg(test)]
mod tests {
    use muster_proto::{BenchModel, Bytes, Conditions, Timestamp};

    use super::*;

    fn point(device: &str, model: &str, prefill: f64, decode: f64) -> BenchPoint {
        BenchPoint {
            device: device.into(),
            threads: None,
            model: BenchModel {
                name: model.into(),
                quantization: "Q8_0".into(),
                bytes_per_token: Bytes::new(1),
                parameters_per_token: 1,
                layers: 1,
            },
            prefill_tokens: 512,
            decode_tokens: 128,
            prefill: Spread::of(vec![prefill]).expect("a rate"),
            decode: Spread::of(vec![decode]).expect("a rate"),
            depth: 0,
        }
    }

    /// One at a moment, of these points.
    fn measured(at: i64, on_mains: bool, points: Vec<BenchPoint>) -> Benchmark {
        Benchmark {
            measured_at: Timestamp::from_unix_millis(at),
            took_ms: 1,
            engine_build: "b".into(),
            hardware_fingerprint: "f".into(),
            points,
            conditions: Conditions { on_mains: Some(on_mains), ..Conditions::default() },
            parts: vec![],
            on_battery: vec![],
        }
    }

    fn on_mains(at: i64) -> Benchmark {
        let points = [point("CPU", "a", 100.0, 10.0), point("CPU", "b", 200.0, 20.0), point("CUDA0", "a", 900.0, 90.0)];
        measured(at, true, points.into())
    }

    fn on_battery(at: i64) -> Benchmark {
        let points = [point("CPU", "a", 50.0, 6.0), point("CPU", "b", 120.0, 16.0), point("CPU", "c", 1.0, 1.0)];
        measured(at, false, points.into())
    }

    fn at(benchmark: Option<&Benchmark>) -> Option<i64> {
        benchmark.map(|benchmark| benchmark.measured_at.unix_millis())
    }

    /// When the kept ones were measured.
    fn kept(held: &Held) -> (Option<i64>, Option<i64>) {
        (at(held.main.as_ref()), at(held.battery.as_ref()))
    }

    #[test]
    fn mains_predicts_and_battery_is_compared_with_it() {
        let (first, held) = keep(Held::default(), on_battery(1));
        assert_eq!(kept(&held), (Some(1), Some(1)), "nothing better is known");
        assert_eq!(first.on_battery, []);
        let (second, held) = keep(held, on_mains(2));
        assert_eq!(kept(&held), (Some(2), Some(1)));
        let [cpu] = second.on_battery.as_slice() else { panic!("{:?}", second.on_battery) };
        assert_eq!((cpu.device.as_str(), cpu.points), ("CPU", 2), "only what both have");
        assert!((cpu.prefill - 0.55).abs() < 1e-9 && (cpu.decode - 0.7).abs() < 1e-9, "{cpu:?}");
        assert_eq!(held.main.as_ref().expect("kept").on_battery, second.on_battery);
        let (third, held) = keep(held, on_battery(3));
        assert_eq!(kept(&held), (Some(2), Some(3)), "a battery's never takes the place of mains'");
        assert_eq!(third.on_battery.len(), 1);
    }

    #[test]
    fn one_that_was_cut_off_replaces_no_whole_one() {
        let cut = |mut benchmark: Benchmark| {
            benchmark.conditions.stopped_by = Some("the owner came".into());
            benchmark
        };
        let (_, held) = keep(Held::default(), on_mains(1));
        let (_, held) = keep(held, on_battery(2));
        let (new, held) = keep(held, cut(on_battery(3)));
        assert_eq!((kept(&held), new.on_battery.len()), ((Some(1), Some(2)), 0));
        assert_eq!(held.main.as_ref().expect("kept").on_battery.len(), 1, "the comparison stays");
        let (_, held) = keep(held, cut(on_mains(4)));
        assert_eq!(kept(&held), (Some(1), Some(2)));
        let (_, held) = keep(Held::default(), cut(on_mains(1)));
        let (_, held) = keep(held, on_battery(2));
        assert_eq!(kept(&held), (Some(2), Some(2)), "a piece of one is less than a whole one");
    }

    #[test]
    fn other_hardware_begins_anew() {
        let (_, held) = keep(Held::default(), on_mains(1));
        let (_, held) = keep(held, on_battery(2));
        let other = |change: fn(&mut Benchmark)| {
            let mut new = on_mains(3);
            change(&mut new);
            kept(&keep(held.clone(), new).1)
        };
        assert_eq!(other(|_| {}), (Some(3), Some(2)));
        assert_eq!(other(|new| new.hardware_fingerprint = "g".into()), (Some(3), None));
        assert_eq!(other(|new| new.engine_build = "c".into()), (Some(3), None));
        assert_eq!(other(|new| new.conditions.drivers = vec!["nvidia 2".into()]), (Some(3), None));
    }

    #[test]
    fn files_come_back() {
        let folder = tempfile::tempdir().expect("a folder");
        let paths = Paths::new(folder.path());
        store(&paths, on_battery(1));
        let (_, held) = store(&paths, on_mains(2));
        assert_eq!(read(&paths), held);
        let mut other = on_mains(3);
        other.engine_build = "c".into();
        store(&paths, other);
        assert_eq!(kept(&read(&paths)), (Some(3), None));
    }
}
