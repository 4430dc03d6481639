//! Traces: what a graph asks the allocator for, in order, and what its compute buffers therefore take in any context.
//!
//! The order does not depend on how many tokens and cells there are, only the sizes do. A trace is kept folded: what
//! repeats from layer to layer is there once, with how often. Weights that lie on the host are copied to a GPU for long
//! prompts; they are there by name, so that a trace holds for other quantizations, and for other numbers of layers.

use serde::{Deserialize, Serialize};

use super::allocator::{Address, Allocator};
use super::sizes::{Features, Size};

/// What is asked of an allocator.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Ask {
    /// Room for a tensor: allocator, slot, size of the trace's.
    Allocate(u8, u16, u16),
    /// Room for a copy of a weight: allocator, slot, name, and by how many blocks it is further on than the one before.
    Weight(u8, u16, u16, i16),
    /// A slot's piece is free.
    Free(u16),
    /// Of a slot's piece so much stays.
    Shrink(u16, u16),
}

/// A list of asks, written as numbers: an ask's kind with its allocator, then what it has beside them.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(into = "Vec<i32>", from = "Vec<i32>")]
pub struct Asks(pub Vec<Ask>);

impl From<Asks> for Vec<i32> {
    fn from(Asks(asks): Asks) -> Self {
        let numbers = |ask: Ask| match ask {
            Ask::Allocate(allocator, slot, size) => vec![4 * i32::from(allocator), slot.into(), size.into()],
            Ask::Weight(allocator, slot, name, further) => {
                vec![4 * i32::from(allocator) + 1, slot.into(), name.into(), further.into()]
            }
            Ask::Free(slot) => vec![2, slot.into()],
            Ask::Shrink(slot, size) => vec![3, slot.into(), size.into()],
        };
        asks.into_iter().flat_map(numbers).collect()
    }
}

impl From<Vec<i32>> for Asks {
    fn from(numbers: Vec<i32>) -> Self {
        let mut rest = numbers.into_iter();
        let mut asks = Vec::new();
        while let Some(kind) = rest.next() {
            let mut next = || rest.next().unwrap_or(0);
            let small = |number: i32| u16::try_from(number).unwrap_or(0);
            let allocator = u8::try_from(kind / 4).unwrap_or(0);
            asks.push(match kind % 4 {
                0 => Ask::Allocate(allocator, small(next()), small(next())),
                1 => {
                    let (slot, name) = (small(next()), small(next()));
                    Ask::Weight(allocator, slot, name, i16::try_from(next()).unwrap_or(0))
                }
                2 => Ask::Free(small(next())),
                _ => Ask::Shrink(small(next()), small(next())),
            });
        }
        Self(asks)
    }
}

/// The order of a trace, folded: numbers from 1 are asks; 0 begins a loop, with its rounds and its length after it.
pub type Order = Vec<u16>;

/// A trace: its order, its asks (each of a list), and the sizes that those name, of a list as well.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Trace(pub u16, pub u16, pub Vec<u16>);

/// Which trace a context has.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Choice {
    /// This one.
    #[serde(rename = "t")]
    Trace(u16),
    /// By a product: up to this value, and above.
    #[serde(rename = "s")]
    Split(u8, f64, Box<Choice>, Box<Choice>),
}

impl Choice {
    /// The trace at a place.
    pub fn trace(&self, features: &Features) -> u16 {
        match self {
            Self::Trace(trace) => *trace,
            Self::Split(product, border, low, high) => {
                let side = if features[usize::from(*product)] <= *border { low } else { high };
                side.trace(features)
            }
        }
    }

    /// Decides by as few products as it can; `known` are places and their traces.
    pub fn of(known: &[(Features, u16)]) -> Self {
        let count = |known: &[(Features, u16)]| -> f64 {
            let mut counts = std::collections::BTreeMap::new();
            for (_, trace) in known {
                *counts.entry(*trace).or_insert(0_u32) += 1;
            }
            let all = f64::from(counts.values().sum::<u32>());
            all - counts.values().map(|count| f64::from(count * count)).sum::<f64>() / all.max(1.0)
        };
        let whole = count(known);
        let mut best: Option<(f64, usize, f64)> = None;
        if whole > 0.0 {
            for product in super::sizes::DECIDING {
                let mut values: Vec<f64> = known.iter().map(|(features, _)| features[product]).collect();
                values.sort_by(f64::total_cmp);
                values.dedup();
                for pair in values.windows(2) {
                    // Between two that are known: where exactly nobody has asked.
                    let border = if pair[0] > 0.0 { (pair[0] * pair[1]).sqrt().max(pair[0]) } else { pair[0] };
                    let (low, high): (Vec<_>, Vec<_>) = known.iter().partition(|known| known.0[product] <= border);
                    let mixed = count(&low) + count(&high);
                    if best.is_none_or(|best| mixed < best.0 - 1e-9) {
                        best = Some((mixed, product, border));
                    }
                }
            }
        }
        match best {
            Some((mixed, product, border)) if mixed < whole - 1e-9 => {
                let (low, high): (Vec<_>, Vec<_>) = known.iter().partition(|known| known.0[product] <= border);
                let index = u8::try_from(product).unwrap_or(0);
                Self::Split(index, border, Box::new(Self::of(&low)), Box::new(Self::of(&high)))
            }
            _ => Self::Trace(known.first().map_or(0, |(_, trace)| *trace)),
        }
    }

    /// The same with other numbers.
    pub fn map(&self, change: &impl Fn(u16) -> u16) -> Self {
        match self {
            Self::Trace(trace) => Self::Trace(change(*trace)),
            Self::Split(product, border, low, high) => {
                Self::Split(*product, *border, Box::new(low.map(change)), Box::new(high.map(change)))
            }
        }
    }
}

/// Folds what repeats.
pub fn folded(codes: &[u16]) -> Order {
    const LONGEST: usize = 2048;
    let mut order = Vec::new();
    let mut at = 0;
    while at < codes.len() {
        let mut best = (0, 0, 1);
        for length in 1..=LONGEST.min((codes.len() - at) / 2) {
            if codes[at] != codes[at + length] {
                continue;
            }
            let rounds = 1 + codes[at..]
                .chunks_exact(length)
                .skip(1)
                .take_while(|next| **next == codes[at..at + length])
                .count();
            let saved = (rounds - 1) * length;
            // A later beginning of the same loop saves as much: the first is taken, and the shortest.
            if rounds > 1 && saved > best.0 && saved > 6 {
                best = (saved, length, rounds);
            }
        }
        let (_, length, rounds) = best;
        if rounds > 1 && u16::try_from(rounds).is_ok() && u16::try_from(length).is_ok() {
            #[expect(clippy::cast_possible_truncation, reason = "checked above")]
            order.extend([0, rounds as u16, length as u16]);
            order.extend_from_slice(&codes[at..at + length]);
            at += rounds * length;
        } else {
            order.push(codes[at]);
            at += 1;
        }
    }
    order
}

/// An allocator of a layout: place (0 the host, else 1 + the device), alignment, most bytes of a buffer.
pub type Place = (u8, u64, u64);

/// What weights take on a GPU: by block its kind, by kind and name the bytes.
pub struct Copies<'a> {
    /// The kind of each block.
    pub kinds: &'a [u16],
    /// Bytes of a kind's weight.
    pub bytes: &'a dyn Fn(u16, u16) -> u64,
}

#[derive(Clone, PartialEq)]
struct State {
    allocators: Vec<Allocator>,
    slots: Vec<(u8, Address, u64)>,
}

/// What each allocator takes.
pub fn replay(
    order: &[u16],
    asks: &[Ask],
    sizes: &[&Size],
    places: &[Place],
    features: &Features,
    copies: &Copies<'_>,
    reach: Reach,
) -> Vec<u64> {
    let mut run = Run {
        asks,
        bytes: asks
            .iter()
            .map(|ask| match ask {
                Ask::Allocate(_, _, size) | Ask::Shrink(_, size) => {
                    sizes.get(usize::from(*size)).map_or(0, |size| size.bytes(features))
                }
                _ => 0,
            })
            .collect(),
        state: State {
            allocators: places.iter().map(|(_, alignment, most)| Allocator::new(*alignment, *most)).collect(),
            slots: Vec::new(),
        },
        block: 0,
        copies,
    };
    let mut at = 0;
    while at < order.len() {
        if order[at] != 0 || at + 2 >= order.len() {
            run.ask(order[at]);
            at += 1;
            continue;
        }
        let (rounds, length) = (i64::from(order[at + 1]), usize::from(order[at + 2]));
        let body = &order[(at + 3).min(order.len())..(at + 3 + length).min(order.len())];
        let more: i64 = [reach.host, reach.device]
            .into_iter()
            .flatten()
            .filter(|(here, _)| *here == at)
            .map(|(_, more)| more)
            .sum();
        at += 3 + length;
        let step = run.step(body);
        run.rounds(body, rounds + more, step);
    }
    run.state.allocators.iter().map(Allocator::bytes).collect()
}

/// How a trace holds for another number of layers: where loops begin in its order, and how many rounds more they have.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Reach {
    host: Option<(usize, i64)>,
    device: Option<(usize, i64)>,
}

/// How far layers are from those of a trace.
#[derive(Clone, Copy, Debug)]
pub struct Further {
    /// So many more blocks have weights on the host.
    pub on_host: i64,
    /// Of the trace: blocks that lie on the device.
    pub on_device: i64,
    /// After so many blocks their kinds come again.
    pub period: i64,
}

/// Whether and how a trace holds there: its loops are over whole periods, and none has fewer rounds than none.
pub fn reach(order: &[u16], asks: &[Ask], further: Further) -> Option<Reach> {
    if further.on_host == 0 {
        return Some(Reach::default());
    }
    let period = further.period.max(1);
    let mut loops = Vec::new();
    let mut at = 0;
    while at < order.len() {
        if order[at] != 0 || at + 2 >= order.len() {
            at += 1;
            continue;
        }
        let (rounds, length) = (i64::from(order[at + 1]), usize::from(order[at + 2]));
        let body = &order[(at + 3).min(order.len())..(at + 3 + length).min(order.len())];
        loops.push((at, rounds, length, step(asks, body)));
        at += 3 + length;
    }
    let more = further.on_host;
    let holds = |(_, rounds, _, step): &&(usize, i64, usize, i64)| {
        *step > 0 && step % period == 0 && more % step == 0 && rounds + more / step >= 0
    };
    let host = loops.iter().find(holds)?;
    // Of what is on the device only, the longest: it is over blocks where its rounds explain nearly all of them.
    let blocks = |rounds: i64| {
        let each = (further.on_device / period + (rounds + 1) / 2) / (rounds + 1) * period;
        let left = further.on_device - rounds * each;
        (each > 0 && (0..4 * each).contains(&left)).then_some(each)
    };
    let device = loops
        .iter()
        .filter(|(at, _, _, step)| at > &host.0 && *step == 0)
        .filter_map(|(at, rounds, length, _)| Some((*at, *rounds, *length, blocks(*rounds)?)))
        .max_by_key(|(_, rounds, length, _)| *length * usize::try_from(*rounds).unwrap_or(0));
    let device = match device {
        Some((at, rounds, _, each)) if more % each == 0 && rounds - more / each >= 0 => Some((at, -more / each)),
        Some(_) => return None,
        None => None,
    };
    Some(Reach { host: Some((host.0, more / host.3)), device })
}

fn step(asks: &[Ask], body: &[u16]) -> i64 {
    let of = |code: &u16| match asks.get(usize::from(code.wrapping_sub(1))) {
        Some(Ask::Weight(_, _, _, further)) => i64::from(*further),
        _ => 0,
    };
    body.iter().map(of).sum()
}

struct Run<'a> {
    asks: &'a [Ask],
    bytes: Vec<u64>,
    state: State,
    block: i64,
    copies: &'a Copies<'a>,
}

impl Run<'_> {
    fn step(&self, body: &[u16]) -> i64 {
        step(self.asks, body)
    }

    /// Kinds of the blocks that a round begins and ends in.
    fn kinds(&self, step: i64) -> &[u16] {
        let all = self.copies.kinds;
        let bound = |block: i64| usize::try_from(block.max(0)).unwrap_or(0).min(all.len());
        &all[bound(self.block)..bound(self.block + step + 1)]
    }

    fn rounds(&mut self, body: &[u16], rounds: i64, step: i64) {
        // A round that begins as one before it did ends as that one did; there may be two ways that take turns.
        let mut before: [Option<(State, Vec<u16>)>; 2] = [None, None];
        let mut round = 0;
        while round < rounds {
            let now = (self.state.clone(), if step == 0 { Vec::new() } else { self.kinds(step).to_vec() });
            if step == 0 && (before[0].as_ref() == Some(&now) || before[1].as_ref() == Some(&now)) {
                let odd = before[0].as_ref() != Some(&now) && (rounds - round) % 2 == 1;
                if odd {
                    for code in body {
                        self.ask(*code);
                    }
                }
                return;
            }
            if step > 0 && before[0].as_ref() == Some(&now) {
                self.block += step;
            } else {
                for code in body {
                    self.ask(*code);
                }
            }
            before[1] = before[0].take();
            before[0] = Some(now);
            round += 1;
        }
    }

    fn ask(&mut self, code: u16) {
        let index = usize::from(code.wrapping_sub(1));
        let Some(ask) = self.asks.get(index).copied() else { return };
        let State { allocators, slots } = &mut self.state;
        match ask {
            Ask::Allocate(allocator, slot, _) => allocate(allocators, slots, allocator, slot, self.bytes[index]),
            Ask::Weight(allocator, slot, name, further) => {
                self.block += i64::from(further);
                let block = usize::try_from(self.block).unwrap_or(0);
                let bytes = self.copies.kinds.get(block).map_or(0, |kind| (self.copies.bytes)(*kind, name));
                allocate(allocators, slots, allocator, slot, bytes);
            }
            Ask::Free(slot) => {
                if let Some((allocator, address, bytes)) = slots.get_mut(usize::from(slot)) {
                    if let Some(allocator) = allocators.get_mut(usize::from(*allocator)) {
                        allocator.free(*address, *bytes);
                    }
                    (*address, *bytes) = (Address::default(), 0);
                }
            }
            Ask::Shrink(slot, _) => {
                if let Some((allocator, address, bytes)) = slots.get_mut(usize::from(slot))
                    && let Some(allocator) = allocators.get_mut(usize::from(*allocator))
                {
                    let left = allocator.aligned(self.bytes[index]);
                    if left < *bytes {
                        allocator.free(address.after(left), *bytes - left);
                        *bytes = left;
                    }
                }
            }
        }
    }
}

fn allocate(allocators: &mut [Allocator], slots: &mut Vec<(u8, Address, u64)>, index: u8, slot: u16, bytes: u64) {
    let Some(allocator) = allocators.get_mut(usize::from(index)) else { return };
    let bytes = allocator.aligned(bytes);
    let address = allocator.allocate(bytes);
    let slot = usize::from(slot);
    if slots.len() <= slot {
        slots.resize(slot + 1, (0, Address::default(), 0));
    }
    slots[slot] = (index, address, bytes);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_repeats_is_folded() {
        let codes = [1, 2, 3, 4, 5, 6, 7, 8, 3, 4, 5, 6, 7, 8, 3, 4, 5, 6, 7, 8, 9];
        assert_eq!(folded(&codes), [1, 2, 0, 3, 6, 3, 4, 5, 6, 7, 8, 9]);
        assert_eq!(folded(&[1, 2, 3]), [1, 2, 3]);
    }

    #[test]
    fn the_trace_follows_from_the_product_that_decides() {
        let at = |tokens: f64, sequences: f64| {
            let mut features = [1.0; super::super::sizes::FEATURES];
            (features[1], features[3]) = (tokens, sequences);
            features
        };
        let known = [(at(64.0, 1.0), 0), (at(512.0, 1.0), 0), (at(64.0, 2.0), 1), (at(2048.0, 8.0), 1)];
        let choice = Choice::of(&known);
        assert_eq!((choice.trace(&at(900.0, 1.0)), choice.trace(&at(64.0, 4.0))), (0, 1));
    }
}
