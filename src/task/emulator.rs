//! What an emulator needs to open a volume: the version of LUKS, the place of the volume, and
//! access for the emulator's user.

use std::fs::File;
use std::io::Read;
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::Path;

use luksmith_formats::image::qcow2;
use luksmith_formats::nbd::uri::Transport;
use luksmith_formats::{Limits, luks1};

use super::open::{Image, ImageFormat};
use super::storage::{LUKS_MAGIC, Storage, not_opened};
use super::trust::kept::{Kept, Task};
use super::{Advice, Error, Kind};
use crate::Interrupt;
use crate::backend::file::OpenOptions;
use crate::container::{self, Container, OpenError, Undo, Version};
use crate::layout::Qcow2Header;
use crate::location::Location;
use crate::qemu::{Object, Server};
use crate::secret::Passphrase;

/// Why an emulator cannot open a volume.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EmulatorError {
    /// QEMU opens only LUKS1.
    #[error("{0} is LUKS2, which QEMU does not open: its driver knows only LUKS1")]
    Luks2(Location),
    /// Only a LUKS volume is opened as one.
    #[error("{0} has no LUKS header at its start")]
    NotLuks(Location),
    /// The data of an image is in other files too, which are not described.
    #[error("{0} names a backing file or a data file")]
    SeveralFiles(Location),
    /// With a detached header, QEMU takes the data from the start of its storage on.
    #[error(
        "the data begins at byte {offset} of {image}: with a detached header, QEMU takes it from \
         byte 0 on"
    )]
    DataOffset {
        /// The volume.
        image: Location,
        /// Where its data begins, in bytes.
        offset: u64,
    },
    /// A qcow2 image is not a raw LUKS volume.
    #[error("{0} is a qcow2 image, and the disk would be a raw LUKS volume")]
    Qcow2(Location),
    /// An emulator would be given the whole of which the volume is a part.
    #[error("{0} is a part of a disk, and QEMU and libvirt would open the whole disk")]
    Part(Location),
    /// Only this library knows how a volume is kept in an object store.
    #[error("{0} is in an object store, where QEMU and libvirt do not find a volume")]
    Objects(Location),
    /// A path has to be text.
    #[error("{0} is not UTF-8")]
    NotUtf8(String),
    /// A socket in the abstract namespace has no path.
    #[error("a socket in the abstract namespace cannot be named here")]
    AbstractSocket,
    /// The path of a socket has to be text.
    #[error("the path of the socket is not UTF-8")]
    SocketNotUtf8,
    /// The URI of an export with TLS names no certificates for QEMU.
    #[error("{0} names no certificates")]
    NoCertificates(Location),
    /// QEMU takes only text as a passphrase.
    #[error("QEMU takes passphrases that are UTF-8 without a NUL, and this one is not")]
    NotText,
}

impl From<EmulatorError> for Error {
    fn from(error: EmulatorError) -> Self {
        let luks2 = matches!(error, EmulatorError::Luks2(_));
        let kind = match error {
            EmulatorError::NotLuks(_) | EmulatorError::Qcow2(_) => Kind::Damaged,
            EmulatorError::SeveralFiles(_) => Kind::Unsupported,
            _ => Kind::Parameters,
        };
        Self::new(kind, error).advise_if(luks2, Advice::ConvertToLuks1)
    }
}

/// The version of LUKS of a volume: the stated one, or else the one in its header. The header is
/// read even while an emulator has the volume open.
///
/// # Errors
/// What the storage reports, what is wrong with the header, and a volume with tags.
pub fn version(
    image: &Image,
    stated: Option<Version>,
    interrupt: &Interrupt,
) -> Result<Version, Error> {
    if let Some(stated) = stated.filter(|_| image.trust.is_none()) {
        return Ok(stated);
    }
    let container = header(image, interrupt)?;
    if image.header.is_some() && container.version() == Version::Luks1 {
        let segment = container.data_segment();
        let offset = segment.map_err(|error| Error::from(error).about(image.header_location()))?;
        if offset.offset != 0 {
            let (image, offset) = (image.location.clone(), offset.offset);
            return Err(EmulatorError::DataOffset { image, offset }.into());
        }
    }
    if let Some(dir) = image.trust.clone() {
        let options = image.tags.clone();
        let refused = Kept { dir, options }.refuse(&container, Task::Emulator);
        refused.map_err(|error| error.about(&image.location))?;
    }
    Ok(container.version())
}

/// The header of a volume that an emulator opens.
fn header(image: &Image, interrupt: &Interrupt) -> Result<Container, Error> {
    let location = image.header_location();
    let file = OpenOptions::new().force_share(true);
    let unread = |error: Error| error.advise(Advice::StateVersion);
    let storage = Storage::open(location, image.remote, file, interrupt);
    let mut storage = storage.map_err(unread)?;
    if image.format == ImageFormat::Qcow2 {
        storage = storage.into_qcow2_header(location).map_err(unread)?;
        check_whole(storage.qcow2_header.as_deref(), location)?;
    }
    let options = container::OpenOptions::new(Undo::NotLookedFor).trust(image.trust());
    Container::open(storage.header(), options).map_err(|error| match error {
        OpenError::NotLuks if storage.begins_with(&qcow2::MAGIC) => {
            EmulatorError::Qcow2(location.clone()).into()
        }
        OpenError::NotLuks => unread(EmulatorError::NotLuks(location.clone()).into()),
        error @ OpenError::Trust(_) => Error::from(error).about(location),
        error => unread(Error::from(error).about(location)),
    })
}

/// Refuses an image whose data is in other files too.
pub(super) fn check_whole(image: Option<&Qcow2Header>, location: &Location) -> Result<(), Error> {
    match image {
        Some(image) if image.backing_file().or(image.data_file()).is_some() => {
            Err(EmulatorError::SeveralFiles(location.clone()).into())
        }
        _ => Ok(()),
    }
}

/// The version of LUKS of a volume whose first bytes are these, for an emulator that opens it as a
/// raw volume.
///
/// # Errors
/// [`EmulatorError`] for anything but LUKS1, and what is wrong with the header.
pub(super) fn version_at(location: &Location, begin: &[u8]) -> Result<Version, Error> {
    if begin.starts_with(&qcow2::MAGIC) {
        return Err(EmulatorError::Qcow2(location.clone()).into());
    }
    let number = begin
        .strip_prefix(LUKS_MAGIC)
        .and_then(|rest| rest.get(..2));
    match (number, begin.get(..luks1::HEADER_SIZE)) {
        (Some([0, 2]), _) => Err(EmulatorError::Luks2(location.clone()).into()),
        (Some([0, 1]), Some(header)) => {
            luks1::Header::parse(header, &Limits::default())
                .map_err(|error| Error::from(OpenError::Header(error)).about(location))?;
            Ok(Version::Luks1)
        }
        _ => Err(EmulatorError::NotLuks(location.clone()).into()),
    }
}

/// An absolute path, which another process can use.
///
/// # Errors
/// [`EmulatorError::NotUtf8`], and an empty path.
pub fn absolute(path: &Path) -> Result<String, Error> {
    let absolute = std::path::absolute(path)
        .map_err(|error| Error::new(Kind::Parameters, error).about(path.display()))?;
    let text = absolute.into_os_string().into_string();
    text.map_err(|path| EmulatorError::NotUtf8(Path::new(&path).display().to_string()).into())
}

/// The text of a location by which a server on this host finds it: paths are absolute.
///
/// # Errors
/// As [`absolute`]; a location that only an emulator opens.
pub fn text_of(location: &Location) -> Result<String, Error> {
    match location {
        Location::Path(path) => absolute(path),
        Location::Nbd(uri) => Ok(uri.to_string()),
        Location::Rbd(uri) => Ok(uri.to_string()),
        Location::Objects(uri) => Ok(uri.to_string()),
        Location::Part { whole, part } => Ok(format!("{},{part}", text_of(whole)?)),
        other => Err(not_opened(other)),
    }
}

/// The absolute path of a socket.
///
/// # Errors
/// [`EmulatorError::AbstractSocket`] and [`EmulatorError::SocketNotUtf8`].
pub fn text_of_socket(socket: &[u8]) -> Result<String, Error> {
    match String::from_utf8(socket.to_vec()) {
        Ok(text) if text.starts_with('/') => Ok(text),
        Ok(text) if text.starts_with('\0') => Err(EmulatorError::AbstractSocket.into()),
        Ok(text) => absolute(Path::new(&text)),
        Err(_) => Err(EmulatorError::SocketNotUtf8.into()),
    }
}

/// Where QEMU finds the ciphertext of the volume at a location. For TLS, an object with the ID `id`
/// is added that holds the certificates.
///
/// # Errors
/// [`EmulatorError::NoCertificates`], paths that are not text, and a location that only libvirt
/// opens.
pub fn qemu_server(
    location: &Location,
    id: &str,
    objects: &mut Vec<Object>,
) -> Result<Server, Error> {
    let uri = match location {
        Location::Path(path) => {
            let device = path
                .metadata()
                .is_ok_and(|metadata| metadata.file_type().is_block_device());
            let path = absolute(path)?;
            return Ok(if device {
                Server::Device(path)
            } else {
                Server::File(path)
            });
        }
        Location::Nbd(uri) => uri,
        part @ Location::Part { .. } => return Err(EmulatorError::Part(part.clone()).into()),
        objects @ Location::Objects(_) => {
            return Err(EmulatorError::Objects(objects.clone()).into());
        }
        other => return Err(not_opened(other)),
    };
    let tls = match &uri.tls {
        None => None,
        Some(tls) => {
            let directory = tls.certificates.as_ref();
            let directory =
                directory.ok_or_else(|| EmulatorError::NoCertificates(location.clone()))?;
            objects.push(Object::Certificates {
                id: id.to_owned(),
                directory: text_of_socket(directory)?,
            });
            Some((id.to_owned(), tls.hostname.clone()))
        }
    };
    let export = uri.export.clone();
    Ok(match &uri.transport {
        Transport::Unix(socket) => Server::NbdUnix {
            socket: text_of_socket(socket)?,
            export,
            tls,
        },
        Transport::Tcp { host, port } => Server::NbdTcp {
            host: host.clone(),
            port: *port,
            export,
            tls,
        },
    })
}

/// Refuses a passphrase that QEMU does not take.
///
/// # Errors
/// [`EmulatorError::NotText`].
pub fn check_passphrase(passphrase: &Passphrase) -> Result<(), Error> {
    if passphrase.is_text() {
        return Ok(());
    }
    Err(EmulatorError::NotText.into())
}

/// Whether a file or block device of this host begins as a LUKS volume or an encrypted qcow2 image
/// does.
#[must_use]
pub fn is_encrypted(path: &Path) -> bool {
    encrypted_as(path).is_some()
}

/// The format of a file or block device of this host, if it begins as a LUKS volume or an encrypted
/// qcow2 image does.
#[must_use]
pub fn encrypted_as(path: &Path) -> Option<ImageFormat> {
    let mut begin = [0; 36];
    // Without O_NONBLOCK, opening a FIFO would block until its other end is opened.
    let nonblocking = i32::try_from(rustix::fs::OFlags::NONBLOCK.bits()).unwrap_or_default();
    File::options()
        .read(true)
        .custom_flags(nonblocking)
        .open(path)
        .and_then(|mut file| file.read_exact(&mut begin))
        .ok()?;
    if begin.starts_with(LUKS_MAGIC) {
        return Some(ImageFormat::Raw);
    }
    let encrypted = begin.starts_with(&qcow2::MAGIC) && begin[32..] == [0, 0, 0, 2];
    encrypted.then_some(ImageFormat::Qcow2)
}

/// A user of this host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct User {
    /// The user ID.
    pub uid: u32,
    /// The ID of the user's group.
    pub gid: u32,
}

/// The names that distributions give to the user that libvirt's system daemon runs emulators as.
const EMULATORS: [&str; 2] = ["libvirt-qemu", "qemu"];

impl User {
    /// A user with these IDs.
    #[must_use]
    pub fn new(uid: u32, gid: u32) -> Self {
        Self { uid, gid }
    }

    /// The user of emulators on this host.
    #[must_use]
    pub fn of_emulators() -> Option<Self> {
        EMULATORS.into_iter().find_map(Self::named)
    }

    /// The user with this name in `/etc/passwd`.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Self::in_list(&std::fs::read_to_string("/etc/passwd").ok()?, name)
    }

    fn in_list(list: &str, name: &str) -> Option<Self> {
        list.lines().find_map(|line| {
            let mut fields = line.split(':');
            let found = fields.next() == Some(name);
            let mut numbers = fields.skip(1).map(str::parse);
            let (uid, gid) = (numbers.next()?.ok()?, numbers.next()?.ok()?);
            found.then_some(Self { uid, gid })
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_is_found_by_name() {
        let list = "root:x:0:0:root:/r:/bin/sh\nbroken\nlibvirt-qemu:x:64055:103::/:/x\n";
        let user = User {
            uid: 64055,
            gid: 103,
        };
        assert_eq!(User::in_list(list, "libvirt-qemu"), Some(user));
        assert_eq!(User::in_list(list, "libvirt"), None);
        assert_eq!(User::in_list(list, "broken"), None);
    }

    #[test]
    fn qemu_takes_only_text() {
        let check = |bytes: &[u8]| check_passphrase(&Passphrase::copy_from(bytes).unwrap()).is_ok();
        assert!(check("wörter\n".as_bytes()));
        assert!(!check(b"a\0b") && !check(b"\xff"));
    }
}
