//! Sources of passphrases.

use clap::Args;

use super::{LimitArgs, TokenArgs};
use crate::cli::size;

/// The source of an existing passphrase.
#[derive(Debug, Args)]
#[command(next_help_heading = "Passphrase")]
pub(crate) struct KeyArgs {
    /// The source of the passphrase: prompt, file:PATH, …
    ///
    /// prompt (asks on the terminal, also when stdin is a pipe), stdin (one line),
    /// file:PATH[,offset=N][,size=N] (all bytes), fd:N, credential:NAME (systemd), command:PROGRAM
    /// (what the program at this absolute path prints), libvirt:UUID or libvirt:usage=volume:PATH
    /// (the value of a libvirt secret), helper:NAME:REFERENCE (the value of a key store, by the
    /// program key-NAME in /etc/luksmith/helpers, /usr/libexec/luksmith or --helper-dir); for a new
    /// passphrase also generate:libvirt:UUID and generate:helper:NAME:REFERENCE (256 random bits,
    /// which are stored in the secret or the key store first) [default: prompt if stdin is a
    /// terminal, else stdin]
    #[arg(long, value_name = "SOURCE", conflicts_with = "key_file")]
    pub(crate) key: Option<String>,

    /// Read the passphrase from a file, all of its bytes; - is all of stdin
    #[arg(short = 'd', long, value_name = "PATH")]
    pub(crate) key_file: Option<String>,

    /// Read at most SIZE bytes of the key file
    #[arg(short = 'l', long, value_name = "SIZE", value_parser = size::parse, requires = "key_file")]
    pub(crate) keyfile_size: Option<u64>,

    /// Skip the first SIZE bytes of the key file
    #[arg(long, value_name = "SIZE", value_parser = size::parse, requires = "key_file")]
    pub(crate) keyfile_offset: Option<u64>,
}

/// The source of a new passphrase, where an existing one is also needed.
#[derive(Debug, Args)]
#[command(next_help_heading = "New passphrase")]
pub(crate) struct NewKeyArgs {
    /// The source of the new passphrase, as for --key [default: prompt on a terminal, else the next
    /// line of stdin]
    #[arg(long, value_name = "SOURCE", conflicts_with = "new_key_file")]
    pub(crate) new_key: Option<String>,

    /// Read the new passphrase from a file, all of its bytes; - is all of stdin
    #[arg(long, value_name = "PATH", alias = "new-keyfile")]
    pub(crate) new_key_file: Option<String>,

    /// Read at most SIZE bytes of the new key file
    #[arg(long, value_name = "SIZE", value_parser = size::parse, requires = "new_key_file")]
    pub(crate) new_keyfile_size: Option<u64>,

    /// Skip the first SIZE bytes of the new key file
    #[arg(long, value_name = "SIZE", value_parser = size::parse, requires = "new_key_file")]
    pub(crate) new_keyfile_offset: Option<u64>,

    /// Accept a new passphrase that is easy to guess
    #[arg(long)]
    pub(crate) force_weak: bool,
}

impl KeyArgs {
    /// Whether an option names the source.
    pub(crate) fn is_given(&self) -> bool {
        self.key.is_some() || self.key_file.is_some()
    }
}

impl NewKeyArgs {
    /// Whether an option names the source.
    pub(crate) fn is_given(&self) -> bool {
        self.new_key.is_some() || self.new_key_file.is_some()
    }
}

/// The sources of several passphrases, where each one that stays has to be given.
#[derive(Debug, Args)]
pub(crate) struct KeysArgs {
    /// The source of a passphrase, as for other commands; once for each passphrase
    #[arg(long, value_name = "SOURCE", help_heading = "Passphrase")]
    pub(crate) key: Vec<String>,

    /// Read a passphrase from a file, all of its bytes; once for each passphrase
    #[arg(short = 'd', long, value_name = "PATH", help_heading = "Passphrase")]
    pub(crate) key_file: Vec<String>,

    #[command(flatten)]
    pub(crate) token: TokenArgs,
}

impl KeysArgs {
    /// Whether an option names a passphrase.
    pub(crate) fn is_given(&self) -> bool {
        !self.key.is_empty() || !self.key_file.is_empty() || self.token.is_given()
    }
}

/// The options of unlocking a volume.
#[derive(Debug, Args)]
pub(crate) struct UnlockArgs {
    #[command(flatten)]
    pub(crate) key: KeyArgs,

    #[command(flatten)]
    pub(crate) token: TokenArgs,

    #[command(flatten)]
    pub(crate) limits: LimitArgs,
}
