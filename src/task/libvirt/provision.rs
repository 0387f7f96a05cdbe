//! Makes a volume together with the secret that opens it, and its disk.
//!
//! libvirt makes a volume in a pool. This process makes the header in memory and uploads it, so it
//! accesses no file of the pool, which may be on another host. A volume at a location is made by
//! this process.

use std::io::Cursor;
use std::sync::Arc;

use uuid::Uuid;

use super::disk::{DiskOptions, Need, describe};
use super::taken_back::TakenBack;
use crate::backend::Backend;
use crate::backend::memory::MemoryBackend;
use crate::container::{self, Container, Undo, Version, Which};
use crate::layout::Qcow2Header;
use crate::libvirt::xml::{Disk, SecretRef, SecretXml, Usage, VolumeXml};
use crate::libvirt::{Connection, LibvirtError, Secret};
use crate::location::Location;
use crate::secret::{Passphrase, Purpose, SecretSource};
use crate::task::emulator::EmulatorError;
use crate::task::emulator::check_passphrase;
use crate::task::libvirt::identity::spelled_for;
use crate::task::new_volume::{Extent, Loss, NewHeader, NewVolume, Plan};
use crate::task::open::ImageFormat;
use crate::task::openers::{QemuObstacle, unknown_to_qemu};
use crate::task::{Advice, Error, Kind, Note, Watch};

/// Where a volume is made.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Place {
    /// In a started pool of the libvirt.
    Pool {
        /// The pool.
        pool: String,
        /// The name of the volume in it.
        name: String,
        /// The size of the plaintext, in bytes.
        size: u64,
    },
    /// In a file, on a device or on an export that this process opens.
    At {
        /// The location.
        location: Location,
        /// The size of the plaintext, in bytes. A device or an export has none: all of it is used.
        size: Option<u64>,
    },
}

/// The volume, the secret and the disk to make.
#[non_exhaustive]
pub struct ProvisionOptions<'a> {
    /// The volume. Its version is by default LUKS1, or LUKS2 if luksmith serves it.
    pub volume: NewVolume,
    /// The passphrase. By default it is random, and only the secret holds it.
    pub key: Option<&'a dyn SecretSource>,
    /// Whether the secret is private.
    pub private: bool,
    /// The UUID of the secret. By default libvirt chooses one.
    pub secret: Option<Uuid>,
    /// The device in the guest, such as `vda`.
    pub target: String,
    /// The disk. Its secrets and its version are those of the new volume.
    pub disk: DiskOptions,
}

impl Default for ProvisionOptions<'_> {
    fn default() -> Self {
        Self {
            volume: NewVolume::default(),
            key: None,
            private: false,
            secret: None,
            target: "vda".to_owned(),
            disk: DiskOptions::default(),
        }
    }
}

/// The volume, the secret and the disk that were made.
#[derive(Debug)]
#[non_exhaustive]
pub struct Provisioned {
    /// The secret.
    pub secret: Uuid,
    /// The path of the volume on its host.
    pub path: Option<String>,
    /// Where the volume is stored.
    pub location: Location,
    /// The version of LUKS.
    pub version: Version,
    /// The UUID of the volume.
    pub uuid: String,
    /// The size of the plaintext, in bytes.
    pub size: u64,
    /// The disk.
    pub disk: Disk,
    /// What the disk needs besides its XML.
    pub needs: Vec<Need>,
}

/// Why a volume is not provisioned, besides the errors of libvirt and of new volumes.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ProvisionError {
    /// libvirt's XML has no place for a detached header.
    #[error("libvirt's XML cannot describe a volume with a detached header")]
    Detached,
    /// A qcow2 image grows, so that only a file can hold it.
    #[error("a volume of the pool {0} is not a file, and cannot grow as a qcow2 image does")]
    NotAFile(String),
    /// The pool takes the image for one of another format.
    #[error("the pool {0} does not recognise the qcow2 image")]
    NotRecognised(String),
    /// QEMU does not open LUKS2 itself.
    #[error("luksmith has to serve a LUKS2 volume: QEMU's own driver knows only LUKS1")]
    Luks2,
    /// QEMU does not have the cipher or hash.
    #[error("{0}")]
    NotInQemu(QemuObstacle),
    /// The volume would be a file of this host, but the libvirt is on another host.
    #[error("{location} would be made on this machine, but {uri} is another machine")]
    Far {
        /// The file.
        location: Location,
        /// The libvirt.
        uri: String,
    },
    /// The pool is not started.
    #[error("the pool {0} is not started")]
    NotStarted(String),
    /// A name that no volume of a pool can have.
    #[error("{0} cannot be the name of a volume")]
    Name(String),
}

impl From<ProvisionError> for Error {
    fn from(error: ProvisionError) -> Self {
        Self::new(Kind::Parameters, error)
    }
}

/// A volume to provision, whose options were checked.
pub struct Provision<'a> {
    connection: &'a Connection,
    target: Target,
    options: ProvisionOptions<'a>,
    version: Version,
    format: ImageFormat,
}

/// A place that was checked.
enum Target {
    Pool {
        pool: String,
        name: String,
        size: u64,
    },
    At {
        location: Location,
        plan: Box<Plan>,
    },
}

impl<'a> Provision<'a> {
    /// Checks the options, and looks at what is at the location. Nothing is changed.
    ///
    /// # Errors
    /// [`ProvisionError`], and those of [`Plan::look`].
    pub fn look(
        connection: &'a Connection,
        place: Place,
        mut options: ProvisionOptions<'a>,
    ) -> Result<Self, Error> {
        let version = version(&options)?;
        options.volume.version = Some(version);
        let format = options.volume.format;
        let target = match place {
            Place::Pool { pool, name, size } => Target::Pool { pool, name, size },
            Place::At { location, size } => {
                if location.part().is_some() {
                    return Err(EmulatorError::Part(location).into());
                }
                if location.path().is_some() && !connection.is_local()? {
                    let uri = connection.uri()?;
                    return Err(ProvisionError::Far { location, uri }.into());
                }
                let extent = size.map_or(Extent::AllThereIs, Extent::Exactly);
                let volume = std::mem::take(&mut options.volume);
                let plan = Plan::look(volume, &location, extent)?.into();
                Target::At { location, plan }
            }
        };
        Ok(Self {
            connection,
            target,
            options,
            version,
            format,
        })
    }

    /// What making the volume would destroy. In a pool this is nothing.
    #[must_use]
    pub fn losses(&self) -> &[Loss] {
        match &self.target {
            Target::Pool { .. } => &[],
            Target::At { plan, .. } => plan.losses(),
        }
    }

    /// Makes the volume, the secret and the disk, and opens the volume with the value that libvirt
    /// returns for the secret. If this fails or is interrupted, everything that was made is removed
    /// again.
    ///
    /// # Errors
    /// Failures of libvirt, of the storage and of the key source, and an interrupt.
    pub fn make(self, watch: &dyn Watch) -> Result<Provisioned, Error> {
        let passphrase = self.passphrase(watch)?;
        let mut making = Making {
            connection: self.connection,
            private: self.options.private,
            uuid: self.options.secret,
            passphrase: &passphrase,
            taken_back: TakenBack::new(watch),
            watch,
        };
        let (made, location) = match self.target {
            Target::Pool { pool, name, size } => {
                let made = making.in_pool(self.options.volume, &pool, &name, size)?;
                (made, Location::Pool { pool, volume: name })
            }
            Target::At { location, plan } => (making.at(*plan, &location)?, location),
        };
        let mut disk = self.options.disk;
        disk.format = self.format;
        disk.version = Some(self.version);
        disk.secrets = vec![SecretRef::Uuid(made.secret.to_string())];
        let described = describe(&location, &self.options.target, &disk)?;
        watch.check()?;
        making.taken_back.keep();
        Ok(Provisioned {
            secret: made.secret,
            path: made.path,
            location,
            version: self.version,
            uuid: made.uuid,
            size: made.size,
            disk: described.disk,
            needs: described.needs,
        })
    }

    fn passphrase(&self, watch: &dyn Watch) -> Result<Passphrase, Error> {
        let Some(key) = self.options.key else {
            return Ok(Passphrase::generate()?);
        };
        let purpose = Purpose::new_secret("the new volume", watch.interrupt());
        let passphrase = key.read(purpose)?;
        if self.version == Version::Luks1 {
            check_passphrase(&passphrase)?;
        }
        Ok(passphrase)
    }
}

/// LUKS1, unless luksmith serves the volume. Options that the emulator cannot open are refused.
fn version(options: &ProvisionOptions<'_>) -> Result<Version, Error> {
    let volume = &options.volume;
    if volume.header.is_some() {
        return Err(ProvisionError::Detached.into());
    }
    let qcow2 = volume.format == ImageFormat::Qcow2;
    if options.disk.served.is_some() {
        let usual = if qcow2 {
            Version::Luks1
        } else {
            Version::Luks2
        };
        return Ok(volume.version.unwrap_or(usual));
    }
    let key_size = volume.key_size;
    let key_size = key_size.unwrap_or_else(|| volume.cipher.default_key_size());
    if let Some(unknown) = unknown_to_qemu(volume.cipher, key_size, volume.hash) {
        return Err(ProvisionError::NotInQemu(unknown).into());
    }
    match volume.version {
        Some(Version::Luks2) => Err(ProvisionError::Luks2.into()),
        _ => Ok(Version::Luks1),
    }
}

/// A volume that is being made.
struct Making<'a> {
    connection: &'a Connection,
    private: bool,
    /// The UUID of the secret, if the caller chooses it.
    uuid: Option<Uuid>,
    passphrase: &'a Passphrase,
    /// What is removed if a later step fails.
    taken_back: TakenBack<'a>,
    watch: &'a dyn Watch,
}

/// A volume that was made, with its secret.
struct Made {
    secret: Uuid,
    path: Option<String>,
    uuid: String,
    size: u64,
}

impl Making<'_> {
    fn in_pool(
        &mut self,
        new: NewVolume,
        pool_name: &str,
        name: &str,
        size: u64,
    ) -> Result<Made, Error> {
        let pool = self.connection.pool(pool_name);
        let pool = pool.map_err(|error| Error::from(error).about(pool_name))?;
        if !pool.is_active()? {
            return Err(ProvisionError::NotStarted(pool_name.to_owned()).into());
        }
        if name.contains('/') || matches!(name, "" | "." | "..") {
            return Err(ProvisionError::Name(name.to_owned()).into());
        }
        let (preallocate, limits, format) = (new.preallocate, new.limits, new.format);
        let header = NewHeader::make(new, size, self.passphrase, self.watch)?;
        let whole = match format {
            ImageFormat::Raw => header.offset.checked_add(size),
            // The image grows as it is written.
            ImageFormat::Qcow2 => Some(header.storage.geometry().size),
        };
        let whole = whole.ok_or_else(|| Error::parameters("the size is too large"))?;
        let sent = header.storage.geometry().size;
        let raw = VolumeXml::new(name)
            .capacity(Some(whole))
            .allocation(Some(if preallocate { whole } else { 0 }))
            .format(Some("raw".to_owned()));
        self.watch.check()?;
        let volume = pool.create_volume(&raw.to_xml()?).map_err(|error| {
            Error::from(error).about(format_args!("{name} in the pool {pool_name}"))
        })?;
        let path = volume.path();
        let volume = self.taken_back.volume.insert(volume);
        let path = path?;
        if format == ImageFormat::Qcow2 {
            let described = VolumeXml::parse(volume.xml()?.as_bytes())?;
            if !matches!(described.kind.as_deref(), None | Some("file")) {
                return Err(ProvisionError::NotAFile(pool_name.to_owned()).into());
            }
        }
        let (secret, uuid) = define(
            self.connection,
            self.watch,
            &mut self.taken_back.secret,
            "LUKS passphrase".to_owned(),
            (self.uuid, self.private),
            Some(&path),
            self.passphrase,
        )?;
        self.watch.check()?;
        let mut bytes = Cursor::new(header.storage.to_bytes());
        volume
            .upload(self.connection, 0, &mut bytes)
            .map_err(|error| Error::from(error).about("the header cannot be sent"))?;
        self.watch.check()?;
        // The pool now recognises the encryption, and finds the secret.
        pool.refresh()?;
        let volume = pool.volume(name)?;
        let described = VolumeXml::parse(volume.xml()?.as_bytes())?;
        if described.encryption.is_none() {
            self.watch.notes(Note::PoolNotEncrypted);
        }
        if described.format.as_deref() != Some(format.name()) {
            return Err(ProvisionError::NotRecognised(pool_name.to_owned()).into());
        }
        let mut bytes = Vec::new();
        volume.download(self.connection, 0, Some(sent), &mut bytes)?;
        let options = container::OpenOptions::new(Undo::NotLookedFor).limits(limits);
        let storage = Arc::new(MemoryBackend::from_bytes(bytes));
        let new = "the new volume";
        let about = |error: Error| error.about(new);
        let storage = match format {
            ImageFormat::Raw => storage,
            ImageFormat::Qcow2 => {
                let image = Qcow2Header::open(storage);
                image.map_err(|error| about(error.into()))?.storage()
            }
        };
        let container = Container::open(storage, options).map_err(|error| about(error.into()))?;
        self.prove(&container, &secret)?;
        Ok(Made {
            secret: uuid,
            path: Some(path),
            uuid: container.uuid().to_owned(),
            size,
        })
    }

    fn at(&mut self, plan: Plan, location: &Location) -> Result<Made, Error> {
        let path = location.path();
        let path = path
            .map(|path| spelled_for(self.connection, path))
            .transpose()?;
        let (secret, uuid) = define(
            self.connection,
            self.watch,
            &mut self.taken_back.secret,
            format!("LUKS passphrase of {location}"),
            (self.uuid, self.private),
            path.as_deref(),
            self.passphrase,
        )?;
        let made = plan.make(self.passphrase, self.watch)?;
        self.prove(&made.container, &secret)?;
        let size = made.size()?;
        let done = Made {
            secret: uuid,
            path,
            uuid: made.container.uuid().to_owned(),
            size,
        };
        self.watch.check()?;
        self.taken_back.files = made.keep()?;
        Ok(done)
    }

    /// Opens the volume with the value of the secret, or with the passphrase if the secret is
    /// private.
    fn prove(&self, container: &Container, secret: &Secret) -> Result<(), Error> {
        let kept = match secret.value() {
            Ok(kept) => Some(kept),
            Err(LibvirtError::Private(_)) => None,
            Err(error) => return Err(error.into()),
        };
        let passphrase = kept.as_ref().unwrap_or(self.passphrase);
        container.unlock(passphrase, Which::Any, self.watch.interrupt())?;
        Ok(())
    }
}

/// Defines a secret for the volume at `path`, and sets its value. `taken_back` gets the secret as
/// soon as it exists.
fn define(
    connection: &Connection,
    watch: &dyn Watch,
    taken_back: &mut Option<Secret>,
    description: String,
    (uuid, private): (Option<Uuid>, bool),
    path: Option<&str>,
    passphrase: &Passphrase,
) -> Result<(Secret, Uuid), Error> {
    watch.check()?;
    let definition = SecretXml::new(path.map(Usage::volume))
        .uuid(uuid.map(|uuid| uuid.to_string()))
        .description(Some(description))
        .private(private);
    let defined = connection.define_secret(&definition.to_xml()?);
    let secret = defined.map_err(|error| {
        let duplicate = matches!(error, LibvirtError::DuplicateUsage(_));
        let error = Error::from(error).about(path.unwrap_or("the secret"));
        match path.filter(|_| duplicate) {
            Some(path) => error.advise(Advice::RemoveSecret(path.to_owned())),
            None => error,
        }
    })?;
    let uuid = secret.uuid()?;
    *taken_back = Some(connection.secret(&uuid)?);
    secret.store(passphrase)?;
    Ok((secret, uuid))
}
