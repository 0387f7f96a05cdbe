//! What an audit looks at: texts and facts that somebody else fetched. Nothing is opened here.

use std::collections::BTreeMap;

use luksmith_formats::image::signature::Signature;

/// A text with the name that findings give it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Document {
    /// The path of the file, or the URI of libvirt with the object in it.
    pub origin: String,
    /// Whether the origin is a file.
    pub is_file: bool,
    /// The pool that the volume of this XML lies in, where that is known.
    pub pool: Option<String>,
    /// The text.
    pub text: Vec<u8>,
}

impl Document {
    /// The text of a file.
    pub fn file(path: impl Into<String>, text: impl Into<Vec<u8>>) -> Self {
        Self {
            origin: path.into(),
            is_file: true,
            pool: None,
            text: text.into(),
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
    /// The host, where it is audited.
    pub host: Option<Host>,
    /// What was seen of images, by what [`images`](super::images) asked for.
    pub images: BTreeMap<Wanted, Image>,
    /// The version of libvirt where the documents come from, as it counts it: `major * 1000000 + minor * 1000 + release`.
    pub libvirt_version: Option<u64>,
}

impl Inventory {
    /// These documents, and nothing else.
    #[must_use]
    pub fn new(documents: Vec<Document>) -> Self {
        Self {
            documents,
            ..Self::default()
        }
    }
}

/// An image that an audit would like to know about.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub struct Wanted {
    /// Its path, absolute.
    pub path: String,
    /// The format that the XML states for it, as libvirt spells it; `raw` where it states none, as libvirt takes it.
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

/// What was seen of an image.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Image {
    /// Its path without symbolic links.
    pub real_path: Option<String>,
    /// Its number as a block device: major and minor.
    pub device: Option<(u32, u32)>,
    /// What [`look`](super::look) made of its bytes, or why it could not be opened.
    pub seen: Seen,
}

impl Image {
    /// What was seen; of its path and its device nothing is known.
    #[must_use]
    pub fn new(seen: Seen) -> Self {
        Self {
            seen,
            ..Self::default()
        }
    }
}

/// What the bytes of an image say.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Seen {
    /// It was not opened, for this reason.
    Not(String),
    /// It was read.
    Bytes(Look),
}

impl Default for Seen {
    fn default() -> Self {
        Self::Not("it was not asked for".to_owned())
    }
}

/// The bytes of an image, as far as an audit looks.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Look {
    /// Everything that it looks like.
    pub looks_like: Vec<Signature>,
    /// The size of the disk in it, in bytes.
    pub size: Option<u64>,
    /// The other files that it names, escaped as [`vet`](crate::vet) shows them.
    pub references: Vec<String>,
}

/// The settings and the state of a host.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Host {
    /// Settings, by their paths: `qemu.conf` and the files of daemons, `lvm.conf`, rules and actions of polkit, arguments of daemons.
    pub files: Vec<Document>,
    /// The units of systemd that listen for libvirt.
    pub sockets: Vec<SocketUnit>,
    /// `/proc/self/mountinfo`.
    pub mountinfo: Option<Document>,
    /// The block devices of `/sys/class/block`.
    pub devices: Vec<BlockDevice>,
    /// Values of secrets, and states of domains, that lie in files.
    pub kept: Vec<KeptFile>,
    /// Files and folders that are there and could not be read, each with the reason.
    pub not_read: Vec<(String, String)>,
    /// Whether there is a list of devices for LVM (`devices/system.devices` beside `lvm.conf`).
    pub lvm_devices_file: bool,
}

/// A socket unit of systemd.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct SocketUnit {
    /// Its name, such as `libvirtd.socket`.
    pub name: String,
    /// Its file, then its drop-ins, in the order in which they count.
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

/// A block device, as sysfs describes it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct BlockDevice {
    /// Its name, such as `loop0` or `dm-1`.
    pub name: String,
    /// Major and minor.
    pub number: (u32, u32),
    /// The file behind a loop device.
    pub backing_file: Option<String>,
    /// What device-mapper calls it.
    pub mapping: Option<String>,
    /// The devices that it maps to.
    pub slaves: Vec<String>,
    /// The device that it is a partition of.
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

/// A file that holds a secret or the memory of a guest.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct KeptFile {
    /// Its path.
    pub path: String,
    /// Its permission bits.
    pub mode: u32,
    /// What is in it.
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

/// What a kept file holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Holds {
    /// The value of a secret, in base64.
    Secret,
    /// The memory of a guest: saved, dumped, or of a snapshot.
    Memory,
}
