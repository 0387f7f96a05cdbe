//! From the arguments to an opened, and then unlocked, container.

use std::path::{Path, PathBuf};

use luksmith::backend::file::OpenOptions;
use luksmith::container::{
    self, Container, OpenError, Undo, UndoFile, UnlockError, Unlocked, Version, VolumeError, Which,
};
use luksmith_formats::image::qcow2;
use luksmith_formats::limits::Limits;
use luksmith_formats::luks2::Priority;

use super::Session;
use super::args::{ImageArgs, ImageFormat, UndoArgs};
use super::error::{CommandError, Kind};
use super::output;
use super::passphrase::KeySource;
use super::storage::{self, Storage};

/// How an image is opened by a command that only reads.
#[derive(Debug, Default, clap::Args)]
pub(crate) struct ReadArgs {
    /// Read the image although somebody else is writing to it; what is read may be half of a change
    #[arg(long)]
    pub(crate) force_share: bool,
}

impl ReadArgs {
    pub(crate) fn options(&self) -> OpenOptions {
        OpenOptions::new().force_share(self.force_share)
    }
}

/// The header alone, for reading.
pub(crate) fn open_to_read(
    image: &ImageArgs,
    read: &ReadArgs,
    limits: Limits,
) -> Result<Container, CommandError> {
    let storage = header_storage(image, read.options())?;
    open(
        image,
        storage,
        container::OpenOptions::new(undo(image, None)).limits(limits),
    )
}

/// The header and the data, for reading.
pub(crate) fn open_data_to_read(
    image: &ImageArgs,
    read: &ReadArgs,
    limits: Limits,
) -> Result<(Container, Storage), CommandError> {
    let header = header_storage(image, read.options())?;
    let data = if image.header.is_some() {
        storage::open(&image.image, &image.remote, read.options())?
    } else {
        header.clone()
    };
    let options = container::OpenOptions::new(undo(image, None)).limits(limits);
    let container = open(image, header, options)?;
    Ok((container, data))
}

/// The header alone, for writing: nobody else may have it open.
pub(crate) fn open_to_write(
    image: &ImageArgs,
    undo: &UndoArgs,
    limits: Limits,
) -> Result<Container, CommandError> {
    open(
        image,
        header_storage_to_write(image)?,
        header_options(image, undo, limits),
    )
}

/// The header alone, for writing beside the QEMU that has the volume open.
pub(crate) fn open_beside(
    image: &ImageArgs,
    direct: bool,
    limits: Limits,
) -> Result<Container, CommandError> {
    let file = OpenOptions::new().write(true).beside(true).direct(direct);
    let options = container::OpenOptions::new(undo(image, None))
        .limits(limits)
        .beside(true);
    open(image, header_storage(image, file)?, options)
}

/// The header and the data, for writing.
pub(crate) fn open_data_to_write(
    image: &ImageArgs,
    undo: &UndoArgs,
    limits: Limits,
) -> Result<(Container, Storage), CommandError> {
    let header = header_storage_to_write(image)?;
    let data = match image.header {
        Some(_) => storage::open(&image.image, &image.remote, OpenOptions::new().write(true))?,
        None => header.clone(),
    };
    let container = open(image, header, header_options(image, undo, limits))?;
    Ok((container, data))
}

/// A detached header alone is no volume: nobody may take its file for the data.
pub(crate) fn refuse_header_as_data(
    container: &Container,
    image: &ImageArgs,
    data: &Storage,
) -> Result<(), CommandError> {
    if data.qcow2.is_some() {
        return Ok(());
    }
    match container.data_segment_on(&*data.backend) {
        Err(error @ VolumeError::Detached) => Err(CommandError::from(error).about(&image.image)),
        // Whatever else is wrong with it is told by who needs it.
        _ => Ok(()),
    }
}

/// Where the header lies, for commands that do not open it as a container.
pub(crate) fn header_storage_to_write(image: &ImageArgs) -> Result<Storage, CommandError> {
    header_storage(image, OpenOptions::new().write(true))
}

fn header_storage(image: &ImageArgs, options: OpenOptions) -> Result<Storage, CommandError> {
    if image.format == ImageFormat::Qcow2 && image.header.is_some() {
        let message = "a qcow2 image has its header inside";
        return Err(
            CommandError::parameters(message).hint("--header goes with --format raw, the default")
        );
    }
    let storage = storage::open(image.header_location(), &image.remote, options)?;
    match image.format {
        ImageFormat::Raw => Ok(storage),
        ImageFormat::Qcow2 => storage.into_qcow2(&image.image),
    }
}

/// For commands that know the raw format alone.
pub(crate) fn refuse_qcow2(image: &ImageArgs, command: &str) -> Result<(), CommandError> {
    match image.format {
        ImageFormat::Raw => Ok(()),
        ImageFormat::Qcow2 => Err(CommandError::parameters(format!(
            "{command} cannot be done in a qcow2 image"
        ))),
    }
}

/// What goes with [`header_storage_to_write`].
pub(crate) fn header_options(
    image: &ImageArgs,
    undo_args: &UndoArgs,
    limits: Limits,
) -> container::OpenOptions {
    container::OpenOptions::new(undo(image, undo_args.undo_file.clone())).limits(limits)
}

fn open(
    image: &ImageArgs,
    storage: Storage,
    options: container::OpenOptions,
) -> Result<Container, CommandError> {
    let container = Container::open(storage.header(), options).map_err(|error| {
        let qcow2 = matches!(error, OpenError::NotLuks) && storage.begins_with(&qcow2::MAGIC);
        let hint = "it begins as a qcow2 image does: --format qcow2 opens it as one";
        let error = CommandError::from(error).about(image.header_location());
        error.hint_if(qcow2.then(|| hint.to_owned()))
    })?;
    if storage.qcow2.is_some() && container.version() != Version::Luks1 {
        let message = format!("{}: LUKS2 in a qcow2 image", image.image);
        return Err(CommandError::new(Kind::Unsupported, message)
            .hint("only LUKS1 has a place there; QEMU knows no other"));
    }
    match container.health() {
        container::Health::Good => {}
        health => output::warning(format_args!(
            "{}: {health}; `luksmith header repair` mends it",
            image.header_location(),
        )),
    }
    Ok(container)
}

/// The undo record: where the user says, or beside the file that holds the header.
fn undo(image: &ImageArgs, named: Option<PathBuf>) -> Undo {
    let path = image.header_location().path();
    match named {
        Some(named) => UndoFile::at(named).into(),
        // The record of a link lies beside what it points to, whatever name the image is opened by.
        None => match path.map(Path::canonicalize) {
            Some(Ok(path)) if path.is_file() => UndoFile::beside(&path).into(),
            _ => Undo::NotLookedFor,
        },
    }
}

/// Asks for the passphrase and unlocks; a person gets three tries.
pub(crate) fn unlock(
    session: &Session,
    container: &Container,
    source: &KeySource,
    which: Which,
    label: &str,
) -> Result<Unlocked, CommandError> {
    // What no passphrase can open needs no question.
    let slots = container.keyslots();
    let hopeless = match which {
        Which::Any if !slots.iter().any(|keyslot| keyslot.bound) => Some(UnlockError::NoKeyslots),
        Which::Slot(slot) if !slots.iter().any(|keyslot| keyslot.slot == slot) => {
            Some(UnlockError::NoSuchKeyslot(slot))
        }
        _ => None,
    };
    if let Some(error) = hopeless {
        return Err(CommandError::from(error).about(label));
    }
    let mut left = source.tries();
    loop {
        left -= 1;
        let passphrase = source.existing(session, label)?;
        match container.unlock(&passphrase, which, session.signals.interrupt()) {
            Err(UnlockError::WrongPassphrase) if left > 0 => {
                output::note("no keyslot opens with this passphrase; try again");
            }
            outcome => {
                let ignored = which == Which::Any
                    && matches!(outcome, Err(UnlockError::WrongPassphrase))
                    && slots
                        .iter()
                        .any(|keyslot| keyslot.priority == Priority::Ignore);
                let hint = ignored.then(|| {
                    "keyslots of priority ignore were left out: --keyslot N tries one".to_owned()
                });
                return outcome
                    .map_err(|error| CommandError::from(error).about(label).hint_if(hint));
            }
        }
    }
}

/// The size of the plaintext, where it can be known: not for a detached header without its data.
pub(crate) fn data_size(container: &Container, image: &ImageArgs, data: &Storage) -> Option<u64> {
    let elsewhere = image.header.is_none()
        && container
            .data_segment()
            .is_ok_and(|segment| segment.offset == 0);
    if elsewhere {
        None
    } else {
        data.volume_size(container).ok()
    }
}
