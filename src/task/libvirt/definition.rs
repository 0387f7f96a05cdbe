//! The XML of a secret and of a pool's volume, for programs that define them.

use luksmith_formats::image::qcow2;
use uuid::Uuid;

use crate::Interrupt;
use crate::backend::file::OpenOptions;
use crate::container::{self, Container, OpenError, Undo, Version};
use crate::libvirt::xml::{Encryption, SecretRef, SecretXml, Usage, VolumeXml};
use crate::location::Location;
use crate::task::emulator::{EmulatorError, check_whole};
use crate::task::libvirt::identity::spelled;
use crate::task::open::{Image, ImageFormat};
use crate::task::storage::Storage;
use crate::task::{Advice, Error, Kind};

/// What the definition of a secret or of a volume does not say, and has to be stated.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DefinitionError {
    /// The usage of a secret is by default the path of the volume.
    #[error("{0} has no path by which a secret could be found")]
    NoUsage(Location),
    /// The name of a volume is by default that of its file.
    #[error("{0}: no name in the pool is stated")]
    NoName(Location),
    /// The secret of a volume is by default the one whose usage is its path.
    #[error("{0}: no secret is named that opens it")]
    NoSecret(Location),
}

impl From<DefinitionError> for Error {
    fn from(error: DefinitionError) -> Self {
        Self::new(Kind::Parameters, error)
    }
}

/// The secret for the passphrase of a volume, which need not exist. Its usage is by default the
/// path of the volume, by which a pool finds it.
///
/// # Errors
/// [`DefinitionError::NoUsage`], and a path that is not text.
pub fn secret(
    image: &Location,
    usage: Option<Usage>,
    uuid: Option<Uuid>,
) -> Result<SecretXml, Error> {
    let usage = match (usage, image) {
        (Some(usage), _) => usage,
        (None, Location::Path(path)) => Usage::volume(spelled(path)?),
        (None, place) => return Err(DefinitionError::NoUsage(place.clone()).into()),
    };
    Ok(SecretXml::new(Some(usage)).uuid(uuid.map(|uuid| uuid.to_string())))
}

/// A volume of a pool, with the size of an image. Its name is by default that of the file, and its
/// secret the one whose usage is the path.
///
/// # Errors
/// [`EmulatorError::Luks2`], [`DefinitionError`], and what is wrong with the image.
pub fn volume(
    image: &Image,
    name: Option<String>,
    secret: Option<SecretRef>,
    interrupt: &Interrupt,
) -> Result<VolumeXml, Error> {
    let options = OpenOptions::new().force_share(true);
    let format = image.format;
    let mut storage = Storage::open(&image.location, image.remote, options, interrupt)?;
    let image = &image.location;
    if format == ImageFormat::Qcow2 {
        storage = storage.into_qcow2_header(image)?;
        check_whole(storage.qcow2_header.as_deref(), image)?;
    }
    let options = container::OpenOptions::new(Undo::NotLookedFor);
    let container = Container::open(storage.header(), options).map_err(|error| {
        let qcow2 = matches!(error, OpenError::NotLuks) && storage.begins_with(&qcow2::MAGIC);
        let error = Error::from(error).about(image);
        error.advise_if(qcow2, Advice::FormatQcow2)
    })?;
    if container.version() == Version::Luks2 {
        return Err(EmulatorError::Luks2(image.clone()).into());
    }
    let path = image.path();
    let file = path.and_then(|path| path.file_name());
    let name = name.or_else(|| Some(file?.to_str()?.to_owned()));
    let name = name.ok_or_else(|| DefinitionError::NoName(image.clone()))?;
    let secret = match (secret, path) {
        (Some(secret), _) => secret,
        (None, Some(path)) => SecretRef::Usage(Usage::volume(spelled(path)?)),
        (None, None) => return Err(DefinitionError::NoSecret(image.clone()).into()),
    };
    Ok(VolumeXml::new(name)
        .capacity(Some(storage.volume_size(&container)?))
        .allocation(Some(0))
        .format(Some(format.name().to_owned()))
        .encryption(Some(Encryption::luks1(secret))))
}
