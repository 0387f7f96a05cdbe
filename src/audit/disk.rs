//! The disks of a domain (libvirt's `formatdomain`, "Hard drives, floppy disks, CDROMs"), each with
//! all images and devices that it uses.

use std::borrow::Cow;

use crate::xml::Element;

/// A disk, or other storage that is used like one.
pub(super) struct Disk<'a> {
    /// `disk`, or the element of other storage.
    pub(super) kind: &'static str,
    pub(super) element: Element<'a>,
    /// The name of the guest's device, such as `vda`.
    pub(super) target: Cow<'a, str>,
    /// The storages that it uses. The disk's own source is the first.
    pub(super) layers: Vec<Layer<'a>>,
}

/// A storage that a disk uses.
pub(super) struct Layer<'a> {
    pub(super) part: Part,
    pub(super) line: usize,
    /// The stated format.
    pub(super) format: Option<&'a str>,
    pub(super) source: Source<'a>,
    pub(super) encryption: Option<Element<'a>>,
}

/// The purpose for which a disk uses a storage.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Part {
    /// The disk's own image.
    Own,
    /// An image with the data that the image above it does not contain.
    Backing,
    /// The file in which the image before it stores its data.
    Data,
    /// The image to which the disk is being copied.
    Mirror,
    /// A backing image of the mirror.
    MirrorBacking,
}

impl Part {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Own => "the disk",
            Self::Backing => "the backing store",
            Self::Data => "the data file",
            Self::Mirror => "the mirror",
            Self::MirrorBacking => "a backing store of the mirror",
        }
    }

    /// Whether it is an image behind another one.
    pub(super) fn is_behind(self) -> bool {
        matches!(self, Self::Backing | Self::Data | Self::MirrorBacking)
    }
}

/// The place of a storage.
#[derive(Clone)]
pub(super) enum Source<'a> {
    /// Nowhere: an empty drive.
    None,
    File(Cow<'a, str>),
    Block(&'a str),
    Volume {
        pool: &'a str,
        volume: &'a str,
    },
    Network(Network<'a>),
    /// A socket of vhost-user.
    Socket(&'a str),
    /// Any other source: a directory, a PCI device.
    Other,
}

/// A storage on the network.
#[derive(Clone, Copy)]
pub(super) struct Network<'a> {
    pub(super) protocol: &'a str,
    pub(super) name: &'a str,
    /// Whether the XML requests TLS.
    pub(super) tls: Option<bool>,
    /// Whether all hosts are Unix sockets, so that the peer is on this machine.
    pub(super) is_local: bool,
    /// The Unix socket, if that is the only host.
    pub(super) socket: Option<&'a str>,
}

/// The longest chain that is followed, which is libvirt's limit.
const LONGEST_CHAIN: usize = 200;

/// The disks of a domain.
pub(super) fn disks<'a>(domain: Element<'a>) -> impl Iterator<Item = Disk<'a>> {
    let devices = domain.children("devices");
    devices
        .flat_map(|devices| devices.children("disk"))
        .map(Disk::read)
}

impl<'a> Disk<'a> {
    /// A disk of a domain.
    pub(super) fn read(element: Element<'a>) -> Self {
        let target = element.child("target");
        let target = target.and_then(|one| one.attribute("dev"));
        let own = Layer {
            part: Part::Own,
            line: element.line(),
            format: stated(element.child("driver")),
            source: Source::read(element),
            encryption: encryption(element),
        };
        let mut layers = vec![own];
        beside(element, Part::Backing, &mut layers);
        for mirror in element.children("mirror") {
            layers.push(Layer::mirror(mirror));
            beside(mirror, Part::MirrorBacking, &mut layers);
        }
        Self {
            kind: "disk",
            element,
            target: Cow::Borrowed(target.unwrap_or("unnamed")),
            layers,
        }
    }

    /// Whether a layer is encrypted. An image and the file with its data are encrypted together.
    pub(super) fn is_encrypted(&self, number: usize) -> bool {
        let of = |number: usize| self.layers.get(number);
        let is_data = |number| of(number).is_some_and(|layer| layer.part == Part::Data);
        let encrypts = |number| of(number).is_some_and(|layer| layer.encryption.is_some());
        encrypts(number)
            || is_data(number + 1) && encrypts(number + 1)
            || is_data(number) && number.checked_sub(1).is_some_and(encrypts)
    }
}

impl<'a> Layer<'a> {
    fn read(element: Element<'a>, part: Part) -> Self {
        Self {
            part,
            line: element.line(),
            format: stated(element.child("format")),
            source: Source::read(element),
            encryption: encryption(element),
        }
    }

    /// Old versions of libvirt have the file of a mirror and its format in attributes.
    fn mirror(element: Element<'a>) -> Self {
        let mut layer = Self::read(element, Part::Mirror);
        let attribute = |name| element.attribute(name).filter(|value| !value.is_empty());
        if let (Source::None, Some(path)) = (&layer.source, attribute("file")) {
            layer.source = Source::File(path.into());
        }
        layer.format = layer.format.or(attribute("format"));
        layer
    }
}

/// The backing stores and data files below an element.
fn beside<'a>(element: Element<'a>, part: Part, layers: &mut Vec<Layer<'a>>) {
    let mut above = element;
    for _ in 0..LONGEST_CHAIN {
        let within = above.child("source").and_then(|one| one.child("dataStore"));
        if let Some(data) = within.or(above.child("dataStore")) {
            layers.push(Layer::read(data, Part::Data));
        }
        let Some(backing) = above.child("backingStore") else {
            return;
        };
        // An empty element ends the chain.
        if backing.elements().next().is_none() {
            return;
        }
        layers.push(Layer::read(backing, part));
        above = backing;
    }
}

/// The format in an element. `none` and `auto` are libvirt's names for an unknown format.
fn stated(element: Option<Element<'_>>) -> Option<&str> {
    let stated = element.and_then(|one| one.attribute("type"));
    stated.filter(|name| !["", "none", "auto", "unknown"].contains(name))
}

pub(super) fn encryption<'a>(element: Element<'a>) -> Option<Element<'a>> {
    let within = element.child("source");
    element
        .child("encryption")
        .or_else(|| within.and_then(|one| one.child("encryption")))
}

impl<'a> Source<'a> {
    /// The `<source>` in an element, by the element's type.
    pub(super) fn read(element: Element<'a>) -> Self {
        let Some(source) = element.child("source") else {
            return Self::None;
        };
        let attribute = |name| source.attribute(name).filter(|value| !value.is_empty());
        match element.attribute("type").unwrap_or("file") {
            "file" => attribute("file").map_or(Self::None, |path| Self::File(path.into())),
            "block" => attribute("dev").map_or(Self::None, Self::Block),
            "volume" => match (attribute("pool"), attribute("volume")) {
                (Some(pool), Some(volume)) => Self::Volume { pool, volume },
                _ => Self::None,
            },
            "network" => Self::Network(Network::read(source)),
            "vhostuser" => attribute("path").map_or(Self::Other, Self::Socket),
            _ => Self::Other,
        }
    }

    /// The file whose path is the text of an element.
    pub(super) fn text(element: Element<'a>) -> Self {
        match element.text() {
            path if path.is_empty() => Self::None,
            path => Self::File(path.into()),
        }
    }
}

impl<'a> Network<'a> {
    pub(super) fn read(source: Element<'a>) -> Self {
        let hosts = || source.children("host");
        let is_unix = |host: Element<'_>| host.attribute("transport") == Some("unix");
        let is_local = hosts().next().is_some() && hosts().all(is_unix);
        let only = hosts().next().filter(|_| is_local && hosts().count() == 1);
        Self {
            protocol: source.attribute("protocol").unwrap_or("unknown"),
            name: source.attribute("name").unwrap_or_default(),
            tls: source.attribute("tls").map(|value| value == "yes"),
            is_local,
            socket: only.and_then(|host| host.attribute("socket")),
        }
    }
}
