//! Pins of volumes: makes them, accepts changes of other programs, and lists them. That a header is
//! compared with its pin is part of opening it ([`Image::trust`]).

pub(in crate::task) mod kept;
mod place;
pub mod tagging;

use std::sync::Arc;

use luksmith_formats::trust::pin::{Difference, Facts, KeyPrint, Pin};

pub use place::place;

use super::Error;
use super::new_volume::Made;
use super::open::Image;
use crate::container::{Container, Unlocked};
use crate::location::Location;
use crate::trust::{PinStore as _, Pinned, TrustDir, TrustError};

/// A volume that is pinned, or can be.
pub struct Volume {
    pinned: Pinned,
    uuid: String,
}

impl Volume {
    /// The volume of an opened header. Whether it is pinned is not looked at.
    #[must_use]
    pub fn new(image: &Image, dir: &TrustDir, container: &Container) -> Self {
        let place = place(&image.location, image.header.as_ref());
        Self {
            pinned: Pinned::new(Arc::new(dir.clone()), place),
            uuid: container.uuid().to_owned(),
        }
    }

    /// Fails if [`init`](Self::init) would, before a passphrase is asked for.
    ///
    /// # Errors
    /// [`TrustError::Pinned`], and [`TrustError::OtherVolume`] if another volume is pinned at this
    /// place.
    pub fn check_init(&self) -> Result<(), Error> {
        Ok(self.pinned.check_init(&self.uuid)?)
    }

    /// The pin, if there is one.
    ///
    /// # Errors
    /// A pin that is damaged, and a folder that cannot be used.
    pub fn pinned(&self) -> Result<Option<Pin>, Error> {
        Ok(self.pinned.pin(&self.uuid)?)
    }

    /// Pins what the header says now.
    ///
    /// # Errors
    /// Those of [`check_init`](Self::check_init), and a header that changes meanwhile.
    pub fn init(&self, container: &Container, unlocked: &Unlocked) -> Result<Pin, Error> {
        let (facts, keys) = looked(container, unlocked)?;
        Ok(self.pinned.init(&facts, &keys)?)
    }

    /// The pin, and how the header and its place differ from it.
    ///
    /// # Errors
    /// [`TrustError::NotKnown`], and [`TrustError::OtherVolume`] if another volume is pinned at
    /// this place.
    pub fn compare(&self, container: &Container) -> Result<(Pin, Vec<Difference>), Error> {
        let pin = self.pinned.known(&self.uuid)?;
        let mut differences = container.differences(&pin)?;
        if pin.place != *self.pinned.place() {
            let pinned = pin.place.to_string();
            differences.push(Difference::Place { pinned });
        }
        Ok((pin, differences))
    }

    /// Pins what the header says now, and where it is, instead of `before`.
    ///
    /// # Errors
    /// [`TrustError::OtherKey`] if the volume has another key than the pinned one, and a header
    /// that changes meanwhile.
    pub fn accept(
        &self,
        before: &Pin,
        container: &Container,
        unlocked: &Unlocked,
    ) -> Result<Pin, Error> {
        let (facts, keys) = looked(container, unlocked)?;
        Ok(self.pinned.accept(before, &facts, &keys)?)
    }
}

fn looked(container: &Container, unlocked: &Unlocked) -> Result<(Facts, Vec<KeyPrint>), Error> {
    let looked = (container.facts()?, container.key_prints(unlocked)?);
    container.check_unchanged()?;
    Ok(looked)
}

/// The pin of a volume that was made and has no name yet.
pub struct NewPin {
    pinned: Pinned,
    facts: Facts,
    keys: Vec<KeyPrint>,
}

impl NewPin {
    /// Refuses a place at which a volume is pinned, before a new one is made there.
    ///
    /// # Errors
    /// [`TrustError::OtherVolume`], and a folder that cannot be used.
    pub fn check(image: &Location, header: Option<&Location>, dir: &TrustDir) -> Result<(), Error> {
        let pinned = Pinned::new(Arc::new(dir.clone()), place(image, header));
        Ok(pinned.check_free()?)
    }

    /// What will be pinned of a volume that was made for this place.
    ///
    /// # Errors
    /// What the storage reports.
    pub fn of(
        made: &Made<'_>,
        image: &Location,
        header: Option<&Location>,
        dir: &TrustDir,
    ) -> Result<Self, Error> {
        let pinned = Pinned::new(Arc::new(dir.clone()), place(image, header));
        let (facts, keys) = looked(&made.container, &made.unlocked)?;
        Ok(Self {
            pinned,
            facts,
            keys,
        })
    }

    /// Pins the volume, which has its name now.
    ///
    /// # Errors
    /// Those of [`Pinned::init`]. The volume stays.
    pub fn write(self) -> Result<(), Error> {
        self.pinned.init(&self.facts, &self.keys)?;
        Ok(())
    }
}

/// What is kept of one volume.
#[derive(Debug)]
#[non_exhaustive]
pub struct Entry {
    /// Its UUID.
    pub uuid: String,
    /// Its pin, or why there is none that can be read.
    pub pin: Result<Option<Pin>, TrustError>,
}

/// What is kept in a folder, in the order of the UUIDs.
///
/// # Errors
/// [`TrustError::Dir`].
pub fn list(dir: &TrustDir) -> Result<Vec<Entry>, Error> {
    let uuids = dir.uuids()?;
    let entry = |uuid: String| {
        let pin = match dir.load(&uuid) {
            Ok(None) => Ok(None),
            Ok(Some(bytes)) => Pin::parse(&bytes).map(Some).map_err(|why| {
                let uuid = uuid.clone();
                TrustError::Damaged { uuid, why }
            }),
            Err(error) => Err(error),
        };
        Entry { uuid, pin }
    };
    Ok(uuids.into_iter().map(entry).collect())
}
