//! Which storage a place is, whatever its spelling, and the spelling of a path in secrets and
//! domains.

use std::net::IpAddr;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use luksmith_formats::nbd::uri::{Transport, Uri};

use crate::libvirt::xml::{Host, Network, Store};
use crate::libvirt::{Connection, LibvirtError};
use crate::location::{Location, Part};
use crate::task::Error;
use crate::task::emulator::{EmulatorError, text_of_socket};
use crate::task::libvirt::ceph;
use crate::xml::Xml;

/// Which storage a place is. Two places are one storage if this is equal, whether they are spelled
/// alike or not: a symbolic link, a hard link, `..`, `/dev/disk/by-id` and a volume of a pool are
/// other names of a file or a device.
///
/// A server is known only by its name. Two names of one server, or two exports of one file, count
/// as two storages.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Identity {
    /// A file of this host, by its file system and its inode.
    File {
        /// The number of the device that has the file system.
        device: u64,
        /// The number of the inode.
        inode: u64,
    },
    /// A block device of this host, by its number.
    Device(u64),
    /// A path at which this host has nothing, in one spelling, or a path of another host.
    Path(PathBuf),
    /// A volume of a pool that does not tell its path.
    Volume {
        /// The pool.
        pool: String,
        /// The name of the volume in it.
        volume: String,
    },
    /// An image on a server.
    Server {
        /// `nbd`, `rbd`, `iscsi`, …
        protocol: String,
        /// The servers, each as a host and a port or as the identity of a socket.
        hosts: Vec<String>,
        /// The name there, and of a snapshot after `@`.
        name: String,
    },
    /// A part of a storage. A partition, and the same bytes by their offset, count as two.
    Part {
        /// The whole.
        whole: Box<Self>,
        /// Which part.
        part: Part,
    },
    /// Storage of another kind, by the name of the kind.
    Other(String),
}

impl Identity {
    /// What lies at a path. Symbolic links are followed.
    #[must_use]
    pub fn of_path(path: &Path) -> Self {
        match path.metadata() {
            Ok(found) if found.file_type().is_block_device() => Self::Device(found.rdev()),
            Ok(found) => Self::File {
                device: found.dev(),
                inode: found.ino(),
            },
            Err(_) => Self::Path(one_spelling(path)),
        }
    }

    /// What lies at a path on the host of a libvirt. A path of another host is known only by its
    /// text: what this host has at that path is not looked at.
    #[must_use]
    pub fn of_path_at(path: &Path, connection: Option<&Connection>) -> Self {
        Self::at(path, is_here(connection))
    }

    fn at(path: &Path, here: bool) -> Self {
        match here {
            true => Self::of_path(path),
            false => Self::Path(path.components().collect()),
        }
    }

    /// The storage of a disk. With a connection, paths are those of its host, and a volume of a
    /// pool is what lies at its path.
    #[must_use]
    pub fn of_store(store: &Store, connection: Option<&Connection>) -> Self {
        match store {
            Store::File(path) | Store::Block(path) => Self::of_path_at(Path::new(path), connection),
            Store::Volume { pool, volume } => Self::of_volume(pool, volume, connection),
            Store::Network(network) => Self::of_server(network, is_here(connection)),
            Store::VhostUser(disk) => {
                let host = Host::Unix(disk.socket.clone());
                let server = Network::new("vhost-user", None, vec![host]);
                Self::of_server(&server, is_here(connection))
            }
            Store::Other(kind) => Self::Other(kind.clone()),
        }
    }

    /// The storage at a location. With a connection, paths are those of its host, and a volume of a
    /// pool is what lies at its path.
    #[must_use]
    pub fn of_location(location: &Location, connection: Option<&Connection>) -> Self {
        let tcp = |name: &str, port| Host::Tcp {
            name: name.to_owned(),
            port,
        };
        match location {
            Location::Path(path) => Self::of_path_at(path, connection),
            Location::Pool { pool, volume } => Self::of_volume(pool, volume, connection),
            Location::Nbd(uri) => Self::of_export(uri, is_here(connection)),
            Location::Part { whole, part } => Self::Part {
                whole: Box::new(Self::of_location(whole, connection)),
                part: *part,
            },
            Location::Objects(uri) => Self::Other(uri.to_string()),
            Location::Rbd(uri) => {
                let mut network = Network::new("rbd", Some(uri.name()), ceph::monitors(uri));
                network.snapshot.clone_from(&uri.snapshot);
                Self::of_server(&network, true)
            }
            Location::Server(server) => {
                let hosts = vec![tcp(&server.host, server.port)];
                let name = Some(server.name.clone());
                let mut network = Network::new(server.protocol, name, hosts);
                network.query.clone_from(&server.query);
                Self::of_server(&network, true)
            }
        }
    }

    /// Whether another identity is certainly of the same storage.
    #[must_use]
    pub fn is(&self, other: &Self) -> bool {
        self == other && !matches!(self, Self::Other(_))
    }

    fn of_volume(pool: &str, volume: &str, connection: Option<&Connection>) -> Self {
        let path = connection.and_then(|connection| path_in_pool(connection, pool, volume));
        match path {
            Some(path) => Self::of_path_at(Path::new(&path), connection),
            None => Self::Volume {
                pool: pool.to_owned(),
                volume: volume.to_owned(),
            },
        }
    }

    fn of_export(uri: &Uri, here: bool) -> Self {
        let host = match &uri.transport {
            Transport::Unix(socket) => {
                let text = text_of_socket(socket);
                Host::Unix(text.unwrap_or_else(|_| String::from_utf8_lossy(socket).into_owned()))
            }
            Transport::Tcp { host, port } => Host::Tcp {
                name: host.clone(),
                port: Some(*port),
            },
        };
        let network = Network::new("nbd", Some(uri.export.clone()), vec![host]);
        Self::of_server(&network, here)
    }

    fn of_server(network: &Network, here: bool) -> Self {
        let hosts = network.hosts.iter();
        let hosts = hosts.map(|host| server(host, &network.protocol, here));
        let mut hosts: Vec<String> = hosts.collect();
        hosts.sort();
        hosts.dedup();
        let mut name = network.name.clone().unwrap_or_default();
        for (mark, part) in [('?', &network.query), ('@', &network.snapshot)] {
            if let Some(part) = part {
                name.push(mark);
                name.push_str(part);
            }
        }
        Self::Server {
            protocol: network.protocol.clone(),
            hosts,
            name,
        }
    }
}

/// Whether the paths of a libvirt are paths of this host. Without a connection, they are.
fn is_here(connection: Option<&Connection>) -> bool {
    connection.is_none_or(|connection| connection.is_local().unwrap_or(false))
}

/// The path of a volume of a pool, if the pool is known and its volumes have paths: an image in
/// Ceph has a name only.
#[must_use]
pub fn path_in_pool(connection: &Connection, pool: &str, volume: &str) -> Option<String> {
    let pool = connection.pool(pool).ok()?;
    let path = pool.volume(volume).ok()?.path().ok()?;
    path.starts_with('/').then_some(path)
}

/// A path as it is written down where it identifies a volume: its folder without symbolic links,
/// `.` and `..`, and the name in it. The name may be a link that a person made, as in
/// `/dev/disk/by-id`, or that of a file which does not exist yet.
///
/// # Errors
/// A path that is not UTF-8.
pub fn spelled(path: &Path) -> Result<String, Error> {
    let text = one_spelling(path).into_os_string().into_string();
    text.map_err(|path| EmulatorError::NotUtf8(Path::new(&path).display().to_string()).into())
}

/// The same for a path on the host of a libvirt: in the folder of a pool it has the pool's
/// spelling, by which that pool finds a secret.
///
/// # Errors
/// A path that is not UTF-8, and failures of libvirt.
pub fn spelled_for(connection: &Connection, path: &Path) -> Result<String, Error> {
    let text = spelled(path)?;
    let Some((folder, name)) = text.rsplit_once('/') else {
        return Ok(text);
    };
    let folder = Identity::of_path(Path::new(folder));
    let pools = match connection.pools() {
        Err(LibvirtError::Unsupported(_)) => Vec::new(),
        pools => pools?,
    };
    for pool in pools
        .into_iter()
        .filter(|pool| pool.is_active().unwrap_or(false))
    {
        let xml = pool.xml()?;
        let xml = Xml::parse(xml.as_bytes());
        let target = xml
            .as_ref()
            .ok()
            .and_then(|xml| xml.root().at(&["target", "path"]));
        let Some(target) = target.map(|target| target.text()) else {
            continue;
        };
        if Identity::of_path(Path::new(&target)).is(&folder) {
            return Ok(format!("{}/{name}", target.trim_end_matches('/')));
        }
    }
    Ok(text)
}

fn one_spelling(path: &Path) -> PathBuf {
    let absolute = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    let folder = absolute.parent().map(Path::canonicalize);
    match (folder, absolute.file_name()) {
        (Some(Ok(folder)), Some(name)) => folder.join(name),
        (_, None) => absolute.canonicalize().unwrap_or(absolute),
        _ => absolute,
    }
}

/// A server in one spelling.
fn server(host: &Host, protocol: &str, here: bool) -> String {
    match host {
        Host::Unix(socket) => format!("{:?}", Identity::at(Path::new(socket), here)),
        Host::Tcp { name, port } => {
            let name = match name.parse::<IpAddr>() {
                Ok(address) => address.to_string(),
                Err(_) => name.trim_end_matches('.').to_ascii_lowercase(),
            };
            let usual = match protocol {
                "nbd" => 10809,
                "iscsi" => 3260,
                "http" => 80,
                "https" => 443,
                "ssh" => 22,
                _ => 0,
            };
            format!("[{name}]:{}", port.unwrap_or(usual))
        }
    }
}

#[cfg(test)]
mod tests {
    use std::ffi::OsStr;
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    fn at(text: &str) -> Identity {
        Identity::of_location(&Location::parse(OsStr::new(text)).unwrap(), None)
    }

    #[test]
    fn a_file_is_one_by_all_its_names() {
        let folder = tempfile::tempdir().unwrap();
        let name = |name: &str| folder.path().join(name);
        fs::create_dir(name("sub")).unwrap();
        for file in ["a", "b"] {
            fs::write(name(file), file).unwrap();
        }
        symlink("a", name("link")).unwrap();
        symlink("sub", name("way")).unwrap();
        fs::hard_link(name("a"), name("hard")).unwrap();
        let a = Identity::of_path(&name("a"));
        for other in ["link", "hard", "./a", "sub/../a", "way/../a"] {
            assert_eq!(Identity::of_path(&name(other)), a, "{other}");
        }
        assert_ne!(Identity::of_path(&name("b")), a);
        // What does not exist yet is identified by its folder and its name.
        let new = Identity::of_path(&name("sub/new"));
        assert_eq!(Identity::of_path(&name("way/./new")), new);
        assert_ne!(Identity::of_path(&name("new")), new);
        let store = Store::File(name("link").to_str().unwrap().to_owned());
        assert_eq!(Identity::of_store(&store, None), a);
    }

    #[test]
    fn a_path_of_another_host_is_not_looked_at_here() {
        let folder = tempfile::tempdir().unwrap();
        let name = |name: &str| folder.path().join(name);
        fs::write(name("a"), "a").unwrap();
        fs::hard_link(name("a"), name("hard")).unwrap();
        let there = |path: &str| Identity::at(&name(path), false);
        assert_eq!(there("a"), Identity::Path(name("a")));
        assert_eq!(there("./a"), there("a"));
        assert_ne!(there("hard"), there("a"));
        assert_ne!(there("a"), Identity::at(&name("a"), true));
        let socket = Host::Unix(name("a").to_str().unwrap().to_owned());
        let server = |here| {
            let network = Network::new("nbd", None, vec![socket.clone()]);
            Identity::of_server(&network, here)
        };
        assert_ne!(server(false), server(true));
    }

    #[test]
    fn a_spelling_has_no_links_in_its_folder() {
        let folder = tempfile::tempdir().unwrap();
        let real = folder.path().canonicalize().unwrap();
        fs::create_dir(real.join("sub")).unwrap();
        symlink("sub", real.join("way")).unwrap();
        symlink("x", real.join("sub/link")).unwrap();
        for (written, one) in [
            ("sub/../new", "new"),
            ("way/new", "sub/new"),
            ("way/./link", "sub/link"),
            ("sub/..", ""),
            ("absent/../new", "absent/../new"),
        ] {
            let one = match one {
                "" => real.clone(),
                one => real.join(one),
            };
            assert_eq!(
                spelled(&real.join(written)).unwrap(),
                one.to_str().unwrap(),
                "{written}"
            );
        }
    }

    #[test]
    fn a_server_is_one_by_host_port_and_name() {
        for (one, other) in [
            ("iscsi://Host.example./t/0", "iscsi://host.example:3260/t/0"),
            ("https://[::1]/a", "https://[0:0::1]:443/a"),
            ("rbd://p/i@s", "rbd://p/i@s"),
        ] {
            assert_eq!(at(one), at(other), "{one}");
        }
        for (one, other) in [
            ("iscsi://h/t/0", "iscsi://h/t/1"),
            ("iscsi://h/t/0", "iscsi://h2/t/0"),
            ("https://h/a", "http://h/a"),
            ("https://h/a?x", "https://h/a?y"),
            ("rbd://p/i", "rbd://p/i@s"),
            ("volume:p/a", "volume:q/a"),
        ] {
            assert_ne!(at(one), at(other), "{one}");
        }
        let store = Store::Network(Network::new(
            "iscsi",
            Some("t/0".to_owned()),
            vec![Host::Tcp {
                name: "H".to_owned(),
                port: None,
            }],
        ));
        assert_eq!(Identity::of_store(&store, None), at("iscsi://h/t/0"));
    }
}
