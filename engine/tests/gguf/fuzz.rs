//! A bounded number of changed files in CI: the same ones in every run.

use muster_engine::bundled::MUSTER_TINY_F16;
use muster_engine::gguf::fuzz_one;

use crate::attacks::folder;

/// Changed files.
const INPUTS: u32 = 40_000;

/// A generator of 64-bit numbers (splitmix64): the same from one seed.
pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    pub fn below(&mut self, most: usize) -> usize {
        usize::try_from(self.next() % most.max(1) as u64).unwrap()
    }
}

/// Where numbers stand in a file, and how many bytes each has.
pub struct Field {
    pub at: usize,
    pub size: usize,
}

/// Every count, length, type, dimension, offset and value, as far as the file can be followed.
pub fn fields(bytes: &[u8]) -> Vec<Field> {
    let mut walk = Walk { bytes, at: 4, fields: Vec::new() };
    let _ = walk.file();
    walk.fields
}

struct Walk<'a> {
    bytes: &'a [u8],
    at: usize,
    fields: Vec<Field>,
}

impl Walk<'_> {
    fn number(&mut self, size: usize) -> Option<u64> {
        let bytes = self.bytes.get(self.at..self.at + size)?;
        self.fields.push(Field { at: self.at, size });
        self.at += size;
        let mut wide = [0; 8];
        wide[..size].copy_from_slice(bytes);
        Some(u64::from_le_bytes(wide))
    }

    fn text(&mut self) -> Option<()> {
        let length = usize::try_from(self.number(8)?).ok()?;
        self.at = self.at.checked_add(length).filter(|at| *at <= self.bytes.len())?;
        Some(())
    }

    fn value(&mut self, kind: u64) -> Option<()> {
        match kind {
            0 | 1 | 7 => self.number(1).map(drop),
            2 | 3 => self.number(2).map(drop),
            4..=6 => self.number(4).map(drop),
            10..=12 => self.number(8).map(drop),
            8 => self.text(),
            9 => {
                let element = self.number(4)?;
                for _ in 0..self.number(8)? {
                    self.value(element)?;
                }
                Some(())
            }
            _ => None,
        }
    }

    fn file(&mut self) -> Option<()> {
        self.number(4)?;
        let (tensors, entries) = (self.number(8)?, self.number(8)?);
        for _ in 0..entries {
            self.text()?;
            let kind = self.number(4)?;
            self.value(kind)?;
        }
        for _ in 0..tensors {
            self.text()?;
            for _ in 0..self.number(4)?.min(1 << 10) {
                self.number(8)?;
            }
            self.number(4)?;
            self.number(8)?;
        }
        Some(())
    }
}

/// Changes a file: a number to one at an edge, a byte, a cut, a piece twice or gone.
pub fn mutate(bytes: &mut Vec<u8>, random: &mut Random) {
    for _ in 0..=random.below(3) {
        let fields = fields(bytes);
        if bytes.is_empty() {
            return;
        }
        match random.below(10) {
            0..=5 if !fields.is_empty() => {
                let field = &fields[random.below(fields.len())];
                let old = &bytes[field.at..field.at + field.size];
                let mut wide = [0; 8];
                wide[..field.size].copy_from_slice(old);
                let old = u64::from_le_bytes(wide);
                let edges = [
                    0,
                    1,
                    2,
                    3,
                    4,
                    8,
                    9,
                    31,
                    32,
                    33,
                    255,
                    256,
                    511,
                    512,
                    513,
                    65_535,
                    65_536,
                    1 << 20,
                    (1 << 24) + 1,
                    (1 << 31) - 1,
                    1 << 31,
                    u64::from(u32::MAX),
                    1 << 32,
                    1 << 60,
                    1 << 61,
                    (1 << 62) + 1,
                    (1 << 63) - 1,
                    1 << 63,
                    u64::MAX - 31,
                    u64::MAX,
                    old.wrapping_add(1),
                    old.wrapping_sub(1),
                    old.wrapping_mul(2),
                    old / 2,
                    old ^ (1 << 31),
                    random.next(),
                ];
                let new = edges[random.below(edges.len())].to_le_bytes();
                bytes[field.at..field.at + field.size].copy_from_slice(&new[..field.size]);
            }
            6 => {
                let at = random.below(bytes.len());
                bytes[at] ^= 1 << random.below(8);
            }
            7 => {
                let at = random.below(bytes.len().min(4096));
                bytes[at] = random.next().to_le_bytes()[0];
            }
            8 => bytes.truncate(random.below(bytes.len())),
            _ => {
                let at = random.below(bytes.len());
                let length = random.below(64).min(bytes.len() - at);
                let piece = bytes[at..at + length].to_vec();
                let to = random.below(bytes.len());
                bytes.splice(to..to, piece);
            }
        }
    }
}

/// The files of the corpus, and the bundled model's header with a little of its data.
pub fn corpus() -> Vec<Vec<u8>> {
    let mut paths: Vec<_> = std::fs::read_dir(folder()).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    let bundled = MUSTER_TINY_F16[..70_000].to_vec();
    paths.into_iter().map(|path| std::fs::read(path).unwrap()).chain([bundled]).collect()
}

#[test]
fn changed_files_are_judged_without_panic() {
    let corpus = corpus();
    let mut random = Random(1);
    let mut passed = 0;
    for _ in 0..INPUTS {
        let mut bytes = corpus[random.below(corpus.len())].clone();
        // The bundled model's vocabulary is long: less often.
        if bytes.len() > 10_000 && random.below(8) != 0 {
            continue;
        }
        mutate(&mut bytes, &mut random);
        passed += u32::from(fuzz_one(&bytes).is_ok());
    }
    // A fuzzer that never passes the gate finds nothing behind it.
    assert!(passed > INPUTS / 200, "only {passed} passed");
}
