//! Records of what graphs ask their allocators for, and what is common to them: orders, and sizes as products.

use std::collections::{BTreeMap, BTreeSet};

use crate::ffi::TraceEvent;
use crate::profile::shape::Wanted;
use crate::profile::sizes::{Features, Size};
use crate::profile::survey::index_of;
use crate::profile::trace::{Ask, Choice, Copies, Order, Place, Reach, folded, replay};

/// A step of a trace, without its size.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Step {
    Allocate(u8, u16),
    /// Allocator, slot, name, blocks further.
    Weight(u8, u16, u16, i16),
    Free(u16),
    Shrink(u16),
}

struct Record {
    wanted: Wanted,
    features: Features,
    /// Of the list of orders.
    steps: usize,
    /// The size of each step; 0 where it has none of its own.
    bytes: Vec<u64>,
    /// What llama.cpp says, by place.
    reserved: Vec<u64>,
}

/// What records say.
pub struct Learnt {
    /// Orders and what they ask.
    pub traces: Vec<(Order, Vec<Ask>)>,
    /// Sizes that they ask for.
    pub sizes: Vec<Size>,
    /// Which trace a context has.
    pub choice: Choice,
}

/// Records of one layout and attention.
pub struct Recorder {
    names: BTreeMap<String, u16>,
    /// The allocators.
    pub places: Vec<Place>,
    orders: Vec<Vec<Step>>,
    records: Vec<Record>,
}

impl Recorder {
    /// None yet; `names` are those of the weights of blocks.
    pub fn new(names: &[String]) -> Self {
        let names = names.iter().cloned().zip(0..).collect();
        Self { names, places: Vec::new(), orders: Vec::new(), records: Vec::new() }
    }

    /// Adds one.
    pub fn take(&mut self, wanted: Wanted, features: Features, trace: &[TraceEvent], reserved: Vec<u64>) {
        let mut places: Vec<Place> = Vec::new();
        let mut steps = Vec::new();
        let mut bytes = Vec::new();
        let mut slots: BTreeMap<u32, u16> = BTreeMap::new();
        let mut free: BTreeSet<u16> = BTreeSet::new();
        let mut block = 0;
        for event in trace {
            let allocator = u8::try_from(event.allocator).unwrap_or(u8::MAX);
            let slot = slots.get(&event.id).copied();
            match event.kind {
                0 => places.push((u8::try_from(event.id).unwrap_or(0), 1, u64::MAX)),
                1 | 2 => {
                    if let Some(place) = places.last_mut() {
                        if event.kind == 1 { place.1 = event.bytes } else { place.2 = event.bytes }
                    }
                }
                3 => {
                    let new = u16::try_from(slots.len()).unwrap_or(u16::MAX);
                    let slot = free.pop_first().unwrap_or(new);
                    slots.insert(event.id, slot);
                    let weight = weight_of(&event.name);
                    if let Some((now, name)) = weight.and_then(|(block, name)| Some((block, *self.names.get(name)?))) {
                        steps.push(Step::Weight(allocator, slot, name, i16::try_from(now - block).unwrap_or(0)));
                        block = now;
                        bytes.push(0);
                    } else {
                        steps.push(Step::Allocate(allocator, slot));
                        bytes.push(event.bytes);
                    }
                }
                4 => {
                    let Some(slot) = slot else { continue };
                    slots.remove(&event.id);
                    free.insert(slot);
                    steps.push(Step::Free(slot));
                    bytes.push(0);
                }
                _ => {
                    let Some(slot) = slot else { continue };
                    steps.push(Step::Shrink(slot));
                    bytes.push(event.bytes);
                }
            }
        }
        self.places = places;
        let steps = usize::from(index_of(&mut self.orders, steps));
        self.records.push(Record { wanted, features, steps, bytes, reserved });
    }

    /// A place of each order that was met fewer times than `enough`.
    pub fn seldom(&self, enough: usize) -> Vec<Wanted> {
        let of = |order: usize| self.records.iter().filter(move |record| record.steps == order);
        let seldom = (0..self.orders.len()).filter(|order| of(*order).count() < enough);
        seldom.filter_map(|order| of(order).next().map(|record| record.wanted)).collect()
    }

    /// What all records say, where these sizes are likely.
    pub fn learn(&self, known: &[Size]) -> Learnt {
        let mut sizes = Vec::new();
        let mut traces = Vec::new();
        for (order, steps) in self.orders.iter().enumerate() {
            let records: Vec<&Record> = self.records.iter().filter(|record| record.steps == order).collect();
            traces.push(learnt(steps, &records, &mut sizes, known));
        }
        let known: Vec<(Features, u16)> = self
            .records
            .iter()
            .map(|record| (record.features, u16::try_from(record.steps).unwrap_or(u16::MAX)))
            .collect();
        Learnt { traces, sizes, choice: Choice::of(&known) }
    }

    /// By which share of its bytes the last record is missed, in the worst place.
    pub fn miss_of_last(&self, learnt: &Learnt, kinds: &[u16], copies: &[Vec<u64>]) -> f64 {
        let Some(record) = self.records.last() else { return 0.0 };
        let Some((order, asks)) = learnt.traces.get(usize::from(learnt.choice.trace(&record.features))) else {
            return f64::INFINITY;
        };
        let bytes = |kind: u16, name: u16| {
            copies.get(usize::from(kind)).and_then(|copies| copies.get(usize::from(name))).copied().unwrap_or(0)
        };
        let copies = Copies { kinds, bytes: &bytes };
        let sizes: Vec<&Size> = learnt.sizes.iter().collect();
        let mine = replay(order, asks, &sizes, &self.places, &record.features, &copies, Reach::default());
        let mut at = vec![0; record.reserved.len()];
        for ((place, _, _), bytes) in self.places.iter().zip(mine) {
            if let Some(at) = at.get_mut(usize::from(*place)) {
                *at += bytes;
            }
        }
        #[expect(clippy::cast_precision_loss, reason = "below 2^53")]
        let miss = |(mine, real): (&u64, &u64)| (*mine as f64 / (*real as f64).max(1.0) - 1.0).abs();
        at.iter().zip(&record.reserved).filter(|(mine, real)| mine != real).map(miss).fold(0.0, f64::max)
    }
}

/// Block and name of a weight whose copy this is: the scheduler calls it device#weight#copy.
fn weight_of(name: &str) -> Option<(i32, &str)> {
    let name = name.split('#').nth(1)?.strip_prefix("blk.")?;
    let (block, name) = name.split_once('.')?;
    Some((block.parse().ok()?, name))
}

fn learnt(steps: &[Step], records: &[&Record], sizes: &mut Vec<Size>, likely: &[Size]) -> (Order, Vec<Ask>) {
    let places: Vec<Features> = records.iter().map(|record| record.features).collect();
    let mut known: BTreeMap<Vec<u64>, u16> = BTreeMap::new();
    let mut asks: BTreeMap<Ask, u16> = BTreeMap::new();
    let mut list = Vec::new();
    let mut codes = Vec::new();
    // What each slot holds in each record.
    let mut held: BTreeMap<u16, Vec<u64>> = BTreeMap::new();
    for (index, step) in steps.iter().enumerate() {
        let bytes: Vec<u64> = records.iter().map(|record| record.bytes[index]).collect();
        let mut size = |bytes: &Vec<u64>| {
            *known.entry(bytes.clone()).or_insert_with(|| index_of(sizes, Size::of(&places, bytes, likely).0))
        };
        let ask = match *step {
            Step::Allocate(allocator, slot) => {
                let size = size(&bytes);
                held.insert(slot, bytes);
                Ask::Allocate(allocator, slot, size)
            }
            Step::Weight(allocator, slot, name, further) => {
                held.remove(&slot);
                Ask::Weight(allocator, slot, name, further)
            }
            Step::Free(slot) => Ask::Free(slot),
            Step::Shrink(slot) => {
                if held.get(&slot) == Some(&bytes) {
                    continue;
                }
                let size = size(&bytes);
                held.insert(slot, bytes);
                Ask::Shrink(slot, size)
            }
        };
        let code = *asks.entry(ask).or_insert_with(|| {
            list.push(ask);
            u16::try_from(list.len()).unwrap_or(u16::MAX)
        });
        codes.push(code);
    }
    (folded(&codes), list)
}
