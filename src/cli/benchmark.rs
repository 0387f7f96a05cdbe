//! `luksmith benchmark`: what this machine does, in cryptsetup's units.

use std::time::{Duration, Instant};

use comfy_table::{CellAlignment, Table, presets};
use luksmith::crypt::{IvSector, SectorCrypt};
use luksmith::kdf::Argon2Cost;
use luksmith::kdf::calibrate::{Cost, KdfKind, Target, argon2_time, calibrate, pbkdf2_rate};
use luksmith::secret::VolumeKey;
use luksmith::sectors::{Cipher, Plain, Sectors};
use luksmith_formats::cipher::{BlockCipher, CipherSpec};
use luksmith_formats::hash::Hash;
use serde_json::{Value, json};

use super::Session;
use super::error::{CommandError, Kind};
use super::info::keyslots::trimmed;
use super::output;

/// How long each cipher runs in each direction.
const FOR: Duration = Duration::from_millis(200);
/// What is encrypted at once: as cryptsetup's.
const BUFFER: usize = 64 << 10;
/// The key that a KDF derives.
const DERIVED: usize = 32;

const HASHES: [Hash; 5] = [
    Hash::Sha1,
    Hash::Sha256,
    Hash::Sha512,
    Hash::Ripemd160,
    Hash::Whirlpool,
];
const SECTOR_SIZES: [u32; 2] = [512, 4096];
const CIPHERS: [(&str, &[usize]); 8] = [
    ("aes-cbc-essiv:sha256", &[16, 32]),
    ("aes-xts-plain64", &[32, 64]),
    ("serpent-cbc-plain64", &[32]),
    ("serpent-xts-plain64", &[64]),
    ("twofish-cbc-plain64", &[32]),
    ("twofish-xts-plain64", &[64]),
    ("camellia-cbc-plain64", &[32]),
    ("camellia-xts-plain64", &[64]),
];

/// Measure key derivations and ciphers in memory, one thread for a cipher
///
/// With --json: {"kdf": [{"type", "hash", "iterations_per_second"} or {"type", "passes", "memory", "threads", "time_ms"}],
/// "ciphers": [{"cipher", "key_bits", "sector_size", "encrypt", "decrypt"}]}; memory in bytes, speeds in bytes a second.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// Measure this cipher alone
    #[arg(short, long, value_name = "SPEC", value_parser = super::args::parse_cipher)]
    cipher: Option<CipherSpec>,

    /// How long the argon2 measured for shall take
    #[arg(short, long, value_name = "MS", default_value_t = 2000)]
    iter_time: u32,

    /// Print JSON
    #[arg(long)]
    json: bool,
}

const EXAMPLES: &str = "\
Examples:
  luksmith benchmark
  luksmith benchmark --cipher aes-xts-plain64
  luksmith benchmark --json | jq '.ciphers[] | select(.sector_size == 4096)'";

impl Args {
    pub(crate) fn run(self, session: &Session) -> Result<(), CommandError> {
        let mut kdfs = Vec::new();
        if self.cipher.is_none() {
            if !self.json {
                session
                    .output
                    .now("# Measured in memory, without any storage")?;
            }
            for hash in HASHES {
                let rate = pbkdf2_rate(hash, DERIVED, session.signals.interrupt())?;
                kdfs.push(
                    json!({ "type": "pbkdf2", "hash": hash.name(), "iterations_per_second": rate }),
                );
                if !self.json {
                    let bits = DERIVED * 8;
                    let name = format!("pbkdf2-{hash}");
                    session.output.now(format_args!(
                        "{name:<17} {rate:>10} iterations per second for {bits}-bit key"
                    ))?;
                }
            }
            for kind in [KdfKind::Argon2i, KdfKind::Argon2id] {
                kdfs.push(self.argon2(session, kind)?);
            }
        }
        let ciphers = self.ciphers(session)?;
        if self.json {
            session.output.json(&json!({ "kdf": kdfs, "ciphers": ciphers.iter().map(Speed::json).collect::<Value>() }));
        } else {
            session.output.line(table(&ciphers));
        }
        Ok(())
    }

    fn argon2(&self, session: &Session, kind: KdfKind) -> Result<Value, CommandError> {
        let interrupt = session.signals.interrupt();
        let mut target = Target::new(kind, DERIVED);
        target.time = Duration::from_millis(u64::from(self.iter_time));
        let Cost::Argon2(cost) = calibrate(&target, interrupt)? else {
            return Err(CommandError::new(
                Kind::Device,
                "the calibration answered with another function",
            ));
        };
        let took = argon2_time(cost, DERIVED, interrupt)?;
        let Argon2Cost {
            variant,
            passes,
            memory_kib,
            lanes,
        } = cost;
        if !self.json {
            session.output.now(format_args!(
                "{:<17} {passes} passes, {memory_kib} KiB memory, {lanes} threads for {}-bit key: {} ms (requested {} ms)",
                variant.name(),
                DERIVED * 8,
                took.as_millis(),
                self.iter_time
            ))?;
        }
        Ok(json!({
            "type": variant.name(),
            "passes": passes,
            "memory": u64::from(memory_kib) * 1024,
            "threads": lanes,
            "time_ms": u64::try_from(took.as_millis()).unwrap_or(u64::MAX),
        }))
    }

    fn ciphers(&self, session: &Session) -> Result<Vec<Speed>, CommandError> {
        let mut speeds = Vec::new();
        let named = self.cipher.map(|spec| (spec, spec.key_sizes().to_vec()));
        let all = CIPHERS
            .iter()
            .filter_map(|(name, sizes)| Some((CipherSpec::parse(name).ok()?, sizes.to_vec())));
        let wanted: Vec<_> = named.map_or_else(|| all.collect(), |named| vec![named]);
        for (spec, key_sizes) in wanted {
            for key_size in key_sizes {
                for sector_size in SECTOR_SIZES {
                    session.signals.check()?;
                    speeds.push(Speed::measure(spec, key_size, sector_size)?);
                }
            }
        }
        Ok(speeds)
    }
}

/// Tells whoever is about to use it that a cipher is slow out of all proportion.
pub(crate) fn note_slow(spec: CipherSpec) {
    if spec.cipher == BlockCipher::Twofish {
        output::note(format_args!(
            "twofish is far slower here than any other cipher; `luksmith benchmark --cipher {spec}` measures it"
        ));
    }
}

/// Bytes a second.
struct Speed {
    spec: CipherSpec,
    key_size: usize,
    sector_size: u32,
    encrypt: u64,
    decrypt: u64,
}

impl Speed {
    fn measure(spec: CipherSpec, key_size: usize, sector_size: u32) -> Result<Self, CommandError> {
        let key = VolumeKey::random(key_size)?;
        let crypt = SectorCrypt::new(spec, sector_size, &key)
            .map_err(|error| CommandError::new(Kind::Parameters, error).about(spec))?;
        let mut plain = Sectors::<Plain>::zeroed(BUFFER);
        let mut encrypting = Clock::default();
        let mut decrypting = Clock::default();
        while encrypting.took < FOR || decrypting.took < FOR {
            let sealed: Sectors<Cipher> =
                encrypting.time(BUFFER, || crypt.encrypt(IvSector(0), plain));
            plain = decrypting.time(BUFFER, || crypt.decrypt(IvSector(0), sealed));
        }
        Ok(Self {
            spec,
            key_size,
            sector_size,
            encrypt: encrypting.rate(),
            decrypt: decrypting.rate(),
        })
    }

    fn json(&self) -> Value {
        json!({
            "cipher": self.spec.to_string(),
            "key_bits": self.key_size * 8,
            "sector_size": self.sector_size,
            "encrypt": self.encrypt,
            "decrypt": self.decrypt,
        })
    }
}

#[derive(Default)]
struct Clock {
    took: Duration,
    bytes: u64,
}

impl Clock {
    fn time<T>(&mut self, bytes: usize, work: impl FnOnce() -> T) -> T {
        let start = Instant::now();
        let done = work();
        self.took += start.elapsed();
        self.bytes += bytes as u64;
        done
    }

    fn rate(&self) -> u64 {
        let nanos = self.took.as_nanos().max(1);
        u64::try_from(u128::from(self.bytes) * 1_000_000_000 / nanos).unwrap_or(u64::MAX)
    }
}

fn table(speeds: &[Speed]) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_header(["#  Algorithm", "Key", "Sector", "Encryption", "Decryption"]);
    for speed in speeds {
        table.add_row([
            speed.spec.to_string(),
            format!("{}b", speed.key_size * 8),
            speed.sector_size.to_string(),
            mib(speed.encrypt),
            mib(speed.decrypt),
        ]);
    }
    for column in table.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    trimmed(&table)
}

/// MiB a second with one digit after the point, as cryptsetup prints it.
fn mib(rate: u64) -> String {
    let tenths = u128::from(rate) * 10 / (1 << 20);
    format!("{}.{} MiB/s", tenths / 10, tenths % 10)
}
