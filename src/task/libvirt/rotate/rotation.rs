//! The selected volumes, and their secrets one after the other.

use std::collections::{BTreeSet, btree_set};
use std::ffi::OsStr;

use uuid::Uuid;

use super::error::RotateError;
use super::journal;
use super::options::{RotateOptions, Selection};
use super::steps::{Rotated, Steps};
use super::volume::Volume;
use crate::libvirt::{Connection, LibvirtError};
use crate::location::Location;
use crate::task::libvirt::identity::Identity;
use crate::task::libvirt::inventory::{self, Inventory};
use crate::task::{Error, Note, Watch, Work, Working};

/// The volumes of a libvirt to rotate or to check, and their secrets.
pub struct Rotation<'a> {
    pub(super) connection: &'a Connection,
    pub(super) options: RotateOptions<'a>,
    pub(super) inventory: Inventory,
    /// The selected volumes.
    pub(super) chosen: BTreeSet<Identity>,
}

impl<'a> Rotation<'a> {
    /// Reads the domains, pools and secrets of a libvirt, and selects volumes.
    ///
    /// # Errors
    /// [`RotateError::NoVolume`] for a target or a pool without an encrypted volume, and failures
    /// of libvirt.
    pub fn select(
        connection: &'a Connection,
        selection: &Selection,
        options: RotateOptions<'a>,
    ) -> Result<Self, Error> {
        let inventory = Inventory::of(connection)?;
        let chosen = chosen(connection, selection, &inventory)?;
        Ok(Self {
            connection,
            options,
            inventory,
            chosen,
        })
    }

    /// The paths or names of the selected volumes.
    pub fn volumes(&self) -> impl ExactSizeIterator<Item = &str> {
        let chosen = self.chosen().into_iter();
        chosen.map(|(_, volume)| volume.place.as_str())
    }

    /// The selected volumes, in the order of their places.
    pub(super) fn chosen(&self) -> Vec<(&Identity, &inventory::Volume)> {
        let volumes = self.inventory.volumes.iter();
        inventory::by_place(volumes.filter(|(identity, _)| self.chosen.contains(identity)))
    }

    /// The secrets that open the selected volumes.
    #[must_use]
    pub fn secrets(&self) -> BTreeSet<Uuid> {
        let chosen = self.chosen.iter();
        chosen
            .flat_map(|volume| &self.inventory.volumes[volume].secrets)
            .copied()
            .collect()
    }

    /// Rotates the secrets, each when the iterator is asked for its result. A failure of one does
    /// not stop the others. Skipped volumes are reported as notes.
    ///
    /// # Errors
    /// [`RotateError::Nothing`] and [`RotateError::OneForSeveral`], before anything is changed.
    pub fn run<'r>(
        &'r self,
        watch: &'r dyn Watch,
    ) -> Result<impl Iterator<Item = (Uuid, Result<Vec<Rotated>, Error>)> + use<'r, 'a>, Error>
    {
        for (what, error) in &self.inventory.unread {
            let what = what.clone();
            watch.notes(Note::Unread { what: &what, error });
        }
        for (_, known) in self.chosen() {
            if known.secrets.is_empty() {
                let volume = &known.place;
                watch.notes(Note::NoSecret { volume });
            }
        }
        let secrets = self.secrets();
        if secrets.is_empty() {
            return Err(RotateError::Nothing.into());
        }
        if self.options.new_key.is_some() && secrets.len() > 1 {
            return Err(RotateError::OneForSeveral.into());
        }
        Ok(Run {
            rotation: self,
            working: Some(Working::begin(
                watch,
                Work::Rotate,
                u64::try_from(secrets.len()).ok(),
            )),
            secrets: secrets.into_iter(),
            begun: false,
            watch,
        })
    }

    fn rotate(&self, uuid: Uuid, watch: &dyn Watch) -> Result<Vec<Rotated>, Error> {
        watch.check()?;
        let place = journal::take(&self.options.journals, &uuid)?;
        let volumes = self.inventory.opened_by(&uuid).into_iter();
        let volumes =
            volumes.map(|known| Volume::new(self.connection, known, &uuid, &self.options));
        let steps = Steps {
            watch,
            connection: self.connection,
            options: &self.options,
            secret: self.connection.secret(&uuid)?,
            uuid,
            volumes: volumes.collect::<Result<_, _>>()?,
            strangers: self.inventory.strangers(),
            place,
        };
        steps.run()
    }
}

/// The secrets that are still to be rotated.
struct Run<'r, 'a> {
    rotation: &'r Rotation<'a>,
    watch: &'r dyn Watch,
    /// Ends with the iterator, as complete if all secrets were tried.
    working: Option<Working<'r>>,
    secrets: btree_set::IntoIter<Uuid>,
    /// Whether a result was returned that is not reported as progress yet.
    begun: bool,
}

impl Iterator for Run<'_, '_> {
    type Item = (Uuid, Result<Vec<Rotated>, Error>);

    fn next(&mut self) -> Option<Self::Item> {
        if let Some(working) = self.working.as_ref().filter(|_| self.begun) {
            working.advance(1);
        }
        self.begun = true;
        let Some(uuid) = self.secrets.next() else {
            self.begun = false;
            if let Some(working) = self.working.take() {
                working.finish();
            }
            return None;
        };
        Some((uuid, self.rotation.rotate(uuid, self.watch)))
    }
}

/// The selected volumes.
fn chosen(
    connection: &Connection,
    selection: &Selection,
    inventory: &Inventory,
) -> Result<BTreeSet<Identity>, Error> {
    if selection.all {
        return Ok(inventory.volumes.keys().cloned().collect());
    }
    let mut chosen = BTreeSet::new();
    let mut add = |what: &str, found: Vec<&Identity>| {
        if found.is_empty() {
            return Err(Error::from(RotateError::NoVolume(what.to_owned())));
        }
        chosen.extend(found.into_iter().cloned());
        Ok(())
    };
    let volumes = || inventory.volumes.iter();
    for pool in &selection.pools {
        connection
            .pool(pool)
            .and_then(|pool| pool.name())
            .map_err(|error| Error::from(error).about(pool))?;
        add(
            pool,
            volumes()
                .filter(|(_, volume)| volume.pools.contains(pool))
                .map(|(identity, _)| identity)
                .collect(),
        )?;
    }
    for target in &selection.targets {
        let named = match connection.domain(target) {
            Ok(domain) => Some(domain.name()?),
            Err(LibvirtError::NoDomain(_)) => None,
            Err(error) => return Err(error.into()),
        };
        let found = match named {
            Some(name) => volumes()
                .filter(|(_, volume)| volume.domains.contains(&name))
                .map(|(identity, _)| identity)
                .collect(),
            None => {
                let location = Location::parse(OsStr::new(target)).ok();
                let meant =
                    location.map(|location| Identity::of_location(&location, Some(connection)));
                volumes()
                    .filter(|(identity, volume)| {
                        volume.names.contains(target) || meant.as_ref() == Some(*identity)
                    })
                    .map(|(identity, _)| identity)
                    .collect()
            }
        };
        add(target, found)?;
    }
    Ok(chosen)
}
