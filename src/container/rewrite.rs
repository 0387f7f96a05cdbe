//! Plans the writes of a changed header, and commits them.
//!
//! LUKS2 (On-Disk Format 1.1, section 2): the copies are written one after the other with a flush
//! between, so that one valid copy exists at any moment. A damaged or stale copy is written first,
//! since the other one is the only good copy. LUKS1 has one copy without a checksum, and relies on
//! the atomic write of a 512-byte sector. Only changed sectors are written, in an order that keeps
//! a half-written keyslot inactive.

use luksmith_formats::luks2::Position;
use luksmith_formats::trust::pin::KeyPrint;
use luksmith_formats::{luks1, luks2};

use super::plan::WritePlan;
use super::{CommitError, Container, Header, Health, foreign, open};

const SECTOR: usize = 512;

impl Container {
    /// Executes `plan`, which results in the header `next`. Fails if the header has changed since
    /// it was read.
    pub(super) fn commit(&mut self, plan: &WritePlan, next: Header) -> Result<(), CommitError> {
        self.commit_with_keys(plan, next, &[])
    }

    /// As [`commit`](Self::commit), for a change that gives the volume further keys.
    pub(super) fn commit_with_keys(
        &mut self,
        plan: &WritePlan,
        next: Header,
        keys: &[KeyPrint],
    ) -> Result<(), CommitError> {
        self.check_unchanged()?;
        if self.options.beside {
            self.check_beside(plan)?;
        }
        let changing = self.begin_pin(plan, &next, keys)?;
        plan.execute(&*self.storage, self.options.undo.store())?;
        self.end_pin(changing);
        self.fingerprint = open::current_fingerprint(&*self.storage, &next)?;
        self.header = next;
        self.health = Health::Good;
        Ok(())
    }

    /// Checks that the header on the storage is still the one that was read or written last.
    ///
    /// # Errors
    /// Returns [`CommitError::Changed`] if it is not, or an error of the storage.
    pub fn check_unchanged(&self) -> Result<(), CommitError> {
        if open::current_fingerprint(&*self.storage, &self.header)? == self.fingerprint {
            Ok(())
        } else {
            Err(CommitError::Changed)
        }
    }

    /// Checks that the plan is safe while another program has the volume open, or opens it during
    /// the change.
    fn check_beside(&self, plan: &WritePlan) -> Result<(), CommitError> {
        let data = self.data_segment().map_or(0, |segment| segment.offset);
        // A write to a part of a block also writes the rest of the block, with the bytes that were
        // read immediately before.
        let block = u64::from(self.storage.geometry().block_size.max(1));
        if plan.overwrites_in_place() || plan.end().next_multiple_of(block) > data {
            return Err(CommitError::InUse);
        }
        Ok(())
    }

    /// Adds the steps that write the LUKS2 header `next`, and gives it the next sequence number.
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
            next.seqid = match header.seqid.checked_add(1) {
                Some(seqid) => seqid,
                // A repair writes the same content.
                None if next == header => header.seqid,
                // The new copies could not be told from the old ones.
                None => return Err(CommitError::Sequence),
            };
        }
        let order = match self.health {
            Health::Good | Health::PrimaryDamaged(_) | Health::PrimaryStale => {
                [Position::Primary, Position::Secondary]
            }
            Health::SecondaryDamaged(_) | Health::SecondaryStale | Health::CopiesDiffer => {
                [Position::Secondary, Position::Primary]
            }
        };
        write_copies(plan, next, order)
    }
}

/// Adds the steps that write both copies of `header` in this order. The first is durable before the
/// second is written.
pub(super) fn write_copies(
    plan: &mut WritePlan,
    header: &luks2::Header,
    order: [Position; 2],
) -> Result<(), CommitError> {
    for position in order {
        // Each copy has its own random salt, so no copy is ever equal to another one or to an old
        // one.
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

/// The order in which the two sectors of a LUKS1 header are written. Keyslot 6 crosses the
/// boundary: its `active` field is in the first sector, and the rest of its salt in the second.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum SectorOrder {
    /// A keyslot becomes active: all its fields are written before the `active` field.
    Activate,
    /// A keyslot becomes inactive: the `active` field is written before all its other fields.
    Deactivate,
}

/// Adds the steps that change the LUKS1 header `old` to `new`.
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
