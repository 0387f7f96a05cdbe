//! Where a volume is stored, as text: a path, an NBD URI, an image in Ceph, a volume in an object
//! store, a part of one of these, a volume of a libvirt pool, or an image on a server.
//!
//! Text that begins with `scheme://` is a URI; a file of such a name is `./scheme://x`. A new form
//! is a row in the table of forms.

mod part;

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use luksmith_formats::nbd::uri::{Transport, Uri, UriError, scheme};
use luksmith_formats::objects;
use luksmith_formats::percent;
use luksmith_formats::rbd;
use luksmith_formats::text::{Name, without_query};

use crate::feature::MissingFeature;

pub use part::{Part, PartError};

/// Where a volume is stored. Its `Display` is the text that was parsed, with `\xNN` for each byte
/// that is not UTF-8, and without the query of a web server's URL; no form takes a password.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Location {
    /// A file or a block device.
    Path(PathBuf),
    /// An export on an NBD server.
    Nbd(Box<Uri>),
    /// An image in Ceph: `rbd://POOL[/NAMESPACE]/IMAGE[@SNAPSHOT][?id=USER&conf=PATH&…]`.
    Rbd(Box<rbd::Uri>),
    /// A volume in an object store: `s3://BUCKET/PREFIX[@SNAPSHOT][?endpoint=URL&region=NAME…]`.
    Objects(Box<objects::uri::Uri>),
    /// A part of one of the above: `IMAGE,partition=N`, `IMAGE,offset=N` or
    /// `IMAGE,offset=N,size=N`.
    Part {
        /// The whole.
        whole: Box<Self>,
        /// Which part of it.
        part: Part,
    },
    /// A volume of a libvirt storage pool: `volume:POOL/NAME`.
    Pool {
        /// The pool's name.
        pool: String,
        /// The volume's name.
        volume: String,
    },
    /// An image on another server: a file on a web server, which is only read, or a unit of an
    /// iSCSI target, which only an emulator reads.
    Server(Server),
}

/// An image on a server: `iscsi://`, which only an emulator reads, `http://` or `https://`.
///
/// `Display` and `Debug` leave the query of a URL out, which may be a signature.
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Server {
    /// `iscsi`, `http` or `https`.
    pub protocol: &'static str,
    /// A name or an address; IPv6 without its brackets.
    pub host: String,
    /// The port, if it is named.
    pub port: Option<u16>,
    /// The target and the unit (`TARGET/LUN`), or the path, decoded.
    pub name: String,
    /// What follows `?`, as it is written.
    pub query: Option<String>,
    /// The folder of the certificates to trust: `#tls-certificates=DIR`, which no server sees.
    pub certificates: Option<PathBuf>,
    text: String,
}

impl Server {
    /// The URL that a web server is asked for: without what is only meant for this program.
    #[must_use]
    pub fn url(&self) -> &str {
        self.text.split('#').next().unwrap_or_default()
    }

    /// Whether it is a file on a web server.
    #[must_use]
    pub fn is_web(&self) -> bool {
        self.protocol.starts_with("http")
    }
}

impl fmt::Display for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (url, folder) = match self.text.split_once('#') {
            Some((url, folder)) => (url, Some(folder)),
            None => (self.text.as_str(), None),
        };
        f.write_str(&without_query(url))?;
        match folder {
            Some(folder) => write!(f, "#{folder}"),
            None => Ok(()),
        }
    }
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Server({self})")
    }
}

/// Why a text names no location. The message never repeats what could be a password.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LocationError {
    /// The URI is malformed, or of no known scheme.
    #[error(transparent)]
    Uri(#[from] UriError),
    /// A volume of a pool is not of its form.
    #[error("a volume is volume:POOL/NAME")]
    Pool,
    /// The URI of an image in Ceph is malformed.
    #[error(transparent)]
    Rbd(#[from] rbd::UriError),
    /// The URI of a volume in an object store is malformed.
    #[error(transparent)]
    Objects(#[from] objects::uri::UriError),
    /// An image in Ceph is named as QEMU names it. Contains its URI.
    #[error("an image in ceph is named by its uri, {0}")]
    RbdName(String),
    /// A unit of an iSCSI target is not of its form.
    #[error("a unit of an iscsi target is iscsi://HOST[:PORT]/TARGET/LUN")]
    Iscsi,
    /// The part is not of its form.
    #[error(transparent)]
    Part(#[from] PartError),
    /// The form needs a Cargo feature that this build does not have.
    #[error(transparent)]
    MissingFeature(#[from] MissingFeature),
    /// The text is empty.
    #[error("the path is empty")]
    Empty,
    /// The folder of certificates has no absolute path.
    #[error("#tls-certificates= takes the absolute path of a folder with ca-cert.pem")]
    Certificates,
    /// The URI has no path.
    #[error("the uri names no path")]
    NoPath,
}

type Parse = fn(&str) -> Result<Location, LocationError>;

/// A form of a location that is no path.
struct Form {
    /// The beginning of the text. A URI's scheme is followed by `://`, and its case does not
    /// matter.
    prefix: &'static str,
    /// Whether this library opens what it names.
    opened: bool,
    parse: Parse,
}

const FORMS: [Form; 11] = [
    Form::opened("nbd://", nbd),
    Form::opened("nbds://", nbd),
    Form::opened("nbd+unix://", nbd),
    Form::opened("nbds+unix://", nbd),
    Form::opened("rbd://", ceph),
    Form::opened(RBD, name_of_qemu),
    Form::opened("s3://", bucket),
    Form::named("volume:", pool),
    Form::named("iscsi://", iscsi),
    Form::opened("http://", |text| http("http", text)),
    Form::opened("https://", |text| http("https", text)),
];

/// How QEMU's names of images in Ceph begin.
const RBD: &str = "rbd:";

impl Form {
    const fn opened(prefix: &'static str, parse: Parse) -> Self {
        let opened = true;
        Self {
            prefix,
            opened,
            parse,
        }
    }

    const fn named(prefix: &'static str, parse: Parse) -> Self {
        let opened = false;
        Self {
            prefix,
            opened,
            parse,
        }
    }

    fn fits(&self, text: &str) -> bool {
        match self.prefix.strip_suffix("://") {
            Some(name) => scheme(text.as_bytes()).is_some_and(|it| it.eq_ignore_ascii_case(name)),
            None => text.starts_with(self.prefix),
        }
    }
}

impl Location {
    /// Reads a location in any form.
    ///
    /// # Errors
    /// [`LocationError`] says what is wrong with it.
    pub fn parse(text: &OsStr) -> Result<Self, LocationError> {
        Self::parse_form(text, |_| true)
    }

    /// Reads the location of a volume that this library can open. The forms of other locations are
    /// read as paths, or as URIs of an unknown scheme.
    ///
    /// # Errors
    /// [`LocationError`] says what is wrong with it.
    pub fn parse_openable(text: &OsStr) -> Result<Self, LocationError> {
        Self::parse_form(text, |form| form.opened)
    }

    /// A location that this library opens may end with a part. A file that has the whole text as
    /// its name is taken instead.
    fn parse_form(text: &OsStr, takes: fn(&Form) -> bool) -> Result<Self, LocationError> {
        let named = text.to_str().is_some_and(|utf8| {
            let form = FORMS.iter().find(|form| takes(form) && form.fits(utf8));
            form.is_some_and(|form| !form.opened)
        });
        if named || exists(text) {
            return Self::parse_whole(text, takes);
        }
        match part::split(text.as_bytes())? {
            Some((whole, part)) => {
                let whole = Self::parse_whole(OsStr::from_bytes(whole), takes)?;
                Ok(Self::part_of(whole, part))
            }
            None => Self::parse_whole(text, takes),
        }
    }

    fn parse_whole(text: &OsStr, takes: fn(&Form) -> bool) -> Result<Self, LocationError> {
        if text.is_empty() {
            return Err(LocationError::Empty);
        }
        let is_uri = scheme(text.as_encoded_bytes()).is_some();
        let Some(utf8) = text.to_str() else {
            return match is_uri {
                true => Err(UriError::Encoding("the uri").into()),
                false => Ok(Self::Path(text.into())),
            };
        };
        let form = FORMS.iter().find(|form| takes(form) && form.fits(utf8));
        match form {
            Some(form) => (form.parse)(utf8),
            // Says that the scheme is unknown.
            None if is_uri => Ok(Self::Nbd(Box::new(Uri::parse(utf8)?))),
            None => Ok(Self::Path(text.into())),
        }
    }

    /// A part of a location that this library opens.
    #[must_use]
    pub fn part_of(whole: Self, part: Part) -> Self {
        let whole = Box::new(whole);
        Self::Part { whole, part }
    }

    /// The path, if it is one: not of a part.
    #[must_use]
    pub fn path(&self) -> Option<&Path> {
        match self {
            Self::Path(path) => Some(path),
            _ => None,
        }
    }

    /// The path of the file or block device that it is, or of which it is a part.
    #[must_use]
    pub fn path_of_whole(&self) -> Option<&Path> {
        match self {
            Self::Part { whole, .. } => whole.path(),
            other => other.path(),
        }
    }

    /// Which part it is, if it is one.
    #[must_use]
    pub fn part(&self) -> Option<Part> {
        match self {
            Self::Part { part, .. } => Some(*part),
            _ => None,
        }
    }

    /// Whether this library opens it, and not only an emulator.
    #[must_use]
    pub fn opened_here(&self) -> bool {
        match self {
            Self::Path(_) | Self::Nbd(_) | Self::Rbd(_) | Self::Objects(_) => true,
            Self::Part { .. } => true,
            Self::Server(server) => server.is_web(),
            Self::Pool { .. } => false,
        }
    }
}

/// Whether a file has this name, or a symbolic link that may lead nowhere.
fn exists(text: &OsStr) -> bool {
    scheme(text.as_bytes()).is_none() && Path::new(text).symlink_metadata().is_ok()
}

fn nbd(text: &str) -> Result<Location, LocationError> {
    if !cfg!(feature = "nbd") {
        return Err(MissingFeature::new("a volume on an NBD server", "nbd").into());
    }
    Ok(Location::Nbd(Box::new(Uri::parse(text)?)))
}

fn pool(text: &str) -> Result<Location, LocationError> {
    let rest = text.strip_prefix("volume:").unwrap_or(text);
    let (pool, volume) = rest.split_once('/').ok_or(LocationError::Pool)?;
    if pool.is_empty() || volume.is_empty() || volume.contains('/') {
        return Err(LocationError::Pool);
    }
    let (pool, volume) = (pool.to_owned(), volume.to_owned());
    Ok(Location::Pool { pool, volume })
}

fn ceph(text: &str) -> Result<Location, LocationError> {
    Ok(Location::Rbd(Box::new(rbd::Uri::parse(text)?)))
}

fn bucket(text: &str) -> Result<Location, LocationError> {
    Ok(Location::Objects(Box::new(objects::uri::Uri::parse(text)?)))
}

/// Refuses a name that QEMU takes for an image in Ceph, unless there is a file, or a folder for it.
fn name_of_qemu(text: &str) -> Result<Location, LocationError> {
    let path = Path::new(text);
    let folder = path.parent().unwrap_or(path);
    let uri = rbd::Uri::of_name(text.strip_prefix(RBD).unwrap_or(text));
    match uri.filter(|_| !exists(text.as_ref()) && !exists(folder.as_os_str())) {
        Some(uri) => Err(LocationError::RbdName(uri.to_string())),
        None => Ok(Location::Path(path.into())),
    }
}

fn iscsi(text: &str) -> Result<Location, LocationError> {
    let server = server("iscsi", text)?;
    let whole = server.name.rsplit_once('/').is_some_and(|(target, unit)| {
        !target.is_empty() && !unit.is_empty() && unit.bytes().all(|c| c.is_ascii_digit())
    });
    if !whole || server.query.is_some() {
        return Err(LocationError::Iscsi);
    }
    Ok(Location::Server(server))
}

fn http(protocol: &'static str, text: &str) -> Result<Location, LocationError> {
    let (url, certificates) = match text.split_once("#tls-certificates=") {
        Some((url, folder)) => (url, Some(folder)),
        None => (text, None),
    };
    let mut server = server(protocol, url)?;
    if server.name.is_empty() {
        return Err(LocationError::NoPath);
    }
    text.clone_into(&mut server.text);
    if let Some(folder) = certificates {
        let folder = percent::decode(folder).filter(|folder| folder.first() == Some(&b'/'));
        let folder = folder.ok_or(LocationError::Certificates)?;
        server.certificates = Some(PathBuf::from(OsString::from_vec(folder)));
    }
    Ok(Location::Server(server))
}

/// Host, port and path are read as those of an NBD URI: RFC 3986 has one form for both.
fn server(protocol: &'static str, text: &str) -> Result<Server, LocationError> {
    let rest = text.split_once("://").map_or("", |(_, rest)| rest);
    let (place, query) = match rest.split_once('?') {
        Some((place, query)) => (place, Some(query.to_owned())),
        None => (rest, None),
    };
    let uri = Uri::parse(&format!("nbd://{place}"))?;
    let Transport::Tcp { host, port } = uri.transport else {
        return Err(UriError::NoHost.into());
    };
    Ok(Server {
        protocol,
        host,
        port: names_port(place).then_some(port),
        name: uri.export,
        query,
        certificates: None,
        text: text.to_owned(),
    })
}

/// Whether an authority has a port of its own.
fn names_port(place: &str) -> bool {
    let authority = place.split('/').next().unwrap_or_default();
    let after = authority.rsplit(']').next().unwrap_or_default();
    after
        .split_once(':')
        .is_some_and(|(_, port)| !port.is_empty())
}

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Path(path) => Name(path.as_os_str().as_encoded_bytes()).fmt(f),
            Self::Nbd(uri) => uri.fmt(f),
            Self::Part { whole, part } => write!(f, "{whole},{part}"),
            Self::Pool { pool, volume } => write!(f, "volume:{pool}/{volume}"),
            Self::Rbd(uri) => uri.fmt(f),
            Self::Objects(uri) => uri.fmt(f),
            Self::Server(server) => server.fmt(f),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Location, LocationError> {
        Location::parse(OsStr::new(text))
    }

    fn parse_openable(text: &str) -> Result<Location, LocationError> {
        Location::parse_openable(OsStr::new(text))
    }

    #[test]
    fn every_form_is_read_and_shown_as_it_was() {
        for text in [
            "disk.img",
            "./rbd:x",
            "volume:default/a:b.luks",
            "rbd://pool/image?id=vm&conf=/etc/ceph/other.conf",
            "rbd://pool/namespace/image@snap",
            "rbd://pool/image,partition=2",
            "s3://bucket/a/b@monday?endpoint=http://[::1]:7480&profile=p",
            "s3://bucket/prefix,offset=1048576",
            "rbd:image",
            "iscsi://host/iqn.2024-01.example:t/0",
            "https://[::1]:8443/a%20b",
            "https://host/x#tls-certificates=/etc/pki/x",
        ] {
            assert_eq!(parse(text).unwrap().to_string(), text);
        }
        let signed = parse("https://host/x?token=secret#tls-certificates=/etc/pki/x").unwrap();
        let shown = "https://host/x?\u{2026}#tls-certificates=/etc/pki/x";
        assert_eq!(signed.to_string(), shown);
        assert!(!format!("{signed:?}").contains("secret"));
        let Location::Server(server) = signed else {
            panic!("a server");
        };
        assert_eq!(server.url(), "https://host/x?token=secret");
        for text in ["nbd://host/x", "nbds+unix:///x?socket=/run/s"] {
            match parse(text) {
                Ok(location) => assert_eq!(location.to_string(), text),
                Err(error) => assert!(error.to_string().contains("feature \"nbd\""), "{error}"),
            }
        }
        for text in [
            "disk.img,partition=2",
            "/dev/vg/lv,offset=1048576",
            "a,offset=0,size=512",
        ] {
            assert_eq!(parse(text).unwrap().to_string(), text);
            assert_eq!(parse_openable(text), parse(text));
        }
        let Location::Server(server) = parse("https://[::1]:8443/a%20b?x=1").unwrap() else {
            panic!("a server");
        };
        assert_eq!((server.host.as_str(), server.port), ("::1", Some(8443)));
        assert_eq!(
            (server.name.as_str(), server.query.as_deref()),
            ("a b", Some("x=1"))
        );
        let Location::Server(server) = parse("ISCSI://host/iqn:t/2").unwrap() else {
            panic!("a server");
        };
        assert_eq!((server.port, server.name.as_str()), (None, "iqn:t/2"));
    }

    #[test]
    fn what_is_incomplete_is_refused() {
        use LocationError::{Iscsi, NoPath, Pool, RbdName};
        for (text, expected) in [
            ("volume:default", Pool),
            ("volume:/x", Pool),
            ("volume:a/b/c", Pool),
            ("rbd:pool/image@s", RbdName("rbd://pool/image@s".to_owned())),
            ("rbd://image", rbd::UriError::Form.into()),
            ("rbd://u:key@pool/image", rbd::UriError::UserInfo.into()),
            ("s3://bucket", objects::uri::UriError::Form.into()),
            ("s3://id:key@bucket/x", objects::uri::UriError::Key.into()),
            ("iscsi://host/target", Iscsi),
            ("iscsi://host/target/x", Iscsi),
            ("iscsi://host/target/0?x", Iscsi),
            ("http://host", NoPath),
            (
                "https://host/x#tls-certificates=pki",
                LocationError::Certificates,
            ),
            ("http://u:p@host/x", UriError::UserInfo.into()),
            ("http:///x", UriError::NoHost.into()),
            ("ftp://host/x", UriError::Scheme("ftp".to_owned()).into()),
            (
                "nbd+vsock://1/x",
                UriError::Vsock("nbd+vsock".to_owned()).into(),
            ),
            (
                "nbds+vsock://2:10809/x,partition=1",
                UriError::Vsock("nbds+vsock".to_owned()).into(),
            ),
        ] {
            assert_eq!(parse(text), Err(expected), "{text}");
        }
    }

    #[test]
    fn a_part_is_of_a_path_or_an_export() {
        let location = parse("a,b,offset=1K").unwrap();
        assert!(location.opened_here() && location.path().is_none());
        assert_eq!(location.path_of_whole(), Some(Path::new("a,b")));
        let (offset, size) = (1024, None);
        assert_eq!(location.part(), Some(Part::Range { offset, size }));
        if let Ok(location) = parse("nbd://host/x,partition=3") {
            let whole = Box::new(parse("nbd://host/x").unwrap());
            let part = Part::Partition(3);
            assert_eq!(location, Location::Part { whole, part });
        }
        // What only an emulator opens has no parts here: the comma belongs to the name.
        let volume = parse("volume:default/a,partition=1").unwrap();
        assert_eq!(volume.to_string(), "volume:default/a,partition=1");
        assert!(volume.part().is_none());
        assert_eq!(parse("a,partition=0"), Err(PartError::Partition.into()));
        assert_eq!(parse(",partition=1"), Err(LocationError::Empty));
    }

    #[test]
    fn an_existing_file_of_the_whole_name_wins() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a,partition=1");
        let part = Location::parse(path.as_os_str()).unwrap();
        assert_eq!(part.part(), Some(Part::Partition(1)));
        std::os::unix::fs::symlink("nowhere", &path).unwrap();
        let whole = Location::parse(path.as_os_str()).unwrap();
        assert_eq!(whole, Location::Path(path));
    }

    #[test]
    fn only_what_luksmith_itself_opens_is_opened_here() {
        for path in ["disk.img", "./nbd://host/x", "/dev/sdb1", "a:b", "-"] {
            let location = parse_openable(path).unwrap();
            assert_eq!(location, Location::Path(path.into()));
            assert!(location.opened_here());
        }
        if let Ok(location) = parse_openable("nbd://host/x") {
            assert!(location.path().is_none() && location.opened_here());
        }
        for text in ["rbd://pool/image", "s3://bucket/prefix", "http://host/x"] {
            assert!(parse_openable(text).unwrap().opened_here());
        }
        assert!(!parse("volume:pool/image").unwrap().opened_here());
        // Such a name may be a file's.
        let path = Location::Path("volume:pool/image".into());
        assert_eq!(parse_openable("volume:pool/image").unwrap(), path);
        assert_eq!(
            parse_openable("ftp://host/x"),
            Err(UriError::Scheme("ftp".to_owned()).into())
        );
    }
}
