//! The options of a new volume, for `create`, `encrypt`, `copy` and `libvirt provision`.

use std::path::PathBuf;

use clap::Args;
use luksmith::container::Version;
use luksmith::location::Location;
use luksmith::task::open::ImageFormat;
use luksmith_formats::cipher::CipherSpec;
use luksmith_formats::hash::Hash;
use uuid::Uuid;

use super::{
    Choice, IMAGE_FORMATS, KeyArgs, LimitArgs, LocalFile, LocationParser, PbkdfArgs, RemoteArgs,
    choice,
};
use crate::cli::size;

/// The passphrase of a new volume.
#[derive(Debug, Args)]
pub(crate) struct FreshKeyArgs {
    #[command(flatten)]
    pub(crate) source: KeyArgs,

    /// Accept a passphrase that is easy to guess
    #[arg(long, help_heading = "Passphrase")]
    pub(crate) force_weak: bool,
}

/// Options of a new volume, without its passphrase.
#[derive(Debug, Args)]
pub(crate) struct NewVolumeArgs {
    #[command(flatten)]
    pub(crate) pbkdf: PbkdfArgs,

    #[command(flatten)]
    pub(crate) format: FormatArgs,

    #[command(flatten)]
    pub(crate) limits: LimitArgs,

    #[command(flatten)]
    pub(crate) remote: RemoteArgs,
}

/// The format of a new volume.
#[derive(Debug, Args)]
#[command(next_help_heading = "Format")]
pub(crate) struct FormatArgs {
    /// The format of IMAGE: the volume itself, or an encrypted qcow2 image
    #[arg(long = "format", value_name = "FORMAT", default_value = "raw", value_parser = choice(IMAGE_FORMATS))]
    pub(crate) image_format: ImageFormat,

    /// The cluster size of a qcow2 image, 512 to 2M [default: 64K]
    #[arg(long, value_name = "SIZE", value_parser = size::parse)]
    pub(crate) cluster_size: Option<u64>,

    /// The version of LUKS [default: luks2; luks1 in a qcow2 image, which has no other]
    #[arg(short = 'M', long = "type", value_name = "TYPE", value_parser = choice(VERSIONS))]
    pub(crate) luks_type: Option<Version>,

    /// The cipher of the data: aes, serpent, twofish or camellia, in xts or cbc mode, with plain64,
    /// plain64be, plain, or essiv: and sha256, sha3-256 or sm3 [default: aes-xts-plain64]
    #[arg(short, long, value_name = "SPEC", value_parser = parse_cipher)]
    pub(crate) cipher: Option<CipherSpec>,

    /// The size of the volume key in bits; xts splits it into two keys [default: 512 for xts, 256
    /// for cbc]
    #[arg(short = 's', long, value_name = "BITS", value_parser = parse_key_bits)]
    pub(crate) key_size: Option<usize>,

    /// The hash of the digest, of the anti-forensic splitter and of pbkdf2 [default: sha256]
    #[arg(long, value_name = "HASH", value_parser = parse_hash)]
    pub(crate) hash: Option<Hash>,

    /// The encryption sector size: 512, 1024, 2048 or 4096 [default: 4096 if size and offset are
    /// multiples of it, else 512]
    #[arg(long, value_name = "BYTES", value_parser = parse_sector_size)]
    pub(crate) sector_size: Option<u32>,

    /// The label of the volume, by which it can be found (LUKS2)
    #[arg(long, value_name = "TEXT", value_parser = parse_label)]
    pub(crate) label: Option<String>,

    /// A second label (LUKS2)
    #[arg(long, value_name = "TEXT", value_parser = parse_label)]
    pub(crate) subsystem: Option<String>,

    /// The volume's UUID [default: a random one]
    #[arg(long, value_name = "UUID")]
    pub(crate) uuid: Option<Uuid>,

    /// Store the passphrase in keyslot N [default: 0]
    #[arg(short = 'S', long, alias = "key-slot", value_name = "N")]
    pub(crate) keyslot: Option<u32>,

    /// The start of the data, in 512-byte sectors
    #[arg(short, long, value_name = "SECTORS")]
    pub(crate) offset: Option<u64>,

    /// The size of one copy of the metadata: 16K, 32K, … 4M (LUKS2)
    #[arg(long, value_name = "SIZE", value_parser = size::parse)]
    pub(crate) luks2_metadata_size: Option<u64>,

    /// The size of the keyslots area (LUKS2)
    #[arg(long, value_name = "SIZE", value_parser = size::parse)]
    pub(crate) luks2_keyslots_size: Option<u64>,

    /// Write a detached header to FILE; IMAGE holds only the data
    #[arg(long, value_name = "FILE", value_parser = LocationParser::Openable)]
    pub(crate) header: Option<Location>,

    /// Read the volume key from FILE instead of generating a random one; FILE must have exactly the
    /// size of the key
    #[arg(long, alias = "master-key-file", value_name = "FILE", value_parser = LocalFile)]
    pub(crate) volume_key_file: Option<PathBuf>,

    /// Allocate the storage of the file now instead of when it is written
    #[arg(long)]
    pub(crate) preallocate: bool,
}

/// The versions of LUKS.
pub(crate) const VERSIONS: &[Choice<Version>] = &[
    ("luks2|luks", "", Version::Luks2),
    ("luks1", "", Version::Luks1),
];

pub(crate) fn parse_cipher(text: &str) -> Result<CipherSpec, String> {
    CipherSpec::parse(text).map_err(|error| error.to_string())
}

pub(crate) fn parse_hash(text: &str) -> Result<Hash, String> {
    Hash::parse(text).map_err(|error| error.to_string())
}

/// The header has 48 bytes for each label, of which the last is zero.
pub(crate) fn parse_label(text: &str) -> Result<String, String> {
    if text.len() < 48 {
        Ok(text.to_owned())
    } else {
        Err(format!("{} bytes long; at most 47 fit", text.len()))
    }
}

pub(crate) fn parse_key_bits(text: &str) -> Result<usize, String> {
    match text.parse::<usize>() {
        Ok(bits) if bits > 0 && bits.is_multiple_of(8) => Ok(bits / 8),
        _ => Err(
            "a key size is a number of bits, a multiple of 8: 512 or 256 for aes-xts-plain64"
                .to_owned(),
        ),
    }
}

pub(crate) fn parse_sector_size(text: &str) -> Result<u32, String> {
    match text.parse() {
        Ok(size @ (512 | 1024 | 2048 | 4096)) => Ok(size),
        _ => Err("the size is 512, 1024, 2048 or 4096".to_owned()),
    }
}
