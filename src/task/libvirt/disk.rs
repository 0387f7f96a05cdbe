//! The disk of a domain for a volume: its XML, and what the disk needs besides it.

mod need;

use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};

use luksmith_formats::nbd::uri::{Transport, Uri};

use crate::Interrupt;
use crate::container::Version;
use crate::layout::qcow2;
use crate::libvirt::xml::{
    Auth, Disk, Encryption, Engine, Format, Host, Label, Network, SecretRef, Source, Store, Target,
    Usage, UsageType, VhostUser,
};
use crate::libvirt::{Connection, LibvirtError};
use crate::location::Location;
use crate::task::emulator::{
    EmulatorError, User, absolute, text_of, text_of_socket, version, version_at,
};
use crate::task::libvirt::ceph;
use crate::task::libvirt::identity::{Identity, spelled};
use crate::task::open::{Image, ImageFormat};
use crate::task::storage::Remote;
use crate::task::{Advice, Error, Kind};

pub use need::{Need, ServedBy};

/// The bytes of a volume of a pool that are read to see what it is.
const BEGIN: u64 = 4096;

/// After how many seconds the emulator connects again to a server of vhost-user that has ended.
const RECONNECT: u32 = 1;

/// How a guest sees a disk, and how the volume is opened. If a field is empty, the default of
/// libvirt or the emulator applies.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct DiskOptions {
    /// `virtio`, `scsi`, `sata`, `ide` or `usb`.
    pub bus: Option<String>,
    /// The serial number that the guest sees.
    pub serial: Option<String>,
    /// How the emulator uses the host's page cache: `none`, `writeback`, `writethrough`,
    /// `directsync` or `unsafe`.
    pub cache: Option<String>,
    /// How the emulator reads and writes: `threads`, `native` or `io_uring`.
    pub io: Option<String>,
    /// What the guest's discards do: `unmap` or `ignore`.
    pub discard: Option<String>,
    /// The guest cannot write.
    pub read_only: bool,
    /// Several domains may write at once.
    pub shareable: bool,
    /// libvirt leaves the owner and mode of the file or device unchanged.
    pub keep_owner: bool,
    /// The secrets that open the volume: several for the layers of an image in Ceph, from the top.
    /// By default the secret whose usage is the path of the volume.
    pub secrets: Vec<SecretRef>,
    /// The version of LUKS. By default it is read from the header.
    pub version: Option<Version>,
    /// What decrypts an image in Ceph.
    pub engine: Option<Engine>,
    /// luksmith decrypts the volume and serves it.
    pub served: Option<Served>,
    /// The monitors of Ceph.
    pub monitors: Vec<Host>,
    /// The configuration file of Ceph's client, on the emulator's host.
    pub ceph_config: Option<String>,
    /// The login of the emulator at Ceph or at an iSCSI target.
    pub login: Option<Login>,
    /// How a server is reached to read the header.
    pub remote: Remote,
    /// The format of the image at the location.
    pub format: ImageFormat,
    /// Where the header is stored, if it is detached, which is possible only for a volume that
    /// luksmith serves.
    pub header: Option<Location>,
}

/// A volume that luksmith serves to the emulator.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Served {
    /// How it is served.
    pub by: ServedBy,
    /// The Unix socket.
    pub socket: PathBuf,
    /// The name of the export over NBD.
    pub export: String,
    /// The user that libvirt runs emulators as. By default `libvirt-qemu` or `qemu`, whichever
    /// exists.
    pub emulator_user: Option<String>,
}

impl Served {
    /// The default export of NBD on a socket.
    #[must_use]
    pub fn new(socket: impl Into<PathBuf>) -> Self {
        Self {
            by: ServedBy::Nbd,
            socket: socket.into(),
            export: String::new(),
            emulator_user: None,
        }
    }

    /// A disk of vhost-user on a socket.
    #[must_use]
    pub fn by_vhost_user(socket: impl Into<PathBuf>) -> Self {
        Self {
            by: ServedBy::VhostUser,
            ..Self::new(socket)
        }
    }
}

/// A login at a server.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Login {
    /// The user name.
    pub username: String,
    /// The secret with the password or key.
    pub secret: SecretRef,
}

impl Login {
    /// A login with this user name and secret.
    #[must_use]
    pub fn new(username: impl Into<String>, secret: SecretRef) -> Self {
        Self {
            username: username.into(),
            secret,
        }
    }
}

/// A disk, and what else it needs.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Described {
    /// The disk.
    pub disk: Disk,
    /// What the disk needs besides its XML.
    pub needs: Vec<Need>,
}

/// Why a disk cannot be described.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DiskError {
    /// Only a file, a device or a pool's volume has an owner to keep.
    #[error("a disk on a server has no owner that libvirt would change")]
    NoOwner,
    /// Monitors or a configuration file are given, but the volume is not in Ceph.
    #[error("monitors and a configuration file are for an image in Ceph, rbd://POOL/IMAGE")]
    NotCeph,
    /// The location has a form that libvirt's XML does not have.
    #[error("{0} cannot be described to libvirt")]
    NoForm(Location),
    /// LUKS2 or librbd is requested, but the volume is not in Ceph.
    #[error("LUKS2 and librbd are only for an image in Ceph: QEMU's own driver knows only LUKS1")]
    OnlyCeph,
    /// QEMU is requested to decrypt LUKS2.
    #[error("QEMU's own driver knows only LUKS1")]
    OnlyLuks1,
    /// libvirt's XML has no place for a detached header.
    #[error("libvirt's XML cannot describe a volume with a detached header")]
    Detached,
    /// LUKS is inside of a qcow2 image only where QEMU decrypts it.
    #[error("a qcow2 image is a file, a device, an export or a volume of a pool")]
    Qcow2,
    /// Several secrets are given, but librbd does not decrypt the image.
    #[error("several secrets open the layers of an image in Ceph, only with librbd")]
    OnlyLayers,
    /// A login is given, but the volume is on a server that takes none.
    #[error("a login is for Ceph and for iSCSI targets")]
    NoLogin,
    /// luksmith cannot serve the volume because it does not open it.
    #[error("{0}: luksmith does not open that, and cannot serve it")]
    NotServed(Location),
    /// libvirt takes no such option for a disk of vhost-user.
    #[error("a disk with shared memory (vhost-user) takes no {0}")]
    VhostUser(&'static str),
    /// The emulator's user does not exist.
    #[error("no user {0} in /etc/passwd")]
    NoUser(String),
    /// The location names a file, a device or a socket of this host, and the libvirt is on another
    /// one.
    #[error("{location} is on this machine, but {uri} is another machine")]
    Far {
        /// The location.
        location: Location,
        /// The libvirt.
        uri: String,
    },
    /// No secret is named, and the location has no path by which one could be found.
    #[error("{0}: no secret is named that opens it")]
    WhichSecret(Location),
}

impl From<DiskError> for Error {
    fn from(error: DiskError) -> Self {
        let kind = match error {
            DiskError::NoForm(_) => Kind::Unsupported,
            _ => Kind::Parameters,
        };
        Self::new(kind, error)
    }
}

/// The disk with this target for the volume at a location.
///
/// # Errors
/// [`DiskError`] for options that do not fit the location, and what is wrong with the header.
pub fn describe(
    location: &Location,
    target: &str,
    options: &DiskOptions,
) -> Result<Described, Error> {
    let mut needs = Vec::new();
    let elsewhere = matches!(
        location,
        Location::Rbd(_) | Location::Objects(_) | Location::Server(_)
    );
    if options.format == ImageFormat::Qcow2 && elsewhere {
        return Err(DiskError::Qcow2.into());
    }
    if options.header.is_some() && options.served.is_none() {
        return Err(DiskError::Detached.into());
    }
    let source = match &options.served {
        Some(served) => options.served_source(location, served, &mut needs)?,
        None => {
            let mut source = Source::plain(options.store(location, &mut needs)?);
            source.encryption = Some(options.encryption(location, &mut needs)?);
            source.auth = options.auth(location)?;
            source
        }
    };
    let mut disk = options.disk(source, target)?;
    if options.format == ImageFormat::Qcow2 && options.served.is_none() {
        disk = disk.in_qcow2();
    }
    if matches!(location, Location::Server(server) if server.protocol != "iscsi") {
        // The emulator's HTTP driver only reads.
        disk.read_only = true;
    }
    Ok(Described { disk, needs })
}

impl DiskOptions {
    /// An option that libvirt refuses for a disk of vhost-user, if one is set.
    fn not_of_vhost_user(&self) -> Option<&'static str> {
        let bus = self.bus.as_deref();
        let stated = [
            (bus.is_some_and(|bus| bus != "virtio"), "bus but virtio"),
            (self.serial.is_some(), "serial number"),
            (self.cache.is_some(), "cache mode"),
            (self.io.is_some(), "I/O mode"),
            (self.discard.is_some(), "rule for discards"),
            (self.read_only, "read-only mode"),
            (self.shareable, "sharing"),
        ];
        let (_, what) = stated.iter().find(|(stated, _)| *stated)?;
        Some(what)
    }

    fn disk(&self, mut source: Source, target: &str) -> Result<Disk, Error> {
        if self.keep_owner {
            match source.store {
                Store::File(_) | Store::Block(_) | Store::Volume { .. } => {
                    source.labels.push(Label::untouched());
                }
                _ => return Err(DiskError::NoOwner.into()),
            }
        }
        let target = Target::new(target.to_owned(), self.bus.clone());
        let mut disk = Disk::raw(source, target);
        disk.driver.cache.clone_from(&self.cache);
        disk.driver.io.clone_from(&self.io);
        disk.driver.discard.clone_from(&self.discard);
        disk.serial.clone_from(&self.serial);
        disk.read_only = self.read_only;
        disk.shareable = self.shareable;
        Ok(disk)
    }

    fn store(&self, location: &Location, needs: &mut Vec<Need>) -> Result<Store, Error> {
        let ceph = matches!(location, Location::Rbd(_));
        if !ceph && (!self.monitors.is_empty() || self.ceph_config.is_some()) {
            return Err(DiskError::NotCeph.into());
        }
        Ok(match location {
            Location::Path(path) => {
                let device = path
                    .metadata()
                    .is_ok_and(|metadata| metadata.file_type().is_block_device());
                let path = spelled(path)?;
                if device {
                    Store::Block(path)
                } else {
                    Store::File(path)
                }
            }
            Location::Nbd(uri) => Store::Network(export(uri, needs)?),
            part @ Location::Part { .. } => return Err(EmulatorError::Part(part.clone()).into()),
            objects @ Location::Objects(_) => {
                return Err(EmulatorError::Objects(objects.clone()).into());
            }
            Location::Pool { pool, volume } => Store::Volume {
                pool: pool.clone(),
                volume: volume.clone(),
            },
            Location::Rbd(uri) => {
                let monitors = match self.monitors.is_empty() {
                    true => ceph::monitors(uri),
                    false => self.monitors.clone(),
                };
                let mut network = Network::new("rbd", Some(uri.name()), monitors);
                network.snapshot.clone_from(&uri.snapshot);
                network.config = self.ceph_config.clone().or_else(|| uri.conf.clone());
                Store::Network(network)
            }
            Location::Server(server) => {
                let host = Host::Tcp {
                    name: server.host.clone(),
                    port: server.port,
                };
                let name = Some(server.name.clone());
                let mut network = Network::new(server.protocol, name, vec![host]);
                network.query.clone_from(&server.query);
                Store::Network(network)
            }
        })
    }

    fn encryption(&self, location: &Location, needs: &mut Vec<Need>) -> Result<Encryption, Error> {
        let ceph = matches!(location, Location::Rbd(_));
        let web = matches!(location, Location::Server(_));
        let version = if location.opened_here() && !ceph && !web {
            let mut image = Image::new(location.clone());
            image.format = self.format;
            image.remote = self.remote;
            match version(&image, self.version, &Interrupt::new())? {
                Version::Luks2 => return Err(EmulatorError::Luks2(location.clone()).into()),
                version => version,
            }
        } else {
            match (self.version, self.engine) {
                (Some(stated), _) => stated,
                (None, Some(Engine::Librbd) | None) if ceph => Version::Luks2,
                _ => Version::Luks1,
            }
        };
        let engine = match (self.engine, version) {
            (Some(Engine::Librbd), _) | (None, Version::Luks2) => Some(Engine::Librbd),
            (engine, _) => engine,
        };
        if engine == Some(Engine::Librbd) && !ceph {
            return Err(DiskError::OnlyCeph.into());
        }
        if engine == Some(Engine::Qemu) && version == Version::Luks2 {
            return Err(DiskError::OnlyLuks1.into());
        }
        let mut secrets = self.secrets.clone();
        if secrets.is_empty() {
            secrets.push(secret_of(location)?);
        }
        if secrets.len() > 1 {
            if engine != Some(Engine::Librbd) {
                return Err(DiskError::OnlyLayers.into());
            }
            needs.push(Need::Layers);
        }
        let format = match version {
            Version::Luks2 => Format::Luks2,
            Version::Luks1 => Format::Luks,
        };
        Ok(Encryption::new(format, engine, secrets))
    }

    fn auth(&self, location: &Location) -> Result<Option<Auth>, Error> {
        let Some(login) = &self.login else {
            return match location {
                Location::Rbd(uri) => ceph::login(uri),
                _ => Ok(None),
            };
        };
        let kind = match location {
            Location::Rbd(_) => "ceph",
            Location::Server(server) if server.protocol == "iscsi" => "iscsi",
            _ => return Err(DiskError::NoLogin.into()),
        };
        let auth = Auth::new(&login.username, kind, login.secret.clone());
        Ok(Some(auth))
    }

    /// The export that luksmith serves. libvirt sets neither owner nor label of a socket, so the
    /// server has to let the emulator's user in.
    fn served_source(
        &self,
        location: &Location,
        served: &Served,
        needs: &mut Vec<Need>,
    ) -> Result<Source, Error> {
        let text = |location: &Location| -> Result<String, Error> {
            match location {
                Location::Path(path) => spelled(path),
                Location::Nbd(_)
                | Location::Rbd(_)
                | Location::Objects(_)
                | Location::Part { .. } => text_of(location),
                other => Err(DiskError::NotServed(other.clone()).into()),
            }
        };
        let image = text(location)?;
        let header = self.header.as_ref().map(text).transpose()?;
        let socket = absolute(&served.socket)?;
        let user = match &served.emulator_user {
            Some(name) => Some(User::named(name).ok_or_else(|| DiskError::NoUser(name.clone()))?),
            None => User::of_emulators(),
        };
        needs.push(Need::Serving {
            image,
            header,
            format: self.format,
            by: served.by,
            socket: socket.clone(),
            export: served.export.clone(),
            user,
            secret: self.secrets.first().cloned(),
        });
        if user.is_none() {
            needs.push(Need::EmulatorUser);
        }
        if served.by == ServedBy::VhostUser {
            if let Some(what) = self.not_of_vhost_user() {
                return Err(DiskError::VhostUser(what).into());
            }
            needs.push(Need::SharedMemory);
            let disk = VhostUser::new(socket, Some(RECONNECT));
            return Ok(Source::plain(Store::VhostUser(disk)));
        }
        let name = (!served.export.is_empty()).then(|| served.export.clone());
        let network = Network::new("nbd", name, vec![Host::Unix(socket)]);
        Ok(Source::plain(Store::Network(network)))
    }
}

/// Completes options by what a libvirt knows of the volume, as far as they leave it open: the
/// secret whose usage is the volume by another of its names, and the version of LUKS of a volume in
/// a pool, whose header is read through the connection.
///
/// # Errors
/// [`DiskError::Far`] for a file or a socket of this host if the libvirt is on another one,
/// [`EmulatorError`] for a volume of a pool that is not LUKS1, and failures of libvirt.
pub fn complete(
    connection: &Connection,
    location: &Location,
    options: &mut DiskOptions,
) -> Result<(), Error> {
    let of_this_host = match location {
        Location::Path(_) => true,
        Location::Nbd(uri) => matches!(uri.transport, Transport::Unix(_)),
        part => part.path_of_whole().is_some(),
    };
    if of_this_host && !connection.is_local()? {
        let (location, uri) = (location.clone(), connection.uri()?);
        return Err(DiskError::Far { location, uri }.into());
    }
    if options.served.is_some() {
        return Ok(());
    }
    if let (Location::Path(path), true) = (location, options.secrets.is_empty()) {
        options
            .secrets
            .extend(secret_by_identity(connection, path)?);
    }
    if let (Location::Pool { pool, volume }, None) = (location, options.version) {
        options.version = Some(match options.format {
            ImageFormat::Raw => {
                let begin = part_in_pool(connection, pool, volume, 0, BEGIN);
                version_at(location, &begin.map_err(|error| not_read(error, location))?)?
            }
            ImageFormat::Qcow2 => qcow2_in_pool(connection, (pool, volume), location)?,
        });
    }
    Ok(())
}

/// The secret whose usage is this volume, if the usage has another spelling than this path.
fn secret_by_identity(connection: &Connection, path: &Path) -> Result<Option<SecretRef>, Error> {
    let one = Usage::volume(spelled(path)?);
    let meant = Identity::of_path(path);
    let mut found = None;
    for secret in connection.secrets()? {
        let Some(usage) = secret
            .usage()?
            .filter(|usage| usage.kind == UsageType::Volume)
        else {
            continue;
        };
        if usage == one {
            return Ok(None);
        }
        let path = Path::new(&usage.id);
        if path.is_absolute() && Identity::of_path(path).is(&meant) {
            found = Some(SecretRef::Usage(usage));
        }
    }
    Ok(found)
}

/// Bytes of a volume of a pool.
fn part_in_pool(
    connection: &Connection,
    pool: &str,
    volume: &str,
    offset: u64,
    len: u64,
) -> Result<Vec<u8>, LibvirtError> {
    let volume = connection.pool(pool)?.volume(volume)?;
    let mut part = Vec::new();
    volume.download(connection, offset, Some(len), &mut part)?;
    Ok(part)
}

/// The version of LUKS inside of a qcow2 image in a pool.
fn qcow2_in_pool(
    connection: &Connection,
    (pool, volume): (&str, &str),
    location: &Location,
) -> Result<Version, Error> {
    let read = |offset, len| {
        let part = part_in_pool(connection, pool, volume, offset, len);
        part.map_err(|error| not_read(error, location))
    };
    let begin = read(0, qcow2::LARGEST_CLUSTER)?;
    let place = qcow2::header_place(begin).map_err(|error| Error::from(error).about(location))?;
    if place.several_files {
        return Err(EmulatorError::SeveralFiles(location.clone()).into());
    }
    version_at(location, &read(place.offset, BEGIN)?)
}

fn not_read(error: LibvirtError, location: &Location) -> Error {
    let error = Error::from(error).about(location);
    error.advise(Advice::StateVersion)
}

/// The secret of a file or a device, which is found by its path.
fn secret_of(location: &Location) -> Result<SecretRef, Error> {
    match location {
        Location::Path(path) => Ok(SecretRef::Usage(Usage::volume(spelled(path)?))),
        other => Err(DiskError::WhichSecret(other.clone()).into()),
    }
}

fn export(uri: &Uri, needs: &mut Vec<Need>) -> Result<Network, Error> {
    let host = match &uri.transport {
        Transport::Unix(socket) => Host::Unix(text_of_socket(socket)?),
        Transport::Tcp { host, port } => Host::Tcp {
            name: host.clone(),
            port: Some(*port),
        },
    };
    let name = (!uri.export.is_empty()).then(|| uri.export.clone());
    let mut network = Network::new("nbd", name, vec![host]);
    if let Some(tls) = &uri.tls {
        network.tls = true;
        network.tls_hostname.clone_from(&tls.hostname);
        needs.push(Need::Certificates);
    }
    Ok(network)
}
