//! Encrypts plaintext in place, or goes on with that.
//!
//! In a file, room for the header is made before the data ([`begin_with_room`]). Where that is not
//! possible, the header is detached. Either way the data keeps its size.

use std::fmt;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use luksmith_formats::hash::Hash;
use luksmith_formats::image::signature::{END, START};
use luksmith_formats::limits::Limits;
use luksmith_formats::luks2::Resilience;
use uuid::Uuid;

use super::options::LARGEST_ZONE;
use super::target::LARGEST_BLOCK;
use super::{Options, Plan, Protection, Reencrypted, claim, go_on};
use crate::backend::file::{FileBackend, OpenOptions};
use crate::backend::room::Room as _;
use crate::backend::{Backend as _, IoError};
use crate::container::{
    BeginEncryption, Container, CreateOptions, Kept, OpenOptions as ContainerOptions,
    ReencryptionKeys, Undo, Unproven, Version,
};
use crate::location::Location;
use crate::reencrypt::{
    self, DEFAULT_ZONE, ReencryptError, RoomError, RoomSettled, begin_with_room, is_room_record,
    settle_room,
};
use crate::secret::Passphrase;
use crate::sectors::{Cipher, Sectors};
use crate::task::destination::{Destination, Present};
use crate::task::new_file::NewFile;
use crate::task::new_volume::NewVolume;
use crate::task::open::Image;
use crate::task::plain::image_in;
use crate::task::storage::{LUKS_MAGIC, Storage};
use crate::task::{Advice, Error, Kind, Silent, Watch, Work, Working, size};

/// An encryption in place: one that begins, or one that goes on.
pub enum Encryption {
    /// It begins, with a new passphrase.
    Begins(Box<Beginning>),
    /// It goes on, with the passphrase that it began with.
    GoesOn(Box<Plan>),
}

/// An encryption in place that begins. Nothing is changed before [`run`](Self::run).
pub struct Beginning {
    data: Storage,
    place: Place,
    options: Options,
    volume: CreateOptions,
    limits: Limits,
    resilience: Resilience,
    /// The size of the largest and of the smallest zone in bytes.
    zone: (u64, u64),
    /// The devices, open exclusively.
    _claimed: Vec<File>,
}

/// Where the header will be.
enum Place {
    /// Before the data, in the same file.
    Before { file: Arc<FileBackend>, undo: Undo },
    /// In a new file.
    Detached(PathBuf),
}

impl Encryption {
    /// Looks at plaintext that is to be encrypted in place, or at an encryption in place that is in
    /// progress. `undo` names the file of the undo record. With `as_it_is`, data that begins as a
    /// LUKS volume or as a disk image does is taken for the plaintext.
    ///
    /// A move of the data that was interrupted is ended first, as [`settle`] does.
    ///
    /// # Errors
    /// What the storage reports; data that cannot be encrypted in place; options that contradict
    /// it, or the encryption that is in progress.
    pub fn look(
        image: &Image,
        undo: Option<&Path>,
        options: Options,
        limits: Limits,
        as_it_is: bool,
        watch: &dyn Watch,
    ) -> Result<Self, Error> {
        let about = |error: Error| error.about(&image.location);
        let new_header = match &image.header {
            None => None,
            Some(header) => Some(new_header(header)?),
        };
        // A header that is there is that of an encryption in progress.
        if !matches!(new_header, Some(None)) {
            let claimed = claim(image)?;
            let write = OpenOptions::new().write(true);
            let data = Storage::open(&image.location, image.remote, write, watch.interrupt())?;
            let place = match new_header.flatten() {
                Some(header) => Place::Detached(header),
                None => in_file(&data, undo).map_err(about)?,
            };
            let in_file = image.header.is_none();
            if as_it_is || !(in_file && data.begins_with(LUKS_MAGIC)) {
                if !as_it_is {
                    check_content(&data, image, &limits).map_err(about)?;
                }
                let begins = Beginning::new(data, place, options, limits, image, claimed);
                return Ok(Self::Begins(Box::new(begins.map_err(about)?)));
            }
        }
        let silent = Silent(watch.interrupt().clone());
        let container = image.open_to_read(OpenOptions::new(), limits, &silent)?;
        match container.reencryption() {
            Ok(Some(found)) if found.is_encryption() => {}
            _ => return Err(about(luks_volume())),
        }
        drop(container);
        let plan = Plan::look(image, undo, options, limits, watch)?;
        Ok(Self::GoesOn(Box::new(plan)))
    }
}

/// The path of a detached header, if nothing is there.
fn new_header(header: &Location) -> Result<Option<PathBuf>, Error> {
    match (header.path_of_whole(), header.part()) {
        (Some(path), None) => {
            let present = Destination::look(path)?.present();
            Ok((present == Present::Nothing).then(|| path.to_owned()))
        }
        _ => {
            let message = "the header of an encryption in place is a file of its own";
            Err(Error::parameters(message).about(header))
        }
    }
}

/// The place of a header before the data. A move of the data that was interrupted is ended.
fn in_file(data: &Storage, undo: Option<&Path>) -> Result<Place, Error> {
    let no_room =
        |message: &str| Err(Error::new(Kind::Unsupported, message).advise(Advice::DetachedHeader));
    let file = match &data.file {
        Some(file) if data.offset.is_none() && !file.is_device() => file.clone(),
        _ => return no_room("room for a header can only be made in a file of its own"),
    };
    let undo = data.undo(undo);
    if undo.store().is_none() {
        return no_room("the file has no name, beside which an undo record could be");
    }
    settle(data, &undo, Unproven::Refuse)?;
    Ok(Place::Before { file, undo })
}

/// Ends a move of plaintext that was interrupted, if there is the record of one: reverses it, or
/// keeps it if the header is complete. Returns `None` without such a record.
///
/// # Errors
/// A record that does not agree with the file. With [`Unproven::Discard`] such a record is removed,
/// and a copy of it is kept.
pub fn settle(data: &Storage, undo: &Undo, unproven: Unproven) -> Result<Option<Moved>, Error> {
    let (Some(store), Some(file)) = (undo.store(), &data.file) else {
        return Ok(None);
    };
    if !is_room_record(store)? {
        return Ok(None);
    }
    match settle_room(file, store) {
        Ok(settled) => Ok(settled.map(Moved::Settled)),
        Err(RoomError::Changed { .. } | RoomError::Size { .. } | RoomError::Damaged { .. })
            if unproven == Unproven::Discard =>
        {
            let bytes = store.load().map_err(RoomError::Read)?.unwrap_or_default();
            let copy = store
                .keep_copy(Kept::Record, &bytes)
                .map_err(RoomError::Store)?;
            store.clear().map_err(RoomError::Store)?;
            Ok(Some(Moved::Discarded { copy }))
        }
        Err(error) => Err(Error::from(error).advise(Advice::MovedContent)),
    }
}

/// How the move of plaintext that was interrupted was ended.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Moved {
    /// As the record proves.
    Settled(RoomSettled),
    /// The file stays as it is.
    Discarded {
        /// The name of the copy of the record.
        copy: String,
    },
}

impl fmt::Display for Moved {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let what = match self {
            Self::Settled(RoomSettled::Complete) => {
                "the header of an encryption in place was complete, and stays"
            }
            Self::Settled(RoomSettled::NotBegun) => {
                "an encryption in place had moved nothing: the file is plaintext as before"
            }
            Self::Settled(RoomSettled::Reversed) => {
                "an interrupted encryption in place is reversed: the file is plaintext as before"
            }
            Self::Discarded { copy } => {
                return write!(
                    f,
                    "the file stays as it is; a copy of the undo record is {copy}"
                );
            }
        };
        f.write_str(what)
    }
}

impl Beginning {
    fn new(
        data: Storage,
        place: Place,
        options: Options,
        limits: Limits,
        image: &Image,
        claimed: Vec<File>,
    ) -> Result<Self, Error> {
        if options.only_resume {
            return Err(Error::parameters("no encryption in place is in progress"));
        }
        let size = data.backend.geometry().size;
        if size == 0 || !size.is_multiple_of(512) {
            let message = format!("{size} bytes are not whole sectors of 512");
            return Err(Error::parameters(message).advise(Advice::FillSector));
        }
        let mut new = NewVolume::default();
        new.cipher = options.cipher.unwrap_or(new.cipher);
        new.key_size = options.key_size;
        // Checksums protect whole sectors, and every storage writes 512 bytes completely or not at
        // all.
        let promised = data.backend.atomic_unit().unwrap_or(512);
        new.sector_size = options.sector_size.or((promised < 4096).then_some(512));
        new.hash = options.hash.unwrap_or(new.hash);
        new.header.clone_from(&image.header);
        let (mut volume, layout) = new.options(Some(size), true, None)?;
        let sector_size = volume.sector_size;
        if !size.is_multiple_of(sector_size.into()) {
            let message = format!("{size} bytes are not whole sectors of {sector_size}");
            return Err(Error::parameters(message).advise(Advice::FillSector));
        }
        volume.data_offset = Some(layout.data_offset);
        volume.uuid = Some(Uuid::new_v4());
        if let Place::Before { file, .. } = &place {
            check_room(file, layout.data_offset)?;
        }
        let resilience = resilience(&options, sector_size, size, &data)?;
        let unit = reencrypt::zone_unit(&resilience, sector_size, &*data.backend);
        let zone = options.zone.unwrap_or(DEFAULT_ZONE);
        if zone > LARGEST_ZONE {
            let message = format!("zone-size: at most {} MiB", LARGEST_ZONE >> 20);
            return Err(Error::parameters(message));
        }
        reencrypt::check_zones(&resilience, (zone, unit), size)?;
        Ok(Self {
            data,
            place,
            options,
            volume,
            limits,
            resilience,
            zone: (zone, unit),
            _claimed: claimed,
        })
    }

    /// Makes the header, with a keyslot for `passphrase`, and encrypts the data to its end, or
    /// until the interrupt is set. Then the zone that is being converted is finished first.
    ///
    /// # Errors
    /// What the storage reports; [`Kind::Interrupted`] if it was stopped. Then nothing has changed,
    /// or it goes on where it stopped.
    pub fn run(mut self, passphrase: &Passphrase, watch: &dyn Watch) -> Result<Reencrypted, Error> {
        let (cost, volume) = (&self.options.cost, &mut self.volume);
        volume.kdf = cost.of_keyslot(volume.hash, Version::Luks2, volume.key_size, watch)?;
        volume.digest_iterations = cost.of_digest(volume.hash, watch)?;
        if !self.options.only_begin {
            self.data.fill_holes()?;
        }
        let (container, keys) = match &self.place {
            Place::Before { file, undo } => self.begin_before(file, undo, passphrase, watch)?,
            Place::Detached(path) => self.begin_detached(path, passphrase, watch)?,
        };
        let size = self.data.backend.geometry().size;
        let size = size - self.volume.data_offset.unwrap_or(0);
        if self.options.only_begin {
            return Ok(Reencrypted {
                finished: false,
                was_plain: true,
                converted: 0,
                size,
                keyslots: vec![self.volume.keyslot],
                dropped: Vec::new(),
            });
        }
        go_on(container, &self.data, &keys, &self.options, watch)
    }

    /// Makes room before the data, and the header there.
    fn begin_before(
        &self,
        file: &Arc<FileBackend>,
        undo: &Undo,
        passphrase: &Passphrase,
        watch: &dyn Watch,
    ) -> Result<(Container, ReencryptionKeys), Error> {
        let no_name = || Error::parameters("the file has no name");
        let store = undo.store().ok_or_else(no_name)?;
        let working = Working::begin(watch, Work::Record, Some(file.geometry().size));
        let mut advance = |length| {
            working.advance(length);
            !watch.interrupt().is_set()
        };
        let open = ContainerOptions::new(undo.clone()).limits(self.limits);
        let begin = self.begin();
        let interrupt = watch.interrupt();
        let made = begin_with_room(
            file,
            store,
            &begin,
            open,
            passphrase,
            interrupt,
            &mut advance,
        );
        let made = made.map_err(|error| {
            let moved = matches!(error, RoomError::Io(_));
            Error::from(error).advise_if(moved, Advice::CopyEncrypted)
        })?;
        working.finish();
        Ok(made)
    }

    /// Makes the header in a new file.
    fn begin_detached(
        &self,
        path: &Path,
        passphrase: &Passphrase,
        watch: &dyn Watch,
    ) -> Result<(Container, ReencryptionKeys), Error> {
        let new = NewFile::create(path, watch)?;
        let file = FileBackend::from_file(new.file()?, path, OpenOptions::new().write(true))?;
        file.resize(self.volume.layout()?.header_size)?;
        let open = ContainerOptions::new(Undo::NotLookedFor).limits(self.limits);
        let (file, interrupt) = (Arc::new(file), watch.interrupt());
        let made = Container::begin_encryption(file, &self.begin(), open, passphrase, interrupt)?;
        new.keep()?;
        Ok(made)
    }

    fn begin(&self) -> BeginEncryption<'_> {
        let size = self.data.backend.geometry().size;
        let area = |zone: u64| reencrypt::area_size(&self.resilience, zone.min(size));
        BeginEncryption {
            volume: &self.volume,
            resilience: self.resilience.clone(),
            area_size: area(self.zone.0),
            least_area: area(self.zone.1),
        }
    }
}

/// Checks that room for a header can be made before the data, and that there is space for it.
fn check_room(file: &FileBackend, room: u64) -> Result<(), Error> {
    file.can_insert(room).map_err(|error| {
        let unsupported = matches!(error, IoError::Unsupported(_));
        Error::from(error).advise_if(unsupported, Advice::DetachedHeader)
    })?;
    let free = file.place().ok().and_then(|(folder, _)| folder.free());
    match free {
        Some(free) if free.bytes < room => {
            let message = format!("the header needs {}", size::human(room));
            Err(Error::new(Kind::NoSpace, message))
        }
        _ => Ok(()),
    }
}

/// How zones are protected: by checksums, since a journal would be a copy of the plaintext.
fn resilience(
    options: &Options,
    sector_size: u32,
    size: u64,
    data: &Storage,
) -> Result<Resilience, Error> {
    if options.protection == Some(Protection::Journal) {
        return Err(Error::from(ReencryptError::JournalOfPlaintext));
    }
    let promised = data.backend.atomic_unit().unwrap_or(512);
    let block = promised.min(LARGEST_BLOCK).max(sector_size);
    let whole = size.is_multiple_of(block.into());
    Ok(Resilience::Checksum {
        hash: options.checksum_hash.unwrap_or(Hash::Sha256),
        sector_size: if whole { block } else { sector_size },
    })
}

/// Refuses data that begins as a LUKS volume or as a disk image does, or that holds the rest of a
/// header: it is not the plaintext of a disk, or another program needs what is there.
fn check_content(data: &Storage, image: &Image, limits: &Limits) -> Result<(), Error> {
    let size = data.backend.geometry().size;
    let whole = |bytes: usize| size.min((bytes as u64).next_multiple_of(4096));
    let read = |at: u64, length: u64| -> Result<Sectors<Cipher>, IoError> {
        let length = usize::try_from(length).unwrap_or(0);
        let mut bytes = Sectors::<Cipher>::unencrypted(length);
        data.backend.read_at(at, &mut bytes)?;
        Ok(bytes)
    };
    let start = read(0, whole(START))?;
    let end = read(size - whole(END), whole(END))?;
    let (start, end) = (start.as_slice(), end.as_slice());
    let (first, last) = (START.min(start.len()), end.len().saturating_sub(END));
    match image_in(&start[..first], &end[last..], size) {
        Some("luks") => Err(luks_volume()),
        Some(format) => {
            let message = format!("it begins or ends as a disk image ({format}) does");
            Err(Error::parameters(message).advise(Advice::EncryptImage(format)))
        }
        None => data.refuse_remains(&image.location, limits),
    }
}

fn luks_volume() -> Error {
    let message = "it begins as a LUKS volume does, in which no encryption is in progress";
    Error::parameters(message).advise(Advice::EncryptTwice)
}
