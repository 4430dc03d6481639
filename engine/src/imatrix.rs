//! [`Imatrix`]: reads an importance matrix, which tells a quantization what each column of a weight matrix is worth.
//!
//! Owns: both formats of llama.cpp's `imatrix` tool, its GGUF and the older `.dat`, with checked arithmetic and caps: the
//! file may come from anywhere. It does not know which model the file belongs to; entry point [`Imatrix::read`].
//!
//! GGUF: for each tensor `NAME.in_sum2` (sums of squared activations, a row for each expert) and `NAME.counts`. The older
//! format: a count, then for each tensor its name, calls and sums; then, maybe, the number of chunks.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufReader, Read, Seek, SeekFrom};
use std::path::Path;

/// Largest file: the largest models with experts have about one gigabyte.
const LARGEST_FILE: u64 = 4 << 30;
/// Most tensors, metadata entries, or elements of a metadata array.
const MOST_ENTRIES: u64 = 1 << 16;
/// Longest name or key. ggml's longest tensor name has 63 bytes, the suffix included.
const LONGEST_NAME: u64 = 1 << 10;
/// Longest metadata text, e.g. a data set's path.
const LONGEST_TEXT: u64 = 1 << 20;
/// ggml's number of F32.
const F32: u32 = 0;

/// What each column of each tensor is worth.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Imatrix {
    /// By name: average squared activations, of each expert one after the other.
    pub entries: BTreeMap<String, Vec<f32>>,
    /// Chunks of text that it was made from; 0 where the file does not say.
    pub chunks: u32,
}

struct Reader<R> {
    inner: R,
    offset: u64,
    end: u64,
}

impl<R: Read + Seek> Reader<R> {
    /// Whether so many bytes are left; asked before any memory is.
    fn need(&self, length: u64, what: &str) -> Result<(), String> {
        match self.offset.checked_add(length) {
            Some(after) if after <= self.end => Ok(()),
            _ => Err(format!("it ends at byte {}, in {what}", self.end)),
        }
    }

    fn vec(&mut self, length: u64, most: u64, what: &str) -> Result<Vec<u8>, String> {
        if length > most {
            return Err(format!("{what} has {length} bytes at byte {}, at most {most} are taken", self.offset));
        }
        self.need(length, what)?;
        let mut bytes = vec![0; usize::try_from(length).map_err(|_| format!("{what} is too long"))?];
        self.inner.read_exact(&mut bytes).map_err(|error| format!("cannot read {what}: {error}"))?;
        self.offset += length;
        Ok(bytes)
    }

    fn array<const N: usize>(&mut self, what: &str) -> Result<[u8; N], String> {
        let bytes = self.vec(N as u64, N as u64, what)?;
        Ok(bytes.try_into().expect("as many as were read"))
    }

    fn u32(&mut self, what: &str) -> Result<u32, String> {
        self.array(what).map(u32::from_le_bytes)
    }

    fn u64(&mut self, what: &str) -> Result<u64, String> {
        self.array(what).map(u64::from_le_bytes)
    }

    fn count(&mut self, what: &str) -> Result<u64, String> {
        let count = self.u64(what)?;
        if count > MOST_ENTRIES {
            return Err(format!("{what} is {count}, at most {MOST_ENTRIES} are taken"));
        }
        Ok(count)
    }

    fn text(&mut self, length: u64, most: u64, what: &str) -> Result<String, String> {
        String::from_utf8(self.vec(length, most, what)?).map_err(|_| format!("{what} is not UTF-8"))
    }

    fn floats(&mut self, count: u64, what: &str) -> Result<Vec<f32>, String> {
        let length = count.checked_mul(4).ok_or_else(|| format!("{what} is too long"))?;
        let bytes = self.vec(length, LARGEST_FILE, what)?;
        let values: Vec<f32> =
            bytes.chunks_exact(4).map(|four| f32::from_le_bytes(four.try_into().expect("four"))).collect();
        match values.iter().find(|value| !value.is_finite() || **value < 0.0) {
            Some(value) => Err(format!("{what} holds {value}, which is no sum of squares")),
            None => Ok(values),
        }
    }

    fn seek(&mut self, offset: u64, what: &str) -> Result<(), String> {
        if offset > self.end {
            return Err(format!("{what} begins at byte {offset}, behind the end at {}", self.end));
        }
        self.inner.seek(SeekFrom::Start(offset)).map_err(|error| format!("cannot read {what}: {error}"))?;
        self.offset = offset;
        Ok(())
    }
}

/// A tensor of the GGUF form.
struct Tensor {
    /// Elements of a row, and rows.
    shape: [u64; 2],
    offset: u64,
}

impl Imatrix {
    /// Reads a file.
    ///
    /// # Errors
    /// What is wrong with it and where, in one line.
    pub fn read(path: &Path) -> Result<Self, String> {
        let words = |reason: String| format!("the importance matrix {}: {reason}", path.display());
        let open = || -> Result<Self, String> {
            // Before opening, too: opening a named pipe waits for its writer.
            let metadata = std::fs::metadata(path).map_err(|error| error.to_string())?;
            if !metadata.is_file() {
                return Err("not a regular file".into());
            }
            let file = File::open(path).map_err(|error| error.to_string())?;
            Self::parse(BufReader::with_capacity(1 << 18, file), metadata.len())
        };
        open().map_err(words)
    }

    fn parse<R: Read + Seek>(inner: R, end: u64) -> Result<Self, String> {
        if end > LARGEST_FILE {
            return Err(format!("it has {end} bytes, at most {LARGEST_FILE} are taken"));
        }
        let mut reader = Reader { inner, offset: 0, end };
        let magic = reader.array::<4>("its first four bytes")?;
        let read = if &magic == b"GGUF" {
            Self::parse_gguf(&mut reader)?
        } else {
            reader.seek(0, "its start")?;
            Self::parse_legacy(&mut reader)?
        };
        if read.entries.is_empty() {
            return Err("it has no entry".into());
        }
        Ok(read)
    }

    fn parse_gguf<R: Read + Seek>(reader: &mut Reader<R>) -> Result<Self, String> {
        let version = reader.u32("the version")?;
        if !(2..=3).contains(&version) {
            return Err(format!("version {version} of GGUF is not known"));
        }
        let tensor_count = reader.count("the number of tensors")?;
        let entry_count = reader.count("the number of metadata entries")?;
        let (mut chunks, mut alignment) = (0, 32);
        for index in 0..entry_count {
            let length = reader.u64("the length of a key")?;
            let key = reader.text(length, LONGEST_NAME, &format!("the key of metadata entry {index}"))?;
            let number = metadata_value(reader, &key)?;
            match (key.as_str(), number) {
                ("imatrix.chunk_count", Some(number)) => chunks = number,
                ("general.alignment", number) => {
                    let known = number.filter(|number| number.is_power_of_two() && (8..=1 << 20).contains(number));
                    alignment = known.ok_or("general.alignment must be a power of two from 8 to 1048576")?;
                }
                _ => {}
            }
        }
        let mut tensors = BTreeMap::new();
        for index in 0..tensor_count {
            let length = reader.u64("the length of a tensor's name")?;
            let name = reader.text(length, LONGEST_NAME, &format!("the name of tensor {index}"))?;
            let tensor = tensor(reader, &name)?;
            if tensors.insert(name.clone(), tensor).is_some() {
                return Err(format!("tensor {name:?} occurs twice"));
            }
        }
        let data = reader.offset.next_multiple_of(u64::from(alignment));
        let mut entries = BTreeMap::new();
        for (full, sums) in &tensors {
            let Some(name) = full.strip_suffix(".in_sum2") else { continue };
            let counts = tensors.get(&format!("{name}.counts")).ok_or_else(|| format!("{name:?} has no counts"))?;
            let [row, rows] = sums.shape;
            if counts.shape[0].checked_mul(counts.shape[1]) != Some(rows) {
                return Err(format!("{name:?} has sums of {rows} rows and counts of {:?}", counts.shape));
            }
            let mut floats = |tensor: &Tensor, count: Option<u64>, what: String| {
                let start = data.checked_add(tensor.offset).ok_or_else(|| format!("{what} begins nowhere"))?;
                reader.seek(start, &what)?;
                reader.floats(count.ok_or_else(|| format!("{what} is too long"))?, &what)
            };
            let counts = floats(counts, Some(rows), format!("the counts of {name:?}"))?;
            let mut values = floats(sums, row.checked_mul(rows), format!("the sums of {name:?}"))?;
            let row = usize::try_from(row).map_err(|_| format!("{name:?} has too long rows"))?;
            for (sums, count) in values.chunks_exact_mut(row).zip(counts) {
                for sum in sums {
                    // An expert that calibration never reached: all columns are worth the same.
                    *sum = if count > 0.0 { *sum / count } else { 1.0 };
                }
            }
            entries.insert(name.to_owned(), values);
        }
        Ok(Self { entries, chunks })
    }

    fn parse_legacy<R: Read + Seek>(reader: &mut Reader<R>) -> Result<Self, String> {
        let count = reader.u32("the number of entries")?;
        if count == 0 || u64::from(count) > MOST_ENTRIES {
            return Err("neither llama.cpp's GGUF of importance matrices nor its older format".into());
        }
        let mut entries = BTreeMap::new();
        for index in 0..count {
            let length = reader.u32("the length of a name")?;
            let name = reader.text(length.into(), LONGEST_NAME, &format!("the name of entry {index}"))?;
            let calls = reader.u32("the number of calls")?;
            let values = reader.u32("the number of values")?;
            if name.is_empty() || values == 0 || calls > i32::MAX.unsigned_abs() {
                return Err(format!("entry {index}, {name:?}, is empty"));
            }
            let mut values = reader.floats(values.into(), &format!("the values of {name:?}"))?;
            if calls > 0 {
                for value in &mut values {
                    *value /= calls as f32;
                }
            }
            if entries.insert(name.clone(), values).is_some() {
                return Err(format!("entry {name:?} occurs twice"));
            }
        }
        // What follows is optional: the number of chunks, and the name of the text.
        let chunks = if reader.offset < reader.end { reader.u32("the number of chunks")? } else { 0 };
        Ok(Self { entries, chunks })
    }
}

/// Reads a metadata value; a whole number of 32 bits is returned, anything else passed over.
fn metadata_value<R: Read + Seek>(reader: &mut Reader<R>, key: &str) -> Result<Option<u32>, String> {
    const STRING: u32 = 8;
    const ARRAY: u32 = 9;
    let what = format!("the value of {key:?}");
    // GGUF's numbers of its value types, and their sizes.
    let size = |kind: u32| match kind {
        0 | 1 | 7 => Ok(1),
        2 | 3 => Ok(2),
        4..=6 => Ok(4),
        10..=12 => Ok(8),
        _ => Err(format!("{what} has the unknown type {kind}")),
    };
    let skip_text = |reader: &mut Reader<R>| {
        let length = reader.u64(&what)?;
        reader.vec(length, LONGEST_TEXT, &what).map(drop)
    };
    match reader.u32(&what)? {
        4 => return reader.u32(&what).map(Some),
        STRING => skip_text(reader)?,
        ARRAY => {
            let element = reader.u32(&what)?;
            let count = reader.count(&format!("the number of elements of {key:?}"))?;
            if element == STRING {
                for _ in 0..count {
                    skip_text(reader)?;
                }
            } else {
                reader.vec(count * size(element)?, LONGEST_TEXT, &what)?;
            }
        }
        kind => drop(reader.vec(size(kind)?, 8, &what)?),
    }
    Ok(None)
}

fn tensor<R: Read + Seek>(reader: &mut Reader<R>, name: &str) -> Result<Tensor, String> {
    let what = format!("the description of tensor {name:?}");
    let dimensions = reader.u32(&what)?;
    if !(1..=4).contains(&dimensions) {
        return Err(format!("tensor {name:?} has {dimensions} dimensions"));
    }
    let mut shape = [1_u64; 2];
    for index in 0..dimensions {
        let size = reader.u64(&what)?;
        let slot = &mut shape[usize::from(index > 0)];
        *slot =
            slot.checked_mul(size).filter(|size| *size > 0).ok_or_else(|| format!("tensor {name:?} has no size"))?;
    }
    let kind = reader.u32(&what)?;
    let offset = reader.u64(&what)?;
    if kind != F32 {
        return Err(format!("tensor {name:?} has type {kind}, and must be F32"));
    }
    Ok(Tensor { shape, offset })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(bytes: &[u8]) -> Result<Imatrix, String> {
        Imatrix::parse(std::io::Cursor::new(bytes), bytes.len() as u64)
    }

    fn legacy() -> Vec<u8> {
        let mut bytes = Vec::new();
        bytes.extend(1_u32.to_le_bytes());
        bytes.extend(3_u32.to_le_bytes());
        bytes.extend(b"a.w");
        bytes.extend(2_u32.to_le_bytes());
        bytes.extend(2_u32.to_le_bytes());
        bytes.extend([1.0_f32, 4.0].into_iter().flat_map(f32::to_le_bytes));
        bytes.extend(7_u32.to_le_bytes());
        bytes
    }

    fn string(bytes: &mut Vec<u8>, text: &str) {
        bytes.extend((text.len() as u64).to_le_bytes());
        bytes.extend(text.as_bytes());
    }

    fn gguf() -> Vec<u8> {
        let mut bytes = b"GGUF".to_vec();
        bytes.extend(3_u32.to_le_bytes());
        bytes.extend(2_u64.to_le_bytes());
        bytes.extend(3_u64.to_le_bytes());
        string(&mut bytes, "general.type");
        bytes.extend(8_u32.to_le_bytes());
        string(&mut bytes, "imatrix");
        string(&mut bytes, "imatrix.datasets");
        bytes.extend(9_u32.to_le_bytes());
        bytes.extend(8_u32.to_le_bytes());
        bytes.extend(1_u64.to_le_bytes());
        string(&mut bytes, "some text");
        string(&mut bytes, "imatrix.chunk_count");
        bytes.extend(4_u32.to_le_bytes());
        bytes.extend(9_u32.to_le_bytes());
        for (name, shape, offset) in [("a.w.in_sum2", [2_u64, 2], 0_u64), ("a.w.counts", [1, 2], 32)] {
            string(&mut bytes, name);
            bytes.extend(2_u32.to_le_bytes());
            bytes.extend(shape.into_iter().flat_map(u64::to_le_bytes));
            bytes.extend(F32.to_le_bytes());
            bytes.extend(offset.to_le_bytes());
        }
        bytes.resize(bytes.len().next_multiple_of(32), 0);
        bytes.extend([2.0_f32, 6.0, 3.0, 5.0].into_iter().flat_map(f32::to_le_bytes));
        bytes.resize(bytes.len().next_multiple_of(32), 0);
        bytes.extend([2.0_f32, 0.0].into_iter().flat_map(f32::to_le_bytes));
        bytes
    }

    #[test]
    fn both_formats_are_read_and_averaged() {
        let read = parse(&legacy()).expect("the older format");
        assert_eq!((read.entries["a.w"].as_slice(), read.chunks), ([0.5, 2.0].as_slice(), 7));
        let read = parse(&gguf()).expect("GGUF");
        // The second expert was never called.
        assert_eq!((read.entries["a.w"].as_slice(), read.chunks), ([1.0, 3.0, 1.0, 1.0].as_slice(), 9));
    }

    #[test]
    fn every_cut_is_refused_in_one_line() {
        // The older format may end before the number of chunks.
        let optional = legacy().len() - 4;
        for (whole, but) in [(legacy(), optional), (gguf(), usize::MAX)] {
            for length in (0..whole.len()).filter(|length| *length != but) {
                let refused = parse(&whole[..length]).expect_err("cut");
                assert!(!refused.contains('\n') && refused.len() < 200, "{refused}");
            }
        }
    }

    #[test]
    fn damage_is_refused_or_read_and_never_asks_for_memory() {
        for whole in [legacy(), gguf()] {
            for index in 0..whole.len() {
                for value in [0, 0x7f, 0x80, 0xff] {
                    let mut bytes = whole.clone();
                    bytes[index] = value;
                    if let Ok(read) = parse(&bytes) {
                        assert!(read.entries.values().all(|values| values.len() <= 4));
                    }
                }
            }
        }
        assert!(parse(&[0xff; 64]).expect_err("noise").contains("neither"));
        let mut negative = legacy();
        negative[19..23].copy_from_slice(&(-1.0_f32).to_le_bytes());
        assert!(parse(&negative).expect_err("a negative sum of squares").contains("no sum of squares"));
    }
}
