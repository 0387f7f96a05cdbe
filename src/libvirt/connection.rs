//! A connection to a libvirt driver, and the objects that it lists and looks up.

use super::error::LibvirtError;
use super::library::call::{Connect, Handle};
use super::library::functions;
use super::secret::number_of;
use super::xml::{SecretRef, Usage};
use super::{Domain, Pool, Secret, StorageVolume};

/// How a connection is opened.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ConnectOptions {
    /// The libvirt to connect to: `qemu:///system`, `qemu+ssh://host/system`, `test:///default`, …
    /// With `None`, libvirt uses `LIBVIRT_DEFAULT_URI`, or else `uri_default` of `libvirt.conf`, or
    /// else probes for a driver.
    pub uri: Option<String>,
    /// A read-only connection changes nothing and does not return the values of secrets. A system
    /// may allow an ordinary user only this.
    pub read_only: bool,
}

/// A connection. It is closed when it and all objects that were obtained from it are dropped.
pub struct Connection(pub(super) Handle<Connect>);

/// `VIR_CONNECT_RO`.
const READ_ONLY: u32 = 1;

impl Connection {
    /// Connects, without asking a person anything.
    ///
    /// # Errors
    /// [`LibvirtError::NotInstalled`], [`LibvirtError::Broken`] and [`LibvirtError::TooOld`] for
    /// the library; [`LibvirtError::Denied`] when the login failed; else
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

    /// All domains, running or not.
    ///
    /// # Errors
    /// [`LibvirtError`].
    pub fn domains(&self) -> Result<Vec<Domain>, LibvirtError> {
        let found = self.0.functions.domains.call(&self.0, 0)?;
        Ok(found.into_iter().map(Domain).collect())
    }

    /// The domain of this name, or else of this UUID.
    ///
    /// # Errors
    /// [`LibvirtError::NoDomain`], …
    pub fn domain(&self, name_or_uuid: &str) -> Result<Domain, LibvirtError> {
        let functions = self.0.functions;
        let by_name = functions.domain_by_name.call(&self.0, name_or_uuid);
        match by_name {
            Err(LibvirtError::NoDomain(_)) if uuid::Uuid::try_parse(name_or_uuid).is_ok() => {
                functions.domain_by_uuid.call(&self.0, name_or_uuid)
            }
            other => other,
        }
        .map(Domain)
    }

    /// Defines a domain, or changes the definition with which an existing one starts the next time.
    ///
    /// # Errors
    /// [`LibvirtError`].
    pub fn define_domain(&self, xml: &str) -> Result<Domain, LibvirtError> {
        self.0
            .functions
            .define_domain
            .call(&self.0, xml)
            .map(Domain)
    }

    /// All storage pools, started or not.
    ///
    /// # Errors
    /// [`LibvirtError`].
    pub fn pools(&self) -> Result<Vec<Pool>, LibvirtError> {
        let found = self.0.functions.pools.call(&self.0, 0)?;
        Ok(found.into_iter().map(Pool).collect())
    }

    /// The storage pool of this name, or else of this UUID.
    ///
    /// # Errors
    /// [`LibvirtError::NoPool`], …
    pub fn pool(&self, name_or_uuid: &str) -> Result<Pool, LibvirtError> {
        let functions = self.0.functions;
        let by_name = functions.pool_by_name.call(&self.0, name_or_uuid);
        match by_name {
            Err(LibvirtError::NoPool(_)) if uuid::Uuid::try_parse(name_or_uuid).is_ok() => {
                functions.pool_by_uuid.call(&self.0, name_or_uuid)
            }
            other => other,
        }
        .map(Pool)
    }

    /// Defines a storage pool. It is not started yet.
    ///
    /// # Errors
    /// [`LibvirtError`].
    pub fn define_pool(&self, xml: &str) -> Result<Pool, LibvirtError> {
        self.0.functions.define_pool.call(&self.0, xml, 0).map(Pool)
    }

    /// The storage volume with this path, in any started pool.
    ///
    /// # Errors
    /// [`LibvirtError::NoVolume`], …
    pub fn volume_by_path(&self, path: &str) -> Result<StorageVolume, LibvirtError> {
        self.0
            .functions
            .volume_by_path
            .call(&self.0, path)
            .map(StorageVolume)
    }

    /// All secrets.
    ///
    /// # Errors
    /// [`LibvirtError`].
    pub fn secrets(&self) -> Result<Vec<Secret>, LibvirtError> {
        let found = self.0.functions.secrets.call(&self.0, 0)?;
        Ok(found.into_iter().map(Secret).collect())
    }

    /// The secret with this UUID.
    ///
    /// # Errors
    /// [`LibvirtError::NoSecret`], …
    pub fn secret(&self, uuid: &uuid::Uuid) -> Result<Secret, LibvirtError> {
        let functions = self.0.functions;
        functions
            .secret_by_uuid
            .call(&self.0, &uuid.to_string())
            .map(Secret)
    }

    /// The secret with this usage.
    ///
    /// # Errors
    /// [`LibvirtError::NoSecret`], …
    pub fn secret_for(&self, usage: &Usage) -> Result<Secret, LibvirtError> {
        let functions = self.0.functions;
        functions
            .secret_by_usage
            .call(&self.0, number_of(usage.kind), &usage.id)
            .map(Secret)
    }

    /// The secret with this UUID or usage.
    ///
    /// # Errors
    /// [`LibvirtError::NoSecret`], …
    pub fn find_secret(&self, reference: &SecretRef) -> Result<Secret, LibvirtError> {
        match reference {
            SecretRef::Uuid(uuid) => self
                .0
                .functions
                .secret_by_uuid
                .call(&self.0, uuid)
                .map(Secret),
            SecretRef::Usage(usage) => self.secret_for(usage),
        }
    }

    /// Defines a secret, which has no value yet. A secret with the same UUID is changed.
    ///
    /// # Errors
    /// [`LibvirtError::DuplicateUsage`] when another secret has the same usage, …
    pub fn define_secret(&self, xml: &str) -> Result<Secret, LibvirtError> {
        let defined = self.0.functions.define_secret.call(&self.0, xml, 0);
        defined.map(Secret).map_err(|error| match error {
            // libvirt has no error code for it.
            LibvirtError::Failed(reply) if reply.message.contains("already defined for use") => {
                LibvirtError::DuplicateUsage(reply)
            }
            other => other,
        })
    }
}

impl core::fmt::Debug for Connection {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_tuple("Connection")
            .field(&self.uri().unwrap_or_default())
            .finish()
    }
}
