//! What a libvirt has: domains, pools, volumes and secrets, over a read-only connection, on which values of secrets and passwords of
//! consoles cannot be had.

use luksmith::audit::{Document, Inventory};
use luksmith::libvirt::{ConnectOptions, Connection, Domain, DomainView, LibvirtError, Pool};
use luksmith::task::chain;

use crate::cli::error::CommandError;
use crate::cli::output;

/// Fetches everything. Whether images that the XML names are on this host.
pub(super) fn fetch(uri: &str, inventory: &mut Inventory) -> Result<bool, CommandError> {
    let connection = Connection::open(&ConnectOptions::new().uri(uri.to_owned()).read_only(true))?;
    let base = connection.uri()?;
    let (major, minor, release) = connection.version()?;
    inventory.libvirt_version = Some(major * 1_000_000 + minor * 1000 + release);
    // What follows in the URI says how it was reached, not what it is.
    let host = base.split('?').next().unwrap_or(&base);
    let mut objects = Objects {
        base: host.trim_end_matches('/'),
        inventory,
    };
    for pool in supported(connection.pools())? {
        objects.pool(&pool);
    }
    for secret in supported(connection.secrets())? {
        let name = secret.uuid().map(|uuid| uuid.to_string());
        objects.add("secret", name, secret.xml(), None);
    }
    for domain in connection.domains()? {
        objects.domain(&domain);
    }
    Ok(is_local(&base))
}

/// A driver without pools or secrets has none.
fn supported<T>(objects: Result<Vec<T>, LibvirtError>) -> Result<Vec<T>, LibvirtError> {
    match objects {
        Err(LibvirtError::Unsupported(_)) => Ok(Vec::new()),
        objects => objects,
    }
}

/// A URI without a host: `qemu:///system`.
fn is_local(uri: &str) -> bool {
    let rest = uri.split_once("://").map(|(_, rest)| rest);
    rest.is_some_and(|rest| rest.starts_with('/'))
}

struct Objects<'a> {
    base: &'a str,
    inventory: &'a mut Inventory,
}

impl Objects<'_> {
    /// One that went away meanwhile, or that may not be seen, is said and left out.
    fn add(
        &mut self,
        kind: &str,
        name: Result<String, LibvirtError>,
        xml: Result<String, LibvirtError>,
        pool: Option<&str>,
    ) {
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
                output::warning(format_args!("a {kind} is not audited: {}", chain(&error)));
            }
        }
    }

    fn pool(&mut self, pool: &Pool) {
        self.add("pool", pool.name(), pool.xml(), None);
        // The volumes of a pool that is not started are not known.
        let (Ok(name), Ok(true)) = (pool.name(), pool.is_active()) else {
            return;
        };
        match pool.volumes() {
            Ok(volumes) => {
                for volume in volumes {
                    self.add("volume", volume.name(), volume.xml(), Some(&name));
                }
            }
            Err(error) => output::warning(format_args!(
                "the volumes of pool {name} are not audited: {}",
                chain(&error)
            )),
        }
    }

    /// What it will be when it starts the next time, and what runs now.
    fn domain(&mut self, domain: &Domain) {
        let which = |inactive| DomainView {
            inactive,
            secure: false,
        };
        if domain.is_persistent().unwrap_or(true) {
            self.add("domain", domain.name(), domain.xml(which(true)), None);
        }
        if domain.is_active().unwrap_or(false) {
            self.add("domain", domain.name(), domain.xml(which(false)), None);
        }
    }
}
