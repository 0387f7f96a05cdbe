//! The LUKS1 header:
//!
//! ```text
//!   0  magic, version 1          108  key length in bytes
//!   8  cipher name    32         112  digest            20
//!  40  cipher mode    32         132  digest salt       32
//!  72  hash           32         164  digest iterations
//! 104  payload offset            168  UUID              40
//!                                208  eight keyslots of 48 bytes
//! ```
//!
//! Key material that overlaps the header, the payload or other key material is refused. This
//! includes disabled keyslots, whose key material is written when they are enabled.
//!
//! A name of a cipher or a hash that is not known does not make a header invalid. It is refused
//! where it is used.

use alloc::format;
use alloc::string::String;
use core::ops::Range;

use super::keyslot::{self, Keyslot};
use super::{HEADER_SIZE, KEYSLOTS, SECTOR_SIZE};
use crate::cipher::{CipherError, CipherSpec};
use crate::codec::{Reader, Writer, check_text};
use crate::error::FormatError;
use crate::hash::Hash;
use crate::limits::Limits;
use crate::version::MAGIC;

const CIPHER_NAME_AT: u64 = 8;
const CIPHER_MODE_AT: u64 = 40;
const HASH_AT: u64 = 72;
const PAYLOAD_AT: u64 = 104;
const KEY_BYTES_AT: u64 = 108;
const DIGEST_ITERATIONS_AT: u64 = 164;
const UUID_AT: u64 = 168;
const KEYSLOTS_AT: u64 = 208;
const NAME_LEN: usize = 32;
const UUID_LEN: usize = 40;

/// A LUKS1 header. Names are kept as they were read, so that a rewrite does not change them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Header {
    /// The cipher name, such as `aes`.
    pub cipher_name: String,
    /// The mode and the IV generator, such as `xts-plain64`.
    pub cipher_mode: String,
    /// The hash of PBKDF2, the anti-forensic splitter and the digest.
    pub hash_name: String,
    /// The start of the payload in 512-byte sectors. 0 for a detached header.
    pub payload_offset: u32,
    /// The length of the volume key in bytes.
    pub key_bytes: u32,
    /// The digest of the volume key: PBKDF2 of it.
    pub digest: [u8; 20],
    /// The salt of the digest.
    pub digest_salt: [u8; 32],
    /// The iterations of the digest.
    pub digest_iterations: u32,
    /// The UUID as text.
    pub uuid: String,
    /// The keyslots.
    pub keyslots: [Keyslot; KEYSLOTS],
}

impl Header {
    /// Reads the header at the start of a device, and checks where it says that everything is.
    /// Bytes after the header are ignored.
    ///
    /// Whether it can be used is not checked here: see [`check_usable`](Self::check_usable) and
    /// [`Limits::check_pbkdf2`].
    ///
    /// # Errors
    /// Returns a [`FormatError`] that names the first field which breaks a rule, and its offset.
    pub fn parse(bytes: &[u8], limits: &Limits) -> Result<Self, FormatError> {
        let header = Self::read(bytes)?;
        header.check_places()?;
        header.check_limits(limits)?;
        Ok(header)
    }

    pub(super) fn read(bytes: &[u8]) -> Result<Self, FormatError> {
        let mut reader = Reader::new(bytes, 0);
        if reader.array::<6>("magic")? != MAGIC {
            return Err(FormatError::malformed("magic", 0, "not a LUKS header"));
        }
        match reader.u16("version")? {
            1 => {}
            2 => {
                return Err(FormatError::unsupported(
                    "version",
                    6,
                    "this is a LUKS2 header, not a LUKS1 one",
                ));
            }
            other => {
                let cause = format!("LUKS version {other} is not known");
                return Err(FormatError::unsupported("version", 6, cause));
            }
        }
        let mut header = Self {
            cipher_name: reader.text(NAME_LEN, "cipher_name")?,
            cipher_mode: reader.text(NAME_LEN, "cipher_mode")?,
            hash_name: reader.text(NAME_LEN, "hash_name")?,
            payload_offset: reader.u32("payload_offset")?,
            key_bytes: reader.u32("key_bytes")?,
            digest: reader.array("digest")?,
            digest_salt: reader.array("digest_salt")?,
            digest_iterations: reader.u32("digest_iterations")?,
            uuid: reader.text(UUID_LEN, "uuid")?,
            keyslots: Default::default(),
        };
        for (slot, keyslot) in header.keyslots.iter_mut().enumerate() {
            *keyslot = Keyslot::read(&mut reader, slot)?;
        }
        Ok(header)
    }

    /// The bytes of the header. The caller validates it first, since names that are too long are
    /// cut.
    pub fn to_bytes(&self) -> [u8; HEADER_SIZE] {
        let mut writer = Writer::default();
        writer
            .bytes(&MAGIC)
            .u16(1)
            .text(&self.cipher_name, NAME_LEN)
            .text(&self.cipher_mode, NAME_LEN)
            .text(&self.hash_name, NAME_LEN)
            .u32(self.payload_offset)
            .u32(self.key_bytes)
            .bytes(&self.digest)
            .bytes(&self.digest_salt)
            .u32(self.digest_iterations)
            .text(&self.uuid, UUID_LEN);
        for keyslot in &self.keyslots {
            keyslot.write(&mut writer);
        }
        let mut out = [0; HEADER_SIZE];
        for (to, from) in out.iter_mut().zip(writer.finish()) {
            *to = from;
        }
        out
    }

    /// The cipher of the payload and of the key material.
    ///
    /// # Errors
    /// Returns a [`FormatError`] of kind [`Unsupported`](crate::Kind::Unsupported) if the names are
    /// no known cipher, or if the cipher has no keys of the stated length.
    pub fn cipher(&self) -> Result<CipherSpec, FormatError> {
        let refused = |refusal: CipherError| {
            // If the name is refused with a valid mode too, then the name is at fault.
            let (field, at) = match CipherSpec::from_luks1(&self.cipher_name, "cbc-plain") {
                Ok(_) => ("cipher_mode", CIPHER_MODE_AT),
                Err(_) => ("cipher_name", CIPHER_NAME_AT),
            };
            FormatError::unsupported(field, at, format!("{refusal}"))
        };
        let cipher =
            CipherSpec::from_luks1(&self.cipher_name, &self.cipher_mode).map_err(refused)?;
        let key_bytes = usize::try_from(self.key_bytes).unwrap_or(usize::MAX);
        match cipher.check_key_size(key_bytes) {
            Ok(()) => Ok(cipher),
            Err(refusal) => Err(FormatError::unsupported(
                "key_bytes",
                KEY_BYTES_AT,
                format!("{refusal}"),
            )),
        }
    }

    /// The hash of PBKDF2, of the splitter and of the digest.
    ///
    /// # Errors
    /// Returns a [`FormatError`] of kind [`Unsupported`](crate::Kind::Unsupported) if the name is
    /// no known hash.
    pub fn hash(&self) -> Result<Hash, FormatError> {
        Hash::parse(&self.hash_name)
            .map_err(|unknown| FormatError::unsupported("hash_name", HASH_AT, format!("{unknown}")))
    }

    /// The start of the payload in bytes. 0 for a detached header.
    pub fn data_offset(&self) -> u64 {
        u64::from(self.payload_offset).saturating_mul(SECTOR_SIZE)
    }

    /// The range of the key material of a keyslot in bytes, in whole 512-byte sectors. Empty if
    /// there is no such keyslot.
    pub fn area(&self, slot: usize) -> Range<u64> {
        let Some(keyslot) = self.keyslots.get(slot) else {
            return 0..0;
        };
        let start = u64::from(keyslot.key_material_offset).saturating_mul(SECTOR_SIZE);
        let length = u64::from(self.key_bytes).saturating_mul(u64::from(keyslot.stripes));
        let sectors = length.div_ceil(SECTOR_SIZE);
        start..start.saturating_add(sectors.saturating_mul(SECTOR_SIZE))
    }

    /// Checks every rule of the format. The caller does this before it writes a new header.
    ///
    /// # Errors
    /// Returns a [`FormatError`] that names the first field which breaks a rule, and its offset.
    pub fn validate(&self) -> Result<(), FormatError> {
        check_text(&self.cipher_name, NAME_LEN, "cipher_name", CIPHER_NAME_AT)?;
        check_text(&self.cipher_mode, NAME_LEN, "cipher_mode", CIPHER_MODE_AT)?;
        check_text(&self.hash_name, NAME_LEN, "hash_name", HASH_AT)?;
        check_text(&self.uuid, UUID_LEN, "uuid", UUID_AT)?;
        self.check_usable()?;
        self.check_places()
    }

    /// Checks that the volume can be opened: that the cipher and the hash are known, and that
    /// nothing has an impossible cost. The keyslots in use are checked too.
    ///
    /// # Errors
    /// Returns a [`FormatError`] that names the first field which cannot be used, and its offset.
    pub fn check_usable(&self) -> Result<(), FormatError> {
        self.hash()?;
        self.cipher()?;
        self.check_digest()?;
        (0..KEYSLOTS).try_for_each(|slot| self.check_keyslot(slot))
    }

    /// Checks that the digest can be computed, apart from its hash.
    ///
    /// # Errors
    /// Returns a [`FormatError`] if it has no iterations.
    pub fn check_digest(&self) -> Result<(), FormatError> {
        if self.digest_iterations == 0 {
            let cause = "the digest has no iterations";
            return Err(FormatError::malformed(
                "digest_iterations",
                DIGEST_ITERATIONS_AT,
                cause,
            ));
        }
        Ok(())
    }

    /// Checks that a keyslot can be opened, if it is in use.
    ///
    /// # Errors
    /// Returns a [`FormatError`] if it has no iterations.
    pub fn check_keyslot(&self, slot: usize) -> Result<(), FormatError> {
        match self.keyslots.get(slot) {
            Some(keyslot) => keyslot.check_iterations(slot, keyslot_at(slot)),
            None => Ok(()),
        }
    }

    /// Checks that the header, the key material and the payload do not overlap.
    fn check_places(&self) -> Result<(), FormatError> {
        if self.key_bytes == 0 {
            let cause = "the key has no bytes";
            return Err(FormatError::malformed("key_bytes", KEY_BYTES_AT, cause));
        }
        if self.payload_offset != 0 && self.data_offset() < HEADER_SIZE as u64 {
            let cause = "the payload overlaps the header";
            return Err(FormatError::malformed("payload_offset", PAYLOAD_AT, cause));
        }
        for (slot, keyslot) in self.keyslots.iter().enumerate() {
            keyslot.check_stripes(slot, keyslot_at(slot))?;
            self.validate_area(slot)?;
        }
        Ok(())
    }

    /// Checks that the key material of a keyslot does not overlap the header, the payload, or that
    /// of the keyslots before it.
    fn validate_area(&self, slot: usize) -> Result<(), FormatError> {
        let refuse = |cause: String| {
            let at = keyslot::key_material_at(keyslot_at(slot));
            Err(FormatError::malformed(
                keyslot::field(slot, "key_material_offset"),
                at,
                cause,
            ))
        };
        let area = self.area(slot);
        if area.start < HEADER_SIZE as u64 {
            return refuse(format!(
                "the key material at byte {} overlaps the header",
                area.start
            ));
        }
        if self.payload_offset != 0 && area.end > self.data_offset() {
            let (end, payload) = (area.end, self.data_offset());
            return refuse(format!(
                "the key material ends at byte {end}, after the payload's start at byte {payload}"
            ));
        }
        for other in 0..slot {
            let before = self.area(other);
            if area.start < before.end && before.start < area.end {
                return refuse(format!(
                    "the key material at byte {} overlaps that of keyslot {other}",
                    area.start
                ));
            }
        }
        Ok(())
    }

    fn check_limits(&self, limits: &Limits) -> Result<(), FormatError> {
        for slot in 0..KEYSLOTS {
            let end = self.area(slot).end;
            if end > limits.keyslots_size {
                let cause = format!(
                    "the key material ends at byte {end}; the limit is {}",
                    limits.keyslots_size
                );
                let at = keyslot::key_material_at(keyslot_at(slot));
                return Err(FormatError::over_limit(
                    keyslot::field(slot, "key_material_offset"),
                    at,
                    cause,
                ));
            }
        }
        Ok(())
    }
}

pub(super) fn keyslot_at(slot: usize) -> u64 {
    keyslot::SIZE
        .saturating_mul(slot as u64)
        .saturating_add(KEYSLOTS_AT)
}
