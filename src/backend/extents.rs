//! Which parts of a storage hold data.

/// How a range is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Allocation {
    /// The storage has data for it.
    Data,
    /// The storage has no data for it. It reads as zeroes.
    Hole,
}

/// The parts of a range in order, from its start on: their lengths in bytes, none of which is 0.
pub type Extents = Vec<(u64, Allocation)>;

/// Adds an extent at the end, and joins it with the one before if that is of the same kind.
pub(crate) fn push(extents: &mut Extents, len: u64, allocation: Allocation) {
    match extents.last_mut() {
        _ if len == 0 => {}
        Some((before, same)) if *same == allocation => *before = before.saturating_add(len),
        _ => extents.push((len, allocation)),
    }
}
