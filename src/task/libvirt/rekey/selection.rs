//! The disks that get new volumes.

use super::error::RekeyError;
use super::look::look;
use super::options::RekeyOptions;
use super::unit::Unit;
use super::uses::described;
use crate::libvirt::{Connection, Domain};
use crate::task::libvirt::journal::is_unfinished;
use crate::task::{Advice, Error, Kind, Watch, Work, Working};

/// A disk that would be refused, or of which an earlier run is not finished.
#[derive(Debug)]
#[non_exhaustive]
pub struct Obstacle {
    /// The disk.
    pub unit: Unit,
    /// Why it would be refused. `None` if an earlier run was interrupted, which another run
    /// completes.
    pub error: Option<Error>,
}

/// The disks of a libvirt that get new volumes.
pub struct Rekey<'a> {
    pub(super) connection: &'a Connection,
    pub(super) options: RekeyOptions<'a>,
    pub(super) units: Vec<Unit>,
}

impl<'a> Rekey<'a> {
    /// Finds the encrypted disks of domains, which are named by their names or UUIDs. With
    /// `targets`, only the disks with these names are selected; without `domains`, the disks of all
    /// domains.
    ///
    /// # Errors
    /// [`RekeyError::NoDisk`] for a named domain without an encrypted disk,
    /// [`RekeyError::NotEncrypted`] for a named disk, and failures of libvirt.
    pub fn select(
        connection: &'a Connection,
        domains: &[String],
        targets: &[String],
        options: RekeyOptions<'a>,
    ) -> Result<Self, Error> {
        if domains.len() != 1 && !targets.is_empty() {
            let message = "disks are named, but not exactly one domain that has them";
            return Err(Error::parameters(message));
        }
        let mut units = Vec::new();
        for name in domains {
            let domain = connection.domain(name);
            let domain = domain.map_err(|error| Error::from(error).about(name))?;
            let (found, other) = encrypted(&domain)?;
            if found.is_empty() {
                return Err(RekeyError::NoDisk(name.clone()).into());
            }
            if let Some(target) = targets
                .iter()
                .find(|target| found.iter().all(|unit| unit.target != **target))
            {
                let there = found.iter().map(|unit| unit.target.clone()).collect();
                let error = match other.contains(target) {
                    true => RekeyError::NotEncrypted(target.clone()).into(),
                    false => Error::parameters(format!("{name} has no disk {target}")),
                };
                return Err(error.advise(Advice::DisksAre(there)));
            }
            let chosen = found
                .into_iter()
                .filter(|unit| targets.is_empty() || targets.contains(&unit.target));
            units.extend(chosen);
        }
        if domains.is_empty() {
            for domain in connection.domains()? {
                units.extend(encrypted(&domain)?.0);
            }
        }
        units.sort();
        units.dedup();
        Ok(Self {
            connection,
            options,
            units,
        })
    }

    /// The disks, in the order of their domains.
    #[must_use]
    pub fn units(&self) -> &[Unit] {
        &self.units
    }

    /// Says which disks would be refused, and why, and of which an earlier run is not finished.
    /// Nothing is changed.
    ///
    /// # Errors
    /// An interrupt.
    pub fn check(&self, watch: &dyn Watch) -> Result<Vec<Obstacle>, Error> {
        let total = u64::try_from(self.units.len()).ok();
        let working = Working::begin(watch, Work::Check, total);
        let mut obstacles = Vec::new();
        for unit in &self.units {
            watch.check()?;
            let unfinished = is_unfinished(&self.options.journals, &unit.journal()?);
            let error = match unfinished {
                true => None,
                false => match look(self.connection, unit, &self.options, watch) {
                    Err(error) if error.kind() == Kind::Interrupted => return Err(error),
                    looked => looked.err(),
                },
            };
            if unfinished || error.is_some() {
                let unit = unit.clone();
                obstacles.push(Obstacle { unit, error });
            }
            working.advance(1);
        }
        working.finish();
        Ok(obstacles)
    }
}

/// The disks of a domain that QEMU decrypts, running or defined, and the targets of the others.
fn encrypted(domain: &Domain) -> Result<(Vec<Unit>, Vec<String>), Error> {
    let (name, uuid) = (domain.name()?, domain.uuid()?);
    let views = match domain.is_active()? {
        true => &[false, true][..],
        false => &[true],
    };
    let (mut found, mut other) = (Vec::new(), Vec::new());
    for &inactive in views {
        for disk in described(domain, inactive)?.disks {
            let encryption = disk.source.as_ref().and_then(|one| one.encryption.as_ref());
            let target = disk.target.dev;
            match encryption {
                None => other.push(target),
                Some(_) => found.push(Unit {
                    domain_name: name.clone(),
                    target,
                    domain: uuid,
                }),
            }
        }
    }
    found.sort();
    found.dedup();
    Ok((found, other))
}
