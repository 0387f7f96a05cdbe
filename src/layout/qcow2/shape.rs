//! Validates the header of an image that is opened, and keeps the values that do not change
//! afterwards.
//!
//! Reference: QEMU's `docs/interop/qcow2.txt`, "Header" and "Header extensions". The limits are the
//! same as those of `inspect`. Here the first violation is an error.

use luksmith_formats::FormatError;
use luksmith_formats::image::qcow2::{
    self, BITMAPS, COMPRESSION, CORRUPT, DATA_FILE, DIRTY, EXT_CRYPTO, EXT_DATA_FILE, EXTENDED_L2,
    Header, LARGEST_L1, LARGEST_REFCOUNT_TABLE, V2_LENGTH, V3_LENGTH, ZLIB, ZSTD,
};

use crate::backend::{Backend, Geometry, IoError};
use crate::door;

/// Why an image cannot be opened or made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ImageError {
    /// The storage does not start with the magic of qcow2.
    #[error("not a qcow2 image")]
    NotQcow2,
    /// The image names a backing file, which contains part of its data.
    #[error("the image names a backing file")]
    BackingFile,
    /// The image names a data file, which contains its data.
    #[error("the data of the image is in another file")]
    DataFile,
    /// The image has no LUKS header.
    #[error("the image is not encrypted with LUKS")]
    NotEncrypted,
    /// The image is encrypted, and would have to be read with its key.
    #[error("the image is encrypted")]
    Encrypted,
    /// A field of the header is malformed, or needs something that is not supported.
    #[error(transparent)]
    Header(#[from] FormatError),
    /// The image was not closed, or is damaged. It has to be repaired before it can be written.
    #[error("the image is marked as {0}")]
    NeedsRepair(&'static str),
    /// The image has persistent bitmaps, which a write would make wrong.
    #[error("the image has persistent bitmaps")]
    Bitmaps,
    /// An image cannot have this size, or clusters of this size.
    #[error("{0}")]
    Size(String),
    /// The storage failed, or ends before the image.
    #[error(transparent)]
    Io(#[from] IoError),
}

/// The offset of the autoclear features in the header.
pub(super) const AUTOCLEAR: u64 = 88;

const KNOWN: u64 = DIRTY | CORRUPT | DATA_FILE | COMPRESSION | EXTENDED_L2;

/// The values of an image that do not change while it is open.
#[derive(Clone, Debug)]
pub(super) struct Shape {
    /// The header as it was read. The size and the places of tables may have changed since.
    pub(super) header: Header,
    /// The size of a cluster in bytes.
    pub(super) cluster: u64,
    /// The offset and the length of the LUKS header. Both are 0 in an image that is not encrypted.
    pub(super) crypto: (u64, u64),
}

impl Shape {
    /// Reads and validates the header.
    pub(super) fn read(storage: &dyn Backend) -> Result<Self, ImageError> {
        let geometry = storage.geometry();
        let mut shape = Self::of_header(storage)?;
        check_data(&shape.header)?;
        check_encrypted(&shape.header)?;
        let extensions = Extensions::read(storage, &shape)?;
        if extensions.data_file.is_some() {
            return Err(ImageError::DataFile);
        }
        shape.crypto = extensions.crypto()?;
        if !geometry.read_only {
            shape.check_change()?;
        }
        shape.check_places(geometry)?;
        Ok(shape)
    }

    /// The same for work on the LUKS header only. The data may be in other files, and the tables of
    /// the image may be damaged. Also returns the names of the other files.
    pub(super) fn read_for_header(storage: &dyn Backend) -> Result<(Self, Others), ImageError> {
        let geometry = storage.geometry();
        let (shape, others) = Self::read_begin(storage)?;
        if !geometry.read_only && shape.header.incompatible & CORRUPT != 0 {
            return Err(ImageError::NeedsRepair("damaged"));
        }
        shape.check_cluster(geometry)?;
        let crypto = shape.crypto;
        shape.check_place(geometry, ("encryption header", crypto.0, crypto))?;
        shape.check_overlap(|part| part.0 == crypto.0)?;
        Ok((shape, others))
    }

    /// What the first cluster of an image says of its LUKS header and of other files.
    pub(super) fn read_begin(storage: &dyn Backend) -> Result<(Self, Others), ImageError> {
        let mut shape = Self::of_header(storage)?;
        check_encrypted(&shape.header)?;
        let extensions = Extensions::read(storage, &shape)?;
        shape.crypto = extensions.crypto()?;
        let others = Others {
            backing_file: backing_file(storage, &shape)?,
            data_file: (shape.header.incompatible & DATA_FILE != 0)
                .then(|| text(&extensions.data_file.unwrap_or_default())),
        };
        Ok((shape, others))
    }

    /// The same of an image that is not encrypted, which is only read.
    pub(super) fn read_plain(storage: &dyn Backend) -> Result<Self, ImageError> {
        let shape = Self::of_header(storage)?;
        check_data(&shape.header)?;
        if shape.header.crypt_method != 0 {
            return Err(ImageError::Encrypted);
        }
        shape.check_places(storage.geometry())?;
        Ok(shape)
    }

    /// The values of the header, without the place of the LUKS header.
    fn of_header(storage: &dyn Backend) -> Result<Self, ImageError> {
        let start = read_up_to(storage, 512)?;
        let header = Header::parse(&start).ok_or(ImageError::NotQcow2)?;
        check_fields(&header)?;
        Ok(Self {
            cluster: 1 << header.cluster_bits,
            header,
            crypto: (0, 0),
        })
    }

    /// Checks the tables and the LUKS header: they have to be aligned, inside of the storage and
    /// not too large, and must not overlap.
    fn check_places(&self, geometry: Geometry) -> Result<(), ImageError> {
        let header = &self.header;
        self.check_cluster(geometry)?;
        let l1 = u64::from(header.l1_size) * 8;
        if header.l1_entries(header.size) > u64::from(header.l1_size) {
            let cause = format!("{} bytes are more than the L1 table maps", header.size);
            return Err(FormatError::malformed("size", 24, cause).into());
        }
        let refcounts = u64::from(header.refcount_table_clusters) * self.cluster;
        for (what, at, len, most) in [
            ("l1_size", 36, l1, LARGEST_L1),
            (
                "refcount_table_clusters",
                56,
                refcounts,
                LARGEST_REFCOUNT_TABLE,
            ),
        ] {
            if len > most {
                let cause = format!("{len} bytes, the most is {most}");
                return Err(FormatError::over_limit(what, at, cause).into());
            }
        }
        if l1 != 0 {
            let place = (header.l1_offset, l1);
            self.check_place(geometry, ("l1_table_offset", 40, place))?;
        }
        let place = (header.refcount_table_offset, refcounts);
        self.check_place(geometry, ("refcount_table_offset", 48, place))?;
        if header.crypt_method != 0 {
            self.check_place(geometry, ("encryption header", self.crypto.0, self.crypto))?;
        }
        self.check_overlap(|_| true)
    }

    fn check_cluster(&self, geometry: Geometry) -> Result<(), ImageError> {
        if self.cluster < u64::from(geometry.block_size) {
            return Err(ImageError::Size(format!(
                "clusters of {} bytes on storage with blocks of {}",
                self.cluster, geometry.block_size
            )));
        }
        Ok(())
    }

    /// Checks that a part with an offset and a length begins at a cluster and is inside of the
    /// storage. `at` is where the header says so.
    fn check_place(
        &self,
        geometry: Geometry,
        (what, at, (offset, len)): (&'static str, u64, (u64, u64)),
    ) -> Result<(), ImageError> {
        let inside = offset
            .checked_add(len)
            .is_some_and(|end| end <= geometry.size);
        if offset == 0 || len == 0 || !offset.is_multiple_of(self.cluster) || !inside {
            let cause = format!("{len} bytes at byte {offset} of {}", geometry.size);
            return Err(FormatError::malformed(what, at, cause).into());
        }
        Ok(())
    }

    /// Checks that no fixed part overlaps one that `counts`.
    fn check_overlap(&self, counts: impl Fn((u64, u64)) -> bool) -> Result<(), ImageError> {
        let fixed = self.fixed();
        let overlaps =
            |pair: &&[(u64, u64)]| pair[0].1 > pair[1].0 && (counts(pair[0]) || counts(pair[1]));
        match fixed.windows(2).find(overlaps) {
            Some(pair) => {
                let cause = format!("overlaps the part at byte {}", pair[0].0);
                Err(FormatError::malformed("table", pair[1].0, cause).into())
            }
            None => Ok(()),
        }
    }

    /// The start and the end of each part that no data and no other table may overlap, in order.
    pub(super) fn fixed(&self) -> Vec<(u64, u64)> {
        let header = &self.header;
        let whole = |len: u64| len.next_multiple_of(self.cluster);
        let mut fixed = vec![
            (0, self.cluster),
            (self.crypto.0, self.crypto.0 + whole(self.crypto.1)),
            (
                header.l1_offset,
                header.l1_offset + whole(u64::from(header.l1_size) * 8),
            ),
            (
                header.refcount_table_offset,
                header.refcount_table_offset
                    + u64::from(header.refcount_table_clusters) * self.cluster,
            ),
        ];
        if header.snapshots != 0 {
            // Only code that walks the table knows its length. Its start is enough to find an
            // overlap.
            fixed.push((
                header.snapshots_offset,
                header.snapshots_offset.saturating_add(self.cluster),
            ));
        }
        fixed.retain(|(start, end)| start < end);
        fixed.sort_unstable();
        fixed
    }

    /// Checks that the image may be written.
    fn check_change(&self) -> Result<(), ImageError> {
        let header = &self.header;
        if header.incompatible & CORRUPT != 0 {
            return Err(ImageError::NeedsRepair("damaged"));
        }
        if header.incompatible & DIRTY != 0 {
            return Err(ImageError::NeedsRepair("dirty: its refcounts may be wrong"));
        }
        if header.autoclear & BITMAPS != 0 {
            return Err(ImageError::Bitmaps);
        }
        Ok(())
    }

    /// The number of clusters that one refcount block covers.
    pub(super) fn refcounts_in_block(&self) -> u64 {
        (self.cluster * 8) >> self.header.refcount_order
    }

    /// The number of entries of an L2 table.
    pub(super) fn l2_entries(&self) -> u64 {
        self.cluster / 8
    }

    /// Whether bit 0 of an L2 entry means that the cluster reads as zeroes.
    pub(super) fn has_zero_bit(&self) -> bool {
        self.header.version >= 3
    }
}

fn check_fields(header: &Header) -> Result<(), ImageError> {
    let must = |good: bool, error: FormatError| if good { Ok(()) } else { Err(error) };
    let version = header.version;
    must(
        matches!(version, 2 | 3),
        FormatError::unsupported("version", 4, version.to_string()),
    )?;
    let bits = header.cluster_bits;
    must(
        (9..=21).contains(&bits),
        FormatError::malformed("cluster_bits", 20, bits.to_string()),
    )?;
    let length = header.header_length;
    let least = if version == 2 { V2_LENGTH } else { V3_LENGTH };
    must(
        (least..=1 << bits).contains(&length) && length.is_multiple_of(8),
        FormatError::malformed("header_length", 100, length.to_string()),
    )?;
    let order = header.refcount_order;
    must(
        order <= 6,
        FormatError::malformed("refcount_order", 96, order.to_string()),
    )?;
    let unknown = header.incompatible & !KNOWN;
    must(
        unknown == 0,
        FormatError::unsupported("incompatible_features", 72, format!("{unknown:#x}")),
    )?;
    // As in QEMU, the bit is set exactly if the compression is not zlib.
    let named = header.incompatible & COMPRESSION != 0;
    must(
        header.compression <= ZSTD && named == (header.compression != ZLIB),
        FormatError::unsupported("compression_type", 104, header.compression.to_string()),
    )?;
    Ok(())
}

/// Checks that the data of the image is in the image, and that its tables are known.
fn check_data(header: &Header) -> Result<(), ImageError> {
    if header.incompatible & EXTENDED_L2 != 0 {
        let cause = "extended L2 entries";
        return Err(FormatError::unsupported("incompatible_features", 72, cause).into());
    }
    if header.backing_offset != 0 || header.backing_size != 0 {
        return Err(ImageError::BackingFile);
    }
    if header.incompatible & DATA_FILE != 0 {
        return Err(ImageError::DataFile);
    }
    Ok(())
}

fn check_encrypted(header: &Header) -> Result<(), ImageError> {
    match header.crypt_method {
        2 => Ok(()),
        0 => Err(ImageError::NotEncrypted),
        1 => {
            let cause = "1: AES-CBC with guessable IVs, which is no protection";
            Err(FormatError::unsupported("crypt_method", 32, cause).into())
        }
        other => Err(FormatError::unsupported("crypt_method", 32, other.to_string()).into()),
    }
}

/// What the header extensions say.
struct Extensions {
    /// The offset and the length of the LUKS header.
    crypto: Option<(u64, u64)>,
    /// The name of the data file.
    data_file: Option<Vec<u8>>,
}

impl Extensions {
    fn read(storage: &dyn Backend, shape: &Shape) -> Result<Self, ImageError> {
        let bytes = read_up_to(storage, shape.cluster)?;
        let start = usize::try_from(shape.header.header_length).unwrap_or(usize::MAX);
        let extensions = qcow2::extensions(&bytes, start).map_err(|at| {
            FormatError::malformed("extension", at, "reaches over the end of its cluster")
        })?;
        let mut found = Self {
            crypto: None,
            data_file: None,
        };
        for extension in extensions {
            match extension.kind {
                EXT_DATA_FILE => found.data_file = Some(extension.data),
                EXT_CRYPTO if found.crypto.is_some() => {
                    let (cause, at) = ("comes twice", extension.offset);
                    let what = "encryption header pointer";
                    return Err(FormatError::malformed(what, at, cause).into());
                }
                EXT_CRYPTO => {
                    let place = qcow2::crypto_header(&extension.data).ok_or_else(|| {
                        let cause = format!("{} bytes, not 16", extension.data.len());
                        FormatError::malformed("encryption header pointer", extension.offset, cause)
                    })?;
                    found.crypto = Some(place);
                }
                _ => {}
            }
        }
        Ok(found)
    }

    /// The offset and the length of the LUKS header.
    fn crypto(&self) -> Result<(u64, u64), ImageError> {
        self.crypto.ok_or_else(|| {
            let cause = "there is no LUKS header in the image";
            FormatError::malformed("encryption header pointer", 0, cause).into()
        })
    }
}

/// The other files that an image names. They are never opened.
#[derive(Clone, Debug, Default)]
pub(super) struct Others {
    /// The file with the data that the image does not hold itself.
    pub(super) backing_file: Option<String>,
    /// The file with the data of the image.
    pub(super) data_file: Option<String>,
}

/// The name of the backing file, which is empty if it is not in the first cluster.
fn backing_file(storage: &dyn Backend, shape: &Shape) -> Result<Option<String>, IoError> {
    let header = &shape.header;
    if header.backing_offset == 0 {
        return Ok(None);
    }
    let bytes = read_up_to(storage, shape.cluster)?;
    let name = usize::try_from(header.backing_offset).ok().and_then(|at| {
        let end = at.checked_add(usize::try_from(header.backing_size).ok()?)?;
        bytes.get(at..end)
    });
    Ok(Some(text(name.unwrap_or_default())))
}

/// A name from an image. Invalid UTF-8 is replaced.
fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Reads the first `len` bytes, or fewer if the storage is shorter.
fn read_up_to(storage: &dyn Backend, len: u64) -> Result<Vec<u8>, IoError> {
    let len = len.min(storage.geometry().size);
    door::read(storage, 0, usize::try_from(len).unwrap_or(usize::MAX))
}

/// The error for damage that is found only when the damaged part is used.
pub(super) fn damaged(what: &'static str, at: u64) -> IoError {
    IoError::Image { what, at }
}

/// Converts a length of data in memory, which therefore fits in a `usize`.
pub(super) fn length(bytes: u64) -> usize {
    usize::try_from(bytes).unwrap_or(usize::MAX)
}
