//! Attaches disks to a domain, and detaches them.

use std::path::Path;
use std::time::{Duration, Instant};

use crate::libvirt::xml::{Disk, DomainXml, SecretRef, Store};
use crate::libvirt::{Affect, Connection, Domain, DomainView, LibvirtError};
use crate::task::libvirt::identity::Identity;
use crate::task::{Advice, Error, Kind, Watch};

/// The interval at which a running domain is polled.
const PAUSE: Duration = Duration::from_millis(50);

/// The disks of a domain: of the running domain, and of its definition.
pub struct Disks<'a> {
    domain: &'a Domain,
    name: String,
    affect: Affect,
    /// Whether the caller stated which of the two changes.
    stated: bool,
    live: DomainXml,
    config: DomainXml,
}

/// A disk that was detached.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Detached {
    /// The name that the disk had in the guest, such as `vdb`.
    pub target: String,
    /// Whether the running domain, its definition or both changed.
    pub affect: Affect,
}

impl<'a> Disks<'a> {
    /// Reads the disks of a domain. A change affects the running domain (`live`) or the definition
    /// with which it starts the next time (`config`). If both or neither are set, it affects each
    /// of the two that exists.
    ///
    /// # Errors
    /// An error of libvirt, or [`Kind::Storage`] for XML that cannot be read.
    pub fn of(domain: &'a Domain, live: bool, config: bool) -> Result<Self, Error> {
        let stated = live != config;
        let affect = if stated {
            Affect::new().live(live).config(config)
        } else {
            Affect::new()
                .live(domain.is_active()?)
                .config(domain.is_persistent()?)
        };
        Ok(Self {
            domain,
            name: domain.name()?,
            affect,
            stated,
            live: described(domain, false)?,
            config: described(domain, true)?,
        })
    }

    /// Whether a change affects the running domain, its definition or both.
    #[must_use]
    pub fn affect(&self) -> Affect {
        self.affect
    }

    /// The first of vda, vdb, … that is free.
    ///
    /// # Errors
    /// [`Kind::Parameters`] if all are taken.
    pub fn free_target(&self) -> Result<String, Error> {
        let mut names = ('a'..='z').map(|letter| format!("vd{letter}"));
        let free = names.find(|name| {
            let mut disks = self.live.disks.iter().chain(&self.config.disks);
            !disks.any(|disk| disk.target.dev == *name)
        });
        free.ok_or_else(|| {
            Error::parameters("the domain has vda to vdz already").advise(Advice::OtherTarget)
        })
    }

    /// Checks that a disk can be attached: it is not attached already, the domain shares its memory
    /// if the disk needs that, and the secrets that open it have a value. `label` names the volume
    /// in messages.
    ///
    /// # Errors
    /// [`Kind::Busy`] if the disk is attached already, [`Kind::Unsupported`] if the domain does not
    /// share its memory, and errors of libvirt about a secret.
    pub fn check(&self, connection: &Connection, disk: &Disk, label: &str) -> Result<(), Error> {
        for (affected, now) in [
            (self.affect.live, &self.live),
            (self.affect.config, &self.config),
        ] {
            if affected && let Some(twin) = twin(connection, now, disk) {
                return Err(self.is_there(twin, label));
            }
            if affected && needs_memory(disk) && !now.shares_memory {
                let name = &self.name;
                let message = format!("{name}: {label} needs memory that the domain shares");
                return Err(Error::new(Kind::Unsupported, message).advise(Advice::ShareMemory));
            }
        }
        for secret in secrets(disk) {
            must_have_value(connection, secret)?;
        }
        Ok(())
    }

    /// Attaches a disk that was [checked](Self::check), and returns its XML.
    ///
    /// # Errors
    /// [`Kind::Busy`] if another program has it open, and errors of libvirt.
    pub fn attach(&self, disk: &Disk, label: &str) -> Result<String, Error> {
        let xml = disk.to_xml()?;
        self.domain
            .attach(&xml, self.affect)
            .map_err(|error| self.refused(error, label, &disk.target.dev))?;
        Ok(xml)
    }

    fn is_there(&self, disk: &Disk, label: &str) -> Error {
        let (domain, target) = (self.name.clone(), disk.target.dev.clone());
        let message = format!("{domain}: {label} is attached already, as {target}");
        Error::new(Kind::Busy, message).advise(Advice::Detach { domain, target })
    }

    /// Adds advice to a failure that QEMU reports in its own words.
    fn refused(&self, error: LibvirtError, label: &str, target: &str) -> Error {
        let says = error.reply().map_or("", |reply| &reply.message);
        if says.contains("Failed to get ") && says.contains(" lock") {
            let message = format!("{}: {label} is in use", self.name);
            return Error::new(Kind::Busy, message).advise(Advice::Shareable);
        }
        let rigid = says.contains("hotplug");
        Error::from(error)
            .about(format_args!("{}: {target}", self.name))
            .advise_if(rigid, Advice::AtNextStart)
    }

    /// Detaches the disk with this target, or else with the path of this file or device on the host
    /// of the libvirt. Waits at most for `timeout` until the guest has released it.
    ///
    /// # Errors
    /// [`Kind::Parameters`] if there is no such disk, [`Kind::Busy`] if the guest does not release
    /// it, [`Kind::Interrupted`], or an error of libvirt.
    pub fn detach(
        &self,
        connection: &Connection,
        disk: &str,
        timeout: Duration,
        watch: &dyn Watch,
    ) -> Result<Detached, Error> {
        let mut affect = self.affect;
        let found = [(affect.live, &self.live), (affect.config, &self.config)]
            .into_iter()
            .filter(|(wanted, _)| *wanted)
            .find_map(|(_, domain)| find(connection, domain, disk));
        let Some(found) = found else {
            let message = format!("{} has no disk {disk}", self.name);
            let there: Vec<_> = self
                .live
                .disks
                .iter()
                .map(|disk| &disk.target.dev)
                .collect();
            let some = !there.is_empty();
            let advice = Advice::DisksAre(there.into_iter().cloned().collect());
            return Err(Error::parameters(message).advise_if(some, advice));
        };
        let target = found.target.dev.clone();
        if !self.stated {
            // The disk may be in only one of them.
            affect.live &= self.live.disk(&target).is_some();
            affect.config &= self.config.disk(&target).is_some();
        }
        let xml = found.to_xml()?;
        self.domain
            .detach(&xml, affect)
            .map_err(|error| Error::from(error).about(format_args!("{}: {target}", self.name)))?;
        if affect.live {
            self.wait_until_gone(&target, timeout, watch)?;
        }
        Ok(Detached { target, affect })
    }

    /// Waits until the guest has released the disk, as libvirt asked it to.
    fn wait_until_gone(
        &self,
        target: &str,
        timeout: Duration,
        watch: &dyn Watch,
    ) -> Result<(), Error> {
        let begun = Instant::now();
        while described(self.domain, false)?.disk(target).is_some() {
            watch.check()?;
            if begun.elapsed() > timeout {
                let message = format!(
                    "{}: the guest has not released {target} within {} s, and still may",
                    self.name,
                    timeout.as_secs()
                );
                return Err(Error::new(Kind::Busy, message).advise(Advice::ReleaseInGuest));
            }
            std::thread::sleep(PAUSE);
        }
        Ok(())
    }
}

/// The state of a running domain, or with `inactive` its definition. They are the same if it does
/// not run, or is not persistent.
fn described(domain: &Domain, inactive: bool) -> Result<DomainXml, Error> {
    let xml = domain.xml(DomainView::new().inactive(inactive))?;
    DomainXml::parse(xml.as_bytes()).map_err(|error| Error::new(Kind::Storage, error))
}

/// The disk with the same storage, by whatever name, unless both are shareable.
fn twin<'a>(connection: &Connection, domain: &'a DomainXml, new: &Disk) -> Option<&'a Disk> {
    let of = |disk: &Disk| {
        let store = &disk.source.as_ref()?.store;
        Some(Identity::of_store(store, Some(connection)))
    };
    let meant = of(new)?;
    domain.disks.iter().find(|disk| {
        let same = of(disk).is_some_and(|one| one.is(&meant));
        same && !(disk.shareable && new.shareable)
    })
}

/// The disk with this target, or else with this path, in any spelling.
fn find<'a>(connection: &Connection, domain: &'a DomainXml, disk: &str) -> Option<&'a Disk> {
    let connection = Some(connection);
    domain.disk(disk).or_else(|| {
        let meant = Identity::of_path_at(Path::new(disk), connection);
        domain.disks.iter().find(|one| {
            let store = one.source.as_ref().map(|source| &source.store);
            store.is_some_and(|store| Identity::of_store(store, connection).is(&meant))
        })
    })
}

/// Whether a disk is served by memory that the domain shares.
fn needs_memory(disk: &Disk) -> bool {
    let source = disk.source.as_ref();
    source.is_some_and(|source| matches!(source.store, Store::VhostUser(_)))
}

/// The secrets that open a disk.
fn secrets(disk: &Disk) -> Vec<&SecretRef> {
    let source = disk.source.iter();
    source
        .flat_map(|source| {
            let encryption = source.encryption.iter().flat_map(|one| &one.secrets);
            encryption.chain(source.auth.iter().map(|auth| &auth.secret))
        })
        .collect()
}

/// Fails for a secret without a value. Otherwise the domain would fail at its next start.
fn must_have_value(connection: &Connection, secret: &SecretRef) -> Result<(), Error> {
    let about = |error: LibvirtError| Error::from(error).about(format_args!("secret {secret}"));
    match connection.find_secret(secret).map_err(about)?.value() {
        // It has a value, or libvirt does not say whether it has.
        Ok(_) | Err(LibvirtError::Private(_) | LibvirtError::Denied(_)) => Ok(()),
        Err(error) => Err(about(error)),
    }
}
