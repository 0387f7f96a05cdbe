//! A disk of a domain (`<disk>`; libvirt's formatdomain page, "Hard drives, floppy disks, CDROMs").

use super::source::{Layer, Source};
use super::write::Out;
use super::{ReadError, WriteError, missing, optional, required, root, text};
use crate::xml::{Element, Xml};

/// A disk: its storage on the host and its device in the guest.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Disk {
    /// The kind of drive.
    pub device: Device,
    /// How the emulator uses the image.
    pub driver: Driver,
    /// Where the image is stored. `None` for a drive without a medium.
    pub source: Option<Source>,
    /// The backing layers that the XML names, from the top. They are not written.
    pub backing: Vec<Layer>,
    /// Whether the XML says that there is no backing layer, by an empty `<backingStore>`. libvirt
    /// then looks for none in the image.
    pub no_backing: bool,
    /// The image to which a block job of the running domain copies the disk. It is not written.
    pub mirror: Option<Layer>,
    /// Whether that copy is complete, so that the domain can go on with it.
    pub mirror_ready: bool,
    /// The device in the guest.
    pub target: Target,
    /// The serial number that the guest sees.
    pub serial: Option<String>,
    /// The guest cannot write.
    pub read_only: bool,
    /// Several domains may write at once.
    pub shareable: bool,
}

/// A kind of drive.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Device {
    /// A disk.
    #[default]
    Disk,
    /// A CD drive.
    Cdrom,
    /// A floppy drive.
    Floppy,
    /// A SCSI device that is passed through.
    Lun,
}

/// How the emulator uses the image (`<driver>`).
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Driver {
    /// The emulator's driver: `qemu`.
    pub name: Option<String>,
    /// The format of the image (`type`). Where it is not stated, libvirt may probe it.
    pub format: Option<String>,
    /// `none`, `writeback`, `writethrough`, `directsync`, `unsafe`.
    pub cache: Option<String>,
    /// `threads`, `native`, `io_uring`.
    pub io: Option<String>,
    /// `unmap`, by which the guest's discards reach the storage, or `ignore`.
    pub discard: Option<String>,
    /// `off`, `on`, `unmap`.
    pub detect_zeroes: Option<String>,
}

/// The device of a disk in the guest (`<target>`).
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Target {
    /// Its name, such as `vda` or `sdb`, which is unique in the domain.
    pub dev: String,
    /// `virtio`, `scsi`, `sata`, `ide`, `usb`, …. Without one libvirt derives it from the name.
    pub bus: Option<String>,
}

impl Target {
    /// A device with this name.
    pub fn new(dev: impl Into<String>, bus: Option<String>) -> Self {
        Self {
            dev: dev.into(),
            bus,
        }
    }
}

const DEVICES: [(Device, &str); 4] = [
    (Device::Disk, "disk"),
    (Device::Cdrom, "cdrom"),
    (Device::Floppy, "floppy"),
    (Device::Lun, "lun"),
];

impl Disk {
    /// A raw image that QEMU opens, with default options.
    #[must_use]
    pub fn raw(source: Source, target: Target) -> Self {
        Self {
            device: Device::Disk,
            driver: Driver {
                name: Some("qemu".to_owned()),
                format: Some("raw".to_owned()),
                ..Driver::default()
            },
            source: Some(source),
            backing: Vec::new(),
            no_backing: false,
            mirror: None,
            mirror_ready: false,
            target,
            serial: None,
            read_only: false,
            shareable: false,
        }
    }

    /// The same image in qcow2 format, without a backing layer.
    #[must_use]
    pub fn in_qcow2(mut self) -> Self {
        self.driver.format = Some("qcow2".to_owned());
        self.no_backing = true;
        self
    }

    /// Reads a disk.
    ///
    /// # Errors
    /// [`ReadError`].
    pub fn parse(bytes: &[u8]) -> Result<Self, ReadError> {
        let xml = Xml::parse(bytes)?;
        Self::read(root(&xml, "disk")?)
    }

    pub(super) fn read(disk: Element<'_>) -> Result<Self, ReadError> {
        let target = disk
            .child("target")
            .ok_or_else(|| missing(disk, "target"))?;
        let driver = |name| {
            let driver = disk.child("driver")?;
            optional(driver, name)
        };
        let device = disk.attribute("device").unwrap_or("disk");
        let device = DEVICES.iter().find(|row| row.1 == device);
        Ok(Self {
            device: device.map(|row| row.0).unwrap_or_default(),
            driver: Driver {
                name: driver("name"),
                format: driver("type"),
                cache: driver("cache"),
                io: driver("io"),
                discard: driver("discard"),
                detect_zeroes: driver("detect_zeroes"),
            },
            source: Source::within(disk)?,
            no_backing: disk
                .child("backingStore")
                .is_some_and(|layer| layer.child("source").is_none()),
            backing: Layer::below(disk)?,
            mirror: disk.child("mirror").map(Layer::read).transpose()?.flatten(),
            mirror_ready: disk
                .child("mirror")
                .is_some_and(|mirror| mirror.attribute("ready") == Some("yes")),
            target: Target {
                dev: required(target, "dev")?.to_owned(),
                bus: optional(target, "bus"),
            },
            serial: text(disk, "serial"),
            read_only: disk.child("readonly").is_some(),
            shareable: disk.child("shareable").is_some(),
        })
    }

    /// The XML by which a disk is attached to a domain.
    ///
    /// # Errors
    /// [`WriteError`] when XML cannot carry one of the strings.
    pub fn to_xml(&self) -> Result<String, WriteError> {
        Out::document(|out| self.write(out))
    }

    fn write(&self, out: &mut Out) {
        let kind = match &self.source {
            Some(source) => source.store.kind(),
            None => "file",
        };
        let device = DEVICES.iter().find(|row| row.0 == self.device);
        let attributes = [("type", Some(kind)), ("device", device.map(|row| row.1))];
        out.element("disk", &attributes, |out| {
            let driver = &self.driver;
            out.empty(
                "driver",
                &[
                    ("name", driver.name.as_deref()),
                    ("type", driver.format.as_deref()),
                    ("cache", driver.cache.as_deref()),
                    ("io", driver.io.as_deref()),
                    ("discard", driver.discard.as_deref()),
                    ("detect_zeroes", driver.detect_zeroes.as_deref()),
                ],
            );
            if let Some(source) = &self.source {
                source.write(out);
            }
            if self.no_backing {
                out.empty("backingStore", &[]);
            }
            let bus = self.target.bus.as_deref();
            out.empty("target", &[("dev", Some(&self.target.dev)), ("bus", bus)]);
            if self.read_only {
                out.empty("readonly", &[]);
            }
            if self.shareable {
                out.empty("shareable", &[]);
            }
            out.text_if("serial", self.serial.as_deref());
        });
    }
}
