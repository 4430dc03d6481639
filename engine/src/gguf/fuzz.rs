//! [`fuzz_one`]: the body for a fuzzer, on stable Rust or under cargo-fuzz.

use std::io::{self, Cursor, Read, Seek, SeekFrom};

use super::{GgufError, GgufHeader};

/// Counts what is read.
struct Counting<'a> {
    bytes: Cursor<&'a [u8]>,
    read: u64,
}

impl Read for Counting<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.bytes.read(buffer)?;
        self.read += count as u64;
        Ok(count)
    }
}

impl Seek for Counting<'_> {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        self.bytes.seek(to)
    }
}

/// Gives `data` to the gate and checks what must hold of every answer: nothing is read twice or behind the header, an error
/// is one line of bounded length, and what passes is inside the file, apart and countable. Returns the answer.
///
/// # Errors
/// What the gate says of `data`.
///
/// # Panics
/// When the gate is broken: that is what a fuzzer looks for.
pub fn fuzz_one(data: &[u8]) -> Result<GgufHeader, GgufError> {
    let length = data.len() as u64;
    let mut reader = Counting { bytes: Cursor::new(data), read: 0 };
    let answer = GgufHeader::read_from(&mut reader, length);
    assert!(reader.read <= length, "{} bytes were read of {length}", reader.read);
    let header = match answer {
        Ok(header) => header,
        Err(error) => {
            let words = error.to_string();
            assert!(!words.chars().any(char::is_control), "more than one line: {words:?}");
            assert!(words.len() < 2000, "a long message: {words}");
            return Err(error);
        }
    };
    assert!(reader.read <= header.data_offset + (1 << 18) + 64, "{} bytes were read", reader.read);
    assert!(header.split().is_some() || !header.tensors.is_empty(), "no tensors");
    let mut before = 0;
    for tensor in &header.tensors {
        assert!(tensor.offset >= before, "tensor {:?} is over another", tensor.name);
        let stop = tensor.offset.checked_add(tensor.bytes).expect("its end can be said");
        let end = header.data_offset.checked_add(stop).expect("its place can be said");
        assert!(end <= length, "tensor {:?} ends at {end} of {length}", tensor.name);
        assert_eq!(tensor.elements() / tensor.kind.block * tensor.kind.bytes, tensor.bytes);
        before = stop;
    }
    assert!(header.parameters() > 0 || header.tensors.is_empty());
    assert!(header.bits_per_weight().is_finite());
    assert!(header.bytes_per_token() <= header.tensor_bytes);
    Ok(header)
}
