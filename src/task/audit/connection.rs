//! The domains, pools, volumes and secrets of a libvirt.

use crate::audit::{Document, Inventory};
use crate::libvirt::{Connection, Domain, DomainView, LibvirtError, Pool};
use crate::task::{Error, Note, Watch};

/// Adds the XML of all objects. The connection should be read-only: on such a connection, libvirt
/// gives neither the values of secrets nor the passwords of consoles.
///
/// An object that cannot be read is left out, and reported to `watch` as [`Note::NotAudited`].
///
/// # Errors
/// Returns an error if libvirt does not list its objects, or the interrupt of `watch` was set.
pub fn add_objects(
    connection: &Connection,
    inventory: &mut Inventory,
    watch: &dyn Watch,
) -> Result<(), Error> {
    let uri = connection.uri()?;
    let (major, minor, release) = connection.version()?;
    inventory.libvirt_version = Some(major * 1_000_000 + minor * 1000 + release);
    // The parameters of the URI say how to connect, and not to which libvirt.
    let host = uri.split('?').next().unwrap_or(&uri);
    let mut objects = Objects {
        base: host.trim_end_matches('/'),
        inventory,
        watch,
    };
    for pool in supported(connection.pools())? {
        objects.pool(&pool)?;
    }
    for secret in supported(connection.secrets())? {
        let name = secret.uuid().map(|uuid| uuid.to_string());
        objects.add("secret", name, secret.xml(), None)?;
    }
    for domain in connection.domains()? {
        objects.domain(&domain)?;
    }
    Ok(())
}

/// The objects, which are none if the driver has no objects of this kind.
fn supported<T>(objects: Result<Vec<T>, LibvirtError>) -> Result<Vec<T>, LibvirtError> {
    match objects {
        Err(LibvirtError::Unsupported(_)) => Ok(Vec::new()),
        objects => objects,
    }
}

struct Objects<'a> {
    base: &'a str,
    inventory: &'a mut Inventory,
    watch: &'a dyn Watch,
}

impl Objects<'_> {
    /// Adds an object. One that no longer exists, or that the user may not see, is left out.
    fn add(
        &mut self,
        kind: &str,
        name: Result<String, LibvirtError>,
        xml: Result<String, LibvirtError>,
        pool: Option<&str>,
    ) -> Result<(), Error> {
        self.watch.check()?;
        match (name, xml) {
            (Ok(name), Ok(xml)) => {
                let within = pool.map(|pool| format!("/pool/{pool}")).unwrap_or_default();
                let origin = format!("{}{within}/{kind}/{name}", self.base);
                self.inventory.documents.push(Document {
                    pool: pool.map(str::to_owned),
                    ..Document::object(origin, xml)
                });
            }
            (Err(error), _) | (_, Err(error)) => {
                self.not_audited(&format!("a {kind}"), &error);
            }
        }
        Ok(())
    }

    fn not_audited(&self, what: &str, error: &LibvirtError) {
        self.watch.notes(Note::NotAudited { what, error });
    }

    fn pool(&mut self, pool: &Pool) -> Result<(), Error> {
        self.add("pool", pool.name(), pool.xml(), None)?;
        // The volumes of a pool that is not started are not known.
        let (Ok(name), Ok(true)) = (pool.name(), pool.is_active()) else {
            return Ok(());
        };
        match pool.volumes() {
            Ok(volumes) => {
                for volume in volumes {
                    self.add("volume", volume.name(), volume.xml(), Some(&name))?;
                }
            }
            Err(error) => self.not_audited(&format!("the volumes of pool {name}"), &error),
        }
        Ok(())
    }

    /// Adds the definition with which the domain starts the next time, and that of the running one.
    fn domain(&mut self, domain: &Domain) -> Result<(), Error> {
        let which = |inactive| DomainView {
            inactive,
            secure: false,
        };
        if domain.is_persistent().unwrap_or(true) {
            self.add("domain", domain.name(), domain.xml(which(true)), None)?;
        }
        if domain.is_active().unwrap_or(false) {
            self.add("domain", domain.name(), domain.xml(which(false)), None)?;
        }
        Ok(())
    }
}
