//! Copies a disk into its new volume: by QEMU while the domain runs, and by this process while it
//! is shut off. The domain goes on with the new volume when the copy is complete.

use std::os::unix::fs::FileTypeExt;
use std::path::Path;
use std::thread::sleep;
use std::time::Duration;

use super::error::RekeyError;
use super::journal::Journal;
use super::steps::{Now, Steps};
use crate::backend::file::OpenOptions;
use crate::container::Which;
use crate::libvirt::xml::{self, Disk, Encryption, SecretRef, Source, Store};
use crate::libvirt::{Affect, BlockCopy, DomainView, LibvirtError};
use crate::secret::{Passphrase, Purpose};
use crate::task::copy::{Fill, transfer};
use crate::task::libvirt::identity::{Identity, spelled_for};
use crate::task::open::{Image, ImageFormat};
use crate::task::{Advice, Error, Kind, Work, Working};
use crate::volume::Volume;

/// The interval at which a copy is looked at.
const PAUSE: Duration = Duration::from_millis(100);

/// How often the state of a domain is looked at after a copy has failed.
const LOOKS: usize = 20;

/// The version of libvirt that has writes to both images at once.
const SYNCHRONOUS: (u64, u64, u64) = (8, 0, 0);

impl Steps<'_> {
    /// Lets QEMU copy the disk, and the running domain go on with the new volume. A copy that an
    /// interrupted run began is waited for.
    pub(super) fn copy_online(&self, journal: &Journal) -> Result<(), Error> {
        match self.copy_by_qemu(journal) {
            // Whatever failed, it failed because the domain ended.
            Err(error) if error.kind() != Kind::Interrupted && self.has_ended()? => {
                Err(RekeyError::ShutOff.into())
            }
            copied => copied,
        }
    }

    /// Whether the domain has ended. libvirt can lose its connection to QEMU, so that a call fails,
    /// some time before it notices the end.
    fn has_ended(&self) -> Result<bool, Error> {
        for _ in 0..LOOKS {
            if !self.domain.is_active()? {
                return Ok(true);
            }
            sleep(PAUSE);
        }
        Ok(false)
    }

    fn copy_by_qemu(&self, journal: &Journal) -> Result<(), Error> {
        let target = &self.unit.target;
        let copied = Working::begin(self.watch, Work::Copy, Some(journal.size));
        let mut seen = 0;
        let mut begun = false;
        loop {
            self.watch.check()?;
            let (now, disk) = self.now_in(journal, false)?;
            let disk = match (now, disk) {
                (Now::New, _) => break,
                (Now::Old, Some(disk)) => disk,
                _ => return Err(RekeyError::exchanged(journal)),
            };
            match &disk.mirror {
                Some(mirror) if !self.is_new(&mirror.source, journal)? => {
                    return Err(RekeyError::Job.into());
                }
                Some(_) if disk.mirror_ready => self.domain.pivot(target)?,
                Some(_) => {
                    begun = true;
                    let job = self.domain.block_job(target)?;
                    let done = job.map_or(seen, |job| job.done.min(journal.size));
                    copied.advance(done.saturating_sub(seen));
                    seen = seen.max(done);
                    sleep(PAUSE);
                }
                None if begun => return Err(RekeyError::CopyEnded.into()),
                None => {
                    self.begin_copy(journal, &disk)?;
                    begun = true;
                }
            }
        }
        copied.advance(journal.size.saturating_sub(seen));
        copied.finish();
        Ok(())
    }

    fn begin_copy(&self, journal: &Journal, disk: &Disk) -> Result<(), Error> {
        let source = self.new_source(journal, disk)?;
        let mut destination = Disk::raw(source, disk.target.clone());
        if journal.format() == ImageFormat::Qcow2 {
            destination = destination.in_qcow2();
        }
        let options = BlockCopy::new()
            .synchronous_writes(self.connection.version()? >= SYNCHRONOUS)
            .bandwidth(self.options.rate);
        let xml = destination.to_xml()?;
        Ok(self.domain.block_copy(&self.unit.target, &xml, options)?)
    }

    /// The source of a disk that is the new volume. Owners and labels are those of the old source.
    fn new_source(&self, journal: &Journal, disk: &Disk) -> Result<Source, Error> {
        let location = journal.new.at.location(self.connection)?;
        let path = location.path().unwrap_or(Path::new("/"));
        let block = path
            .metadata()
            .is_ok_and(|it| it.file_type().is_block_device());
        let text = spelled_for(self.connection, path)?;
        let mut source = Source::plain(match block {
            true => Store::Block(text),
            false => Store::File(text),
        });
        let secret = SecretRef::Uuid(journal.new.secret.to_string());
        source.encryption = Some(Encryption::luks1(secret));
        if let Some(old) = &disk.source {
            source.labels.clone_from(&old.labels);
        }
        Ok(source)
    }

    fn is_new(&self, source: &Source, journal: &Journal) -> Result<bool, Error> {
        let found = Identity::of_store(&source.store, Some(self.connection));
        Ok(found.is(&journal.new.at.identity(self.connection)?))
    }

    /// Ends a copy into the new volume, if there is one.
    pub(super) fn abort(&self, journal: &Journal) -> Result<(), Error> {
        if !self.domain.is_active()? {
            return Ok(());
        }
        let disk = self.now_in(journal, false)?.1;
        let Some(mirror) = disk.and_then(|disk| disk.mirror) else {
            return Ok(());
        };
        if !self.is_new(&mirror.source, journal)? {
            return Ok(());
        }
        match self.domain.abort_block_job(&self.unit.target) {
            // The job ended with the domain.
            Err(_) if !self.domain.is_active()? => Ok(()),
            aborted => Ok(aborted?),
        }
    }

    /// Copies the disk while the domain is shut off, and makes its definition name the new volume.
    /// The old volume is open until then, so that the domain does not start with it.
    pub(super) fn copy_offline(
        &self,
        journal: &Journal,
        made: Option<&Passphrase>,
    ) -> Result<(), Error> {
        if self.now_in(journal, true)?.0 != Now::Old {
            return Err(RekeyError::exchanged(journal));
        }
        let limits = self.options.limits;
        let image = |at: &super::journal::At| -> Result<Image, Error> {
            let mut image = Image::new(at.location(self.connection)?);
            (image.format, image.remote) = (journal.format(), self.options.remote);
            Ok(image)
        };
        let (old, new) = (image(&journal.old.at)?, image(&journal.new.at)?);
        let (container, storage) = old.open_data_to_read(OpenOptions::new(), limits, self.watch)?;
        let open = |container: &crate::container::Container,
                    passphrase: &Passphrase,
                    at: &dyn std::fmt::Display| {
            let opened = container.unlock(passphrase, Which::Any, self.watch.interrupt());
            opened.map_err(|error| Error::from(error).about(at))
        };
        let unlocked = open(&container, &self.old_passphrase(journal)?, &journal.old.at)?;
        let from = storage.volume(&container, &unlocked)?;

        let (container, kept) = new.open_data_to_write(None, limits, self.watch)?;
        let secret = self.connection.secret(&journal.new.secret)?;
        let stored;
        let passphrase = match made {
            Some(made) => made,
            None => {
                stored = secret.value()?;
                &stored
            }
        };
        let unlocked = open(&container, passphrase, &journal.new.at)?;
        let to = kept.volume(&container, &unlocked)?;
        if from.size() != journal.size || to.size() != journal.size {
            return Err(RekeyError::NotProven(journal.new.at.to_string()).into());
        }
        self.transfer(&from, storage.depth(), &to, kept.depth())?;
        if journal.private {
            // libvirt does not tell whether it still has the value.
            secret.set_value(passphrase)?;
        }
        self.define(journal)
    }

    fn transfer(&self, from: &Volume, depth: usize, to: &Volume, fill: usize) -> Result<(), Error> {
        transfer(from, depth, to, Fill::new(fill), self.watch)?;
        let flushing = Working::begin(self.watch, Work::Flush, None);
        to.flush()?;
        flushing.finish();
        Ok(())
    }

    fn old_passphrase(&self, journal: &Journal) -> Result<Passphrase, Error> {
        let label = format!("secret {}", journal.old.secret);
        let secret = self.connection.secret(&journal.old.secret);
        match secret.and_then(|secret| secret.value()) {
            Ok(value) => Ok(value),
            Err(error @ LibvirtError::Private(_)) => match self.options.key {
                Some(key) => Ok(key.read(Purpose::unlock(&label, self.watch.interrupt()))?),
                None => {
                    let error = Error::from(error).about(label);
                    Err(error.advise(Advice::GivePresentPassphrase))
                }
            },
            Err(error) => Err(Error::from(error).about(label)),
        }
    }

    /// Makes the definition of the domain name the new volume where it names the old one. libvirt
    /// does so itself when a running domain goes on with the new volume, if the definition names
    /// the old volume as the running domain did.
    pub(super) fn define(&self, journal: &Journal) -> Result<(), Error> {
        if !self.domain.is_persistent()? {
            return Ok(());
        }
        let (now, disk) = self.now_in(journal, true)?;
        let (Now::Old, Some(disk)) = (now, disk) else {
            return Ok(());
        };
        let xml = self.domain.xml(DomainView::new().inactive(true))?;
        let source = self.new_source(journal, &disk)?;
        let device = xml::with_source(&xml, &self.unit.target, &source);
        let device = device.map_err(|error| Error::new(Kind::Storage, error))?;
        let device = device.ok_or_else(|| RekeyError::exchanged(journal))?;
        Ok(self.domain.update(&device, Affect::new().config(true))?)
    }
}
