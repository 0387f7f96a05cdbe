//! The texts and facts that an audit judges. The caller fetches them: nothing is opened here.

use std::collections::BTreeMap;
use std::path::Path;

use luksmith_formats::image::signature::Signature;
use luksmith_formats::text::Name;

/// A text, and the name that findings use for it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Document {
    /// The path of the file, or the URI of libvirt with the object in it.
    pub origin: String,
    /// The bytes of the path, if they are not UTF-8.
    pub path_bytes: Option<Vec<u8>>,
    /// Whether the origin is a file.
    pub is_file: bool,
    /// The pool of the volume in this XML, if it is known.
    pub pool: Option<String>,
    /// The text.
    pub text: Vec<u8>,
}

impl Document {
    /// The text of a file.
    pub fn file(path: impl Into<String>, text: impl Into<Vec<u8>>) -> Self {
        Self {
            origin: path.into(),
            path_bytes: None,
            is_file: true,
            pool: None,
            text: text.into(),
        }
    }

    /// The text of a file whose path may not be UTF-8. In `origin` each byte that is not is
    /// written as `\xNN`.
    pub fn at(path: &Path, text: impl Into<Vec<u8>>) -> Self {
        let bytes = path.as_os_str().as_encoded_bytes();
        Self {
            path_bytes: path.to_str().is_none().then(|| bytes.to_vec()),
            ..Self::file(Name(bytes).to_string(), text)
        }
    }

    /// The XML of an object of libvirt.
    pub fn object(origin: impl Into<String>, text: impl Into<Vec<u8>>) -> Self {
        Self {
            is_file: false,
            ..Self::file(origin, text)
        }
    }
}

/// Everything that is audited together.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Inventory {
    /// XML of domains, pools, volumes and secrets, in any order.
    pub documents: Vec<Document>,
    /// The host, if it is audited.
    pub host: Option<Host>,
    /// What is known of the images that [`images`](super::images) returned.
    pub images: BTreeMap<Wanted, Image>,
    /// What is known of the sockets that [`sockets`](super::sockets) returned. One that does not
    /// exist is missing here.
    pub sockets: BTreeMap<String, DiskSocket>,
    /// The version of the libvirt from which the documents come, as `major * 1000000 + minor * 1000
    /// + release`.
    pub libvirt_version: Option<u64>,
}

impl Inventory {
    /// An inventory of only these documents.
    #[must_use]
    pub fn new(documents: Vec<Document>) -> Self {
        Self {
            documents,
            ..Self::default()
        }
    }
}

/// An image that the rules need.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub struct Wanted {
    /// Its path, absolute.
    pub path: String,
    /// The format that the XML states, by libvirt's name. Without a stated format it is `raw`, as
    /// for libvirt.
    pub format: String,
}

impl Wanted {
    /// The image at this path, in this format.
    pub fn new(path: impl Into<String>, format: impl Into<String>) -> Self {
        Self {
            path: path.into(),
            format: format.into(),
        }
    }
}

/// The socket on which a disk is served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct DiskSocket {
    /// Its permission bits.
    pub mode: u32,
    /// The permission bits of its folder.
    pub folder_mode: u32,
}

impl DiskSocket {
    /// A socket and a folder with these permission bits.
    #[must_use]
    pub fn new(mode: u32, folder_mode: u32) -> Self {
        Self { mode, folder_mode }
    }
}

/// What is known of an image.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Image {
    /// Its path without symbolic links.
    pub real_path: Option<String>,
    /// Which file it is: the number of the device that has the file system, and the inode.
    pub file: Option<(u64, u64)>,
    /// Its number as a block device: major and minor.
    pub device: Option<(u32, u32)>,
    /// What [`look`](super::look) found, or why the image could not be opened.
    pub seen: Seen,
}

impl Image {
    /// An image of which only `seen` is known.
    #[must_use]
    pub fn new(seen: Seen) -> Self {
        Self {
            seen,
            ..Self::default()
        }
    }
}

/// Whether an image was read, and what was found.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Seen {
    /// The image was not opened, for this reason.
    Not(String),
    /// The image was read.
    Bytes(Look),
}

impl Default for Seen {
    fn default() -> Self {
        Self::Not("it was not requested".to_owned())
    }
}

/// What an audit reads of an image.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Look {
    /// All formats of which the image has the signature.
    pub looks_like: Vec<Signature>,
    /// The size of the disk in the image, in bytes.
    pub size: Option<u64>,
    /// The other files that the image names, escaped as by [`vet`](crate::vet).
    pub references: Vec<String>,
}

/// The settings and the state of a host.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Host {
    /// The files of settings: `qemu.conf` and the files of the daemons, `lvm.conf`, the rules and
    /// actions of polkit, and the arguments of the daemons.
    pub files: Vec<Document>,
    /// The socket units of libvirt's daemons.
    pub sockets: Vec<SocketUnit>,
    /// `/proc/self/mountinfo`.
    pub mountinfo: Option<Document>,
    /// The block devices of `/sys/class/block`.
    pub devices: Vec<BlockDevice>,
    /// The files with values of secrets, or with the memory of domains.
    pub kept: Vec<KeptFile>,
    /// The files and folders that exist and could not be read, each with the reason.
    pub not_read: Vec<(String, String)>,
    /// Whether LVM has a devices file (`devices/system.devices` beside `lvm.conf`).
    pub lvm_devices_file: bool,
}

/// A socket unit of systemd.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct SocketUnit {
    /// Its name, such as `libvirtd.socket`.
    pub name: String,
    /// Its file, followed by its drop-ins in the order in which systemd reads them.
    pub files: Vec<Document>,
    /// Whether it is started at boot.
    pub enabled: bool,
}

impl SocketUnit {
    /// A unit that is not started at boot.
    pub fn new(name: impl Into<String>, files: Vec<Document>) -> Self {
        Self {
            name: name.into(),
            files,
            enabled: false,
        }
    }
}

/// A block device, as in sysfs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct BlockDevice {
    /// Its name, such as `loop0` or `dm-1`.
    pub name: String,
    /// Its major and minor number.
    pub number: (u32, u32),
    /// The file of a loop device.
    pub backing_file: Option<String>,
    /// Which file that is: the number of the device that has the file system, and the inode.
    pub backing: Option<(u64, u64)>,
    /// Its name in device-mapper.
    pub mapping: Option<String>,
    /// The devices to which it maps.
    pub slaves: Vec<String>,
    /// The device of which it is a partition.
    pub whole: Option<String>,
}

impl BlockDevice {
    /// A whole disk that maps to nothing.
    pub fn new(name: impl Into<String>, number: (u32, u32)) -> Self {
        Self {
            name: name.into(),
            number,
            ..Self::default()
        }
    }
}

/// A file with a secret or with the memory of a guest.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct KeptFile {
    /// Its path.
    pub path: String,
    /// Its permission bits.
    pub mode: u32,
    /// What it contains.
    pub holds: Holds,
}

impl KeptFile {
    /// A file with these permission bits.
    pub fn new(path: impl Into<String>, mode: u32, holds: Holds) -> Self {
        Self {
            path: path.into(),
            mode,
            holds,
        }
    }
}

/// What a [`KeptFile`] contains.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Holds {
    /// The value of a secret, in base64.
    Secret,
    /// The memory of a guest: saved, dumped, or of a snapshot.
    Memory,
}
