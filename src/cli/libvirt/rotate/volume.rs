//! One volume of a rotation: its header, and how its keyslots change, by us or by the QEMU that has it open.

use luksmith::container::{Container, NewKeyslot, UnlockError, Unlocked, Which};
use luksmith::libvirt::{Connection, Domain};
use luksmith::location::Location;
use luksmith::qemu::OpenVolume;
use luksmith::secret::Passphrase;

use super::inventory;
use super::live::{Live, Way};
use crate::cli::Session;
use crate::cli::args::{ImageArgs, ImageFormat, LimitArgs, PbkdfArgs, RemoteArgs};
use crate::cli::error::{CommandError, Kind};
use crate::cli::open::ReadArgs;

/// How volumes are reached, and what keyslots may cost.
#[derive(Debug, clap::Args)]
pub(super) struct VolumeArgs {
    #[command(flatten)]
    pub(super) pbkdf: PbkdfArgs,

    #[command(flatten)]
    pub(super) limits: LimitArgs,

    #[command(flatten)]
    pub(super) remote: RemoteArgs,
}

/// A volume.
pub(super) struct Volume<'a> {
    /// How it is named.
    pub(super) place: String,
    image: ImageArgs,
    args: &'a VolumeArgs,
    /// The domains that have it open.
    running: Vec<Domain>,
}

/// Who changes the keyslots.
enum By<'a> {
    /// We, in the header.
    Us(Box<Container>),
    /// The QEMU that has the volume open.
    Qemu(Live<'a>),
}

impl<'a> Volume<'a> {
    pub(super) fn new(
        connection: &Connection,
        place: &str,
        known: &inventory::Volume,
        args: &'a VolumeArgs,
    ) -> Result<Self, CommandError> {
        if let Some(why) = known.beyond {
            return Err(CommandError::new(Kind::Storage, why).about(place));
        }
        let location = known.location.clone().ok_or_else(|| {
            CommandError::new(Kind::Storage, format!("{place} cannot be opened here"))
        })?;
        let running = known
            .running
            .iter()
            .map(|name| connection.domain(name))
            .collect::<Result<_, _>>()?;
        Ok(Self {
            place: place.to_owned(),
            image: image(location, &args.remote),
            args,
            running,
        })
    }

    /// Waits for what an interrupted run has left under way in the QEMU that has the volume open, and clears it away. Whatever is in the way of
    /// a change there is told now.
    pub(super) fn settle(&self, session: &Session) -> Result<(), CommandError> {
        if self.running.is_empty() {
            return Ok(());
        }
        self.by(session).map(drop)
    }

    /// The header as it is now. A QEMU that has the volume open does not mind.
    pub(super) fn read(&self, session: &Session) -> Result<Container, CommandError> {
        let read = ReadArgs {
            force_share: !self.running.is_empty(),
        };
        let limits = self.args.limits.limits();
        Ok(self
            .image
            .get()
            .open_to_read(read.options(), limits, session)?)
    }

    /// Which keyslot this opens; none where it opens none.
    pub(super) fn opens(
        &self,
        session: &Session,
        passphrase: &Passphrase,
        which: Which,
    ) -> Result<Option<u32>, CommandError> {
        match self
            .read(session)?
            .unlock(passphrase, which, session.signals.interrupt())
        {
            Ok(unlocked) if unlocked.is_volume_key() => Ok(unlocked.slot()),
            Ok(_)
            | Err(
                UnlockError::WrongPassphrase
                | UnlockError::NoKeyslots
                | UnlockError::NoSuchKeyslot(_),
            ) => Ok(None),
            Err(error) => Err(CommandError::from(error).about(&self.place)),
        }
    }

    /// Every keyslot that this opens.
    pub(super) fn all_opened(
        &self,
        session: &Session,
        passphrase: &Passphrase,
    ) -> Result<Vec<u32>, CommandError> {
        let container = self.read(session)?;
        let mut opened = Vec::new();
        for keyslot in container.keyslots().iter().filter(|keyslot| keyslot.bound) {
            if container
                .unlock(
                    passphrase,
                    Which::Slot(keyslot.slot),
                    session.signals.interrupt(),
                )
                .is_ok()
            {
                opened.push(keyslot.slot);
            }
        }
        Ok(opened)
    }

    /// The highest number that is free: who adds a keyslot by hand gets the lowest.
    pub(super) fn free_slot(
        &self,
        session: &Session,
        besides: &[u32],
    ) -> Result<u32, CommandError> {
        let container = self.read(session)?;
        let used = container.keyslots();
        let total = match container.version() {
            luksmith::container::Version::Luks1 => 8,
            luksmith::container::Version::Luks2 => 32,
        };
        let free = (0..total).rev().find(|slot| {
            !besides.contains(slot) && !used.iter().any(|keyslot| keyslot.slot == *slot)
        });
        free.ok_or_else(|| {
            CommandError::new(Kind::Busy, "no keyslot is free for the new passphrase")
                .about(&self.place)
                .hint("`luksmith key remove IMAGE --keyslot N` makes room")
        })
    }

    /// Puts the new passphrase into a keyslot.
    pub(super) fn add(
        &self,
        session: &Session,
        slot: u32,
        new: &Passphrase,
        existing: &Passphrase,
    ) -> Result<(), CommandError> {
        let mut container = match self.by(session)? {
            By::Us(container) => container,
            By::Qemu(mut live) => {
                return live
                    .add(slot, new, existing, self.args.pbkdf.iter_time)
                    .map_err(|error| error.about(&self.place));
            }
        };
        let unlocked = self.unlock(session, &container, existing)?;
        let kdf = self.args.pbkdf.get().of_another_keyslot(
            &container,
            unlocked.key().as_bytes().len(),
            session,
        )?;
        let new = NewKeyslot::new(new, kdf).slot(slot);
        container
            .add_keyslot(&unlocked, &new, session.signals.interrupt())
            .map_err(|error| CommandError::from(error).about(&self.place))?;
        Ok(())
    }

    /// Takes a keyslot away if it is in use; never the last.
    pub(super) fn remove(&self, session: &Session, slot: u32) -> Result<(), CommandError> {
        if !self
            .read(session)?
            .keyslots()
            .iter()
            .any(|keyslot| keyslot.slot == slot)
        {
            return Ok(());
        }
        let about = |error: CommandError| error.about(&self.place);
        match self.by(session)? {
            By::Us(mut container) => container
                .remove_keyslot(slot, false)
                .map_err(|error| about(error.into())),
            By::Qemu(mut live) => live.remove(slot).map_err(about),
        }
    }

    fn by(&self, session: &Session) -> Result<By<'_>, CommandError> {
        let domain = match &*self.running {
            [] => {
                let limits = self.args.limits.limits();
                let container = self.image.get().open_to_write(None, limits, session)?;
                return Ok(By::Us(container.into()));
            }
            [domain] => domain,
            _ => {
                let message = format!("several running domains have {} open", self.place);
                return Err(CommandError::new(Kind::Busy, message)
                    .hint("shut down all of them, or all but one"));
            }
        };
        match Way::find(session, domain, &self.place, || self.read(session))? {
            Way::Asked(live) => Ok(By::Qemu(live)),
            Way::Beside(open) => Ok(By::Us(self.write_beside(session, &open)?.into())),
        }
    }

    /// The header, for writing beside the QEMU that has the volume open. Through the page cache or past it, as QEMU does it: where both ways
    /// meet in a page, one undoes the other.
    fn write_beside(
        &self,
        session: &Session,
        open: &OpenVolume,
    ) -> Result<Container, CommandError> {
        let hint = "the domain runs, and its QEMU cannot change keyslots: run luksmith on its host, as root or as whom the image belongs to; \
                    or rotate while it is off";
        if self.image.image.path().is_none() {
            return Err(
                CommandError::new(Kind::Busy, "is no file or device of this host")
                    .about(&self.place)
                    .hint(hint),
            );
        }
        self.image
            .get()
            .open_beside(open.direct, self.args.limits.limits(), session)
            .map_err(|error| {
                let out_of_reach = error.kind() == Kind::Permission || error.kind().is_of_storage();
                CommandError::from(error).hint_if(out_of_reach.then(|| hint.to_owned()))
            })
    }

    fn unlock(
        &self,
        session: &Session,
        container: &Container,
        passphrase: &Passphrase,
    ) -> Result<Unlocked, CommandError> {
        container
            .unlock(passphrase, Which::Any, session.signals.interrupt())
            .map_err(|error| CommandError::from(error).about(&self.place))
    }
}

fn image(location: Location, remote: &RemoteArgs) -> ImageArgs {
    ImageArgs {
        image: location,
        header: None,
        format: ImageFormat::Raw,
        remote: remote.clone(),
    }
}
