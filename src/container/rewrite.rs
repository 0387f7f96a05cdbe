//! From a changed header to the steps that bring it to the storage, and the commit of such a change.
//!
//! LUKS2 (On-Disk Format 1.1, section 2): one copy after the other with a flush between, so that one valid copy is
//! there at any moment; a damaged or stale copy is written first, because the other one is all there is. LUKS1 has
//! one copy without a checksum and relies on a 512-byte sector being written whole or not at all: only changed
//! sectors are written, in an order that keeps a half-written keyslot inactive.

use luksmith_formats::luks2::Position;
use luksmith_formats::{luks1, luks2};

use super::plan::WritePlan;
use super::{CommitError, Container, Header, Health, foreign, open};

const SECTOR: usize = 512;

impl Container {
    /// Carries out `plan`, which leads to the header `next`, unless the storage has changed since it was read.
    pub(super) fn commit(&mut self, plan: &WritePlan, next: Header) -> Result<(), CommitError> {
        self.check_unchanged()?;
        if self.options.beside {
            self.check_beside(plan)?;
        }
        plan.execute(&*self.storage, self.options.undo.store())?;
        self.fingerprint = open::current_fingerprint(&*self.storage, &next)?;
        self.header = next;
        self.health = Health::Good;
        Ok(())
    }

    /// Whether the header on the storage is still the one that was read or written last.
    ///
    /// # Errors
    /// [`CommitError::Changed`] where it is not, and what the storage says.
    pub fn check_unchanged(&self) -> Result<(), CommitError> {
        if open::current_fingerprint(&*self.storage, &self.header)? == self.fingerprint {
            Ok(())
        } else {
            Err(CommitError::Changed)
        }
    }

    /// Whether who has the data open, or opens the header in the middle of the change, notices nothing of it.
    fn check_beside(&self, plan: &WritePlan) -> Result<(), CommitError> {
        let data = self.data_segment().map_or(0, |segment| segment.offset);
        // What is written in part of a block writes the rest of it, too, as it was read a moment ago.
        let block = u64::from(self.storage.geometry().block_size.max(1));
        if plan.overwrites_in_place() || plan.end().next_multiple_of(block) > data {
            return Err(CommitError::InUse);
        }
        Ok(())
    }

    /// Adds the steps that bring the LUKS2 header `next` to the storage, and gives it the next sequence number.
    pub(super) fn write_luks2(
        &self,
        plan: &mut WritePlan,
        next: &mut luks2::Header,
    ) -> Result<(), CommitError> {
        if matches!(self.health, Health::PrimaryDamaged(_))
            && let Some(what) = foreign::signature(&*self.storage)?
        {
            return Err(CommitError::Foreign(what));
        }
        if let Header::Luks2(header) = &self.header {
            next.seqid = header.seqid.saturating_add(1);
        }
        let order = match self.health {
            Health::Good | Health::PrimaryDamaged(_) | Health::PrimaryStale => {
                [Position::Primary, Position::Secondary]
            }
            Health::SecondaryDamaged(_) | Health::SecondaryStale => {
                [Position::Secondary, Position::Primary]
            }
        };
        write_copies(plan, next, order)
    }
}

/// Writes both copies of `header` in this order, each durable before the next.
pub(super) fn write_copies(
    plan: &mut WritePlan,
    header: &luks2::Header,
    order: [Position; 2],
) -> Result<(), CommitError> {
    for position in order {
        // Each copy has a salt of its own: the two never look alike, and an old one is never taken for the new.
        let mut salt = [0; 64];
        crate::secret::random(&mut salt)?;
        let bytes = header.to_bytes(position, &salt)?;
        let offset = match position {
            Position::Primary => 0,
            Position::Secondary => header.hdr_size,
        };
        plan.write(offset, bytes);
        plan.flush();
    }
    Ok(())
}

/// Which sector of a LUKS1 header goes first. Keyslot 6 lies across the boundary: its `active` field in the first
/// sector, the rest of its salt in the second.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum SectorOrder {
    /// A keyslot becomes active: whatever belongs to it is there before it counts.
    Activate,
    /// A keyslot becomes inactive: it no longer counts before anything of it goes.
    Deactivate,
}

/// Adds the steps that turn the LUKS1 header `old` into `new`.
pub(super) fn write_luks1(
    plan: &mut WritePlan,
    old: &luks1::Header,
    new: &luks1::Header,
    order: SectorOrder,
) {
    let (old, new) = (old.to_bytes(), new.to_bytes());
    let mut sectors: Vec<_> = old
        .chunks(SECTOR)
        .zip(new.chunks(SECTOR))
        .enumerate()
        .collect();
    if order == SectorOrder::Activate {
        sectors.reverse();
    }
    for (index, (before, after)) in sectors {
        if before != after {
            plan.write((index * SECTOR) as u64, after.to_vec());
            plan.flush();
        }
    }
}
