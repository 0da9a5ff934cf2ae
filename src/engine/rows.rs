//! The rows of one worker's open connections.

use crate::engine::conn::{ConnId, Row};

/// Rows, sorted by id. They are in chunks: a single list would double as it grows, so that up to half of it is unused, and
/// copy all of itself.
#[derive(Debug, Default)]
pub(super) struct Rows {
    /// None is empty.
    chunks: Vec<Vec<Row>>,
    len: usize,
}

impl Rows {
    /// Adds a row whose id is higher than those of all others.
    pub(super) fn push(&mut self, row: Row) {
        match self.chunks.last_mut() {
            Some(last) if last.len() < CHUNK => last.push(row),
            _ => {
                let mut chunk = Vec::with_capacity(CHUNK);
                chunk.push(row);
                self.chunks.push(chunk);
            }
        }
        self.len += 1;
    }

    /// The rows of chunk number `nth`; `None` behind the last. Numbers of chunks hold until [`Rows::take_closed`].
    pub(super) fn chunk_mut(&mut self, nth: usize) -> Option<&mut [Row]> {
        self.chunks.get_mut(nth).map(Vec::as_mut_slice)
    }

    /// The first row from this `id` on, and those behind it in its chunk.
    pub(super) fn chunk_from(&self, id: ConnId) -> Option<&[Row]> {
        let chunk = self.chunks.get(self.chunk_of(id))?;
        Some(&chunk[chunk.partition_point(|row| row.id() < id)..])
    }

    /// The row with this id.
    pub(super) fn find(&mut self, id: ConnId) -> Option<&mut Row> {
        let nth = self.chunk_of(id);
        let chunk = self.chunks.get_mut(nth)?;
        let at = chunk.binary_search_by_key(&id, Row::id).ok()?;
        chunk.get_mut(at)
    }

    /// Takes out the rows of closed connections.
    pub(super) fn take_closed(&mut self) -> Vec<Row> {
        let mut closed = Vec::new();
        for chunk in &mut self.chunks {
            closed.extend(chunk.extract_if(.., |row| row.is_closed()));
        }
        self.chunks.retain(|chunk| !chunk.is_empty());
        self.len -= closed.len();
        // So many have been taken out since the last time that moving the others costs each of them little.
        if self.chunks.len() * CHUNK > self.len + self.len / MOST_UNUSED + CHUNK {
            self.repack();
        }
        closed
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// How many rows there is memory for.
    #[cfg(test)]
    pub(super) fn room(&self) -> usize {
        self.chunks.iter().map(Vec::capacity).sum()
    }

    /// Fills all chunks but the last.
    fn repack(&mut self) {
        for row in std::mem::take(self).chunks.into_iter().flatten() {
            self.push(row);
        }
    }

    /// The number of the chunk that has the first row from this id on.
    fn chunk_of(&self, id: ConnId) -> usize {
        self.chunks
            .partition_point(|chunk| chunk.last().is_some_and(|last| last.id() < id))
    }
}

/// Rows in a chunk. 14 KiB is the largest class of the allocator that wastes no part of a page; to visit a chunk takes
/// some ten microseconds.
pub(super) const CHUNK: usize = 14 * 1024 / size_of::<Row>();

/// At most one in so many places is unused, apart from those of one chunk.
const MOST_UNUSED: usize = 8;
