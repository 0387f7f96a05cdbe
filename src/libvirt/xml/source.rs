//! Where the bytes of a disk are stored (`<source>`; libvirt's formatdomain page, "Hard drives,
//! floppy disks, CDROMs").

use super::encryption::{Encryption, SecretRef};
use super::write::Out;
use super::{ReadError, WriteError, missing, optional, required, text, unknown};
use crate::xml::Element;

/// The source of a disk, or of a backing layer.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Source {
    /// Where it is stored.
    pub store: Store,
    /// How it is encrypted.
    pub encryption: Option<Encryption>,
    /// The login of the emulator at the server.
    pub auth: Option<Auth>,
    /// Owners and labels that differ from the domain's. Only files, block devices and pool volumes
    /// have them.
    pub labels: Vec<Label>,
}

/// A kind of storage (`type` of the disk).
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Store {
    /// A file on the host.
    File(String),
    /// A block device of the host.
    Block(String),
    /// A volume of a pool.
    Volume {
        /// The pool's name.
        pool: String,
        /// The volume's name in it.
        volume: String,
    },
    /// A disk on a server.
    Network(Network),
    /// A disk that a program of this host serves by memory that it shares with the guest.
    VhostUser(VhostUser),
    /// Another kind, by the name of its type: `dir`, `nvme`, …
    Other(String),
}

/// A disk on a server.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Network {
    /// `nbd`, `rbd`, `iscsi`, `http`, `https`, …
    pub protocol: String,
    /// The name in the protocol's form: an export, a pool and image, a target and unit, or a path.
    pub name: Option<String>,
    /// The query of an `http` URL.
    pub query: Option<String>,
    /// The servers.
    pub hosts: Vec<Host>,
    /// TLS with the emulator's own certificates (NBD).
    pub tls: bool,
    /// The name in the server's certificate, if it is not the host name.
    pub tls_hostname: Option<String>,
    /// A snapshot (RBD).
    pub snapshot: Option<String>,
    /// The configuration file of the client, on the emulator's host (RBD).
    pub config: Option<String>,
}

/// A disk behind a socket of vhost-user.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct VhostUser {
    /// The Unix socket.
    pub socket: String,
    /// After how many seconds the emulator connects again if the server ends. `None` if it does
    /// not.
    pub reconnect: Option<u32>,
}

/// A server.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Host {
    /// TCP, or another transport with host names and ports.
    Tcp {
        /// A host name or an address.
        name: String,
        /// The port, if it is not the protocol's default.
        port: Option<u16>,
    },
    /// A Unix socket.
    Unix(String),
}

/// A login at a server.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Auth {
    /// The user name.
    pub username: String,
    /// `ceph` or `iscsi`.
    pub kind: String,
    /// The secret with the password or key.
    pub secret: SecretRef,
}

/// The owner or security label of one image (`<seclabel>` of a source).
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Label {
    /// `dac`, `selinux` or `apparmor`. `None` means all of them.
    pub model: Option<String>,
    /// Whether libvirt sets the owner or label of the image.
    pub relabel: bool,
    /// The owner or label.
    pub label: Option<String>,
}

/// A backing layer of a disk (`<backingStore>`).
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Layer {
    /// Its format: `raw`, `qcow2`, …
    pub format: Option<String>,
    /// Where it is stored.
    pub source: Source,
}

impl Label {
    /// The label by which libvirt leaves the owner and mode of the file unchanged.
    #[must_use]
    pub fn untouched() -> Self {
        Self {
            model: Some("dac".to_owned()),
            relabel: false,
            label: None,
        }
    }

    fn read(element: Element<'_>) -> Self {
        Self {
            model: optional(element, "model"),
            relabel: element.attribute("relabel") != Some("no"),
            label: text(element, "label"),
        }
    }

    fn write(&self, out: &mut Out) {
        let relabel = if self.relabel { "yes" } else { "no" };
        let attributes = [("model", self.model.as_deref()), ("relabel", Some(relabel))];
        match &self.label {
            Some(label) => {
                out.element("seclabel", &attributes, |out| out.text("label", &[], label))
            }
            None => out.empty("seclabel", &attributes),
        }
    }
}

impl Layer {
    /// The backing layers of a disk, from the top.
    pub(super) fn below(element: Element<'_>) -> Result<Vec<Self>, ReadError> {
        let mut layers = Vec::new();
        let mut next = element.child("backingStore");
        while let Some(layer) = next {
            // An empty element ends the chain.
            layers.extend(Self::read(layer)?);
            next = layer.child("backingStore");
        }
        Ok(layers)
    }

    /// A layer or a copy. `None` if it has no source.
    pub(super) fn read(element: Element<'_>) -> Result<Option<Self>, ReadError> {
        let format = element.child("format");
        Ok(Source::within(element)?.map(|source| Self {
            format: format.and_then(|format| optional(format, "type")),
            source,
        }))
    }
}

impl Source {
    /// Storage without encryption, login or labels.
    #[must_use]
    pub fn plain(store: Store) -> Self {
        Self {
            store,
            encryption: None,
            auth: None,
            labels: Vec::new(),
        }
    }

    /// The source of a disk or of a layer. `None` for a drive without a medium. `<encryption>` and
    /// `<auth>` may also be children of the disk, where libvirt had them before version 3.9.
    pub(super) fn within(disk: Element<'_>) -> Result<Option<Self>, ReadError> {
        let Some(source) = disk.child("source") else {
            return Ok(None);
        };
        let Some(store) = Store::read(disk.attribute("type").unwrap_or("file"), source)? else {
            return Ok(None);
        };
        let encryption = match Encryption::within(source)? {
            Some(encryption) => Some(encryption),
            None => Encryption::within(disk)?,
        };
        let auth = source.child("auth").or_else(|| disk.child("auth"));
        Ok(Some(Self {
            store,
            encryption,
            auth: auth.map(Auth::read).transpose()?,
            labels: source.children("seclabel").map(Label::read).collect(),
        }))
    }

    /// Its element, which is a part of a disk.
    pub(super) fn to_xml(&self) -> Result<String, WriteError> {
        Out::document(|out| self.write(out))
    }

    pub(super) fn write(&self, out: &mut Out) {
        let tls = |network: &Network| network.tls.then_some("yes");
        let attributes = match &self.store {
            Store::File(path) => vec![("file", Some(path.as_str()))],
            Store::Block(path) => vec![("dev", Some(path.as_str()))],
            Store::Volume { pool, volume } => vec![
                ("pool", Some(pool.as_str())),
                ("volume", Some(volume.as_str())),
            ],
            Store::Network(network) => vec![
                ("protocol", Some(network.protocol.as_str())),
                ("name", network.name.as_deref()),
                ("query", network.query.as_deref()),
                ("tls", tls(network)),
                ("tlsHostname", network.tls_hostname.as_deref()),
            ],
            Store::VhostUser(disk) => {
                vec![("type", Some("unix")), ("path", Some(disk.socket.as_str()))]
            }
            Store::Other(_) => Vec::new(),
        };
        out.element("source", &attributes, |out| {
            match &self.store {
                Store::Network(network) => network.write(out),
                Store::VhostUser(disk) => disk.write(out),
                _ => {}
            }
            if let Some(auth) = &self.auth {
                auth.write(out);
            }
            if let Some(encryption) = &self.encryption {
                encryption.write(out);
            }
            for label in &self.labels {
                label.write(out);
            }
        });
    }
}

impl Store {
    /// The name of the kind, as in the `type` of a disk.
    #[must_use]
    pub fn kind(&self) -> &str {
        match self {
            Self::File(_) => "file",
            Self::Block(_) => "block",
            Self::Volume { .. } => "volume",
            Self::Network(_) => "network",
            Self::VhostUser(_) => "vhostuser",
            Self::Other(kind) => kind,
        }
    }

    /// The path of a file or block device on the host.
    #[must_use]
    pub fn path(&self) -> Option<&str> {
        match self {
            Self::File(path) | Self::Block(path) => Some(path),
            _ => None,
        }
    }

    fn read(kind: &str, source: Element<'_>) -> Result<Option<Self>, ReadError> {
        Ok(match kind {
            "file" => optional(source, "file").map(Self::File),
            "block" => optional(source, "dev").map(Self::Block),
            "volume" => Some(Self::Volume {
                pool: required(source, "pool")?.to_owned(),
                volume: required(source, "volume")?.to_owned(),
            }),
            "network" => Some(Self::Network(Network::read(source)?)),
            "vhostuser" => Some(Self::VhostUser(VhostUser::read(source)?)),
            other => Some(Self::Other(other.to_owned())),
        })
    }
}

impl Network {
    /// A disk on servers of one protocol, without further options.
    #[must_use]
    pub fn new(protocol: &str, name: Option<String>, hosts: Vec<Host>) -> Self {
        Self {
            protocol: protocol.to_owned(),
            name,
            query: None,
            hosts,
            tls: false,
            tls_hostname: None,
            snapshot: None,
            config: None,
        }
    }

    fn read(source: Element<'_>) -> Result<Self, ReadError> {
        let named = |child: &str, attribute: &str| {
            let child = source.child(child)?;
            optional(child, attribute)
        };
        Ok(Self {
            protocol: required(source, "protocol")?.to_owned(),
            name: optional(source, "name"),
            query: optional(source, "query"),
            hosts: source
                .children("host")
                .map(Host::read)
                .collect::<Result<_, _>>()?,
            tls: source.attribute("tls") == Some("yes"),
            tls_hostname: optional(source, "tlsHostname"),
            snapshot: named("snapshot", "name"),
            config: named("config", "file"),
        })
    }

    fn write(&self, out: &mut Out) {
        for host in &self.hosts {
            host.write(out);
        }
        if let Some(snapshot) = &self.snapshot {
            out.empty("snapshot", &[("name", Some(snapshot))]);
        }
        if let Some(config) = &self.config {
            out.empty("config", &[("file", Some(config))]);
        }
    }
}

impl VhostUser {
    /// A disk behind this socket, to which the emulator connects again after this time.
    #[must_use]
    pub fn new(socket: impl Into<String>, reconnect: Option<u32>) -> Self {
        Self {
            socket: socket.into(),
            reconnect,
        }
    }

    fn read(source: Element<'_>) -> Result<Self, ReadError> {
        let reconnect = source.child("reconnect");
        let enabled = reconnect.filter(|one| one.attribute("enabled") == Some("yes"));
        let seconds = |element: Element<'_>| {
            let text = required(element, "timeout")?;
            text.parse().map_err(|_| unknown(element, "the time", text))
        };
        Ok(Self {
            socket: required(source, "path")?.to_owned(),
            reconnect: enabled.map(seconds).transpose()?,
        })
    }

    fn write(&self, out: &mut Out) {
        if let Some(seconds) = self.reconnect {
            let seconds = seconds.to_string();
            let attributes = [("enabled", Some("yes")), ("timeout", Some(&*seconds))];
            out.empty("reconnect", &attributes);
        }
    }
}

impl Host {
    fn read(element: Element<'_>) -> Result<Self, ReadError> {
        if element.attribute("transport") == Some("unix") {
            return Ok(Self::Unix(required(element, "socket")?.to_owned()));
        }
        let port = element.attribute("port").map(|port| {
            let number = port.parse();
            number.map_err(|_| unknown(element, "the port", port))
        });
        Ok(Self::Tcp {
            name: required(element, "name")?.to_owned(),
            port: port.transpose()?,
        })
    }

    fn write(&self, out: &mut Out) {
        match self {
            Self::Unix(socket) => out.empty(
                "host",
                &[("transport", Some("unix")), ("socket", Some(socket))],
            ),
            Self::Tcp { name, port } => {
                let port = port.map(|port| port.to_string());
                out.empty("host", &[("name", Some(name)), ("port", port.as_deref())]);
            }
        }
    }
}

impl Auth {
    /// A login as `username`, with a secret of this kind.
    pub fn new(username: impl Into<String>, kind: impl Into<String>, secret: SecretRef) -> Self {
        Self {
            username: username.into(),
            kind: kind.into(),
            secret,
        }
    }

    fn read(element: Element<'_>) -> Result<Self, ReadError> {
        let secret = element
            .child("secret")
            .ok_or_else(|| missing(element, "secret"))?;
        Ok(Self {
            username: required(element, "username")?.to_owned(),
            kind: required(secret, "type")?.to_owned(),
            secret: SecretRef::read(secret)?,
        })
    }

    fn write(&self, out: &mut Out) {
        out.element("auth", &[("username", Some(&self.username))], |out| {
            self.secret.write(&self.kind, out);
        });
    }
}
