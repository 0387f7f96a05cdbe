//! Where passphrases come from.

use clap::Args;

use super::LimitArgs;
use crate::cli::size;

/// The passphrase or key that exists.
#[derive(Debug, Args)]
#[command(next_help_heading = "Passphrase")]
pub(crate) struct KeyArgs {
    /// Where the passphrase comes from: prompt, stdin (one line), file:PATH[,offset=N][,size=N] (whole bytes), fd:N,
    /// credential:NAME (systemd), libvirt:UUID or libvirt:usage=volume:PATH (the value of a libvirt secret); for a new passphrase also
    /// generate:libvirt:UUID (256 random bits, put into the secret first) [default: prompt on a terminal, else stdin]
    #[arg(long, value_name = "SOURCE", conflicts_with = "key_file")]
    pub(crate) key: Option<String>,

    /// Read the passphrase from a file, whole bytes; - is all of stdin
    #[arg(short = 'd', long, value_name = "PATH")]
    pub(crate) key_file: Option<String>,

    /// Read at most so many bytes of the key file
    #[arg(short = 'l', long, value_name = "SIZE", value_parser = size::parse, requires = "key_file")]
    pub(crate) keyfile_size: Option<u64>,

    /// Skip so many bytes of the key file
    #[arg(long, value_name = "SIZE", value_parser = size::parse, requires = "key_file")]
    pub(crate) keyfile_offset: Option<u64>,
}

/// The passphrase or key that is being set, beside one that exists.
#[derive(Debug, Args)]
#[command(next_help_heading = "New passphrase")]
pub(crate) struct NewKeyArgs {
    /// Where the new passphrase comes from, written as for --key [default: prompt on a terminal, else the next line of stdin]
    #[arg(long, value_name = "SOURCE", conflicts_with = "new_key_file")]
    pub(crate) new_key: Option<String>,

    /// Read the new passphrase from a file, whole bytes; - is all of stdin
    #[arg(long, value_name = "PATH", alias = "new-keyfile")]
    pub(crate) new_key_file: Option<String>,

    /// Read at most so many bytes of the new key file
    #[arg(long, value_name = "SIZE", value_parser = size::parse, requires = "new_key_file")]
    pub(crate) new_keyfile_size: Option<u64>,

    /// Skip so many bytes of the new key file
    #[arg(long, value_name = "SIZE", value_parser = size::parse, requires = "new_key_file")]
    pub(crate) new_keyfile_offset: Option<u64>,

    /// Take a new passphrase that is easy to guess
    #[arg(long)]
    pub(crate) force_weak: bool,
}

/// How a volume is unlocked.
#[derive(Debug, Args)]
pub(crate) struct UnlockArgs {
    #[command(flatten)]
    pub(crate) key: KeyArgs,

    #[command(flatten)]
    pub(crate) limits: LimitArgs,
}
