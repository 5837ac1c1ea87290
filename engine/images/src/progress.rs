//! Who is told how far something is.

/// Is told how far a pull or a load is. Called for each piece: it must be quick.
pub trait Progress: Send + Sync {
    /// So many parts with so many bytes in all are still to come, beside what was said before.
    fn expects(&self, parts: usize, bytes: u64);

    /// So many bytes `of` one part are here.
    fn moved(&self, part: &str, bytes: u64, of: u64);
}

/// Nobody.
impl Progress for () {
    fn expects(&self, _parts: usize, _bytes: u64) {}
    fn moved(&self, _part: &str, _bytes: u64, _of: u64) {}
}
