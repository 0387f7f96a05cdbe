//! One disk gets a new volume, step by step.
//!
//! At each point the running domain, and its definition for the next start, name a volume that is
//! complete, and a secret that opens it. The journal describes each stage before it begins:
//!
//! 1. `making`: make the new volume and its secret, and open it with the value of the secret.
//! 2. `copying`: copy the disk. When the copy is complete, the domain goes on with the new volume:
//!    QEMU at once, and the definition from its next start on.
//! 3. `switched`: open the new volume with the value of its secret, and make sure that no disk is
//!    the old volume. If the secret is private, QEMU has to have opened the new volume with it, or
//!    this run has to have stored the value.
//! 4. `erasing`: erase the header of the old volume, then remove its secret if nothing needs it.

use std::sync::Mutex;

use uuid::Uuid;

use super::error::RekeyError;
use super::journal::{Journal, Stage};
use super::options::RekeyOptions;
use super::unit::Unit;
use super::uses::described;
use crate::libvirt::xml::Disk;
use crate::libvirt::{Connection, Domain};
use crate::secret::Passphrase;
use crate::task::libvirt::identity::Identity;
use crate::task::libvirt::journal::Place;
use crate::task::{Error, Watch};

/// One disk, its domain, and its journal, which is locked.
pub(super) struct Steps<'a> {
    pub(super) watch: &'a dyn Watch,
    pub(super) connection: &'a Connection,
    pub(super) options: &'a RekeyOptions<'a>,
    pub(super) unit: &'a Unit,
    pub(super) domain: Domain,
    pub(super) place: Place,
    /// Held while a volume is made: libvirt does not refresh a pool in which it makes another one.
    pub(super) making: &'a Mutex<()>,
}

/// A disk that has a new volume.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Rekeyed {
    /// The name of the domain.
    pub domain: String,
    /// The disk in the guest, such as `vda`.
    pub target: String,
    /// Whether the domain ran when the copy began.
    pub online: bool,
    /// The path of the new volume.
    pub new: String,
    /// The secret that opens the new volume.
    pub secret: Uuid,
    /// The path or the URI of the old volume.
    pub old: String,
    /// The secret of the old volume.
    pub old_secret: Uuid,
    /// Whether the header of the old volume was erased.
    pub erased: bool,
    /// Whether the secret of the old volume was removed.
    pub secret_removed: bool,
}

/// Which of the two volumes a disk is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Now {
    Old,
    New,
    Neither,
}

impl<'a> Steps<'a> {
    /// Locks the journal of a disk.
    pub(super) fn of(
        connection: &'a Connection,
        options: &'a RekeyOptions<'a>,
        unit: &'a Unit,
        watch: &'a dyn Watch,
        making: &'a Mutex<()>,
    ) -> Result<Self, Error> {
        let place = Place::take(&options.journals, &unit.journal()?)?;
        Ok(Self {
            watch,
            connection,
            options,
            unit,
            domain: unit.find(connection)?,
            place: place.ok_or(RekeyError::Locked)?,
            making,
        })
    }

    pub(super) fn run(&self) -> Result<Rekeyed, Error> {
        self.watch.check()?;
        let begun = match self.place.read()? {
            Some(begun) => self.resumed(begun)?,
            None => None,
        };
        let (mut journal, made) = match begun {
            Some(begun) => (begun, None),
            None => {
                let (journal, passphrase) = self.make()?;
                (journal, Some(passphrase))
            }
        };
        if journal.stage == Stage::Copying {
            if let Err(error) = self.switch(&mut journal, made.as_ref()) {
                self.take_back(&journal);
                return Err(error);
            }
            journal.stage = Stage::Switched;
            self.place.write(&journal, self.watch)?;
        }
        self.finish(journal, made.is_some())
    }

    /// What an interrupted run has left, if it can be completed. Otherwise it is removed.
    fn resumed(&self, begun: Journal) -> Result<Option<Journal>, Error> {
        let goes_on = match begun.stage {
            Stage::Making => false,
            Stage::Switched | Stage::Erasing => true,
            Stage::Copying => match self.now(&begun)?.0 {
                Now::New => true,
                // QEMU can open a volume whose secret is private. Of the runs of this task, only
                // the one that made the secret can.
                Now::Old => {
                    let opens = !begun.private || self.domain.is_active()?;
                    opens && self.prove(&begun).is_ok()
                }
                // The disk may be a snapshot of the new volume, which its definition does not show.
                Now::Neither => return Err(RekeyError::exchanged(&begun)),
            },
        };
        if goes_on {
            return Ok(Some(begun));
        }
        self.watch.check()?;
        self.discard(&begun)?;
        Ok(None)
    }

    /// Which volume the disk is: that of the running domain, or else that of its definition.
    pub(super) fn now(&self, journal: &Journal) -> Result<(Now, Option<Disk>), Error> {
        let running = self.domain.is_active()?;
        self.now_in(journal, !running)
    }

    pub(super) fn now_in(
        &self,
        journal: &Journal,
        inactive: bool,
    ) -> Result<(Now, Option<Disk>), Error> {
        let xml = described(&self.domain, inactive)?;
        let mut disks = xml.disks.into_iter();
        let disk = disks.find(|disk| disk.target.dev == self.unit.target);
        let source = disk.as_ref().and_then(|disk| disk.source.as_ref());
        let found = source.map(|source| Identity::of_store(&source.store, Some(self.connection)));
        let is = |at: &super::journal::At| -> Result<bool, Error> {
            let meant = at.identity(self.connection)?;
            Ok(found.as_ref().is_some_and(|found| found.is(&meant)))
        };
        let now = if is(&journal.new.at)? {
            Now::New
        } else if is(&journal.old.at)? {
            Now::Old
        } else {
            Now::Neither
        };
        Ok((now, disk))
    }

    /// Copies the disk unless it is the new volume already, and makes the definition name that. If
    /// this run made the new volume, `made` is its passphrase.
    fn switch(&self, journal: &mut Journal, made: Option<&Passphrase>) -> Result<(), Error> {
        if self.now(journal)?.0 != Now::New {
            let online = self.domain.is_active()?;
            if online != journal.online {
                journal.online = online;
                self.place.write(journal, self.watch)?;
            }
            match online {
                true => self.copy_online(journal)?,
                false => return self.copy_offline(journal, made),
            }
        }
        self.define(journal)
    }
}
