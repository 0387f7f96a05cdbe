//! One of the eight keyslot entries in a LUKS1 header, of 48 bytes:
//!
//! ```text
//!  0  state         0x00AC71F3 active, 0x0000DEAD disabled
//!  4  iterations    of PBKDF2
//!  8  salt          32 bytes
//! 40  key material  its offset in 512-byte sectors
//! 44  stripes       4000
//! ```

use alloc::format;

use super::STRIPES;
use crate::codec::{Reader, Writer};
use crate::error::FormatError;

pub(super) const ACTIVE: u32 = 0x00AC_71F3;
pub(super) const DISABLED: u32 = 0x0000_DEAD;

/// The length of an entry in bytes.
pub(super) const SIZE: u64 = 48;
pub(super) const KEY_MATERIAL_AT: u64 = 40;
pub(super) const STRIPES_AT: u64 = 44;

/// A keyslot, which may be disabled. A disabled keyslot keeps the place of its key material.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Keyslot {
    /// Whether the keyslot is active.
    pub active: bool,
    /// The iterations of PBKDF2. They have any value if the keyslot is disabled.
    pub iterations: u32,
    /// The salt of PBKDF2.
    pub salt: [u8; 32],
    /// The start of the key material, in 512-byte sectors.
    pub key_material_offset: u32,
    /// The number of anti-forensic stripes, 4000.
    pub stripes: u32,
}

impl Keyslot {
    pub(super) fn read(reader: &mut Reader<'_>, slot: usize) -> Result<Self, FormatError> {
        let at = reader.offset();
        let active = match reader.u32(&field(slot, "active"))? {
            ACTIVE => true,
            DISABLED => false,
            other => {
                let cause = format!(
                    "is {other:#010x}, neither {ACTIVE:#010x} (active) nor {DISABLED:#010x} (disabled)"
                );
                return Err(FormatError::malformed(field(slot, "active"), at, cause));
            }
        };
        Ok(Self {
            active,
            iterations: reader.u32(&field(slot, "iterations"))?,
            salt: reader.array(&field(slot, "salt"))?,
            key_material_offset: reader.u32(&field(slot, "key_material_offset"))?,
            stripes: reader.u32(&field(slot, "stripes"))?,
        })
    }

    pub(super) fn write(&self, writer: &mut Writer) {
        let state = if self.active { ACTIVE } else { DISABLED };
        writer
            .u32(state)
            .u32(self.iterations)
            .bytes(&self.salt)
            .u32(self.key_material_offset)
            .u32(self.stripes);
    }

    /// Checks that an active keyslot has iterations. `at` is the offset of its entry.
    pub(super) fn check_iterations(&self, slot: usize, at: u64) -> Result<(), FormatError> {
        if self.active && self.iterations == 0 {
            let at = at.saturating_add(4);
            return Err(FormatError::malformed(
                field(slot, "iterations"),
                at,
                "an active keyslot has no iterations",
            ));
        }
        Ok(())
    }

    /// Checks that the keyslot has as many stripes as every keyslot. `at` is the offset of its
    /// entry.
    pub(super) fn check_stripes(&self, slot: usize, at: u64) -> Result<(), FormatError> {
        if self.stripes != STRIPES {
            let cause = format!("is {}, not {STRIPES}", self.stripes);
            return Err(FormatError::malformed(
                field(slot, "stripes"),
                at.saturating_add(STRIPES_AT),
                cause,
            ));
        }
        Ok(())
    }
}

/// The name of a field, such as `keyslots.3.stripes`.
pub(super) fn field(slot: usize, name: &str) -> alloc::string::String {
    format!("keyslots.{slot}.{name}")
}

/// The offset of the field with the place of the key material, in an entry at `at`.
pub(super) fn key_material_at(at: u64) -> u64 {
    at.saturating_add(KEY_MATERIAL_AT)
}
