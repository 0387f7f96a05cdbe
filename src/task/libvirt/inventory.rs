//! The encrypted volumes of a libvirt and the secrets that open them: from the disks of domains,
//! the volumes of pools, and the usages of secrets.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use luksmith_formats::limits::Limits;
use luksmith_formats::nbd::uri::Uri;
use uuid::Uuid;

use crate::backend::file::OpenOptions;
use crate::container::{UnlockError, Which};
use crate::libvirt::xml::{
    DomainXml, Engine, Format, Host, ReadError, SecretRef, Source, Store, Usage, UsageType,
    VolumeXml,
};
use crate::libvirt::{Connection, DomainView, LibvirtError, Pool};
use crate::location::Location;
use crate::secret::Passphrase;
use crate::task::emulator::encrypted_as;
use crate::task::libvirt::ceph;
use crate::task::libvirt::identity::{Identity, path_in_pool};
use crate::task::open::{Image, ImageFormat};
use crate::task::storage::Remote;
use crate::task::{Error, Watch};

/// The volumes and secrets of one libvirt.
#[derive(Default)]
pub(super) struct Inventory {
    /// The volumes, by what they are: a volume may have several names.
    pub(super) volumes: BTreeMap<Identity, Volume>,
    pub(super) secrets: Vec<Known>,
    /// Domains and volumes whose XML could not be read, and why.
    pub(super) unread: Vec<(String, ReadError)>,
    /// Images of pools that are encrypted, of which libvirt does not know it.
    strangers: BTreeMap<Identity, Stranger>,
    /// Whether the libvirt is on another host, whose paths are not looked at here.
    elsewhere: bool,
}

/// A secret.
pub(super) struct Known {
    pub(super) uuid: Uuid,
    pub(super) usage: Option<Usage>,
}

/// An encrypted volume.
#[derive(Default)]
pub(super) struct Volume {
    /// The name under which it was found first.
    pub(super) place: String,
    /// All names under which it was found.
    pub(super) names: BTreeSet<String>,
    /// Where it is stored. `None` for a place that this library does not open.
    pub(super) location: Option<Location>,
    /// What holds the LUKS header.
    pub(super) format: ImageFormat,
    /// The secrets that open it, as domains and pools name them.
    pub(super) named: Vec<SecretRef>,
    /// Those of them that exist.
    pub(super) secrets: Vec<Uuid>,
    /// Secrets that are not named, and whose usage is the volume.
    pub(super) also: Vec<Uuid>,
    /// The pools that it is in.
    pub(super) pools: BTreeSet<String>,
    /// The domains that have it as a disk.
    pub(super) domains: BTreeSet<String>,
    /// The running domains that have it open, each with the name that its QEMU has for it.
    pub(super) running: BTreeMap<String, String>,
    /// Why its keyslots cannot be changed while the domains run.
    pub(super) held: Option<&'static str>,
    /// Why luksmith cannot change its keyslots.
    pub(super) beyond: Option<&'static str>,
    /// Whether the librbd of a running domain decrypts it.
    pub(super) decrypted: bool,
}

/// An encrypted image without a secret.
pub(super) struct Stranger {
    pub(super) place: String,
    pub(super) location: Location,
    pub(super) format: ImageFormat,
}

impl Inventory {
    /// Reads all domains, started pools and secrets.
    pub(super) fn of(connection: &Connection) -> Result<Self, Error> {
        let mut found = Self {
            elsewhere: !connection.is_local()?,
            ..Self::default()
        };
        for secret in connection.secrets()? {
            found.secrets.push(Known {
                uuid: secret.uuid()?,
                usage: secret.usage()?,
            });
        }
        let usages = found.usages(connection);
        let pools = match connection.pools() {
            Err(LibvirtError::Unsupported(_)) => Vec::new(),
            pools => pools?,
        };
        for pool in &pools {
            if pool.is_active()? {
                found.add_pool(connection, pool, &usages)?;
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
        if !found.elsewhere {
            found.add_usages();
        }
        found.resolve(&usages);
        Ok(found)
    }

    /// The volumes that a secret opens.
    pub(super) fn opened_by(&self, secret: &Uuid) -> Vec<(&Identity, &Volume)> {
        let opened = self.volumes.iter();
        by_place(opened.filter(|(_, volume)| volume.secrets.contains(secret)))
    }

    /// The path that is the usage of a secret which is for no volume, if nothing is there.
    pub(super) fn missing(&self, secret: &Uuid) -> Option<&Path> {
        let known = self.secrets.iter().find(|known| known.uuid == *secret)?;
        let path = known.path().filter(|_| !self.elsewhere)?;
        let used = self.volumes.values().any(|volume| {
            let mut secrets = volume.secrets.iter().chain(&volume.also);
            secrets.any(|other| other == secret)
        });
        let is_missing = std::fs::exists(path).is_ok_and(|exists| !exists);
        (is_missing && !used).then_some(path)
    }

    /// Encrypted images for which there is no secret.
    pub(super) fn strangers(&self) -> Vec<Stranger> {
        let known = self.volumes.values().filter(|volume| {
            let any = volume.secrets.iter().chain(&volume.also).next();
            any.is_none() && volume.beyond.is_none()
        });
        let known = known.filter_map(|volume| {
            Some(Stranger {
                place: volume.place.clone(),
                location: volume.location.clone()?,
                format: volume.format,
            })
        });
        let unknown = self.strangers.iter();
        let unknown = unknown.filter(|(identity, _)| !self.volumes.contains_key(identity));
        let unknown = unknown.map(|(_, stranger)| Stranger {
            place: stranger.place.clone(),
            location: stranger.location.clone(),
            format: stranger.format,
        });
        known.chain(unknown).collect()
    }

    /// The secrets whose usage is the path of a volume, by what lies there.
    fn usages(&self, connection: &Connection) -> BTreeMap<Identity, Vec<Uuid>> {
        let mut usages = BTreeMap::<_, Vec<_>>::new();
        for known in &self.secrets {
            if let Some(path) = known.path() {
                let identity = Identity::of_path_at(path, Some(connection));
                let at = usages.entry(identity).or_default();
                at.push(known.uuid);
            }
        }
        usages
    }

    fn add_pool(
        &mut self,
        connection: &Connection,
        pool: &Pool,
        usages: &BTreeMap<Identity, Vec<Uuid>>,
    ) -> Result<(), Error> {
        let name = pool.name()?;
        for volume in pool.volumes()? {
            let path = volume.path()?;
            let xml = match volume.xml() {
                // Its file is missing, and the pool was not refreshed since. It may come back, so
                // a rotation of the secret for its path has to fail.
                Err(LibvirtError::NoVolume(_)) => {
                    let volume = volume.name()?;
                    let within = (name.as_str(), volume.as_str());
                    let identity = identity_in_pool(connection, &path, within);
                    if usages.contains_key(&identity) {
                        self.at(identity, &path, within);
                    }
                    continue;
                }
                xml => xml?,
            };
            let xml = match VolumeXml::parse(xml.as_bytes()) {
                Ok(xml) => xml,
                Err(error) => {
                    self.unread.push((format!("volume {path}"), error));
                    continue;
                }
            };
            let within = (name.as_str(), xml.name.as_str());
            let identity = identity_in_pool(connection, &path, within);
            if let Some(encryption) = xml.encryption {
                let volume = self.at(identity, &path, within);
                volume.named.extend(encryption.secrets);
                if xml.format.as_deref() == Some("qcow2") {
                    volume.format = ImageFormat::Qcow2;
                }
                continue;
            }
            // libvirt recognises encryption by the first bytes, which may have been overwritten,
            // and only that of LUKS1. The usage of a secret may still name the volume.
            if usages.contains_key(&identity) {
                self.at(identity, &path, within);
            } else if path.starts_with('/')
                && !self.elsewhere
                && let Some(format) = encrypted_as(Path::new(&path))
            {
                let location = Location::Path(PathBuf::from(&path));
                let place = path;
                let stranger = Stranger {
                    place,
                    location,
                    format,
                };
                self.strangers.insert(identity, stranger);
            }
        }
        Ok(())
    }

    fn at(&mut self, identity: Identity, path: &str, (pool, name): (&str, &str)) -> &mut Volume {
        let volume = if path.starts_with('/') {
            self.at_path(identity, path)
        } else {
            let volume = self.named(identity, &format!("{pool}/{name}"));
            volume.beyond = Some(ELSEWHERE);
            volume
        };
        volume.pools.insert(pool.to_owned());
        volume
    }

    fn add_domain(&mut self, connection: &Connection, domain: &DomainXml, runs: bool) {
        for disk in &domain.disks {
            let format = disk.driver.format.as_deref();
            let top = disk.source.iter().map(|source| (source, format, false));
            let below = disk.backing.iter().map(|layer| (layer, true));
            let layers = below.chain(disk.mirror.iter().map(|layer| (layer, false)));
            let layers =
                layers.map(|(layer, below)| (&layer.source, layer.format.as_deref(), below));
            for (source, format, below) in top.chain(layers) {
                let place =
                    place_of(connection, source, !self.elsewhere).unwrap_or_else(|| Place {
                        identity: Identity::Other(format!("{} {}", domain.name, disk.target.dev)),
                        name: format!("disk {} of {}", disk.target.dev, domain.name),
                        location: None,
                        beyond: Some(ELSEWHERE),
                    });
                self.add_layer(domain, source, format, place, runs, below);
            }
        }
    }

    /// Adds a disk of a domain, or a layer of one, if it is encrypted.
    fn add_layer(
        &mut self,
        domain: &DomainXml,
        source: &Source,
        format: Option<&str>,
        place: Place,
        runs: bool,
        below: bool,
    ) {
        let Some(encryption) = &source.encryption else {
            return;
        };
        let mut beyond = place.beyond;
        if !matches!(
            encryption.format,
            Format::Luks | Format::Luks2 | Format::LuksAny
        ) {
            beyond = beyond.or(Some("it is not encrypted by LUKS"));
        }
        if encryption.secrets.len() > 1 {
            beyond = beyond.or(Some("several secrets open it, in layers"));
        }
        let volume = self.named(place.identity, &place.name);
        volume.location = volume.location.take().or(place.location);
        volume.beyond = volume.beyond.or(beyond);
        volume.named.extend(encryption.secrets.iter().cloned());
        volume.domains.insert(domain.name.clone());
        if format == Some("qcow2") {
            volume.format = ImageFormat::Qcow2;
        }
        if !runs {
            return;
        }
        volume.decrypted = encryption.engine == Some(Engine::Librbd);
        volume.running.insert(domain.name.clone(), place.name);
        if below {
            volume.held = Some("QEMU has it open as a backing layer, for reading only");
        }
    }

    /// Adds files that only the usage of a secret names.
    fn add_usages(&mut self) {
        let paths = self.secrets.iter().filter_map(Known::path);
        let there = paths.filter(|path| std::fs::exists(path).unwrap_or(false));
        let there: Vec<PathBuf> = there.map(Path::to_owned).collect();
        for path in there {
            let identity = Identity::of_path(&path);
            let new = !self.volumes.contains_key(&identity);
            let volume = self.at_path(identity, &path.display().to_string());
            if new && let Some(format) = encrypted_as(&path) {
                volume.format = format;
            }
        }
    }

    /// Finds the secrets of each volume by their names. If no secret is named, the usage of a
    /// secret counts.
    fn resolve(&mut self, usages: &BTreeMap<Identity, Vec<Uuid>>) {
        for (identity, volume) in &mut self.volumes {
            volume.named.sort();
            volume.named.dedup();
            let by_path = usages.get(identity).into_iter().flatten();
            let by_path: BTreeSet<&Uuid> = by_path.collect();
            for known in &self.secrets {
                let named = volume.named.iter().any(|name| match name {
                    SecretRef::Uuid(uuid) => Uuid::try_parse(uuid) == Ok(known.uuid),
                    SecretRef::Usage(usage) => known.usage.as_ref() == Some(usage),
                });
                let by_usage = by_path.contains(&known.uuid) || known.is_for_any(&volume.names);
                if named || (by_usage && volume.named.is_empty()) {
                    volume.secrets.push(known.uuid);
                } else if by_usage {
                    volume.also.push(known.uuid);
                }
            }
        }
    }

    fn at_path(&mut self, identity: Identity, path: &str) -> &mut Volume {
        let elsewhere = self.elsewhere;
        let volume = self.named(identity, path);
        if elsewhere {
            volume.beyond = Some(ANOTHER_HOST);
        } else {
            let location = volume.location.take();
            volume.location = location.or_else(|| Some(Location::Path(PathBuf::from(path))));
        }
        volume
    }

    fn named(&mut self, identity: Identity, name: &str) -> &mut Volume {
        let volume = self.volumes.entry(identity).or_default();
        if volume.names.is_empty() {
            name.clone_into(&mut volume.place);
        }
        volume.names.insert(name.to_owned());
        volume
    }
}

impl Stranger {
    /// Whether this passphrase opens the image. Without a passphrase: whether there may be one that
    /// opens it.
    pub(super) fn opens(
        &self,
        passphrase: Option<&Passphrase>,
        limits: Limits,
        remote: Remote,
        watch: &dyn Watch,
    ) -> Result<bool, Error> {
        let mut image = Image::new(self.location.clone());
        (image.format, image.remote) = (self.format, remote);
        let file = OpenOptions::new().force_share(true);
        let container = image.open_to_read(file, limits, watch)?;
        let Some(passphrase) = passphrase else {
            return Ok(!container.keyslots().is_empty());
        };
        match container.unlock(passphrase, Which::Any, watch.interrupt()) {
            Ok(unlocked) => Ok(unlocked.is_volume_key()),
            Err(
                UnlockError::WrongPassphrase | UnlockError::NoKeyslots | UnlockError::OnlyIgnored,
            ) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }
}

impl Known {
    /// The path that is its usage.
    fn path(&self) -> Option<&Path> {
        let usage = self.usage.as_ref()?;
        let path = usage.kind == UsageType::Volume && usage.id.starts_with('/');
        path.then(|| Path::new(&usage.id))
    }

    fn is_for_any(&self, names: &BTreeSet<String>) -> bool {
        let usage = self.usage.as_ref();
        usage.is_some_and(|usage| usage.kind == UsageType::Volume && names.contains(&usage.id))
    }
}

/// Volumes in the order of their places, which a person expects.
pub(super) fn by_place<'a>(
    volumes: impl Iterator<Item = (&'a Identity, &'a Volume)>,
) -> Vec<(&'a Identity, &'a Volume)> {
    let mut volumes: Vec<_> = volumes.collect();
    volumes.sort_by(|(_, one), (_, other)| one.place.cmp(&other.place));
    volumes
}

const ELSEWHERE: &str = "luksmith does not open this sort of storage";

pub(super) const ANOTHER_HOST: &str = "it is on the host of this libvirt, and not on this one";

fn identity_in_pool(connection: &Connection, path: &str, (pool, name): (&str, &str)) -> Identity {
    if path.starts_with('/') {
        return Identity::of_path_at(Path::new(path), Some(connection));
    }
    Identity::Volume {
        pool: pool.to_owned(),
        volume: name.to_owned(),
    }
}

/// Where a disk, or a layer of one, lies.
pub(super) struct Place {
    pub(super) identity: Identity,
    /// What it is called in messages, and by QEMU if it is a path.
    pub(super) name: String,
    /// `None` if this library cannot open it.
    pub(super) location: Option<Location>,
    /// Why luksmith cannot change its keyslots.
    pub(super) beyond: Option<&'static str>,
}

/// The place of a source. `None` for storage of another kind than libvirt's usual ones.
pub(super) fn place_of(connection: &Connection, source: &Source, here: bool) -> Option<Place> {
    let at = |path: &str| Place {
        identity: Identity::of_path_at(Path::new(path), Some(connection)),
        name: path.to_owned(),
        location: here.then(|| Location::Path(path.into())),
        beyond: (!here).then_some(ANOTHER_HOST),
    };
    let elsewhere = |name: String, beyond| Place {
        identity: Identity::of_store(&source.store, Some(connection)),
        name,
        location: None,
        beyond: Some(beyond),
    };
    Some(match &source.store {
        Store::File(path) | Store::Block(path) => at(path),
        Store::Volume { pool, volume } => match path_in_pool(connection, pool, volume) {
            Some(path) => at(&path),
            None => elsewhere(
                format!("{pool}/{volume}"),
                "its pool does not know its path now",
            ),
        },
        Store::Network(network) if network.protocol == "nbd" && !network.tls => {
            let name = network.name.as_deref().unwrap_or_default();
            let uri = match network.hosts.first() {
                Some(Host::Unix(socket)) if !here => {
                    return Some(elsewhere(socket.clone(), ANOTHER_HOST));
                }
                Some(Host::Unix(socket)) => format!("nbd+unix:///{name}?socket={socket}"),
                Some(Host::Tcp { name: host, port }) => {
                    format!("nbd://{host}:{}/{name}", port.unwrap_or(10809))
                }
                _ => String::new(),
            };
            match Uri::parse(&uri) {
                Ok(parsed) => Place {
                    location: Some(Location::Nbd(Box::new(parsed))),
                    beyond: None,
                    ..elsewhere(uri, ELSEWHERE)
                },
                Err(_) => elsewhere(uri, ELSEWHERE),
            }
        }
        Store::Network(network) if network.protocol == "rbd" => {
            let name = network.name.as_deref().unwrap_or_default();
            match ceph::image(connection, network, source.auth.as_ref(), here) {
                Ok(image) => {
                    let mut place = elsewhere(format!("rbd://{name}"), ELSEWHERE);
                    if let Some(snapshot) = &network.snapshot {
                        place.name = format!("{}@{snapshot}", place.name);
                    }
                    Place {
                        location: Some(Location::Rbd(Box::new(image))),
                        beyond: None,
                        ..place
                    }
                }
                Err(_) => elsewhere(format!("rbd:{name}"), ELSEWHERE),
            }
        }
        Store::Network(network) => {
            let name = network.name.as_deref().unwrap_or_default();
            elsewhere(format!("{}:{name}", network.protocol), ELSEWHERE)
        }
        Store::VhostUser(_) | Store::Other(_) => return None,
    })
}
