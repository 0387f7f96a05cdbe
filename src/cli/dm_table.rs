//! `luksmith dm-table`: hands a volume on a block device to dm-crypt.

use luksmith::container::Which;
use luksmith::task::dm_crypt::{Handed, Handover, Table, check_name};

use super::Session;
use super::args::{ImageArgs, UnlockArgs};
use super::error::CommandError;
use super::open::{ReadArgs, unlock};
use super::passphrase::KeySource;

/// Print the dm-crypt table of a volume, or create its device
///
/// The kernel then decrypts the volume, and its page cache holds plaintext: luksmith is for keeping
/// it out of the kernel. IMAGE is a block device; `losetup` makes one of a file. The table names a
/// key of the kernel's keyring and holds no secret, so it needs no passphrase. The names are those
/// of cryptsetup: `cryptsetup status` and `cryptsetup close` work.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    #[command(flatten)]
    image: ImageArgs,

    /// Create the mapped device /dev/mapper/NAME by dmsetup; needs root
    #[arg(long, value_name = "NAME")]
    create: Option<String>,

    /// Put the volume key into the session keyring, where only the kernel can read it
    #[arg(long, conflicts_with = "create")]
    load_key: bool,

    /// How long the key stays in the keyring
    #[arg(
        long,
        value_name = "SECONDS",
        default_value_t = 60,
        requires = "load_key",
        value_parser = clap::value_parser!(u32).range(1..=86400)
    )]
    key_timeout: u32,

    /// Make the mapped device read-only
    #[arg(short, long, requires = "create")]
    read_only: bool,

    /// Let discards reach the device, which reveals the free space to it
    #[arg(long, alias = "allow-discards")]
    discard: bool,

    /// Use only keyslot N
    #[arg(short = 'S', long, alias = "key-slot", value_name = "N")]
    keyslot: Option<u32>,

    #[command(flatten)]
    read: ReadArgs,

    #[command(flatten)]
    unlock: UnlockArgs,
}

const EXAMPLES: &str = "\
Examples:
  luksmith dm-table /dev/sdb2
  luksmith dm-table /dev/sdb2 --create data          then: mount /dev/mapper/data
  luksmith dm-table \"$(losetup --find --show disk.img)\" --create data
  dmsetup create data --table \"$(luksmith dm-table /dev/sdb2 --load-key)\"";

impl Args {
    pub(crate) fn run(self, session: &Session) -> Result<(), CommandError> {
        if let Some(name) = &self.create {
            check_name(name)?;
        }
        let image = self.image.get();
        let limits = self.unlock.limits.limits();
        // A writable device needs that no other program has the volume open, as every writer does.
        let (container, data) = match (&self.create, self.read_only) {
            (None, _) => image.open_data_to_look(self.read.options(), limits, session),
            (Some(_), true) => image.open_data_to_read(self.read.options(), limits, session),
            (Some(_), false) => image.open_data_to_write(None, limits, session),
        }?;
        let table = Table::new(&image.location, &container, &data, self.discard)?;
        if !self.load_key && self.create.is_none() {
            return print(session, &Handed::new(table));
        }
        let source = KeySource::to_unlock(&self.unlock)?;
        let which = self.keyslot.map_or(Which::Any, Which::Slot);
        let label = self.image.image.to_string();
        let unlocked = unlock(session, &container, &source, which, &label)?;
        let handover = Handover::new(table, &container, unlocked)?;
        drop((container, data));
        match &self.create {
            Some(name) => session.done(&handover.create(name, self.read_only)?),
            None => return print(session, &handover.load_key(self.key_timeout)?),
        }
        Ok(())
    }
}

/// Prints the table, which was asked for, also with --quiet.
fn print(session: &Session, handed: &Handed) -> Result<(), CommandError> {
    match session.json {
        true => session.done(handed),
        false => session.output.line(&handed.table),
    }
    Ok(())
}
