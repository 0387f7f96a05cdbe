//! `luksmith reencrypt`: gives a volume another volume key or cipher in place, or encrypts
//! plaintext in place.

use std::path::{Path, PathBuf};

use luksmith::location::Location;
use luksmith::secret::Passphrase;
use luksmith::task::open::ImageFormat;
use luksmith::task::outcome::{Change, Changed};
use luksmith::task::reencrypt::encrypt::Encryption;
use luksmith::task::reencrypt::follow::Remote;
use luksmith::task::reencrypt::{Options, Plan, Protection};
use luksmith_formats::cipher::CipherSpec;
use luksmith_formats::hash::Hash;

use super::Session;
use super::args::{
    Choice, IMAGE_FORMATS, ImageArgs, KeysArgs, LimitArgs, LocalFile, LocationParser, PbkdfArgs,
    RemoteArgs, TrustArgs, UndoArgs, choice, parse_cipher, parse_hash, parse_key_bits,
    parse_sector_size,
};
use super::error::CommandError;
use super::force::{Force, confirm, only};
use super::open::{passphrases, refuse_qcow2};
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
///
/// With --encrypt, IMAGE is plaintext, which becomes a LUKS2 volume. The size that a guest sees
/// stays. A file on ext4 or XFS gets room for the header before its data; everything else needs
/// --header FILE. What is not encrypted yet stays plaintext until then, and its old blocks may stay
/// on the disk afterwards. There is no decryption in place: `luksmith decrypt` makes a copy.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// The encrypted volume: a file, a block device, or an NBD export
    #[arg(value_name = "IMAGE", value_parser = LocationParser::Openable, required_unless_present = "served")]
    image: Option<Location>,

    /// The LUKS header is in FILE (a detached header); IMAGE holds only the data
    #[arg(long, value_name = "FILE", value_parser = LocationParser::Openable)]
    header: Option<Location>,

    /// The format of IMAGE; it is never guessed
    #[arg(long, value_name = "FORMAT", default_value = "raw", value_parser = choice(IMAGE_FORMATS))]
    format: ImageFormat,

    #[command(flatten)]
    trust: TrustArgs,

    #[command(flatten)]
    remote: RemoteArgs,

    /// Encrypt plaintext in place, or go on with that
    #[arg(long, conflicts_with_all = ["served", "drop_other_keyslots"])]
    encrypt: bool,

    /// Begin it on a server whose --control socket is PATH, or let the one there go on, and wait
    /// for its end
    #[arg(long, value_name = "PATH", value_parser = LocalFile, conflicts_with_all = ["image", "header", "init_only"])]
    served: Option<PathBuf>,

    /// The export of the server, if it serves several
    #[arg(long, value_name = "NAME", requires = "served")]
    export: Option<String>,

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

    /// The size of a zone, which is in memory as a whole: at most 64M [default: 16M with checksums,
    /// 12M with a journal]
    #[arg(long, alias = "hotzone-size", value_name = "SIZE", value_parser = size::parse)]
    zone_size: Option<u64>,

    /// Convert at most SIZE bytes in a second [default: 0, which is no limit]
    #[arg(long, value_name = "SIZE", value_parser = size::parse)]
    rate: Option<u64>,

    /// Only prepare the header; convert nothing yet
    #[arg(long, conflicts_with = "resume")]
    init_only: bool,

    /// Only go on with a reencryption that is in progress
    #[arg(long, alias = "resume-only")]
    resume: bool,

    /// Accept a passphrase that is easy to guess, with --encrypt
    #[arg(long, requires = "encrypt", help_heading = "Passphrase")]
    force_weak: bool,

    /// Remove the keyslots that none of the passphrases opens
    #[arg(long)]
    drop_other_keyslots: bool,

    /// Go on without asking about WHAT
    #[arg(long, value_name = "WHAT", value_parser = only(&[
        (Force::SectorSize, "make encryption sectors larger"),
        (Force::UnverifiedBlocks, "go on although blocks are neither old nor converted"),
        (Force::AsItIs, "with --encrypt: encrypt the bytes of a LUKS volume or of a disk image"),
    ]))]
    force: Vec<Force>,

    #[command(flatten)]
    keys: KeysArgs,

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
  luksmith reencrypt disk.img --key-file a.key --token-type systemd-tpm2   what the TPM sealed stays too
  luksmith reencrypt /dev/sdb1 --cipher aes-xts-plain64 --key-size 512 --rate 100M
  luksmith reencrypt disk.img --sector-size 4096 --force sector-size
  luksmith reencrypt --encrypt plain.img                     plaintext becomes a volume, in place
  luksmith reencrypt --encrypt /dev/sdb1 --header sdb1.header
  luksmith reencrypt --served vm/control.sock --rate 50M    while `luksmith serve` serves it";

impl Args {
    pub(crate) fn run(self, session: &Session) -> Result<(), CommandError> {
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
        let location = match (&self.served, &self.image) {
            (None, Some(image)) => image.clone(),
            (served, _) => {
                let socket = served.as_deref().unwrap_or(Path::new(""));
                return self.on_server(socket, &options, session);
            }
        };
        let image = ImageArgs {
            image: location,
            header: self.header,
            format: self.format,
            trust: self.trust,
            remote: self.remote,
        };
        refuse_qcow2(&image, "a reencryption")?;
        let limits = self.limits.limits();
        let name = image.image.to_string();
        let (at, undo) = (image.get(), self.undo.path());
        let plan = match self.encrypt {
            false => Plan::look(&at, undo, options, limits, session)?,
            true => {
                let as_it_is = self.force.contains(&Force::AsItIs);
                match Encryption::look(&at, undo, options, limits, as_it_is, session)? {
                    Encryption::GoesOn(plan) => *plan,
                    Encryption::Begins(_) if at.trust.is_some() => {
                        let message = "what is plaintext now has no pin";
                        return Err(CommandError::parameters(message)
                            .hint("`luksmith trust init` pins the volume when it is encrypted"));
                    }
                    Encryption::Begins(beginning) => {
                        refuse_tokens(&self.keys, "plaintext has no tokens")?;
                        let passphrase = match &*KeySource::of_each(&self.keys)? {
                            [one] => one.fresh(session, &name, self.force_weak)?,
                            _ => {
                                let message = "an encryption in place begins with one passphrase";
                                return Err(CommandError::parameters(message)
                                    .hint("`luksmith key add` adds others later"));
                            }
                        };
                        let done = beginning
                            .run(&passphrase, session)
                            .map_err(|error| CommandError::from(error).about(&name))?;
                        session.done(&Changed::new(&image.image, Change::Reencrypted(done)));
                        return Ok(());
                    }
                }
            }
        };
        if plan.enlarges_sectors() {
            confirm_sectors(&self.force, &name)?;
        }
        let passphrases = passphrases(session, plan.container(), &self.keys, &name)?;
        let done = plan
            .run(&passphrases, session)
            .map_err(|error| CommandError::from(error).about(&name))?;
        session.done(&Changed::new(&image.image, Change::Reencrypted(done)));
        Ok(())
    }

    /// Begins it on a server, or lets it go on there.
    fn on_server(
        &self,
        socket: &Path,
        options: &Options,
        session: &Session,
    ) -> Result<(), CommandError> {
        refuse_tokens(&self.keys, "with --served, the server has the header")?;
        let mut remote = Remote::look(socket, self.export.as_deref(), session)?;
        let begins = remote.is_idle() && !self.resume;
        if !(self.resume && remote.is_finished()) {
            let name = remote.image().to_owned();
            let wanted = options.sector_size.map_or(0, u64::from);
            let larger = begins && wanted > remote.sector_size();
            if larger {
                confirm_sectors(&self.force, &name)?;
            }
            let passphrases = match begins {
                true => read_each(&self.keys, session, &name)?,
                false => Vec::new(),
            };
            remote.start(options, larger, &passphrases, session)?;
        }
        let (image, done) = remote.follow(session)?;
        session.done(&Changed::new(&image, Change::Reencrypted(done)));
        Ok(())
    }
}

fn confirm_sectors(force: &[Force], name: &str) -> Result<(), CommandError> {
    let loss = format!(
        "the sectors of {name} would become larger: a filesystem in it with blocks of 512 bytes \
         could no longer be mounted"
    );
    confirm(force, Force::SectorSize, &loss)
}

/// The passphrases of several sources, none of which is a token.
fn read_each(
    keys: &KeysArgs,
    session: &Session,
    name: &str,
) -> Result<Vec<Passphrase>, CommandError> {
    let sources = KeySource::of_each(keys)?;
    let read = |source: &KeySource| source.existing(session, name);
    sources.iter().map(read).collect()
}

/// Refuses tokens where there is no header whose tokens could be used.
fn refuse_tokens(keys: &KeysArgs, why: &str) -> Result<(), CommandError> {
    match keys.token.is_given() {
        false => Ok(()),
        true => Err(
            CommandError::parameters(format!("no token can be used: {why}")).hint(
                "--key SOURCE or --key-file PATH names a passphrase; without --served and \
                 --encrypt, `luksmith reencrypt` uses the tokens of a volume that no other program \
                 has open",
            ),
        ),
    }
}
