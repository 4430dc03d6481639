//! [`History`]: how much of each memory was in use, counted by day, and what is free 95 % of the time.
//!
//! A count for each 512th of a memory's size: exact enough to plan by, and of bounded size whatever happens. The last
//! [`DAYS`] days *on which the machine was sampled* count, so that a holiday does not empty the history and a clock that
//! was wrong for a while costs a day of it, not all. Owns the file; knows nothing of where samples come from.

use std::collections::{BTreeMap, VecDeque};
use std::io::{self, Read as _};
use std::path::Path;

use muster_engine::host::atomic_file::write_atomic;
use muster_proto::{Bytes, Timestamp, TypicalFree, TypicalUse};
use serde::{Deserialize, Serialize};

/// Days that count.
pub const DAYS: usize = 14;
/// Samples that a percentile needs: eight hours at one a minute. That is a whole working day, and leaves two dozen samples
/// above the percentile, so that no single program that ran for a few minutes decides it.
pub const ENOUGH: u64 = 480;
/// Steps of a memory's size.
const STEPS: u16 = 512;
/// Devices that are counted: llama.cpp itself takes no more.
const DEVICES: usize = 16;
/// Samples of one day and memory that count: one a minute and some to spare.
const DAY_MAX: u32 = 2000;
/// Largest file that is read. What is written stays below: 14 days × 17 memories × 512 steps of some 11 bytes.
const FILE_MAX: u64 = 4 << 20;
/// Version of the file.
const FORMAT: u32 = 1;
/// Milliseconds of a day.
const DAY: i64 = 86_400_000;

/// A memory at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Level {
    /// Its size.
    pub total: Bytes,
    /// What others leave of it: what this agent's own models take counts as free.
    pub free: Bytes,
}

/// All memories at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sample {
    /// By this machine's clock, which may be wrong.
    pub at: Timestamp,
    /// Main memory.
    pub memory: Level,
    /// By llama.cpp's name of the device. Those that could not be read are missing.
    pub devices: BTreeMap<String, Level>,
}

/// How often each step of use was seen.
type Counts = BTreeMap<u16, u32>;

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Day {
    /// Days since 1970, by the clock of then: only tells days apart.
    number: i64,
    first: Timestamp,
    last: Timestamp,
    memory: Counts,
    devices: BTreeMap<String, Counts>,
}

/// What was seen of late.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct History {
    format: u32,
    memory_total: Bytes,
    device_totals: BTreeMap<String, Bytes>,
    /// In the order of their beginning.
    days: VecDeque<Day>,
}

impl Default for History {
    fn default() -> Self {
        Self { format: FORMAT, memory_total: Bytes::ZERO, device_totals: BTreeMap::new(), days: VecDeque::new() }
    }
}

impl History {
    /// The history on disk; an empty one, and why, if what is there cannot be used.
    pub fn read(path: &Path) -> (Self, Option<String>) {
        match Self::try_read(path) {
            Ok(history) => (history, None),
            Err(error) if error.kind() == io::ErrorKind::NotFound => (Self::default(), None),
            Err(error) => (Self::default(), Some(error.to_string())),
        }
    }

    fn try_read(path: &Path) -> io::Result<Self> {
        let mut content = Vec::new();
        std::fs::File::open(path)?.take(FILE_MAX + 1).read_to_end(&mut content)?;
        if content.len() as u64 > FILE_MAX {
            return Err(io::Error::other("it is larger than any history"));
        }
        let history: Self = serde_json::from_slice(&content)?;
        let counts = |day: &Day| {
            day.devices.len() <= DEVICES
                && std::iter::once(&day.memory).chain(day.devices.values()).all(|counts| {
                    counts.keys().all(|step| *step < STEPS) && counts.values().all(|count| *count <= DAY_MAX)
                })
        };
        if history.format != FORMAT {
            return Err(io::Error::other(format!("it has format {}", history.format)));
        }
        if history.days.len() > DAYS || history.device_totals.len() > DEVICES || !history.days.iter().all(counts) {
            return Err(io::Error::other("it holds what no history holds"));
        }
        Ok(history)
    }

    /// Writes it, whole or not at all.
    ///
    /// # Errors
    /// What the file system says.
    ///
    /// # Panics
    /// Never: plain data serializes.
    pub fn write(&self, path: &Path) -> io::Result<()> {
        write_atomic(path, &serde_json::to_vec(self).expect("plain data serializes"))
    }

    /// Counts a sample.
    pub fn add(&mut self, sample: &Sample) {
        let Sample { at, memory, devices } = sample;
        self.fit(memory.total, devices);
        let number = at.unix_millis().div_euclid(DAY);
        let index = self.days.iter().position(|day| day.number == number).unwrap_or_else(|| {
            if self.days.len() == DAYS {
                self.days.pop_front();
            }
            let (memory, devices) = (Counts::new(), BTreeMap::new());
            self.days.push_back(Day { number, first: *at, last: *at, memory, devices });
            self.days.len() - 1
        });
        let day = &mut self.days[index];
        day.first = day.first.min(*at);
        day.last = day.last.max(*at);
        count(&mut day.memory, *memory);
        for (name, level) in devices {
            if self.device_totals.contains_key(name) {
                count(day.devices.entry(name.clone()).or_default(), *level);
            }
        }
    }

    /// Forgets what was seen of memories of another size: their steps meant something else.
    fn fit(&mut self, memory: Bytes, devices: &BTreeMap<String, Level>) {
        let changed = |old: Bytes, new: Bytes| old.get().abs_diff(new.get()) > new.get() / 16;
        if changed(self.memory_total, memory) {
            self.days.iter_mut().for_each(|day| day.memory.clear());
        }
        self.memory_total = memory;
        for (name, level) in devices {
            match self.device_totals.get(name) {
                Some(old) if changed(*old, level.total) => {
                    self.days.iter_mut().for_each(|day| drop(day.devices.remove(name)));
                }
                None if self.device_totals.len() >= DEVICES => {
                    let seen = |name: &String| self.days.iter().any(|day| day.devices.contains_key(name));
                    let gone = self.device_totals.keys().find(|name| !devices.contains_key(*name) && !seen(name));
                    let Some(gone) = gone.cloned() else { continue };
                    self.device_totals.remove(&gone);
                }
                _ => {}
            }
            self.device_totals.insert(name.clone(), level.total);
        }
    }

    /// What is free 95 % of the time; nothing before [`ENOUGH`] samples. A device with fewer is left out.
    pub fn typical(&self) -> Option<TypicalUse> {
        let (samples, memory_available) = free(self.memory_total, self.days.iter().map(|day| &day.memory))?;
        let devices = self.device_totals.iter().filter_map(|(name, total)| {
            let counts = self.days.iter().filter_map(|day| day.devices.get(name));
            Some(TypicalFree { device: name.clone(), free: free(*total, counts)?.1 })
        });
        Some(TypicalUse {
            since: self.days.iter().map(|day| day.first).min()?,
            until: self.days.iter().map(|day| day.last).max()?,
            samples: u32::try_from(samples).unwrap_or(u32::MAX),
            memory_available,
            devices: devices.collect(),
        })
    }
}

fn count(counts: &mut Counts, level: Level) {
    if level.total == Bytes::ZERO {
        return;
    }
    let used = u128::from(level.total.saturating_sub(level.free).get());
    let step = used * u128::from(STEPS) / u128::from(level.total.get());
    let step = u16::try_from(step).unwrap_or(STEPS).min(STEPS - 1);
    let counted = counts.entry(step).or_default();
    *counted = counted.saturating_add(1).min(DAY_MAX);
}

/// How many samples there are, and the size less the 95th percentile of use: the smallest step that 95 % of the samples do
/// not exceed (nearest rank), taken at its upper edge.
fn free<'a>(total: Bytes, days: impl Iterator<Item = &'a Counts>) -> Option<(u64, Bytes)> {
    let mut sum: BTreeMap<u16, u64> = BTreeMap::new();
    for counts in days {
        for (step, count) in counts {
            *sum.entry(*step).or_default() += u64::from(*count);
        }
    }
    let samples: u64 = sum.values().sum();
    if samples < ENOUGH {
        return None;
    }
    let rank = (samples * 95).div_ceil(100);
    let mut seen = 0;
    let step = sum.iter().find_map(|(step, count)| {
        seen += count;
        (seen >= rank).then_some(*step)
    })?;
    let used = u128::from(total.get()) * u128::from(step + 1) / u128::from(STEPS);
    let used = Bytes::new(u64::try_from(used).unwrap_or(u64::MAX));
    // What was never in use is free to the last byte.
    Some((samples, if step == 0 { total } else { total.saturating_sub(used) }))
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: i64 = 60_000;

    fn sample(minute: i64, used: u64, gpu: Option<u64>) -> Sample {
        let level = |used: u64, total: u64| Level {
            total: Bytes::from_gib(total),
            free: Bytes::from_gib(total).saturating_sub(Bytes::from_gib(used)),
        };
        let devices = gpu.map(|used| ("CUDA0".to_owned(), level(used, 24))).into_iter().collect();
        Sample { at: Timestamp::from_unix_millis(minute * MINUTE), memory: level(used, 64), devices }
    }

    /// Within a step of it.
    #[track_caller]
    fn near(value: Bytes, wanted: Bytes, total: Bytes) {
        let step = total.get() / u64::from(STEPS);
        assert!(value.get().abs_diff(wanted.get()) <= step, "{value} is not {wanted}");
    }

    #[test]
    fn the_busiest_twentieth_does_not_count_and_the_rest_does() {
        let mut history = History::default();
        // 10 GiB of 64 mostly, 40 for 4 % of the time, 20 for another 4 %.
        for minute in 0..1000 {
            let used = match minute % 25 {
                0 => 40,
                1 => 20,
                _ => 10,
            };
            history.add(&sample(minute, used, Some(used / 4)));
        }
        let typical = history.typical().expect("a thousand samples");
        assert_eq!(typical.samples, 1000);
        near(typical.memory_available, Bytes::from_gib(44), Bytes::from_gib(64));
        near(typical.devices[0].free, Bytes::from_gib(19), Bytes::from_gib(24));
        assert_eq!(typical.until.since(typical.since).as_secs(), 999 * 60);
    }

    #[test]
    fn too_few_samples_say_nothing() {
        let mut history = History::default();
        (0..479).for_each(|minute| history.add(&sample(minute, 10, None)));
        assert_eq!(history.typical(), None);
        // A gap of three weeks adds nothing, and takes nothing.
        history.add(&sample(21 * 1440, 10, Some(1)));
        let typical = history.typical().expect("the 480th sample");
        assert_eq!((typical.samples, typical.devices.len()), (480, 0), "one sample of a device is not enough");
    }

    #[test]
    fn only_the_last_days_count() {
        let mut history = History::default();
        for day in 0..20 {
            let used = if day < 6 { 60 } else { 10 };
            (0..1440).for_each(|minute| history.add(&sample(day * 1440 + minute, used, None)));
        }
        let typical = history.typical().expect("weeks");
        assert_eq!(typical.samples, 14 * 1440);
        near(typical.memory_available, Bytes::from_gib(54), Bytes::from_gib(64));
    }

    #[test]
    fn a_clock_that_was_wrong_for_a_while_costs_a_day() {
        let mut history = History::default();
        (0..14 * 1440).for_each(|minute| history.add(&sample(minute, 10, None)));
        // To the year 2150 and before 1970, and back.
        history.add(&sample(94_672_800, 10, None));
        history.add(&sample(-94_672_800, 10, None));
        history.add(&sample(14 * 1440 - 1, 10, None));
        assert_eq!(history.days.len(), DAYS);
        assert_eq!(history.typical().expect("still there").samples, 12 * 1440 + 3);
    }

    #[test]
    fn memory_of_another_size_begins_anew() {
        let mut history = History::default();
        (0..600).for_each(|minute| history.add(&sample(minute, 60, Some(20))));
        let mut other = sample(601, 10, Some(2));
        other.memory = Level { total: Bytes::from_gib(128), free: Bytes::from_gib(118) };
        history.add(&other);
        assert_eq!(history.typical(), None);
        for minute in 602..1200 {
            history.add(&Sample { at: Timestamp::from_unix_millis(minute * MINUTE), ..other.clone() });
        }
        let typical = history.typical().expect("enough");
        near(typical.memory_available, Bytes::from_gib(118), Bytes::from_gib(128));
        // The device stayed the same and kept its counts.
        near(typical.devices[0].free, Bytes::from_gib(4), Bytes::from_gib(24));
    }

    #[test]
    fn use_to_the_last_byte_and_none_at_all_are_told_right() {
        let mut history = History::default();
        (0..480).for_each(|minute| history.add(&sample(minute, 64, Some(0))));
        let typical = history.typical().expect("enough");
        assert_eq!((typical.memory_available, typical.devices[0].free), (Bytes::ZERO, Bytes::from_gib(24)));
    }

    #[test]
    fn a_file_comes_back_and_what_is_damaged_begins_anew() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let path = directory.path().join("use.json");
        assert_eq!(History::read(&path), (History::default(), None));
        let mut history = History::default();
        (0..14 * 1440).for_each(|minute| history.add(&sample(minute, minute.unsigned_abs() % 64, Some(3))));
        history.write(&path).expect("written");
        assert_eq!(History::read(&path), (history.clone(), None));
        let whole = std::fs::read(&path).expect("there");
        assert!(whole.len() < 64 << 10, "{} bytes", whole.len());
        for content in [&whole[..whole.len() / 2], b"", b"{}", b"\xff\xfe", b"[1]"] {
            std::fs::write(&path, content).expect("written");
            let (read, why) = History::read(&path);
            assert!(read == History::default() && why.is_some());
        }
        let json = String::from_utf8(whole).expect("UTF-8");
        for wrong in [
            json.replacen("\"format\":1", "\"format\":2", 1),
            json.replacen("\"memory\":{\"0\"", "\"memory\":{\"600\"", 1),
        ] {
            assert_ne!(wrong, json);
            std::fs::write(&path, wrong).expect("written");
            assert!(History::read(&path).1.is_some());
        }
        std::fs::write(&path, vec![b' '; 5 << 20]).expect("written");
        assert!(History::read(&path).1.is_some_and(|why| why.contains("larger")));
    }

    #[test]
    fn devices_that_come_and_go_do_not_add_up() {
        let mut history = History::default();
        for number in 0..100 {
            let mut sample = sample(number * 1440, 1, None);
            sample
                .devices
                .insert(format!("CUDA{number}"), Level { total: Bytes::from_gib(8), free: Bytes::from_gib(8) });
            history.add(&sample);
        }
        assert_eq!(history.device_totals.len(), DEVICES);
        assert!(history.device_totals.contains_key("CUDA99"), "{:?}", history.device_totals);
    }
}
