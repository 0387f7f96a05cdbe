//! Images in Ceph (RBD): their URI, and the mark of a header that only librbd opens.
//!
//! `rbd://POOL[/NAMESPACE]/IMAGE[@SNAPSHOT][?id=USER&conf=PATH&mon=HOSTS&secret=SECRET]`. Ceph
//! defines no URI; the parts are those of the `rbd` program's specification of an image. Every part
//! can be percent-encoded. The parser refuses unknown parameters, and a key, which would be visible
//! in the process list.

use alloc::boxed::Box;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;

use crate::percent;

/// The first bytes of the header of a cloned image that has a volume key of its own. librbd writes
/// it instead of `LUKS`, so that no other program takes the data of the parent for its own.
pub const CLONE_MAGIC: [u8; 6] = *b"RBDL\xba\xbe";

/// The user of a cluster, unless a URI names another one.
pub const USER: &str = "admin";

/// An image in Ceph, or a snapshot of one.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Uri {
    /// The pool.
    pub pool: String,
    /// The namespace in the pool; the empty one is the default.
    pub namespace: String,
    /// The image.
    pub image: String,
    /// The snapshot, which is only read.
    pub snapshot: Option<String>,
    /// The user of the cluster, without `client.`; by default [`USER`].
    pub id: Option<String>,
    /// The path of the configuration file of the cluster.
    pub conf: Option<String>,
    /// The monitors of the cluster, `HOST[:PORT]` with commas between them; by default those of the
    /// configuration file.
    pub monitors: Option<String>,
    /// The libvirt secret with the user's key, as a UUID or `usage=ceph:NAME`; by default the key
    /// is in the keyring that the configuration names.
    pub secret: Option<String>,
    /// The URI of the libvirt that has the secret; by default libvirt chooses. The text of this URI
    /// does not have it.
    pub libvirt: Option<String>,
    text: Box<str>,
}

/// Why a text is not the URI of an image in Ceph. The message repeats no value.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum UriError {
    /// It has not the form of such a URI.
    #[error("an image in ceph is rbd://POOL[/NAMESPACE]/IMAGE[@SNAPSHOT]")]
    Form,
    /// A user name, or a key, before the pool.
    #[error(
        "a user is ?id=USER; a key comes from a keyring or a libvirt secret, and monitors are mon="
    )]
    UserInfo,
    /// A percent sign without two hexadecimal digits, bytes that are not UTF-8, or a NUL.
    #[error("{0} is not percent-encoded UTF-8")]
    Encoding(&'static str),
    /// The URI has a fragment.
    #[error("a fragment (#) has no meaning here; # in a name is %23")]
    Fragment,
    /// A parameter occurs twice.
    #[error("the parameter {0} occurs twice")]
    Repeated(&'static str),
    /// A parameter is unknown.
    #[error("the parameter {0} is unknown: an image in ceph has id=, conf=, mon= and secret=")]
    Parameter(String),
    /// The configuration file has no absolute path.
    #[error("conf= takes the absolute path of a configuration file of ceph")]
    Conf,
}

impl Uri {
    /// Reads a URI.
    ///
    /// # Errors
    /// [`UriError`] says what is wrong with it.
    pub fn parse(text: &str) -> Result<Self, UriError> {
        let (_, rest) = text.split_once("://").ok_or(UriError::Form)?;
        let (place, query) = rest.split_once('?').unwrap_or((rest, ""));
        let authority = place.split('/').next().unwrap_or_default();
        if authority.contains(['@', ':']) {
            return Err(UriError::UserInfo);
        }
        if rest.contains('#') {
            return Err(UriError::Fragment);
        }
        let mut names: Vec<&str> = place.split('/').collect();
        let (image, snapshot) = match names.pop().and_then(|last| last.split_once('@')) {
            Some((image, snapshot)) => (image, Some(snapshot)),
            None => (place.rsplit('/').next().unwrap_or_default(), None),
        };
        let (pool, namespace) = match names.as_slice() {
            [pool] => (*pool, None),
            [pool, namespace] => (*pool, Some(*namespace)),
            _ => return Err(UriError::Form),
        };
        let name = |name: &str, what| match decoded(name, what)? {
            // A slash or an at sign in a name would make another image of it in `rbd`'s syntax.
            name if name.is_empty() || name.contains(['/', '@']) => Err(UriError::Form),
            name => Ok(name),
        };
        let (mut id, mut conf, mut monitors, mut secret) = (None, None, None, None);
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (parameter, value) = pair.split_once('=').unwrap_or((pair, ""));
            let (place, what) = match parameter {
                "id" => (&mut id, "id"),
                "conf" => (&mut conf, "conf"),
                "mon" => (&mut monitors, "mon"),
                "secret" => (&mut secret, "secret"),
                other => return Err(UriError::Parameter(other.into())),
            };
            if place.replace(decoded(value, what)?).is_some() {
                return Err(UriError::Repeated(what));
            }
        }
        if conf.as_ref().is_some_and(|path| !path.starts_with('/')) {
            return Err(UriError::Conf);
        }
        Ok(Self {
            pool: name(pool, "the pool's name")?,
            namespace: namespace
                .map(|namespace| name(namespace, "the namespace"))
                .transpose()?
                .unwrap_or_default(),
            image: name(image, "the image's name")?,
            snapshot: snapshot
                .map(|snapshot| name(snapshot, "the snapshot's name"))
                .transpose()?,
            id: id.filter(|id| !id.is_empty()),
            conf,
            monitors: monitors.filter(|monitors| !monitors.is_empty()),
            secret: secret.filter(|secret| !secret.is_empty()),
            libvirt: None,
            text: text.into(),
        })
    }

    /// The same image, with the URI of the libvirt that has the secret.
    #[must_use]
    pub fn with_libvirt(mut self, libvirt: Option<String>) -> Self {
        self.libvirt = libvirt;
        self
    }

    /// `POOL/IMAGE` or `POOL/NAMESPACE/IMAGE`, as the `rbd` program and libvirt name the image.
    #[must_use]
    pub fn name(&self) -> String {
        let (pool, image) = (&self.pool, &self.image);
        match self.namespace.as_str() {
            "" => format!("{pool}/{image}"),
            namespace => format!("{pool}/{namespace}/{image}"),
        }
    }

    /// The URI of an image: its [name](Self::name), a snapshot of it, and its parameters, of which
    /// those without a value are left out.
    ///
    /// # Errors
    /// As [`Uri::parse`].
    pub fn new(
        name: &str,
        snapshot: Option<&str>,
        parameters: &[(&str, Option<&str>)],
    ) -> Result<Self, UriError> {
        let encode = |text: &str| percent::encode(text.as_bytes());
        let mut text = format!("rbd://{}", encode(name));
        if let Some(snapshot) = snapshot {
            text = format!("{text}@{}", encode(snapshot));
        }
        let parameters = parameters.iter();
        let given = parameters.filter_map(|(name, value)| Some((name, (*value)?)));
        for (number, (name, value)) in given.enumerate() {
            let before = if number == 0 { '?' } else { '&' };
            // These have no meaning in a query.
            let value = encode(value).replace("%3A", ":").replace("%3D", "=");
            text = format!("{text}{before}{name}={value}");
        }
        Self::parse(&text)
    }

    /// The URI of what `rbd:NAME` means to QEMU, if it is the name of an image.
    #[must_use]
    pub fn of_name(name: &str) -> Option<Self> {
        let (name, options) = name.split_once(':').unwrap_or((name, ""));
        let (image, snapshot) = match name.split_once('@') {
            Some((image, snapshot)) => (image, Some(snapshot)),
            None => (name, None),
        };
        let options = options
            .split(':')
            .filter_map(|option| option.split_once('='));
        let option = |wanted| {
            let mut found = options.clone().filter(|(name, _)| *name == wanted);
            found.next().map(|(_, value)| value)
        };
        let parameters = [("id", option("id")), ("conf", option("conf"))];
        Self::new(image, snapshot, &parameters).ok()
    }
}

/// The text that was parsed.
impl fmt::Display for Uri {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

fn decoded(text: &str, what: &'static str) -> Result<String, UriError> {
    let bytes = percent::decode(text).ok_or(UriError::Encoding(what))?;
    match String::from_utf8(bytes) {
        Ok(text) if !text.contains('\0') => Ok(text),
        _ => Err(UriError::Encoding(what)),
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test may fail")]
mod tests {
    use super::*;

    #[test]
    fn a_uri_names_pool_namespace_image_and_snapshot() {
        for (text, name, snapshot) in [
            ("rbd://p/i", "p/i", None),
            ("RBD://p/n/i", "p/n/i", None),
            ("rbd://p/i@s", "p/i", Some("s")),
            ("rbd://p/a%20b,c@s%2c1?", "p/a b,c", Some("s,1")),
        ] {
            let uri = Uri::parse(text).unwrap();
            assert_eq!(
                (uri.name().as_str(), uri.snapshot.as_deref()),
                (name, snapshot)
            );
            assert_eq!(format!("{uri}"), text);
            assert_eq!((uri.id, uri.conf), (None, None));
        }
        let uri = Uri::parse("rbd://p/i?id=vm&conf=/etc/ceph/b%2Bc.conf").unwrap();
        assert_eq!(uri.id.as_deref(), Some("vm"));
        assert_eq!(uri.conf.as_deref(), Some("/etc/ceph/b+c.conf"));
        let text = "rbd://p/i?mon=a:6789%2C[::1]&secret=usage=ceph:client.vm";
        let uri = Uri::parse(text).unwrap();
        assert_eq!(uri.monitors.as_deref(), Some("a:6789,[::1]"));
        assert_eq!(uri.secret.as_deref(), Some("usage=ceph:client.vm"));
        let parameters = [
            ("id", None),
            ("mon", Some("a:6789,b")),
            ("secret", Some("usage=ceph:client.vm")),
        ];
        let made = Uri::new("p/i", None, &parameters).unwrap();
        let text = "rbd://p/i?mon=a:6789%2Cb&secret=usage=ceph:client.vm";
        assert_eq!(format!("{made}"), text);
        assert_eq!(made.monitors.as_deref(), Some("a:6789,b"));
    }

    #[test]
    fn every_mistake_has_its_error() {
        for (text, error) in [
            ("rbd:p/i", UriError::Form),
            ("rbd://p", UriError::Form),
            ("rbd://p/", UriError::Form),
            ("rbd:///i", UriError::Form),
            ("rbd://p/n/m/i", UriError::Form),
            ("rbd://p/i@", UriError::Form),
            ("rbd://p/a%2fb", UriError::Form),
            ("rbd://p/i@s@t", UriError::Form),
            ("rbd://admin:key@p/i", UriError::UserInfo),
            ("rbd://host:6789/i", UriError::UserInfo),
            ("rbd://p/i#x", UriError::Fragment),
            ("rbd://p/%zz", UriError::Encoding("the image's name")),
            ("rbd://p/%00", UriError::Encoding("the image's name")),
            ("rbd://p/i?id=%ff", UriError::Encoding("id")),
            ("rbd://p/i?id=a&id=b", UriError::Repeated("id")),
            ("rbd://p/i?key=x", UriError::Parameter("key".into())),
            ("rbd://p/i?conf=ceph.conf", UriError::Conf),
        ] {
            assert_eq!(Uri::parse(text), Err(error), "{text}");
        }
    }

    #[test]
    fn a_name_of_qemu_becomes_a_uri() {
        for (name, uri) in [
            ("p/i", Some("rbd://p/i")),
            ("p/n/i@s", Some("rbd://p/n/i@s")),
            (
                "p/i:id=vm:conf=/c.conf:mon_host=h",
                Some("rbd://p/i?id=vm&conf=/c.conf"),
            ),
            ("i", None),
            ("p/", None),
        ] {
            let found = Uri::of_name(name).map(|uri| format!("{uri}"));
            assert_eq!(found.as_deref(), uri, "{name}");
        }
    }
}
