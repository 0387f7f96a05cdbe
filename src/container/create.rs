//! Creates a container: its layout, the volume key, and the first keyslot.
//!
//! The defaults are those of cryptsetup 2.6 to 2.9: LUKS2 with 16 KiB of metadata and data at 16
//! MiB, LUKS1 with data at 2 MiB, aes-xts-plain64 with a 512-bit key, sha256.

use std::sync::Arc;

use luksmith_formats::CipherSpec;
use luksmith_formats::Hash;
use luksmith_formats::Limits;
use luksmith_formats::luks1;
use luksmith_formats::luks2::{
    self, CryptSegment, HEADER_SIZES, Keyslot, Luks2Keyslot, Metadata, NewConfig, Position,
};
use uuid::Uuid;

use super::digest::KeyDigest;
use super::plan::WritePlan;
use super::rewrite::write_copies;
use super::{
    Container, CreateError, Header, Health, NewKeyslot, OpenOptions, Unlocked, Version,
    keyslot_info, keyslots, material, open as opening, undo,
};
use crate::Interrupt;
use crate::backend::Backend;
use crate::kdf::calibrate::Cost;
use crate::secret::{Passphrase, VolumeKey};

const SECTOR: u64 = 512;
const MIB: u64 = 1 << 20;
/// The unit, in bytes, of the offsets of areas in LUKS1 and of the sizes of areas in LUKS2.
const AREA_ALIGNMENT: u64 = 4096;
/// The size of both copies of the largest LUKS2 header with the largest keyslots area. LUKS1
/// headers are smaller.
const LARGEST_HEADER: u64 = 2 * HEADER_SIZES[HEADER_SIZES.len() - 1] + luks2::MAX_KEYSLOTS_SIZE;
/// The default offset of the data for LUKS2.
const LUKS2_DATA_OFFSET: u64 = 16 * MIB;

/// The parameters of a new container. [`CreateOptions::new`] has the defaults.
#[non_exhaustive]
pub struct CreateOptions {
    /// The version of the format.
    pub version: Version,
    /// The cipher of the data.
    pub cipher: CipherSpec,
    /// The size of the volume key in bytes. In XTS mode this counts both halves.
    pub key_size: usize,
    /// The hash of the anti-forensic splitter and of the digest. LUKS1 uses it for everything.
    pub hash: Hash,
    /// The encryption sector size in bytes: 512, or up to 4096 with LUKS2.
    pub sector_size: u32,
    /// The KDF of the first keyslot, and its cost.
    pub kdf: Cost,
    /// The PBKDF2 iterations of the digest of the volume key.
    pub digest_iterations: u32,
    /// The number of the first keyslot.
    pub keyslot: u32,
    /// The LUKS2 label, at most 47 bytes.
    pub label: String,
    /// The LUKS2 subsystem label, at most 47 bytes.
    pub subsystem: String,
    /// The UUID of the volume. `None` is a random one.
    pub uuid: Option<Uuid>,
    /// The offset of the data in bytes. For a detached header it is the offset on the storage of
    /// the data.
    pub data_offset: Option<u64>,
    /// LUKS2: the size of one copy of the header in bytes, with its binary and JSON parts: a power
    /// of two from 16 KiB to 4 MiB.
    pub metadata_size: Option<u64>,
    /// LUKS2: the size of the keyslots area in bytes: a multiple of 4096, at most 128 MiB.
    pub keyslots_size: Option<u64>,
    /// Whether the header is detached, on a storage of its own.
    pub detached: bool,
    /// The volume key. `None` is a random one.
    pub volume_key: Option<VolumeKey>,
    /// Whether the storage is known to contain nothing. Otherwise old headers and key material on
    /// it are overwritten.
    pub blank: bool,
}

/// The layout of a new container, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Layout {
    /// LUKS2: the size of one copy of the header. LUKS1: 0.
    pub metadata_size: u64,
    /// LUKS2: the size of the keyslots area. LUKS1: 0.
    pub keyslots_size: u64,
    /// The offset of the data. 0 for a detached header, unless the options state another one.
    pub data_offset: u64,
    /// The size that the header needs on its storage: everything before the data, or the whole of a
    /// detached header.
    pub header_size: u64,
}

impl CreateOptions {
    /// The defaults of a version, with this cost of the first keyslot.
    #[must_use]
    pub fn new(version: Version, kdf: Cost) -> Self {
        Self {
            version,
            cipher: CipherSpec::AES_XTS_PLAIN64,
            key_size: 64,
            hash: Hash::Sha256,
            sector_size: 512,
            kdf,
            digest_iterations: 1000,
            keyslot: 0,
            label: String::new(),
            subsystem: String::new(),
            uuid: None,
            data_offset: None,
            metadata_size: None,
            keyslots_size: None,
            detached: false,
            volume_key: None,
            blank: false,
        }
    }

    /// Changes the options to those of a header in a qcow2 image: LUKS1, which ends after the last
    /// keyslot. The data is elsewhere in the image.
    #[must_use]
    pub fn in_qcow2(mut self) -> Self {
        let areas = luks1::KEYSLOTS as u64 * luks1_area_size(self.key_size);
        self.version = Version::Luks1;
        self.data_offset = Some(AREA_ALIGNMENT + areas);
        self
    }

    /// Computes the layout.
    ///
    /// # Errors
    /// Returns [`CreateError::Option`], which names an option that contradicts the others or the
    /// format.
    pub fn layout(&self) -> Result<Layout, CreateError> {
        let wrong = |option, reason: &str| {
            Err(CreateError::Option {
                option,
                reason: reason.into(),
            })
        };
        if self.data_offset.is_some_and(|offset| offset % SECTOR != 0) {
            return wrong("offset", "must be whole 512-byte sectors");
        }
        match self.version {
            Version::Luks1 => {
                if self.metadata_size.is_some() {
                    return wrong("luks2-metadata-size", "is for LUKS2");
                }
                if self.keyslots_size.is_some() {
                    return wrong("luks2-keyslots-size", "is for LUKS2");
                }
                if self.sector_size != 512 {
                    return wrong("sector-size", "LUKS1 has sectors of 512 bytes only");
                }
                if !self.label.is_empty() || !self.subsystem.is_empty() {
                    return wrong("label", "LUKS1 has no labels");
                }
                self.luks1_layout()
            }
            Version::Luks2 => self.luks2_layout(),
        }
    }

    /// The layout on a storage of this size, if the volume can be made there.
    pub(super) fn layout_within(&self, size: u64) -> Result<Layout, CreateError> {
        self.cipher.check_writable()?;
        self.cipher.check_key_size(self.key_size)?;
        let layout = self.layout()?;
        match layout.header_size {
            needed if size < needed => Err(CreateError::TooSmall { size, needed }),
            _ => Ok(layout),
        }
    }

    fn luks1_layout(&self) -> Result<Layout, CreateError> {
        let areas_end = AREA_ALIGNMENT + luks1::KEYSLOTS as u64 * luks1_area_size(self.key_size);
        let data_offset = match (self.detached, self.data_offset) {
            (true, None) => 0,
            (true, Some(offset)) => offset,
            (false, None) => areas_end.next_multiple_of(MIB),
            (false, Some(offset)) if offset < areas_end => {
                let reason = format!("the header needs {} sectors", areas_end / SECTOR);
                return Err(CreateError::Option {
                    option: "offset",
                    reason,
                });
            }
            (false, Some(offset)) => offset,
        };
        let header_size = if self.detached {
            areas_end
        } else {
            data_offset
        };
        Ok(Layout {
            metadata_size: 0,
            keyslots_size: 0,
            data_offset,
            header_size,
        })
    }

    fn luks2_layout(&self) -> Result<Layout, CreateError> {
        let wrong = |option, reason: String| Err(CreateError::Option { option, reason });
        let metadata_size = self.metadata_size.unwrap_or(HEADER_SIZES[0]);
        if !HEADER_SIZES.contains(&metadata_size) {
            return wrong(
                "luks2-metadata-size",
                "must be a power of two from 16k to 4m".into(),
            );
        }
        let copies = metadata_size * 2;
        let area = Luks2Keyslot::area_size(u32::try_from(self.key_size).unwrap_or(u32::MAX));
        let limit = Limits::default().keyslots_size;
        // Without a stated size, the keyslots area fills the space before the data.
        let before_data = match self.data_offset {
            Some(offset) if !self.detached => offset,
            _ => LUKS2_DATA_OFFSET.max(copies + area.next_multiple_of(MIB)),
        };
        let keyslots_size = match self.keyslots_size {
            Some(size) => size,
            None => before_data.saturating_sub(copies).min(limit) / AREA_ALIGNMENT * AREA_ALIGNMENT,
        };
        if keyslots_size % AREA_ALIGNMENT != 0 || keyslots_size > limit {
            return wrong(
                "luks2-keyslots-size",
                format!("must be a multiple of 4096, at most {limit}"),
            );
        }
        if keyslots_size < area {
            let option = if self.keyslots_size.is_some() {
                "luks2-keyslots-size"
            } else {
                "offset"
            };
            return wrong(
                option,
                format!("one keyslot needs {area} bytes after {copies} bytes of metadata"),
            );
        }
        let end = copies + keyslots_size;
        let data_offset = match (self.detached, self.data_offset) {
            (true, None) => 0,
            (true, Some(offset)) => offset,
            (false, None) => end.next_multiple_of(MIB),
            (false, Some(offset)) if offset < end => {
                return wrong(
                    "offset",
                    format!("the header needs {} sectors", end.div_ceil(SECTOR)),
                );
            }
            (false, Some(offset)) => offset,
        };
        if data_offset % u64::from(self.sector_size) != 0 {
            return wrong(
                "offset",
                format!("must be a multiple of the sector size {}", self.sector_size),
            );
        }
        let header_size = if self.detached { end } else { data_offset };
        Ok(Layout {
            metadata_size,
            keyslots_size,
            data_offset,
            header_size,
        })
    }
}

impl Container {
    /// Makes a container at the start of `storage`, and returns it unlocked. The storage has to
    /// have at least [`Layout::header_size`] bytes.
    ///
    /// A container that was on the storage before can no longer be opened. An undo record of it is
    /// removed.
    ///
    /// # Errors
    /// Returns [`CreateError`]. A crash before the end leaves no container.
    pub fn create(
        storage: Arc<dyn Backend>,
        mut options: CreateOptions,
        open: OpenOptions,
        passphrase: &Passphrase,
        interrupt: &Interrupt,
    ) -> Result<(Self, Unlocked), CreateError> {
        let size = storage.geometry().size;
        let layout = options.layout_within(size)?;
        let key = match options.volume_key.take() {
            Some(key) if key.as_bytes().len() != options.key_size => {
                let reason = format!(
                    "has {} bytes, the cipher's key {}",
                    key.as_bytes().len(),
                    options.key_size
                );
                return Err(CreateError::Option {
                    option: "volume-key-file",
                    reason,
                });
            }
            Some(key) => key,
            None => VolumeKey::random(options.key_size)?,
        };
        let digest = KeyDigest::new(&key, options.hash, options.digest_iterations, interrupt)
            .map_err(super::KeyslotError::from)?;
        let mut unlocked = Unlocked {
            slot: Some(options.keyslot),
            mark: None,
            key,
            bound: true,
            digest,
            other: None,
        };
        let new_slot = options.keyslot;
        let new = NewKeyslot::new(passphrase, options.kdf).slot(new_slot);
        let mut plan = WritePlan::default();
        if !options.blank {
            destroy(&mut plan, size, &layout)?;
        }
        let lay_out = match options.version {
            Version::Luks1 => luks1_container,
            Version::Luks2 => luks2_container,
        };
        let header = lay_out(
            &mut plan,
            &options,
            &layout,
            &unlocked,
            &new,
            &open.limits,
            interrupt,
        )?;
        plan.execute(&*storage, None)?;
        if let Some(undo) = open.undo.store() {
            undo::discard(undo).map_err(super::CommitError::from)?;
        }
        let fingerprint =
            opening::current_fingerprint(&*storage, &header).map_err(super::CommitError::from)?;
        let container = Self {
            storage,
            options: open,
            header,
            health: Health::Good,
            fingerprint,
            pin: None,
        };
        let mark = container.keyslot_mark(new_slot);
        unlocked.mark = mark.map_err(super::CommitError::from)?;
        Ok((container, unlocked))
    }
}

/// Overwrites every place of a header or of key material. Otherwise an old secondary header could
/// be found later and bring the old volume back.
fn destroy(plan: &mut WritePlan, size: u64, layout: &Layout) -> Result<(), CreateError> {
    for offset in [0].into_iter().chain(HEADER_SIZES) {
        if offset + AREA_ALIGNMENT <= size {
            plan.write(offset, vec![0; 4096]);
        }
    }
    plan.flush();
    // The data may start far after the last possible place of key material.
    let end = layout.header_size.min(LARGEST_HEADER);
    plan.wipe(AREA_ALIGNMENT..end)?;
    Ok(())
}

fn luks1_container(
    plan: &mut WritePlan,
    options: &CreateOptions,
    layout: &Layout,
    unlocked: &Unlocked,
    new: &NewKeyslot<'_>,
    limits: &Limits,
    interrupt: &Interrupt,
) -> Result<Header, CreateError> {
    let index = options.keyslot as usize;
    if index >= luks1::KEYSLOTS {
        return Err(CreateError::Option {
            option: "keyslot",
            reason: "LUKS1 has keyslots 0 to 7".into(),
        });
    }
    let digest = &unlocked.digest;
    let area = luks1_area_size(options.key_size);
    let (cipher_name, cipher_mode) = options.cipher.luks1_names();
    let mut header = luks1::Header {
        cipher_name,
        cipher_mode,
        hash_name: options.hash.name().into(),
        payload_offset: sectors("offset", layout.data_offset)?,
        key_bytes: u32::try_from(options.key_size).unwrap_or(u32::MAX),
        digest: digest.digest.first_chunk().copied().unwrap_or([0; 20]),
        digest_salt: digest.salt.first_chunk().copied().unwrap_or([0; 32]),
        digest_iterations: digest.iterations,
        uuid: options.uuid.unwrap_or_else(Uuid::new_v4).to_string(),
        keyslots: std::array::from_fn(|slot| luks1::Keyslot {
            active: false,
            iterations: 0,
            salt: [0; 32],
            // At most 8 areas of a few hundred KiB, so far fewer than 2^32 sectors.
            key_material_offset: u32::try_from((AREA_ALIGNMENT + slot as u64 * area) / SECTOR)
                .unwrap_or(u32::MAX),
            stripes: luks1::STRIPES,
        }),
    };
    keyslots::set_luks1_kdf(&mut header, index, new)?;
    header.keyslots[index].active = true;
    header.validate()?;
    let sealing = keyslot_info::luks1_sealing(&header, index)?;
    plan.write(
        header.area(index).start,
        material::seal(&unlocked.key, new.passphrase, &sealing, limits, interrupt)?,
    );
    plan.flush();
    plan.write(0, header.to_bytes().to_vec());
    plan.flush();
    Ok(Header::Luks1(header))
}

fn luks2_container(
    plan: &mut WritePlan,
    options: &CreateOptions,
    layout: &Layout,
    unlocked: &Unlocked,
    new: &NewKeyslot<'_>,
    limits: &Limits,
    interrupt: &Interrupt,
) -> Result<Header, CreateError> {
    let (header, keyslot) = luks2_header(options, layout, &unlocked.digest, new)?;
    let sealing = keyslot_info::luks2_sealing(&keyslot);
    plan.write(
        keyslot.area.offset,
        material::seal(&unlocked.key, new.passphrase, &sealing, limits, interrupt)?,
    );
    plan.flush();
    write_copies(plan, &header, [Position::Primary, Position::Secondary])?;
    Ok(Header::Luks2(header))
}

/// The header of a new LUKS2 volume, and its first keyslot.
pub(super) fn luks2_header(
    options: &CreateOptions,
    layout: &Layout,
    digest: &KeyDigest,
    new: &NewKeyslot<'_>,
) -> Result<(luks2::Header, Luks2Keyslot), CreateError> {
    let mut header = luks2::Header {
        hdr_size: layout.metadata_size,
        seqid: 1,
        label: options.label.clone(),
        subsystem: options.subsystem.clone(),
        uuid: options.uuid.unwrap_or_else(Uuid::new_v4).to_string(),
        checksum: Hash::Sha256,
        metadata: Metadata::new(NewConfig {
            json_size: layout.metadata_size - luks2::ALIGNMENT,
            keyslots_size: layout.keyslots_size,
        }),
    };
    let segment = CryptSegment::new(layout.data_offset, options.cipher, options.sector_size);
    let protection = keyslots::Protection {
        encryption: options.cipher,
        key_size: u32::try_from(options.key_size).unwrap_or(u32::MAX),
        hash: options.hash,
    };
    let keyslot = keyslots::luks2_keyslot(&header, options.key_size, new, protection, &[])?;
    let digest = digest.clone().into_luks2(vec![options.keyslot], vec![0]);
    header.metadata.edit(|draft| {
        draft.set_keyslot(options.keyslot, &Keyslot::Luks2(keyslot.clone()))?;
        draft.set_segment(0, &luks2::Segment::Crypt(segment))?;
        draft.set_digest(0, &digest)
    })?;
    Ok((header, keyslot))
}

fn luks1_area_size(key_size: usize) -> u64 {
    (key_size as u64 * u64::from(luks1::STRIPES)).next_multiple_of(AREA_ALIGNMENT)
}

fn sectors(option: &'static str, bytes: u64) -> Result<u32, CreateError> {
    u32::try_from(bytes / SECTOR).map_err(|_| CreateError::Option {
        option,
        reason: "LUKS1 counts at most 2^32 - 1 sectors".into(),
    })
}
