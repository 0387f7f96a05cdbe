//! `luksmith reencrypt`: gives a volume another volume key or cipher in place.

use luksmith::task::outcome::{Change, Changed};
use luksmith::task::reencrypt::{Options, Plan, Protection};
use luksmith_formats::cipher::CipherSpec;
use luksmith_formats::hash::Hash;

use super::Session;
use super::args::{
    Choice, ImageArgs, LimitArgs, PbkdfArgs, UndoArgs, choice, parse_cipher, parse_hash,
    parse_key_bits, parse_sector_size,
};
use super::error::CommandError;
use super::force::{Force, confirm, only};
use super::open::refuse_qcow2;
use super::passphrase::KeySource;
use super::size;

/// Change the volume key or the cipher in place
///
/// Encrypts all data anew, with a new volume key, while no other program has the volume open. A cut
/// at any moment loses nothing: the same command goes on where it stopped, and so does `cryptsetup
/// reencrypt --resume-only`. The first interrupt (Ctrl-C, SIGTERM) stops it after the zone that is
/// being converted. Every passphrase that should open the volume afterwards has to be given, since
/// it encrypts the new key. LUKS2 only; a LUKS1 volume and a qcow2 image get a new key by `luksmith
/// copy`.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    #[command(flatten)]
    image: ImageArgs,

    /// The new cipher [default: the present one]
    #[arg(short, long, value_name = "SPEC", value_parser = parse_cipher)]
    cipher: Option<CipherSpec>,

    /// The size of the new volume key in bits [default: that of the present one]
    #[arg(short = 's', long, value_name = "BITS", value_parser = parse_key_bits)]
    key_size: Option<usize>,

    /// The new encryption sector size: 512, 1024, 2048 or 4096 [default: the present one]
    #[arg(long, value_name = "BYTES", value_parser = parse_sector_size)]
    sector_size: Option<u32>,

    /// The hash of the new digest and of the anti-forensic splitter [default: sha256]
    #[arg(long, value_name = "HASH", value_parser = parse_hash)]
    hash: Option<Hash>,

    /// How a zone survives an interruption [default: checksum on a device whose physical blocks
    /// are at least a sector, else journal]
    #[arg(long, value_name = "HOW", value_parser = choice(PROTECTIONS))]
    resilience: Option<Protection>,

    /// The hash of checksums [default: sha256]
    #[arg(long, value_name = "HASH", value_parser = parse_hash)]
    resilience_hash: Option<Hash>,

    /// The size of a zone, which is in memory as a whole: at most 64M [default: 32M with checksums,
    /// 8M with a journal]
    #[arg(long, alias = "hotzone-size", value_name = "SIZE", value_parser = size::parse)]
    zone_size: Option<u64>,

    /// Convert at most SIZE bytes in a second
    #[arg(long, value_name = "SIZE", value_parser = size::parse)]
    rate: Option<u64>,

    /// Only prepare the header; convert nothing yet
    #[arg(long, conflicts_with = "resume")]
    init_only: bool,

    /// Only go on with a reencryption that is in progress
    #[arg(long, alias = "resume-only")]
    resume: bool,

    /// The source of a passphrase, as for other commands; once for each passphrase
    #[arg(long, value_name = "SOURCE", help_heading = "Passphrase")]
    key: Vec<String>,

    /// Read a passphrase from a file, all of its bytes; once for each passphrase
    #[arg(short = 'd', long, value_name = "PATH", help_heading = "Passphrase")]
    key_file: Vec<String>,

    /// Remove the keyslots that none of the passphrases opens
    #[arg(long)]
    drop_other_keyslots: bool,

    /// Go on without asking: sector-size, if sectors become larger; unverified-blocks, if a block
    /// of an interrupted zone is neither old nor converted
    #[arg(long, value_name = "WHAT", value_parser = only(&[Force::SectorSize, Force::UnverifiedBlocks]))]
    force: Vec<Force>,

    #[command(flatten)]
    pbkdf: PbkdfArgs,

    #[command(flatten)]
    limits: LimitArgs,

    #[command(flatten)]
    undo: UndoArgs,
}

/// How a zone survives an interruption.
const PROTECTIONS: &[Choice<Protection>] = &[
    (
        "checksum",
        "checksums of its blocks; the storage has to write a block completely or not at all",
        Protection::Checksum,
    ),
    (
        "journal",
        "a copy of the zone; twice as much is written",
        Protection::Journal,
    ),
];

const EXAMPLES: &str = "\
Examples:
  luksmith reencrypt disk.img                               a new volume key; goes on if it was stopped
  luksmith reencrypt disk.img --key-file a.key --key-file b.key   two passphrases stay
  luksmith reencrypt disk.img --key-file a.key --drop-other-keyslots
  luksmith reencrypt /dev/sdb1 --cipher aes-xts-plain64 --key-size 512 --rate 100M
  luksmith reencrypt disk.img --sector-size 4096 --force sector-size";

impl Args {
    pub(crate) fn run(self, session: &Session) -> Result<(), CommandError> {
        refuse_qcow2(&self.image, "a reencryption")?;
        let mut options = Options::default();
        options.cipher = self.cipher;
        options.key_size = self.key_size;
        options.sector_size = self.sector_size;
        options.hash = self.hash;
        options.cost = self.pbkdf.get();
        options.protection = self.resilience;
        options.checksum_hash = self.resilience_hash;
        options.zone = self.zone_size;
        options.rate = self.rate.filter(|rate| *rate > 0);
        options.only_resume = self.resume;
        options.only_begin = self.init_only;
        options.drop_others = self.drop_other_keyslots;
        options.unverified_blocks = self.force.contains(&Force::UnverifiedBlocks);
        let image = self.image.get();
        let limits = self.limits.limits();
        let plan = Plan::look(&image, self.undo.path(), options, limits, session)?;
        let name = self.image.image.to_string();
        if plan.enlarges_sectors() {
            let loss = format!(
                "the sectors of {name} would become larger: a filesystem in it with blocks of 512 \
                 bytes could no longer be mounted"
            );
            confirm(&self.force, Force::SectorSize, &loss)?;
        }
        let sources = KeySource::of_each(&self.key, &self.key_file)?;
        let read = |source: &KeySource| source.existing(session, &name);
        let passphrases = sources.iter().map(read).collect::<Result<Vec<_>, _>>()?;
        let done = plan.run(&passphrases, session)?;
        session.done(&Changed::new(&self.image.image, Change::Reencrypted(done)));
        Ok(())
    }
}
