//! Where ggml's graph allocator puts pieces of a compute buffer: the best hole, else the end of a buffer, else a new one.
//!
//! A mirror of `ggml_dyn_tallocr` in `ggml-alloc.c`; whoever makes a profile compares it with llama.cpp's own sizes.

/// llama.cpp's most buffers of one allocator (`GGML_VBUFFER_MAX_CHUNKS`).
const MOST_CHUNKS: usize = 16;

/// Where a piece lies.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Address {
    chunk: usize,
    offset: u64,
}

impl Address {
    /// So many bytes further on.
    pub fn after(self, bytes: u64) -> Self {
        Self { offset: self.offset + bytes, ..self }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Chunk {
    /// Offset and size of each hole; the last one is what is open at the end.
    free: Vec<(u64, u64)>,
    most: u64,
}

/// The buffers of one place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Allocator {
    alignment: u64,
    maximum: u64,
    chunks: Vec<Chunk>,
}

impl Allocator {
    /// An empty one, for buffers of at most `maximum` bytes.
    pub fn new(alignment: u64, maximum: u64) -> Self {
        Self { alignment: alignment.max(1), maximum: maximum.min(u64::MAX / 2), chunks: Vec::new() }
    }

    /// Bytes of all buffers at their fullest.
    pub fn bytes(&self) -> u64 {
        self.chunks.iter().map(|chunk| chunk.most).sum()
    }

    /// What `bytes` take.
    pub fn aligned(&self, bytes: u64) -> u64 {
        bytes.next_multiple_of(self.alignment)
    }

    /// Room for `size` bytes, which are aligned.
    pub fn allocate(&mut self, size: u64) -> Address {
        let (chunk_index, block) = self.hole(size).or_else(|| self.end(size)).unwrap_or_else(|| (self.open(size), 0));
        let chunk = &mut self.chunks[chunk_index];
        let (offset, room) = &mut chunk.free[block];
        let address = Address { chunk: chunk_index, offset: *offset };
        *offset += size;
        *room = room.saturating_sub(size);
        if *room == 0 {
            chunk.free.remove(block);
        }
        chunk.most = chunk.most.max(address.offset + size);
        address
    }

    fn hole(&self, size: u64) -> Option<(usize, usize)> {
        let mut found = None;
        for (index, chunk) in self.chunks.iter().enumerate() {
            let mut best = u64::MAX;
            for (block, (_, room)) in chunk.free.iter().enumerate().take(chunk.free.len().saturating_sub(1)) {
                if *room >= size && *room <= best {
                    found = Some((index, block));
                    best = *room;
                }
            }
        }
        found
    }

    fn end(&self, size: u64) -> Option<(usize, usize)> {
        let mut found = None;
        let mut best = i64::MIN;
        for (index, chunk) in self.chunks.iter().enumerate() {
            let Some((offset, room)) = chunk.free.last() else { continue };
            // Negative: what the buffer would grow by.
            let reuse = chunk.most.wrapping_sub(*offset).wrapping_sub(size).cast_signed();
            let better = (best < 0 && reuse > best) || (reuse >= 0 && reuse < best);
            if *room >= size && better {
                found = Some((index, chunk.free.len() - 1));
                best = reuse;
            }
        }
        found
    }

    fn open(&mut self, size: u64) -> usize {
        let room = if self.chunks.len() + 1 >= MOST_CHUNKS { u64::MAX / 2 } else { self.maximum.max(size) };
        self.chunks.push(Chunk { free: vec![(0, room)], most: 0 });
        self.chunks.len() - 1
    }

    /// Gives back `size` bytes, which are aligned.
    pub fn free(&mut self, address: Address, size: u64) {
        let Some(Chunk { free, .. }) = self.chunks.get_mut(address.chunk) else { return };
        let begin = address.offset;
        for index in 0..free.len() {
            let (offset, room) = free[index];
            if offset + room == begin {
                free[index].1 += size;
                if let Some((next, next_room)) = free.get(index + 1).copied()
                    && begin + size == next
                {
                    free[index].1 += next_room;
                    free.remove(index + 1);
                }
                return;
            }
            if begin + size == offset {
                free[index] = (begin, room + size);
                if index > 0 && free[index - 1].0 + free[index - 1].1 == begin {
                    free[index - 1].1 += free[index].1;
                    free.remove(index);
                }
                return;
            }
        }
        let place = free.partition_point(|(offset, _)| *offset < begin);
        free.insert(place, (begin, size));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn holes_are_filled_before_a_buffer_grows() {
        let mut allocator = Allocator::new(32, 1 << 40);
        let first = allocator.allocate(96);
        let second = allocator.allocate(64);
        let third = allocator.allocate(32);
        allocator.free(first, 96);
        allocator.free(third, 32);
        assert_eq!(allocator.allocate(64), first);
        assert_eq!(allocator.bytes(), 192);
        allocator.free(second, 64);
        // The rest of the first hole and the second piece are one hole now, up to the end.
        assert_eq!(allocator.allocate(128), first.after(64));
        assert_eq!(allocator.bytes(), 192);
    }

    #[test]
    fn what_does_not_fit_in_a_buffer_opens_another() {
        let mut allocator = Allocator::new(32, 128);
        let _first = allocator.allocate(96);
        let _second = allocator.allocate(96);
        let _large = allocator.allocate(512);
        assert_eq!((allocator.chunks.len(), allocator.bytes()), (3, 704));
    }
}
