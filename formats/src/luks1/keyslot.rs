//! One of the eight keyslot descriptions in a LUKS1 header, 48 bytes:
//!
//! ```text
//! 0  state         0x00AC71F3 active, 0x0000DEAD disabled
//! 4  iterations    of PBKDF2
//! 8  salt          32 bytes
//! ```
//!    40  key material  its offset in 512-byte sectors
//!    44  stripes       4000

use alloc::format;

use super::STRIPES;
use crate::codec::{Reader, Writer};
use crate::error::FormatError;

const ACTIVE: u32 = 0x00AC_71F3;
const DISABLED: u32 = 0x0000_DEAD;

/// The length of the description in bytes.
pub(super) const SIZE: u64 = 48;
const KEY_MATERIAL_AT: u64 = 40;
const STRIPES_AT: u64 = 44;

/// A keyslot, in use or not. The place of its key material is kept while it is disabled.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Keyslot {
    /// Whether a passphrase is in it.
    pub active: bool,
    /// PBKDF2 iterations; whatever was left there when the slot is disabled.
    pub iterations: u32,
    /// PBKDF2 salt.
    pub salt: [u8; 32],
    /// Where the key material starts, in 512-byte sectors.
    pub key_material_offset: u32,
    /// Anti-forensic stripes: 4000.
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

    /// What can be said of a keyslot alone; `at` is where its description lies.
    pub(super) fn validate(&self, slot: usize, at: u64) -> Result<(), FormatError> {
        if self.active && self.iterations == 0 {
            let at = at.saturating_add(4);
            return Err(FormatError::malformed(
                field(slot, "iterations"),
                at,
                "an active keyslot has no iterations",
            ));
        }
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

/// A field's name, such as `keyslots.3.stripes`.
pub(super) fn field(slot: usize, name: &str) -> alloc::string::String {
    format!("keyslots.{slot}.{name}")
}

/// Where the offset of the key material is stored in a description that lies at `at`.
pub(super) fn key_material_at(at: u64) -> u64 {
    at.saturating_add(KEY_MATERIAL_AT)
}
