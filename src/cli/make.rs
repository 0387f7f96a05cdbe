//! A new volume in a new file, on a device or on an export: what `create` and `encrypt` share.

mod header_alone;

use std::fs::File;
use std::path::Path;
use std::sync::Arc;

use luksmith::backend::Backend;
use luksmith::backend::file::OpenOptions;
use luksmith::container::{self, Container, CreateOptions, Layout, Undo, Unlocked, Version};
use luksmith::layout::{NewImage, Qcow2};
use luksmith::location::Location;
use luksmith::secret::Passphrase;
use luksmith::sectors::{Cipher, Sectors};
use luksmith::task::new_file::{NewFile, Present, claim_device};
use luksmith::volume::Volume;
use luksmith_formats::cipher::CipherSpec;
use luksmith_formats::hash::Hash;
use serde_json::{Value, json};

use super::Session;
use super::args::{FormatArgs, ImageFormat, NewVolumeArgs, RemoteArgs, VersionName};
use super::derivation;
use super::error::{CommandError, Kind};
use super::force::{Force, confirm};
use super::json;
use super::notes::note_slow;
use super::passphrase::volume_key_file;
use super::size;
use luksmith::task::storage::{Nature, Storage, open_file};

pub(crate) use header_alone::HeaderAlone;

/// How much of a device or an export is looked at to say what it holds.
const LOOKED_AT: usize = 1 << 20;

/// How big the new volume is to be.
#[derive(Clone, Copy)]
pub(crate) enum Extent {
    /// So many bytes for the guest.
    Size(u64),
    /// As much as there is: the whole device or export, or for a detached header the data file as it is.
    AllThereIs,
    /// Nobody knows yet: it grows as it is written.
    Growing,
}

/// A volume that is made, and not kept before [`Made::keep`].
pub(crate) struct Made<'a> {
    pub(crate) container: Container,
    pub(crate) unlocked: Unlocked,
    pub(crate) data: Storage,
    image: Option<NewFile<'a>>,
    header: Option<NewFile<'a>>,
    /// The old files that the new ones replace: their locks keep others off until then.
    _replaced: [Option<Storage>; 2],
    _claimed: Vec<File>,
}

/// The answers to all questions, before anything is touched.
pub(crate) struct Plan<'a> {
    args: &'a NewVolumeArgs,
    image: &'a Location,
    extent: Extent,
    target: Target<'a>,
    header: Option<Target<'a>>,
    /// What is there and was agreed to be replaced, locked.
    replaced: Option<Storage>,
    replaced_header: Option<Storage>,
    /// The devices that are written over.
    claimed: Vec<File>,
    options: CreateOptions,
    layout: Layout,
}

/// Where a part of the new volume comes to lie.
enum Target<'a> {
    /// A file that is made.
    New(&'a Path),
    /// Something that is there and is written into: a device, an export, or the data of a detached header.
    There(Storage),
}

impl<'a> Plan<'a> {
    /// Looks whether the options agree with each other and with what is there, and asks where something would be lost.
    pub(crate) fn new(
        session: &Session,
        args: &'a NewVolumeArgs,
        image: &'a Location,
        forced: &'a [Force],
        extent: Extent,
    ) -> Result<Self, CommandError> {
        let write = OpenOptions::new().write(true);
        let mut header = None;
        let (mut replaced, mut replaced_header) = (None, None);
        let mut claimed = Vec::new();
        let target = match (Found::at(image)?, extent) {
            (Found::FixedSize, _) => {
                Target::There(overwritten(image, &args.remote, forced, &mut claimed)?)
            }
            (Found::File { path, .. }, Extent::AllThereIs) if args.format.header.is_some() => {
                Target::There(Storage::open_path(path, write)?)
            }
            (_, Extent::AllThereIs) => {
                return Err(CommandError::parameters("a volume in a file needs a size")
                    .hint("--size 10G is what the guest sees; the file is that plus the header"));
            }
            (Found::File { path, size }, _) => {
                replaced = Some(agreed_to_replace(path, size, forced)?);
                Target::New(path)
            }
            (Found::Nothing(path), _) => Target::New(path),
        };
        if let Some(location) = &args.format.header {
            header = Some(match Found::at(location)? {
                Found::FixedSize => {
                    Target::There(overwritten(location, &args.remote, forced, &mut claimed)?)
                }
                Found::File { path, size } => {
                    replaced_header = Some(agreed_to_replace(path, size, forced)?);
                    Target::New(path)
                }
                Found::Nothing(path) => Target::New(path),
            });
        }
        if args.format.image_format == ImageFormat::Qcow2 {
            check_qcow2(&args.format, extent)?;
        } else if args.format.cluster_size.is_some() {
            return Err(CommandError::parameters("clusters are a qcow2 image's")
                .hint("--cluster-size goes with --format qcow2"));
        }
        let (options, layout) = options(session, args, extent, &target, header.as_ref())?;
        check_size(extent, options.sector_size)?;
        derivation::kind(&args.pbkdf, options.hash, options.version)?;
        Ok(Self {
            args,
            image,
            extent,
            target,
            header,
            replaced,
            replaced_header,
            claimed,
            options,
            layout,
        })
    }

    /// A volume on storage that is there reaches to its end: another size is refused.
    pub(crate) fn check_end(&self) -> Result<(), CommandError> {
        match (&self.target, self.extent) {
            (Target::There(there), Extent::Size(size))
                if self.args.format.image_format == ImageFormat::Raw
                    && there
                        .backend
                        .geometry()
                        .size
                        .checked_sub(self.layout.data_offset)
                        != Some(size) =>
            {
                Err(CommandError::parameters(format!(
                    "--size: a volume on {} reaches to its end",
                    self.image
                ))
                .hint("leave --size out"))
            }
            _ => Ok(()),
        }
    }

    /// Measures the key derivation, makes the files and writes the header.
    pub(crate) fn make<'s>(
        self,
        session: &'s Session,
        passphrase: &Passphrase,
    ) -> Result<Made<'s>, CommandError> {
        let (mut options, layout) = (self.options, self.layout);
        measure(session, self.args, &mut options)?;
        let write = OpenOptions::new().write(true);

        let (data, image) = match self.target {
            Target::There(there) => (there, None),
            Target::New(path) => {
                let file = NewFile::create(path, self.replaced.is_some(), session)?;
                let data = open_file(file.path(), write)?;
                if self.args.format.image_format == ImageFormat::Qcow2 {
                    (Storage::raw(data, Nature::File), Some(file))
                } else {
                    let size = match self.extent {
                        Extent::Size(size) => {
                            layout.data_offset.checked_add(size).ok_or_else(too_large)?
                        }
                        Extent::Growing | Extent::AllThereIs => layout.data_offset,
                    };
                    let room = |error| {
                        CommandError::from(error).about(format_args!(
                            "cannot make room for {} in {}",
                            size::both(size),
                            self.image
                        ))
                    };
                    data.resize(size).map_err(room)?;
                    if self.args.format.preallocate {
                        data.preallocate().map_err(room)?;
                    }
                    (Storage::raw(data, Nature::File), Some(file))
                }
            }
        };
        let data = match (self.args.format.image_format, self.extent) {
            (ImageFormat::Qcow2, Extent::Size(size)) => {
                new_qcow2(data, &self.args.format, size, layout.header_size)?
            }
            _ => data,
        };
        let (storage, header) = match self.header {
            Some(Target::There(there)) => (there.backend, None),
            Some(Target::New(path)) => {
                let file = NewFile::create(path, self.replaced_header.is_some(), session)?;
                let storage = Storage::open_path(file.path(), write)?.backend;
                storage.resize(layout.header_size)?;
                (storage, Some(file))
            }
            None => (data.header(), None),
        };
        if let (Extent::Size(size), None, None) = (self.extent, &image, &data.qcow2) {
            let there = data
                .backend
                .geometry()
                .size
                .saturating_sub(layout.data_offset);
            if there < size {
                let message = format!("{} has room for {there} bytes, not for {size}", self.image);
                return Err(CommandError::new(Kind::Storage, message));
            }
        }
        let open =
            container::OpenOptions::new(Undo::NotLookedFor).limits(self.args.limits.limits());
        let (container, unlocked) = Container::create(
            storage,
            options,
            open,
            passphrase,
            session.signals.interrupt(),
        )?;
        Ok(Made {
            container,
            unlocked,
            data,
            image,
            header,
            _replaced: [self.replaced, self.replaced_header],
            _claimed: self.claimed,
        })
    }
}

/// What opening the keyslot and checking the volume key shall cost.
fn measure(
    session: &Session,
    args: &NewVolumeArgs,
    options: &mut CreateOptions,
) -> Result<(), CommandError> {
    let (hash, version, key_size) = (options.hash, options.version, options.key_size);
    options.kdf = derivation::of_keyslot(session, &args.pbkdf, hash, version, key_size)?;
    options.digest_iterations = derivation::of_digest(session, &args.pbkdf, hash)?;
    Ok(())
}

/// What the arguments ask for, without the costs, and where everything will lie.
fn options(
    session: &Session,
    args: &NewVolumeArgs,
    extent: Extent,
    target: &Target<'_>,
    header: Option<&Target<'_>>,
) -> Result<(CreateOptions, Layout), CommandError> {
    let format = &args.format;
    let qcow2 = format.image_format == ImageFormat::Qcow2;
    let default = if qcow2 {
        Version::Luks1
    } else {
        Version::Luks2
    };
    let version = format.luks_type.map_or(default, Version::from);
    let cipher = format.cipher.unwrap_or(CipherSpec::AES_XTS_PLAIN64);
    let key_size = format.key_size.unwrap_or_else(|| cipher.default_key_size());
    cipher.check_key_size(key_size).map_err(|error| {
        let sizes = cipher
            .key_sizes()
            .iter()
            .map(|bytes| (bytes * 8).to_string())
            .collect::<Vec<_>>()
            .join(" or ");
        CommandError::new(Kind::Parameters, error)
            .hint(format!("--key-size takes {sizes} bits for {cipher}"))
    })?;
    note_slow(cipher);
    let hash = format.hash.unwrap_or(Hash::Sha256);
    // The cost is measured later: contradictions are told before anything is asked or measured.
    let trial = luksmith::kdf::calibrate::Cost::Pbkdf2 {
        hash,
        iterations: 1000,
    };
    let mut options = CreateOptions::new(version, trial);
    options.cipher = cipher;
    options.key_size = key_size;
    options.hash = hash;
    options.keyslot = format.keyslot.unwrap_or(0);
    options.label = format.label.clone().unwrap_or_default();
    options.subsystem = format.subsystem.clone().unwrap_or_default();
    options.uuid = format.uuid;
    options.data_offset = match format.offset {
        Some(sectors) => Some(sectors.checked_mul(512).ok_or_else(too_large)?),
        None => None,
    };
    options.metadata_size = format.luks2_metadata_size;
    options.keyslots_size = format.luks2_keyslots_size;
    options.detached = format.header.is_some();
    options.blank = matches!(
        (target, header),
        (Target::New(_), None) | (_, Some(Target::New(_)))
    );
    options.sector_size = 512;
    if qcow2 {
        options = options.in_qcow2();
    }
    let layout = options.layout()?;
    options.sector_size = format
        .sector_size
        .unwrap_or_else(|| sector_size(extent, target, version, layout.data_offset));
    let layout = options.layout()?;
    if let Some(path) = &format.volume_key_file {
        options.volume_key = Some(volume_key_file(session, path)?);
    }
    Ok((options, layout))
}

/// As cryptsetup: 4096 where everything is a multiple of it.
fn sector_size(extent: Extent, target: &Target<'_>, version: Version, data_offset: u64) -> u32 {
    let size = match (extent, target) {
        (Extent::Size(size), _) => size,
        (Extent::AllThereIs, Target::There(there)) => there.backend.geometry().size,
        // A stream may end at any 512 bytes.
        _ => 512,
    };
    let fits =
        version == Version::Luks2 && size.is_multiple_of(4096) && data_offset.is_multiple_of(4096);
    if fits { 4096 } else { 512 }
}

/// A volume has whole sectors, and at least one.
fn check_size(extent: Extent, sector_size: u32) -> Result<(), CommandError> {
    match extent {
        Extent::Size(0) => Err(CommandError::parameters("a volume has one sector at least")
            .hint("--size 10G is what the guest sees; the file is that plus the header")),
        Extent::Size(size) if !size.is_multiple_of(u64::from(sector_size)) => {
            let message = format!(
                "a size of {size} bytes is not a whole number of {sector_size}-byte sectors"
            );
            Err(CommandError::parameters(message)
                .hint("--size in multiples of 4K fits every --sector-size"))
        }
        _ => Ok(()),
    }
}

impl Made<'_> {
    /// Whether it is a device that is written into, of which nothing can be removed again.
    pub(crate) fn is_in_place(&self) -> bool {
        self.image.is_none()
    }

    /// The bytes of the smallest part that a new volume can leave out, if it can.
    pub(crate) fn hole(&self) -> Option<usize> {
        let image = self.data.qcow2.as_ref()?;
        Some(usize::try_from(image.cluster_size()).unwrap_or(usize::MAX))
    }

    /// The plaintext of the new volume.
    pub(crate) fn volume(&self) -> Result<Volume, CommandError> {
        Ok(self.data.volume(&self.container, &self.unlocked)?)
    }

    /// All is written: makes it durable and gives the files their names.
    pub(crate) fn keep(self) -> Result<(), CommandError> {
        match &self.data.qcow2 {
            Some(image) => image.flush()?,
            None => self.data.backend.flush()?,
        }
        // An export may have been replaced by another one while the data was written.
        self.container.check_unchanged()?;
        if let Some(header) = self.header {
            header.keep()?;
        }
        if let Some(image) = self.image {
            image.keep()?;
        }
        Ok(())
    }

    /// What was made, as JSON.
    pub(crate) fn json(&self, image: &Location, size: u64) -> Value {
        let segment = self.container.data_segment().ok();
        let mut value = json!({
            "image": image.to_string(),
            "format": if self.data.qcow2.is_some() { "qcow2" } else { "raw" },
            "type": self.container.version().to_string().to_lowercase(),
            "uuid": self.container.uuid(),
            "cipher": segment.map(|segment| segment.cipher.to_string()),
            "key_bits": self.unlocked.key().as_bytes().len() * 8,
            "sector_size": segment.map(|segment| segment.sector_size),
            "data": {
                "offset": segment.filter(|_| self.data.qcow2.is_none()).map(|segment| segment.offset),
                "size": size,
            },
            "keyslot": self.unlocked.slot(),
        });
        if let Some(image) = json::qcow2(&self.data) {
            value["qcow2"] = image;
        }
        value
    }

    /// What was made, in a line.
    pub(crate) fn line(&self, image: &Location, volume_size: u64) -> String {
        let sector = self
            .container
            .data_segment()
            .map_or(512, |segment| segment.sector_size);
        format!(
            "{image}: {} volume of {}, {sector}-byte sectors, UUID {}",
            self.container.version(),
            size::both(volume_size),
            self.container.uuid()
        )
    }
}

/// What does not go together in a qcow2 image.
fn check_qcow2(format: &FormatArgs, extent: Extent) -> Result<(), CommandError> {
    let wrong = |what: &str, hint: &str| Err(CommandError::parameters(what).hint(hint));
    if matches!(format.luks_type, Some(VersionName::Luks2)) {
        return wrong(
            "there is no LUKS2 in qcow2 images",
            "leave --type out: QEMU knows LUKS1 alone there",
        );
    }
    if format.header.is_some() || format.offset.is_some() {
        return wrong(
            "a qcow2 image has its header inside, and its data in clusters",
            "--header and --offset go with --format raw, the default",
        );
    }
    if format.preallocate {
        return wrong(
            "a qcow2 image grows as it is written",
            "--preallocate goes with --format raw, the default",
        );
    }
    match extent {
        Extent::Size(_) => Ok(()),
        Extent::AllThereIs | Extent::Growing => wrong(
            "a qcow2 image needs a size",
            "--size 10G is what the guest sees",
        ),
    }
}

/// Makes an image in storage that holds nothing of value.
fn new_qcow2(
    mut data: Storage,
    format: &FormatArgs,
    size: u64,
    header_size: u64,
) -> Result<Storage, CommandError> {
    let mut image = NewImage::new(size, header_size);
    if let Some(cluster_size) = format.cluster_size {
        image = image.cluster_size(u32::try_from(cluster_size).unwrap_or(u32::MAX));
    }
    data.qcow2 = Some(Arc::new(Qcow2::create(data.backend.clone(), &image)?));
    Ok(data)
}

fn too_large() -> CommandError {
    CommandError::parameters("larger than 2^64 bytes")
}

/// What is at a location already.
enum Found<'a> {
    Nothing(&'a Path),
    File {
        path: &'a Path,
        size: u64,
    },
    /// A block device or an export.
    FixedSize,
}

impl<'a> Found<'a> {
    fn at(location: &'a Location) -> Result<Self, CommandError> {
        let Some(path) = location.path() else {
            return Ok(Self::FixedSize);
        };
        Ok(match Present::at(path)? {
            Present::Nothing => Self::Nothing(path),
            Present::File { size } => Self::File { path, size },
            Present::BlockDevice => Self::FixedSize,
        })
    }
}

/// Opens a file that its owner agrees to be replaced, and that is locked until then.
fn agreed_to_replace(path: &Path, size: u64, forced: &[Force]) -> Result<Storage, CommandError> {
    let write = OpenOptions::new().write(true);
    let file = Storage::open_path(path, write)?;
    let what = holds_luks(&file).unwrap_or_else(|| format!("{} of data", size::human(size)));
    let loss = format!(
        "{} exists and would be replaced: it holds {what}",
        path.display()
    );
    confirm(forced, Force::Overwrite, &loss)?;
    Ok(file)
}

/// Opens a device or an export that its owner agrees to be written over; one that holds nothing but zeroes at its start needs no
/// question.
fn overwritten(
    location: &Location,
    remote: &RemoteArgs,
    forced: &[Force],
    claimed: &mut Vec<File>,
) -> Result<Storage, CommandError> {
    let write = OpenOptions::new().write(true);
    let storage = Storage::open(location, remote.get(), write)?;
    if let Some(path) = location.path() {
        claimed.push(claim_device(path)?);
    }
    let there = usize::try_from(storage.backend.geometry().size).unwrap_or(LOOKED_AT);
    let mut start = Sectors::<Cipher>::with_len(there.min(LOOKED_AT));
    storage
        .backend
        .read_at(0, &mut start)
        .map_err(|error| CommandError::from(error).about(format_args!("cannot read {location}")))?;
    if start.as_slice().iter().any(|byte| *byte != 0) {
        let what = holds_luks(&storage).unwrap_or_else(|| "data".to_owned());
        let loss = format!("{location} would be overwritten: it holds {what}");
        confirm(forced, Force::Overwrite, &loss)?;
    }
    Ok(storage)
}

/// The volume that lies in a storage, if one does.
fn holds_luks(storage: &Storage) -> Option<String> {
    let container = Container::open(
        storage.backend.clone(),
        container::OpenOptions::new(Undo::NotLookedFor),
    )
    .ok()?;
    Some(format!(
        "the {} volume {}",
        container.version(),
        container.uuid()
    ))
}
