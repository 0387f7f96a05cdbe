//! Reads to and writes from the memory of a guest. Whole units are decrypted to that memory, and
//! encrypted from it, without a copy of their plaintext.

use super::Volume;
use super::align::Source;
use super::mapped::{length, place};
use crate::backend::{IoError, Operation};
use crate::crypt::Windows;
use crate::layout::Layout;
use crate::layout::qcow2::Stored;
use crate::layout::side::CipherRun;
use crate::layout::two_sides::ReadRun;
use crate::sectors::{Cipher, Sectors};

impl Volume {
    /// Fills the windows, which may be the memory of a guest, with the bytes from `offset` on.
    ///
    /// Where whole units are requested, they are decrypted to the windows. A window never holds
    /// ciphertext, and is not read.
    ///
    /// # Errors
    /// Returns [`IoError::OutOfRange`] or an error of the storage. The content of the windows is
    /// then unspecified.
    pub fn read_into(&self, offset: u64, into: Windows<'_>) -> Result<(), IoError> {
        let len = into.len() as u64;
        let _lock = self.busy.share(self.units(offset, len));
        self.check(Operation::Read, offset, len)?;
        self.read_bytes(offset, into)
    }

    /// Writes the bytes in the windows, which may be the memory of a guest, at `offset`. Each of
    /// them is read once.
    ///
    /// # Errors
    /// Returns [`IoError::OutOfRange`], [`IoError::ReadOnly`], [`IoError::SourceLost`] or an error
    /// of the storage. After the last two, a part may be written.
    pub fn write_from(&self, offset: u64, from: Windows<'_>) -> Result<(), IoError> {
        let len = from.len() as u64;
        let _lock = self.to_write(offset, len)?;
        self.check_change(Operation::Write, offset, len)?;
        self.write_bytes(offset, Source::Windows(from))
    }

    /// Reads whole units, locked and checked by the caller.
    pub(super) fn load_to(&self, offset: u64, mut into: Windows<'_>) -> Result<(), IoError> {
        let end = offset + into.len() as u64;
        let mut at = offset;
        match &self.layout {
            Layout::Linear(linear) => load_run_to(linear.run(offset), into)?,
            Layout::Tagged(tagged) => {
                let plain = self.load_tagged(tagged, offset, into.len())?;
                into.copy_from(plain.as_slice());
            }
            Layout::TwoSides(sides) => {
                while at < end {
                    let (run, len) = sides.run_to_read(&(at..end))?;
                    let part = into.take(length(len));
                    match run {
                        ReadRun::Encrypted(run) => load_run_to(run.get(), part)?,
                        ReadRun::Plain(run) => part.copy_from(run.read(part.len())?.as_slice()),
                    }
                    at += len;
                }
            }
            Layout::Qcow2(image, crypt) => {
                while at < end {
                    let run = image.run(at..end)?;
                    let part = into.take(length(run.len));
                    match run.stored {
                        Stored::Nowhere => part.fill_zero(),
                        Stored::Here(at) | Stored::Kept(at) => {
                            load_run_to(place(image, crypt, at), part)?;
                        }
                        Stored::Compressed(..) => {
                            let plain = self.load_cluster_run(image, crypt, run)?;
                            part.copy_from(plain.as_slice());
                        }
                    }
                    at += run.len;
                }
            }
        }
        Ok(())
    }

    /// Writes whole units, locked and checked by the caller. Returns false, and writes nothing, if
    /// that needs a copy of the bytes, since some clusters of an image are not overwritten in place
    /// or are apart.
    pub(super) fn store_from(&self, offset: u64, mut from: Windows<'_>) -> Result<bool, IoError> {
        let end = offset + from.len() as u64;
        match &self.layout {
            Layout::Linear(linear) => store_run_from(linear.run(offset), offset, from)?,
            Layout::TwoSides(sides) => {
                let mut at = offset;
                while at < end {
                    let (run, len) = sides.run_to_write(&(at..end))?;
                    let outcome = store_run_from(run.get(), at, from.take(length(len)));
                    // What was lost has changed nothing.
                    if !matches!(outcome, Err(IoError::SourceLost { .. })) {
                        sides.written(&(at..at + len), outcome.is_ok());
                    }
                    outcome?;
                    at += len;
                }
            }
            Layout::Tagged(_) => return Ok(false),
            Layout::Qcow2(image, crypt) => {
                let run = image.run(offset..end)?;
                match run.stored {
                    Stored::Here(at) if run.len == end - offset => {
                        store_run_from(place(image, crypt, at), offset, from)?;
                    }
                    _ => return Ok(false),
                }
            }
        }
        Ok(true)
    }
}

fn load_run_to(run: CipherRun<'_>, into: Windows<'_>) -> Result<(), IoError> {
    let mut sectors = Sectors::<Cipher>::with_len(into.len());
    run.storage.read_at(run.at, &mut sectors)?;
    run.crypt.decrypt_into(run.iv, &sectors, into);
    Ok(())
}

fn store_run_from(run: CipherRun<'_>, offset: u64, from: Windows<'_>) -> Result<(), IoError> {
    let sectors = run.crypt.encrypt_from(run.iv, from);
    if from.are_lost() {
        return Err(lost(offset));
    }
    run.storage.write_at(run.at, &sectors)
}

/// The error of a write at `offset` whose windows are lost.
pub(super) fn lost(offset: u64) -> IoError {
    IoError::SourceLost {
        operation: Operation::Write,
        offset,
    }
}
