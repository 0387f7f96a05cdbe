//! The encrypted volumes of a libvirt and the secrets that open them: from the disks of domains,
//! the volumes of pools, and the usages of secrets.

use std::collections::BTreeMap;
use std::path::PathBuf;

use luksmith_formats::nbd::uri::Uri;
use uuid::Uuid;

use crate::libvirt::xml::{
    Disk, DomainXml, Format, Host, ReadError, SecretRef, Store, Usage, UsageType, VolumeXml,
};
use crate::libvirt::{Connection, DomainView, LibvirtError, Pool};
use crate::location::Location;
use crate::task::Error;

/// The volumes and secrets of one libvirt.
#[derive(Default)]
pub(super) struct Inventory {
    /// The volumes, by the text that names their place.
    pub(super) volumes: BTreeMap<String, Volume>,
    pub(super) secrets: Vec<Known>,
    /// Domains and volumes whose XML could not be read, and why.
    pub(super) unread: Vec<(String, ReadError)>,
}

/// A secret.
pub(super) struct Known {
    pub(super) uuid: Uuid,
    pub(super) usage: Option<Usage>,
}

/// An encrypted volume.
#[derive(Default)]
pub(super) struct Volume {
    /// Where it is stored. `None` for a place that this library does not open.
    pub(super) location: Option<Location>,
    /// The secrets that open it, as domains and pools name them.
    pub(super) named: Vec<SecretRef>,
    /// Those of them that exist.
    pub(super) secrets: Vec<Uuid>,
    /// The pool that it is in.
    pub(super) pool: Option<String>,
    /// The domains that have it as a disk.
    pub(super) domains: Vec<String>,
    /// The running domains that have it open.
    pub(super) running: Vec<String>,
    /// Why luksmith cannot change its keyslots.
    pub(super) beyond: Option<&'static str>,
}

impl Inventory {
    /// Reads all domains, started pools and secrets.
    pub(super) fn of(connection: &Connection) -> Result<Self, Error> {
        let mut found = Self::default();
        for secret in connection.secrets()? {
            found.secrets.push(Known {
                uuid: secret.uuid()?,
                usage: secret.usage()?,
            });
        }
        let pools = match connection.pools() {
            Err(LibvirtError::Unsupported(_)) => Vec::new(),
            pools => pools?,
        };
        for pool in &pools {
            if pool.is_active()? {
                found.add_pool(pool)?;
            }
        }
        for domain in connection.domains()? {
            let running = domain.is_active()?;
            let views = if running { &[true, false][..] } else { &[true] };
            for &inactive in views {
                let xml = domain.xml(DomainView::new().inactive(inactive))?;
                match DomainXml::parse(xml.as_bytes()) {
                    Ok(xml) => found.add_domain(connection, &xml, running && !inactive),
                    Err(error) => found
                        .unread
                        .push((format!("domain {}", domain.name()?), error)),
                }
            }
        }
        found.add_usages();
        found.resolve();
        Ok(found)
    }

    /// The volumes that a secret opens.
    pub(super) fn opened_by(&self, secret: &Uuid) -> Vec<(&str, &Volume)> {
        let volumes = self.volumes.iter();
        volumes
            .filter(|(_, volume)| volume.secrets.contains(secret))
            .map(|(place, volume)| (place.as_str(), volume))
            .collect()
    }

    fn add_pool(&mut self, pool: &Pool) -> Result<(), Error> {
        let name = pool.name()?;
        for volume in pool.volumes()? {
            let path = volume.path()?;
            match VolumeXml::parse(volume.xml()?.as_bytes()) {
                Ok(VolumeXml {
                    encryption: None, ..
                }) => {
                    // libvirt recognises encryption by the first bytes, which may have been
                    // overwritten. The usage of a secret may still name the volume.
                    if self.is_for(&path) {
                        self.at_path(&path).pool = Some(name.clone());
                    }
                }
                Ok(VolumeXml {
                    encryption: Some(encryption),
                    format,
                    ..
                }) => {
                    let volume = self.at_path(&path);
                    volume.pool = Some(name.clone());
                    volume.named.extend(encryption.secrets);
                    if format.as_deref() == Some("qcow2") {
                        volume.beyond = Some(QCOW2);
                    }
                }
                Err(error) => self.unread.push((format!("volume {path}"), error)),
            }
        }
        Ok(())
    }

    fn add_domain(&mut self, connection: &Connection, domain: &DomainXml, runs: bool) {
        for disk in &domain.disks {
            let Some(encryption) = disk
                .source
                .as_ref()
                .and_then(|source| source.encryption.as_ref())
            else {
                continue;
            };
            let (place, location, mut beyond) = place_of(connection, disk);
            if !matches!(
                encryption.format,
                Format::Luks | Format::Luks2 | Format::LuksAny
            ) {
                beyond = beyond.or(Some("it is not encrypted by LUKS"));
            }
            if encryption.secrets.len() > 1 {
                beyond = beyond.or(Some("several secrets open it, in layers"));
            }
            if disk.driver.format.as_deref() == Some("qcow2") {
                beyond = beyond.or(Some(QCOW2));
            }
            let volume = self.volumes.entry(place).or_default();
            volume.location = volume.location.take().or(location);
            volume.beyond = volume.beyond.or(beyond);
            volume.named.extend(encryption.secrets.iter().cloned());
            if !volume.domains.contains(&domain.name) {
                volume.domains.push(domain.name.clone());
            }
            if runs && !volume.running.contains(&domain.name) {
                volume.running.push(domain.name.clone());
            }
        }
    }

    /// Adds files that only the usage of a secret names.
    fn add_usages(&mut self) {
        let paths: Vec<String> = self
            .secrets
            .iter()
            .filter_map(|known| known.usage.as_ref())
            .filter(|usage| usage.kind == UsageType::Volume)
            .map(|usage| usage.id.clone())
            .filter(|path| path.starts_with('/') && std::fs::exists(path).unwrap_or(false))
            .collect();
        for path in paths {
            self.at_path(&path);
        }
    }

    /// Finds the secrets of each volume by their names. If no secret is named, the usage of a
    /// secret counts.
    fn resolve(&mut self) {
        for (place, volume) in &mut self.volumes {
            volume.named.sort();
            volume.named.dedup();
            let by_usage = SecretRef::Usage(Usage::volume(place.clone()));
            let names = if volume.named.is_empty() {
                vec![by_usage]
            } else {
                volume.named.clone()
            };
            for known in &self.secrets {
                let meant = names.iter().any(|name| match name {
                    SecretRef::Uuid(uuid) => Uuid::try_parse(uuid) == Ok(known.uuid),
                    SecretRef::Usage(usage) => known.usage.as_ref() == Some(usage),
                });
                if meant {
                    volume.secrets.push(known.uuid);
                }
            }
        }
    }

    fn is_for(&self, path: &str) -> bool {
        let usages = self.secrets.iter().filter_map(|known| known.usage.as_ref());
        usages
            .into_iter()
            .any(|usage| usage.kind == UsageType::Volume && usage.id == path)
    }

    fn at_path(&mut self, path: &str) -> &mut Volume {
        let volume = self.volumes.entry(path.to_owned()).or_default();
        volume.location = Some(Location::Path(PathBuf::from(path)));
        volume
    }
}

const QCOW2: &str = "its LUKS header is inside a qcow2 image";
const ELSEWHERE: &str = "luksmith does not open this sort of storage";

/// The place of a disk as text, its location if this library can open it, or why luksmith cannot
/// change its keyslots.
fn place_of(
    connection: &Connection,
    disk: &Disk,
) -> (String, Option<Location>, Option<&'static str>) {
    let at = |path: &str| (path.to_owned(), Some(Location::Path(path.into())), None);
    match disk.source.as_ref().map(|source| &source.store) {
        Some(Store::File(path) | Store::Block(path)) => at(path),
        Some(Store::Volume { pool, volume }) => {
            let found = connection.pool(pool).and_then(|pool| pool.volume(volume));
            match found.and_then(|volume| volume.path()) {
                Ok(path) => at(&path),
                Err(_) => (
                    format!("{pool}/{volume}"),
                    None,
                    Some("its pool does not know it now"),
                ),
            }
        }
        Some(Store::Network(network)) if network.protocol == "nbd" && !network.tls => {
            let name = network.name.as_deref().unwrap_or_default();
            let uri = match network.hosts.first() {
                Some(Host::Unix(socket)) => format!("nbd+unix:///{name}?socket={socket}"),
                Some(Host::Tcp { name: host, port }) => {
                    format!("nbd://{host}:{}/{name}", port.unwrap_or(10809))
                }
                _ => String::new(),
            };
            match Uri::parse(&uri) {
                Ok(parsed) => (uri, Some(Location::Nbd(Box::new(parsed))), None),
                Err(_) => (uri, None, Some(ELSEWHERE)),
            }
        }
        Some(Store::Network(network)) => {
            let name = network.name.as_deref().unwrap_or_default();
            (
                format!("{}:{name}", network.protocol),
                None,
                Some(ELSEWHERE),
            )
        }
        _ => (format!("disk {}", disk.target.dev), None, Some(ELSEWHERE)),
    }
}
