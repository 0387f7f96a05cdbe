//! The rotation of one secret, step by step.
//!
//! At each point the value that the secret has opens every volume, so that their domains start; and whatever was begun is told by the
//! journal, so that another run comes to the end. The order: a keyslot for the new passphrase in each volume, proven; the old passphrase kept
//! in a second secret; the new one set, and read back; the old keyslots removed, last.

use luksmith::container::Which;
use luksmith::libvirt::xml::{SecretXml, Usage};
use luksmith::libvirt::{Connection, LibvirtError, Secret};
use luksmith::secret::Passphrase;
use uuid::Uuid;

use super::journal::{Journal, Place, Slots, Stage};
use super::volume::Volume;
use crate::cli::Session;
use crate::cli::error::{CommandError, Kind};
use crate::cli::output;
use crate::cli::passphrase::KeySource;

/// One secret, and all volumes that it opens.
pub(super) struct Rotation<'a> {
    pub(super) session: &'a Session,
    pub(super) connection: &'a Connection,
    pub(super) secret: Secret,
    pub(super) uuid: Uuid,
    pub(super) volumes: Vec<Volume<'a>>,
    pub(super) place: Place,
    /// The present passphrase of a private secret.
    pub(super) key: Option<&'a KeySource>,
    /// Where the new passphrase comes from; none is a random one.
    pub(super) new_key: Option<&'a KeySource>,
}

/// What was done to one volume.
pub(super) struct Rotated {
    pub(super) place: String,
    pub(super) new: u32,
    pub(super) old: Vec<u32>,
}

/// What the secret holds now, and what it opens.
struct Present {
    passphrase: Passphrase,
    private: bool,
    /// The keyslot of each volume, in their order.
    slots: Vec<u32>,
}

impl Rotation<'_> {
    pub(super) fn run(&self) -> Result<Vec<Rotated>, CommandError> {
        let begun = self.place.read()?;
        for volume in &self.volumes {
            volume.settle(self.session)?;
        }
        let mut carried = vec![Vec::new(); self.volumes.len()];
        if let Some(journal) = &begun {
            self.check_volumes(journal)?;
            if journal.stage == Stage::Removing && self.is_private()? {
                // The new value was set: what goes needs no passphrase.
                return self.finish(journal, None);
            }
        }
        let present = self.present(begun.as_ref())?;
        if let Some(journal) = &begun {
            let all_new = present
                .slots
                .iter()
                .zip(&journal.volumes)
                .all(|(slot, volume)| *slot == volume.new);
            if all_new && !present.private {
                return self.finish(journal, Some(&present.passphrase));
            }
            for ((volume, slots), carried) in
                self.volumes.iter().zip(&journal.volumes).zip(&mut carried)
            {
                if present.private && journal.stage == Stage::Setting {
                    // Nobody sees which of both the secret has: both stay until it certainly has a third.
                    carried.extend(slots.old.iter().copied().chain([slots.new]));
                } else {
                    // The secret has the old passphrase, and nobody the one of this keyslot.
                    volume.remove(self.session, slots.new)?;
                }
            }
        }
        let new = self.new_passphrase()?;
        if new.ct_eq(&present.passphrase) {
            return Err(CommandError::parameters(
                "the new passphrase is the one that the secret has",
            ));
        }
        let kept = begun.map_or_else(Uuid::new_v4, |journal| journal.kept);
        let mut journal = Journal {
            secret: self.uuid,
            kept,
            stage: Stage::Adding,
            volumes: Vec::new(),
        };
        for (volume, mut old) in self.volumes.iter().zip(carried) {
            old.extend(volume.all_opened(self.session, &present.passphrase)?);
            old.sort_unstable();
            old.dedup();
            let (uuid, new) = (
                volume.read(self.session)?.uuid().to_owned(),
                volume.free_slot(self.session, &old)?,
            );
            journal.volumes.push(Slots {
                place: volume.place.clone(),
                uuid,
                new,
                old,
            });
        }
        self.place.write(&journal, self.session)?;
        for (volume, slots) in self.volumes.iter().zip(&journal.volumes) {
            volume.add(self.session, slots.new, &new, &present.passphrase)?;
            self.prove(volume, slots.new, &new)?;
        }
        self.keep(&journal, &present)?;
        journal.stage = Stage::Setting;
        self.place.write(&journal, self.session)?;
        if let Err(error) = self.secret.store(&new) {
            let error = CommandError::from(error);
            return Err(match self.secret.store(&present.passphrase) {
                Ok(()) => error.hint("the secret has its old value; run it again"),
                Err(_) => error.hint(format!(
                    "the old value is kept in the secret {}; run it again",
                    journal.kept
                )),
            });
        }
        journal.stage = Stage::Removing;
        self.place.write(&journal, self.session)?;
        let readable = (!present.private).then_some(&new);
        self.finish(&journal, readable)
    }

    /// Removes what is old, now that the secret has what is new; `new`, where it can be seen, is proven once more, by what libvirt gives.
    fn finish(
        &self,
        journal: &Journal,
        new: Option<&Passphrase>,
    ) -> Result<Vec<Rotated>, CommandError> {
        if new.is_some() {
            let held = self.secret.value()?;
            for (volume, slots) in self.volumes.iter().zip(&journal.volumes) {
                self.prove(volume, slots.new, &held)?;
            }
        }
        let mut rotated = Vec::new();
        for (volume, slots) in self.volumes.iter().zip(&journal.volumes) {
            for slot in slots.old.iter().filter(|slot| **slot != slots.new) {
                volume.remove(self.session, *slot)?;
            }
            rotated.push(Rotated {
                place: slots.place.clone(),
                new: slots.new,
                old: slots.old.clone(),
            });
        }
        match self.connection.secret(&journal.kept) {
            Ok(kept) => kept.undefine()?,
            Err(LibvirtError::NoSecret(_)) => {}
            Err(error) => return Err(error.into()),
        }
        self.place.clear()?;
        Ok(rotated)
    }

    /// What the secret holds, and that it opens every volume. A value that opens nothing is put right from the one that was kept.
    fn present(&self, begun: Option<&Journal>) -> Result<Present, CommandError> {
        let label = format!("secret {}", self.uuid);
        let (passphrase, private) = match self.secret.value() {
            Ok(passphrase) => (passphrase, false),
            Err(error @ LibvirtError::Private(_)) => {
                let Some(key) = self.key else {
                    return Err(CommandError::from(error).hint("--key SOURCE gives its present passphrase; --new-key SOURCE one that you keep"));
                };
                (key.existing(self.session, &label)?, true)
            }
            Err(error) => return Err(error.into()),
        };
        let failed = match self.slots(&passphrase) {
            Ok(slots) => {
                return Ok(Present {
                    passphrase,
                    private,
                    slots,
                });
            }
            Err(error) => error,
        };
        let kept = begun.and_then(|journal| self.connection.secret(&journal.kept).ok());
        let Some(kept) = kept.and_then(|kept| kept.value().ok()).filter(|_| !private) else {
            return Err(failed);
        };
        let slots = self.slots(&kept)?;
        self.secret.store(&kept)?;
        output::note(
            "the secret has the passphrase again that was kept when a rotation was interrupted",
        );
        Ok(Present {
            passphrase: kept,
            private,
            slots,
        })
    }

    fn slots(&self, passphrase: &Passphrase) -> Result<Vec<u32>, CommandError> {
        let slots = self.volumes.iter().map(|volume| {
            volume.opens(self.session, passphrase, Which::Any)?.ok_or_else(|| {
                CommandError::new(Kind::Permission, format!("the secret does not open {}", volume.place))
                    .hint("`luksmith libvirt secret set` puts the right passphrase into it; `luksmith libvirt rotate --check` looks at all of them")
            })
        });
        slots.collect()
    }

    fn is_private(&self) -> Result<bool, CommandError> {
        match self.secret.value() {
            Err(LibvirtError::Private(_)) => Ok(true),
            Ok(_) | Err(LibvirtError::NoValue(_)) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    fn new_passphrase(&self) -> Result<Passphrase, CommandError> {
        let Some(source) = self.new_key else {
            return Ok(Passphrase::generate()?);
        };
        let new = source.fresh(
            self.session,
            &format!("the new passphrase of secret {}", self.uuid),
            false,
        )?;
        if !new.is_text() {
            return Err(CommandError::parameters(
                "QEMU cannot open a volume by the new passphrase: it is no text in UTF-8 without NUL",
            ));
        }
        Ok(new)
    }

    fn prove(
        &self,
        volume: &Volume<'_>,
        slot: u32,
        passphrase: &Passphrase,
    ) -> Result<(), CommandError> {
        match volume.opens(self.session, passphrase, Which::Slot(slot))? {
            Some(_) => Ok(()),
            None => Err(CommandError::new(
                Kind::Storage,
                format!(
                    "keyslot {slot} of {} does not open by the new passphrase",
                    volume.place
                ),
            )
            .hint("nothing old was removed; run it again")),
        }
    }

    /// Keeps the old passphrase in a secret of its own.
    fn keep(&self, journal: &Journal, present: &Present) -> Result<(), CommandError> {
        let kept = match self.connection.secret(&journal.kept) {
            Ok(kept) => kept,
            Err(LibvirtError::NoSecret(_)) => {
                let definition = SecretXml::new(Some(Usage::volume(format!(
                    "luksmith rotation of {}",
                    self.uuid
                ))))
                .uuid(Some(journal.kept.to_string()))
                .description(Some(
                    "the old passphrase, until a rotation has come to its end".to_owned(),
                ))
                .private(present.private);
                let xml = definition
                    .to_xml()
                    .map_err(|error| CommandError::new(Kind::Parameters, error))?;
                self.connection.define_secret(&xml)?
            }
            Err(error) => return Err(error.into()),
        };
        Ok(kept.store(&present.passphrase)?)
    }

    /// The journal is of these volumes, as they are.
    fn check_volumes(&self, journal: &Journal) -> Result<(), CommandError> {
        let mut same = self.volumes.len() == journal.volumes.len();
        for (volume, slots) in self.volumes.iter().zip(&journal.volumes) {
            same &= volume.place == slots.place && volume.read(self.session)?.uuid() == slots.uuid;
        }
        if same {
            return Ok(());
        }
        let places = journal
            .volumes
            .iter()
            .map(|slots| slots.place.as_str())
            .collect::<Vec<_>>()
            .join(", ");
        let message =
            format!("an interrupted rotation of this secret was of other volumes: {places}");
        Err(CommandError::new(Kind::Storage, message).hint("make them known to libvirt again (start their pool, define their domain), and run it again"))
    }
}
