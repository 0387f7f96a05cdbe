//! A connection to a libvirt driver. The files of the objects have the methods by which it lists
//! them, looks them up and defines them.

use super::error::LibvirtError;
use super::library::call::{Connect, Handle};
use super::library::functions;

/// How a connection is opened.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ConnectOptions {
    uri: Option<String>,
    read_only: bool,
}

impl ConnectOptions {
    /// To the default libvirt, for reading and writing.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The libvirt to connect to: `qemu:///system`, `qemu+ssh://host/system`, `test:///default`.
    /// With `None`, libvirt uses `LIBVIRT_DEFAULT_URI`, or else `uri_default` of `libvirt.conf`, or
    /// else probes for a driver.
    #[must_use]
    pub fn uri(mut self, uri: impl Into<Option<String>>) -> Self {
        self.uri = uri.into();
        self
    }

    setters! {
        /// A read-only connection changes nothing and does not return the values of secrets. A
        /// system may allow an ordinary user only this.
        read_only: bool,
    }
}

/// A connection. It is closed when it and all objects that were obtained from it are dropped.
pub struct Connection(pub(super) Handle<Connect>);

/// `VIR_CONNECT_RO`.
const READ_ONLY: u32 = 1;

impl Connection {
    /// Connects, without asking a person anything.
    ///
    /// # Errors
    /// [`LibvirtError::Library`]; [`LibvirtError::Denied`] when the login failed; else
    /// [`LibvirtError::Connection`].
    pub fn open(options: &ConnectOptions) -> Result<Self, LibvirtError> {
        let functions = functions()?;
        let flags = if options.read_only { READ_ONLY } else { 0 };
        functions
            .open
            .call(options.uri.as_deref(), flags, functions)
            .map(Self)
            .map_err(|error| match error {
                denied @ LibvirtError::Denied(_) => denied,
                other => match other.reply() {
                    Some(reply) => LibvirtError::Connection(reply.clone()),
                    None => other,
                },
            })
    }

    /// The URI of this connection.
    ///
    /// # Errors
    /// [`LibvirtError`].
    pub fn uri(&self) -> Result<String, LibvirtError> {
        self.0.functions.uri.call(&self.0)
    }

    /// Whether this is the libvirt of this host, so that the paths in its XML are paths here. A
    /// connection whose URI names a host, as in `qemu+ssh://host/system`, is to another one.
    ///
    /// # Errors
    /// [`LibvirtError`].
    pub fn is_local(&self) -> Result<bool, LibvirtError> {
        Ok(has_no_host(&self.uri()?))
    }

    /// The driver: `QEMU`, `TEST`, …
    ///
    /// # Errors
    /// [`LibvirtError`].
    pub fn driver(&self) -> Result<String, LibvirtError> {
        self.0.functions.driver.call(&self.0)
    }

    /// The version of the libvirt at the other end: (major, minor, release).
    ///
    /// # Errors
    /// [`LibvirtError`].
    pub fn version(&self) -> Result<(u64, u64, u64), LibvirtError> {
        let version: u64 = self.0.functions.library_version.call(&self.0)?;
        Ok((version / 1_000_000, version / 1000 % 1000, version % 1000))
    }

    /// The capabilities of the host and the driver, as XML.
    ///
    /// # Errors
    /// [`LibvirtError`].
    pub fn capabilities(&self) -> Result<String, LibvirtError> {
        self.0.functions.capabilities.call(&self.0)
    }
}

/// Whether a URI names no host, as in `qemu:///system`.
fn has_no_host(uri: &str) -> bool {
    let rest = uri.split_once("://").map(|(_, rest)| rest);
    rest.is_none_or(|rest| rest.is_empty() || rest.starts_with('/'))
}

impl core::fmt::Debug for Connection {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_tuple("Connection")
            .field(&self.uri().unwrap_or_default())
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_uri_with_a_host_is_of_another_host() {
        for near in [
            "qemu:///system",
            "qemu+unix:///system?socket=/run/x",
            "test:///default",
        ] {
            assert!(has_no_host(near), "{near}");
        }
        for far in [
            "qemu+ssh://me@host/system",
            "qemu://host/system",
            "qemu+tls://[::1]:16514/",
        ] {
            assert!(!has_no_host(far), "{far}");
        }
    }
}
