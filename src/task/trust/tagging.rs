//! Makes the tags of a volume, and compares a volume with them.

use std::ops::Range;

use luksmith_formats::limits::Limits;

use super::kept::Kept;
use crate::backend::file::OpenOptions;
use crate::backend::{Allocation, Backend, IoError, Operation};
use crate::container::{Container, Unlocked};
use crate::sectors::{Cipher, Sectors};
use crate::task::open::{Image, ImageFormat};
use crate::task::storage::{Storage, is_reencrypted};
use crate::task::{Advice, Error, Kind, Watch, Work, Working};
use crate::trust::TrustDir;
use crate::trust::tags::{self, Access, StoreFiles, TagKey, TagsOptions};

/// How much is compared between two looks at the interrupt, in bytes.
const PIECE: u64 = 8 << 20;

/// How many offsets are kept.
const SHOWN: usize = 100;

/// What was found when a volume was compared with its tags.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Verified {
    /// The size of the data in bytes.
    pub size: u64,
    /// How many blocks of 4096 bytes are not as they were written.
    pub altered: u64,
    /// The offsets of the first of them on the storage, in bytes.
    pub altered_at: Vec<u64>,
}

/// Refuses a volume that can have no tags.
///
/// # Errors
/// [`Kind::Unsupported`], and [`Kind::Exists`] if it has tags already.
pub fn check(image: &Image, container: &Container, dir: &TrustDir) -> Result<(), Error> {
    let unsupported = |what: &str, advice| {
        let error = Error::new(Kind::Unsupported, what.to_owned());
        Err(error.advise(advice).about(&image.location))
    };
    if image.format == ImageFormat::Qcow2 {
        let what = "the clusters of a qcow2 image have no tags";
        return unsupported(what, Advice::TagsOfRaw);
    }
    if is_reencrypted(container) {
        let what = "a reencryption of the volume is in progress";
        return unsupported(what, Advice::FinishReencryption);
    }
    match are_there(container, dir)? {
        true => Err(tags::TagsError::Exists.into()),
        false => Ok(()),
    }
}

/// Whether a volume has tags.
///
/// # Errors
/// A folder that cannot be used.
pub fn are_there(container: &Container, dir: &TrustDir) -> Result<bool, Error> {
    let (dir, options) = (dir.clone(), TagsOptions::new());
    Kept { dir, options }.has_tags(container)
}

/// A volume that gets tags. Its storage is open, and nothing else writes to it meanwhile.
pub struct Tagging {
    container: Container,
    data: Storage,
    /// The bytes of the storage that have tags.
    bytes: Range<u64>,
}

impl Tagging {
    /// Opens the storage of the volume whose header is open.
    ///
    /// # Errors
    /// Those of [`check`], what the storage reports, and [`Kind::NotTrusted`] if the storage has
    /// another volume than the one that is opened.
    pub fn prepare(
        image: &Image,
        opened: &Container,
        dir: &TrustDir,
        limits: Limits,
        watch: &dyn Watch,
    ) -> Result<Self, Error> {
        check(image, opened, dir)?;
        let (container, data) = image.open_data_to_read(OpenOptions::new(), limits, watch)?;
        image.refuse_header_as_data(&container, &data)?;
        if container.uuid() != opened.uuid() {
            let message = "another volume was put in its place meanwhile";
            return Err(Error::new(Kind::NotTrusted, message).about(&image.location));
        }
        let bytes = container.covered_bytes(&*data.backend)?;
        Ok(Self {
            container,
            data,
            bytes,
        })
    }

    /// The offset on the storage of the first piece of the volume's data that is not zeroes. Holes
    /// are not read.
    ///
    /// # Errors
    /// What the storage reports, and an interrupt.
    pub fn first_data(&self, watch: &dyn Watch) -> Result<Option<u64>, Error> {
        let mut at = self.bytes.start;
        while at < self.bytes.end {
            watch.check()?;
            let extents = self.data.backend.extents(at..self.bytes.end)?;
            for (len, allocation) in extents {
                let until = self.bytes.end.min(at + len);
                while allocation == Allocation::Data && at < until {
                    watch.check()?;
                    let piece = usize::try_from(PIECE.min(until - at)).unwrap_or(usize::MAX);
                    let mut content = Sectors::<Cipher>::with_len(piece);
                    self.data.backend.read_at(at, &mut content)?;
                    if content.as_slice().iter().any(|byte| *byte != 0) {
                        return Ok(Some(at));
                    }
                    at += piece as u64;
                }
                at = until;
            }
        }
        Ok(None)
    }

    /// Makes the tags, in a folder that has the pin of the volume. With `fresh` nothing is read:
    /// all blocks read as zeroes until they are written. Otherwise each block gets the tag of what
    /// it has.
    ///
    /// # Errors
    /// What the storage and the files report, and an interrupt. After a failure there are no tags.
    pub fn make(
        self,
        dir: &TrustDir,
        unlocked: &Unlocked,
        fresh: bool,
        watch: &dyn Watch,
    ) -> Result<Verified, Error> {
        let Self {
            container,
            data,
            bytes,
        } = self;
        let entry = dir.make_entry(container.uuid())?;
        let key = container.tag_key(entry.uuid(), unlocked)?;
        let Some(files) = StoreFiles::open(&entry, Access::Make)? else {
            return Err(tags::TagsError::Missing.into());
        };
        made(&files, &key, (&data, bytes), fresh, watch)
    }
}

fn made(
    files: &StoreFiles,
    key: &TagKey,
    (data, bytes): (&Storage, Range<u64>),
    fresh: bool,
    watch: &dyn Watch,
) -> Result<Verified, Error> {
    let total = bytes.end - bytes.start;
    let working = Working::begin(watch, Work::Record, Some(total));
    let mut done = 0;
    let mut progress = |at: u64| {
        working.advance(at - done);
        done = at;
        match watch.check() {
            Ok(()) => Ok(()),
            Err(_) => Err(IoError::Failed {
                operation: Operation::Read,
                offset: at,
                source: std::io::ErrorKind::Interrupted.into(),
            }),
        }
    };
    let options = TagsOptions::new();
    let made = tags::make(
        files,
        key,
        &*data.backend,
        bytes,
        fresh,
        &options,
        &mut progress,
    );
    watch.check()?;
    made?;
    working.finish();
    Ok(Verified {
        size: total,
        ..Verified::default()
    })
}

/// Reads all of a volume, and compares it with its tags. `None` if it has none.
///
/// # Errors
/// What the storage and the files report.
pub fn verify(
    (data, container): (&Storage, &Container),
    unlocked: &Unlocked,
    watch: &dyn Watch,
) -> Result<Option<Verified>, Error> {
    let Some(tagged) = data.tagged(container, unlocked)? else {
        return Ok(None);
    };
    let size = tagged.size();
    let mut found = Verified {
        size,
        ..Verified::default()
    };
    let working = Working::begin(watch, Work::Verify, Some(size));
    let mut at = 0;
    while at < size {
        watch.check()?;
        let piece: Range<u64> = at..size.min(at + PIECE);
        for offset in tagged.verify(piece.clone())? {
            found.altered += 1;
            if found.altered_at.len() < SHOWN {
                found.altered_at.push(offset);
            }
        }
        working.advance(piece.end - piece.start);
        at = piece.end;
    }
    working.finish();
    Ok(Some(found))
}
