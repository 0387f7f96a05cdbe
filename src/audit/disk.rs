//! The disks of a domain (libvirt's `formatdomain`, "Hard drives, floppy disks, CDROMs"), each with
//! all images and devices that it uses.

use crate::xml::Element;

/// A disk.
pub(super) struct Disk<'a> {
    pub(super) element: Element<'a>,
    /// The name of the guest's device, such as `vda`.
    pub(super) target: &'a str,
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
    /// The file in which an image stores its data.
    Data,
    /// The image to which the disk is being copied.
    Mirror,
}

impl Part {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Own => "the disk",
            Self::Backing => "the backing store",
            Self::Data => "the data file",
            Self::Mirror => "the mirror",
        }
    }
}

/// The place of a storage.
#[derive(Clone, Copy)]
pub(super) enum Source<'a> {
    /// Nowhere: an empty drive.
    None,
    File(&'a str),
    Block(&'a str),
    Volume {
        pool: &'a str,
        volume: &'a str,
    },
    Network(Network<'a>),
    /// Any other source: a directory, a PCI device, a vhost-user socket.
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
    fn read(element: Element<'a>) -> Self {
        let target = element.child("target");
        let target = target.and_then(|one| one.attribute("dev"));
        let own = Layer {
            part: Part::Own,
            line: element.line(),
            format: stated(element.child("driver")),
            source: Source::read(element, element.attribute("type")),
            encryption: encryption(element),
        };
        let mut layers = vec![own];
        beside(element, &mut layers);
        for mirror in element.children("mirror") {
            layers.push(Layer::read(mirror, Part::Mirror));
        }
        Self {
            element,
            target: target.unwrap_or("unnamed"),
            layers,
        }
    }
}

impl<'a> Layer<'a> {
    fn read(element: Element<'a>, part: Part) -> Self {
        Self {
            part,
            line: element.line(),
            format: stated(element.child("format")),
            source: Source::read(element, element.attribute("type")),
            encryption: encryption(element),
        }
    }
}

/// The backing stores and data files below an element.
fn beside<'a>(element: Element<'a>, layers: &mut Vec<Layer<'a>>) {
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
        layers.push(Layer::read(backing, Part::Backing));
        above = backing;
    }
}

/// The format in an element. `none` and `auto` are libvirt's names for an unknown format.
fn stated(element: Option<Element<'_>>) -> Option<&str> {
    let stated = element.and_then(|one| one.attribute("type"));
    stated.filter(|name| !["", "none", "auto", "unknown"].contains(name))
}

fn encryption<'a>(element: Element<'a>) -> Option<Element<'a>> {
    let within = element.child("source");
    element
        .child("encryption")
        .or_else(|| within.and_then(|one| one.child("encryption")))
}

impl<'a> Source<'a> {
    fn read(element: Element<'a>, kind: Option<&str>) -> Self {
        let Some(source) = element.child("source") else {
            return Self::None;
        };
        let attribute = |name| source.attribute(name).filter(|value| !value.is_empty());
        match kind.unwrap_or("file") {
            "file" => attribute("file").map_or(Self::None, Self::File),
            "block" => attribute("dev").map_or(Self::None, Self::Block),
            "volume" => match (attribute("pool"), attribute("volume")) {
                (Some(pool), Some(volume)) => Self::Volume { pool, volume },
                _ => Self::None,
            },
            "network" => Self::Network(Network::read(source)),
            _ => Self::Other,
        }
    }
}

impl<'a> Network<'a> {
    fn read(source: Element<'a>) -> Self {
        let mut hosts = source.children("host").peekable();
        let is_local =
            hosts.peek().is_some() && hosts.all(|host| host.attribute("transport") == Some("unix"));
        Self {
            protocol: source.attribute("protocol").unwrap_or("unknown"),
            name: source.attribute("name").unwrap_or_default(),
            tls: source.attribute("tls").map(|value| value == "yes"),
            is_local,
        }
    }
}
