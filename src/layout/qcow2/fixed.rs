//! The parts of an image that no data may overlap: the header, the LUKS header, the L1 table and
//! the refcount table.

use std::sync::{PoisonError, RwLock};

/// The start and the end of each part, in order. They change when tables grow.
pub(super) struct Fixed(RwLock<Vec<(u64, u64)>>);

impl Fixed {
    /// The given parts, which are in order.
    pub(super) fn new(parts: Vec<(u64, u64)>) -> Self {
        Self(RwLock::new(parts))
    }

    /// Whether a cluster at `offset` overlaps one of the parts. 0 means that there is no cluster.
    pub(super) fn holds(&self, offset: u64) -> bool {
        let parts = self.0.read().unwrap_or_else(PoisonError::into_inner);
        let before = parts.partition_point(|(start, _)| *start <= offset);
        let last = before.checked_sub(1).and_then(|last| parts.get(last));
        offset != 0 && last.is_some_and(|(_, end)| offset < *end)
    }

    /// Replaces the part that starts at `old` by `new`, since a table has moved.
    pub(super) fn moved(&self, old: u64, new: (u64, u64)) {
        let mut parts = self.0.write().unwrap_or_else(PoisonError::into_inner);
        parts.retain(|(start, _)| *start != old);
        parts.push(new);
        parts.sort_unstable();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_found_and_move() {
        let fixed = Fixed::new(vec![(0, 512), (1024, 2048)]);
        for (offset, held) in [
            (0, false),
            (512, false),
            (1024, true),
            (1536, true),
            (2048, false),
        ] {
            assert_eq!(fixed.holds(offset), held, "{offset}");
        }
        fixed.moved(1024, (4096, 8192));
        assert!(!fixed.holds(1024) && fixed.holds(7680) && !fixed.holds(8192));
    }
}
