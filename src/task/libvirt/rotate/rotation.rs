//! The selected volumes, and their secrets one after the other.

use std::collections::{BTreeSet, btree_set};

use uuid::Uuid;

use super::error::RotateError;
use super::inventory::Inventory;
use super::journal;
use super::options::{RotateOptions, Selection};
use super::steps::{Rotated, Steps};
use super::volume::Volume;
use crate::libvirt::{Connection, LibvirtError};
use crate::task::{Error, Note, Watch, Work, Working};

/// The volumes of a libvirt to rotate or to check, and their secrets.
pub struct Rotation<'a> {
    pub(super) connection: &'a Connection,
    pub(super) options: RotateOptions<'a>,
    pub(super) inventory: Inventory,
    /// The selected places.
    pub(super) chosen: BTreeSet<String>,
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
        self.chosen.iter().map(String::as_str)
    }

    /// The secrets that open the selected volumes.
    #[must_use]
    pub fn secrets(&self) -> BTreeSet<Uuid> {
        let places = self.chosen.iter();
        places
            .flat_map(|place| &self.inventory.volumes[place].secrets)
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
        for place in &self.chosen {
            if self.inventory.volumes[place].secrets.is_empty() {
                watch.notes(Note::NoSecret { volume: place });
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
        let place = journal::Place::take(&self.options.journals, &uuid)?;
        let volumes = self.inventory.opened_by(&uuid).into_iter();
        let volumes =
            volumes.map(|(place, known)| Volume::new(self.connection, place, known, &self.options));
        let steps = Steps {
            watch,
            connection: self.connection,
            secret: self.connection.secret(&uuid)?,
            uuid,
            volumes: volumes.collect::<Result<_, _>>()?,
            place,
            key: self.options.key,
            new_key: self.options.new_key,
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

/// The places of the selected volumes.
fn chosen(
    connection: &Connection,
    selection: &Selection,
    inventory: &Inventory,
) -> Result<BTreeSet<String>, Error> {
    if selection.all {
        return Ok(inventory.volumes.keys().cloned().collect());
    }
    let mut chosen = BTreeSet::new();
    let mut add = |what: &str, found: Vec<&String>| {
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
                .filter(|(_, volume)| volume.pool.as_ref() == Some(pool))
                .map(|(place, _)| place)
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
                .map(|(place, _)| place)
                .collect(),
            None => {
                let path = std::fs::canonicalize(target).ok();
                let path = path.as_ref().and_then(|path| path.to_str());
                volumes()
                    .map(|(place, _)| place)
                    .filter(|place| *place == target || Some(place.as_str()) == path)
                    .collect()
            }
        };
        add(target, found)?;
    }
    Ok(chosen)
}
