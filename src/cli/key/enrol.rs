//! What `luksmith key add` makes itself instead of asking for a new passphrase: the passphrase, and
//! the token that says where it is.

use std::io::{self, IsTerminal as _, Write as _};
use std::path::{Path, PathBuf};

use luksmith::kdf::calibrate::Cost;
use luksmith::secret::Passphrase;
use luksmith::tokens::recovery;
use luksmith_formats::json::Value;

use crate::cli::Session;
use crate::cli::args::LocalFile;
use crate::cli::error::{CommandError, stdout_failed};
use crate::cli::streams::{check_secret, write_secret};

/// The options of a keyslot whose passphrase is made, and has a token.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Token")]
pub(super) struct EnrolArgs {
    /// Make a recovery key, as systemd-cryptenroll does, and show it once on the terminal (LUKS2)
    ///
    /// The key has 256 random bits, so its keyslot has a cheap key derivation: PBKDF2 with SHA-512
    /// and 1000 iterations. Its token has the type systemd-recovery. `--token-type
    /// systemd-recovery` accepts the key without its dashes and in capitals too.
    #[arg(long, conflicts_with_all = ["new_key", "new_key_file", "unbound"])]
    recovery_key: bool,

    /// Write the recovery key to FILE, which is new and gets mode 0600, instead of to the terminal;
    /// - is stdout, unless it is a terminal
    #[arg(long, value_name = "FILE", requires = "recovery_key", value_parser = LocalFile)]
    out: Option<PathBuf>,
}

/// A passphrase that was made.
pub(super) struct Enrolment {
    pub(super) passphrase: Passphrase,
    /// The token, without keyslots.
    pub(super) token: Value,
    /// The cost of its keyslot.
    pub(super) cost: Cost,
}

impl EnrolArgs {
    /// Refuses what cannot succeed, before a passphrase is asked for.
    pub(super) fn check(&self, session: &Session) -> Result<(), CommandError> {
        if !self.recovery_key {
            return Ok(());
        }
        match &self.out {
            Some(path) => {
                session.refuse_json_beside(path)?;
                check_secret(path)
            }
            None if session.json || !io::stdout().is_terminal() => Err(CommandError::parameters(
                "the recovery key is shown only on a terminal",
            )
            .hint("--out FILE writes it to a new file")),
            None => Ok(()),
        }
    }

    /// Whether the passphrase is made, and no source is read for it.
    pub(super) fn is_given(&self) -> bool {
        self.recovery_key
    }

    /// Makes the passphrase and its token.
    pub(super) fn make(&self) -> Result<Option<Enrolment>, CommandError> {
        if !self.recovery_key {
            return Ok(None);
        }
        Ok(Some(Enrolment {
            passphrase: recovery::generate()?,
            token: recovery::token(),
            cost: recovery::COST,
        }))
    }

    /// Hands out the passphrase, when its keyslot is in the header.
    pub(super) fn hand_out(&self, made: &Enrolment, session: &Session) -> Result<(), CommandError> {
        let key = made.passphrase.as_bytes();
        match &self.out {
            Some(path) => write_secret(path, key, session),
            None => session.signals.ending(|| show(key))?.map_err(stdout_failed),
        }
    }

    /// The file that the key goes to; `-` is stdout.
    pub(super) fn file(&self) -> Option<&Path> {
        self.out.as_deref()
    }
}

/// Shows a recovery key on the terminal.
fn show(key: &[u8]) -> io::Result<()> {
    let mut stdout = io::stdout();
    stdout.write_all(b"\n    ")?;
    stdout.write_all(key)?;
    stdout.write_all(b"\n\n")?;
    stdout.flush()
}
