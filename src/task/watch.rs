//! What a task reports to its caller while it runs: progress, notes, unfinished files.

use std::fmt;

use super::{Error, MadeFile, Note};
use crate::Interrupt;

/// What a task reports to its caller while it runs, and how the caller stops the task.
///
/// Every method but [`interrupt`](Self::interrupt) does nothing by default: [`Silent`] is a watch
/// that only has an interrupt. Several threads of a task may call at the same time.
pub trait Watch: Sync {
    /// The flag that asks the task to stop.
    fn interrupt(&self) -> &Interrupt;

    /// Work of this kind begins. `total` is how much there is, in the work's [`Unit`], if it is
    /// known. Work may begin within other work. Then the inner work advances.
    fn begins(&self, work: Work, total: Option<u64>) {
        let _ = (work, total);
    }

    /// This much more of the innermost work is done, in its [`Unit`].
    fn advances(&self, by: u64) {
        let _ = by;
    }

    /// This much of the innermost work was done before it began, in its [`Unit`].
    fn resumes(&self, done: u64) {
        self.advances(done);
    }

    /// The innermost work, which is of this kind, ended. `whole` is false if it failed.
    fn ends(&self, work: Work, whole: bool) {
        let _ = (work, whole);
    }

    /// A fact that the user should know.
    fn notes(&self, note: Note<'_>) {
        let _ = note;
    }

    /// A file was made that is useless before it is finished (`begun`), or the file was finished or
    /// removed (not `begun`). A program that exits immediately removes the files that are
    /// unfinished at that time.
    fn unfinished(&self, file: &MadeFile, begun: bool) {
        let _ = (file, begun);
    }

    /// Fails once the interrupt is set.
    ///
    /// # Errors
    /// [`Error::interrupted`].
    fn check(&self) -> Result<(), Error> {
        if self.interrupt().is_set() {
            Err(Error::interrupted())
        } else {
            Ok(())
        }
    }
}

/// A [`Watch`] that shows nothing.
#[derive(Debug, Clone, Default)]
pub struct Silent(pub Interrupt);

impl Watch for Silent {
    fn interrupt(&self) -> &Interrupt {
        &self.0
    }
}

/// Work that takes long. Its `Display` is a short name for people and programs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Work {
    /// Plain data is encrypted into a volume.
    Encrypt,
    /// A volume is decrypted.
    Decrypt,
    /// A volume is copied into a new one, or an image into a file in which it is checked.
    Copy,
    /// A volume gets another key or cipher in place.
    Reencrypt,
    /// Plaintext is hashed before it moves, so that a move that is cut can be reversed.
    Record,
    /// The sectors of a volume are searched for plaintext.
    Verify,
    /// The cost of a new keyslot is measured.
    Calibrate,
    /// The passphrases of secrets are replaced.
    Rotate,
    /// Volumes are tried with their secrets.
    Check,
    /// A key is derived from a passphrase.
    Derive,
    /// What was written is made durable.
    Flush,
}

/// The unit in which work is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Unit {
    /// Bytes.
    Bytes,
    /// Pieces of work of different length.
    Steps,
    /// Nothing: the progress is unknown.
    Unknown,
}

impl Unit {
    /// The name for programs, if there is a unit.
    #[must_use]
    pub fn name(self) -> Option<&'static str> {
        match self {
            Self::Bytes => Some("bytes"),
            Self::Steps => Some("steps"),
            Self::Unknown => None,
        }
    }
}

impl Work {
    /// The name of this phase of a command, for programs.
    #[must_use]
    pub fn phase(self) -> &'static str {
        match self {
            Self::Encrypt | Self::Decrypt | Self::Copy => "copy",
            Self::Reencrypt => "reencrypt",
            Self::Record => "record",
            Self::Verify => "verify",
            Self::Calibrate | Self::Derive => "kdf",
            Self::Flush => "flush",
            Self::Rotate => "rotate",
            Self::Check => "check",
        }
    }

    /// The unit in which the work is counted.
    #[must_use]
    pub fn unit(self) -> Unit {
        match self {
            Self::Encrypt
            | Self::Decrypt
            | Self::Copy
            | Self::Reencrypt
            | Self::Record
            | Self::Verify => Unit::Bytes,
            Self::Rotate | Self::Check => Unit::Steps,
            Self::Calibrate | Self::Derive | Self::Flush => Unit::Unknown,
        }
    }
}

impl fmt::Display for Work {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Encrypt => "encrypt",
            Self::Decrypt => "decrypt",
            Self::Copy => "copy",
            Self::Reencrypt => "reencrypt",
            Self::Record => "hashing the data",
            Self::Verify => "verify",
            Self::Calibrate => "measuring the key derivation",
            Self::Rotate => "rotating",
            Self::Check => "checking",
            Self::Derive => "deriving the key",
            Self::Flush => "flushing",
        })
    }
}

/// Work that was reported to a [`Watch`]. It ends when this is dropped: as failed, unless
/// [`Working::finish`] was called.
#[must_use]
pub struct Working<'a> {
    watch: &'a dyn Watch,
    work: Work,
    whole: bool,
}

impl<'a> Working<'a> {
    /// Reports that work begins.
    pub fn begin(watch: &'a dyn Watch, work: Work, total: Option<u64>) -> Self {
        watch.begins(work, total);
        let whole = false;
        Self { watch, work, whole }
    }

    /// Reports that this much more is done.
    pub fn advance(&self, by: u64) {
        self.watch.advances(by);
    }

    /// Reports that this much was done before the work began.
    pub fn resume(&self, done: u64) {
        if done > 0 {
            self.watch.resumes(done);
        }
    }

    /// Reports that all of it is done.
    pub fn finish(mut self) {
        self.whole = true;
    }
}

impl Drop for Working<'_> {
    fn drop(&mut self) {
        self.watch.ends(self.work, self.whole);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    #[derive(Default)]
    struct Told(Interrupt, Mutex<Vec<String>>);

    impl Watch for Told {
        fn interrupt(&self) -> &Interrupt {
            &self.0
        }

        fn begins(&self, work: Work, total: Option<u64>) {
            self.1.lock().unwrap().push(format!("{work} {total:?}"));
        }

        fn ends(&self, work: Work, whole: bool) {
            self.1.lock().unwrap().push(format!("{work} {whole}"));
        }
    }

    #[test]
    fn work_ends_whole_only_if_it_is_finished() {
        let watch = Told::default();
        Working::begin(&watch, Work::Encrypt, Some(7)).finish();
        drop(Working::begin(&watch, Work::Calibrate, None));
        assert_eq!(
            *watch.1.lock().unwrap(),
            [
                "encrypt Some(7)",
                "encrypt true",
                "measuring the key derivation None",
                "measuring the key derivation false",
            ]
        );
    }

    #[test]
    fn an_interrupt_is_an_error() {
        let watch = Silent::default();
        assert!(watch.check().is_ok());
        watch.0.trigger();
        assert_eq!(
            watch.check().unwrap_err().kind(),
            crate::task::Kind::Interrupted
        );
    }
}
