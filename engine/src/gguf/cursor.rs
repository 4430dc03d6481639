//! [`Cursor`]: reads little-endian numbers and texts, knows where it is, and never asks for more memory than the file has
//! bytes.

use std::io::{BufRead as _, BufReader, Read, Seek};
use std::path::PathBuf;
use std::sync::Arc;

use super::GgufError;

/// Longest header; those of the largest vocabularies have some twenty megabytes.
pub(super) const LONGEST_HEADER: u64 = 128 << 20;
/// How much is read at once.
const STEP: usize = 1 << 18;

pub(super) struct Cursor<R> {
    reader: BufReader<R>,
    path: PathBuf,
    offset: u64,
    end: u64,
}

impl<R: Read + Seek> Cursor<R> {
    pub fn new(reader: R, path: PathBuf, end: u64) -> Self {
        Self { reader: BufReader::with_capacity(STEP, reader), path, offset: 0, end }
    }

    pub const fn offset(&self) -> u64 {
        self.offset
    }

    pub const fn end(&self) -> u64 {
        self.end
    }

    fn truncated(&self, what: &str) -> GgufError {
        GgufError::Truncated { what: what.to_owned(), offset: self.offset, end: self.end }
    }

    fn io(&self, source: std::io::Error) -> GgufError {
        GgufError::Io { path: self.path.clone(), source: Arc::new(source) }
    }

    fn check(&self, length: u64, what: &str) -> Result<(), GgufError> {
        match self.offset.checked_add(length) {
            // Said while reading, not after: a sparse file has as many empty texts as it likes.
            Some(after) if after <= self.end && after > LONGEST_HEADER => Err(GgufError::TooMany {
                what: format!("the length of the header with {what}"),
                offset: self.offset,
                found: after,
                most: LONGEST_HEADER,
            }),
            Some(after) if after <= self.end => Ok(()),
            _ => Err(self.truncated(what)),
        }
    }

    pub fn bytes<const N: usize>(&mut self, what: &str) -> Result<[u8; N], GgufError> {
        self.check(N as u64, what)?;
        let mut bytes = [0; N];
        self.reader.read_exact(&mut bytes).map_err(|error| self.io(error))?;
        self.offset += N as u64;
        Ok(bytes)
    }

    /// The first bytes, as many as there are up to `most`, without moving on.
    pub fn peek(&mut self, most: u64) -> Result<Vec<u8>, GgufError> {
        let start = self.offset;
        let bytes = self.vec(self.end.saturating_sub(start).min(most), "the start of the file")?;
        let step = i64::try_from(bytes.len()).map_err(|_| self.truncated("the start of the file"))?;
        self.reader.seek_relative(-step).map_err(|error| self.io(error))?;
        self.offset = start;
        Ok(bytes)
    }

    pub fn u32(&mut self, what: &str) -> Result<u32, GgufError> {
        self.bytes(what).map(u32::from_le_bytes)
    }

    pub fn u64(&mut self, what: &str) -> Result<u64, GgufError> {
        self.bytes(what).map(u64::from_le_bytes)
    }

    /// A count or length of at most `most`.
    pub fn count(&mut self, most: u64, what: &str) -> Result<u64, GgufError> {
        let offset = self.offset;
        let found = self.u64(what)?;
        if found > most {
            return Err(GgufError::TooMany { what: what.to_owned(), offset, found, most });
        }
        Ok(found)
    }

    pub fn vec(&mut self, length: u64, what: &str) -> Result<Vec<u8>, GgufError> {
        let mut bytes = Vec::new();
        self.fill(&mut bytes, length, what)?;
        Ok(bytes)
    }

    /// Like [`vec`](Self::vec), into a buffer that is used again.
    pub fn fill(&mut self, bytes: &mut Vec<u8>, length: u64, what: &str) -> Result<(), GgufError> {
        self.check(length, what)?;
        bytes.clear();
        bytes.resize(usize::try_from(length).map_err(|_| self.truncated(what))?, 0);
        self.reader.read_exact(bytes).map_err(|error| self.io(error))?;
        self.offset += length;
        Ok(())
    }

    /// `count` texts of at most `longest` bytes, each with its length before it; `take` gets where each starts, and it.
    pub fn texts(
        &mut self,
        count: u64,
        longest: u64,
        (what, length_what): (&str, &str),
        mut take: impl FnMut(u64, &[u8]) -> Result<(), GgufError>,
    ) -> Result<(), GgufError> {
        let mut slow = Vec::new();
        let mut left = count;
        while left > 0 {
            // All that are whole in the buffer, without a call for each: there are half a million.
            let buffered = self.reader.buffer();
            let inside = usize::try_from(self.end.saturating_sub(self.offset)).unwrap_or(usize::MAX);
            let mut rest = &buffered[..buffered.len().min(inside)];
            let whole = rest.len();
            while left > 0 {
                let Some((length, after)) = rest.split_first_chunk::<8>() else { break };
                let length = u64::from_le_bytes(*length);
                if length > longest {
                    break;
                }
                let Some((text, after)) = usize::try_from(length).ok().and_then(|at| after.split_at_checked(at)) else {
                    break;
                };
                take(self.offset + (whole - rest.len()) as u64, text)?;
                rest = after;
                left -= 1;
            }
            let used = whole - rest.len();
            self.check(used as u64, what)?;
            self.reader.consume(used);
            self.offset += used as u64;
            if left == 0 {
                break;
            }
            // One that reaches over the buffer's end, or is wrong.
            let offset = self.offset;
            let length = self.count(longest, length_what)?;
            self.fill(&mut slow, length, what)?;
            take(offset, &slow)?;
            left -= 1;
        }
        Ok(())
    }

    pub fn skip(&mut self, length: u64, what: &str) -> Result<(), GgufError> {
        self.check(length, what)?;
        let step = i64::try_from(length).map_err(|_| self.truncated(what))?;
        self.reader.seek_relative(step).map_err(|error| self.io(error))?;
        self.offset += length;
        Ok(())
    }
}
