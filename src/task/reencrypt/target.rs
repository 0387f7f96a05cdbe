//! The encryption after a reencryption, and the zones in which the data is converted.

use luksmith_formats::cipher::CipherSpec;
use luksmith_formats::hash::Hash;
use luksmith_formats::luks2::{Argon2Variant, Kdf, Reencryption, Resilience};

use super::options::{Options, Protection};
use crate::container::{Container, FollowingKey};
use crate::reencrypt::{self, DEFAULT_JOURNAL_ZONE, DEFAULT_ZONE};
use crate::task::cost::Function;
use crate::task::storage::Storage;
use crate::task::{Advice, Error, Kind};

/// The largest block of checksums, in bytes.
pub(super) const LARGEST_BLOCK: u32 = 4096;

/// Who uses the volume during a reencryption.
#[derive(Debug, Clone, Copy)]
pub(super) enum Access {
    /// No other program.
    Sole,
    #[cfg_attr(
        not(feature = "nbd"),
        expect(dead_code, reason = "a control socket begins a reencryption")
    )]
    /// Clients of this server, whose requests are carried out in units of this size.
    WithClients {
        /// The size in bytes.
        unit: u32,
    },
}

/// The zones of a reencryption that begins.
pub(super) struct Zones {
    pub(super) resilience: Resilience,
    /// The size of the largest one in bytes.
    pub(super) size: u64,
    /// The size of the smallest one in bytes.
    pub(super) unit: u64,
}

/// The encryption after the reencryption.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Target {
    pub(super) cipher: CipherSpec,
    pub(super) key_size: usize,
    pub(super) sector_size: u32,
    /// That of the data before.
    pub(super) old_sector_size: u32,
    pub(super) size: u64,
}

impl Target {
    /// Whether the sectors become larger.
    pub(super) fn enlarges_sectors(&self) -> bool {
        self.sector_size > self.old_sector_size
    }
}

impl Zones {
    /// The zones that these options ask for, if they are possible.
    pub(super) fn of(
        pending: Option<&Reencryption>,
        target: &Target,
        data: &Storage,
        options: &Options,
        access: Access,
    ) -> Result<Self, Error> {
        let sector_size = target.sector_size.max(target.old_sector_size);
        let resilience = match pending {
            Some(found) => found.state.resilience.clone(),
            None => Self::resilience(target, data, options, access)?,
        };
        let default = match resilience {
            Resilience::Journal => DEFAULT_JOURNAL_ZONE,
            _ => DEFAULT_ZONE,
        };
        let unit = reencrypt::zone_unit(&resilience, sector_size, &*data.backend);
        let size = options.zone.unwrap_or(default);
        if size < unit {
            let message = format!("zone-size: at least {unit} bytes");
            return Err(Error::parameters(message));
        }
        if pending.is_none() {
            reencrypt::check_zones(&resilience, (size, unit), target.size)?;
        }
        Ok(Self {
            resilience,
            size,
            unit,
        })
    }

    /// How zones are protected: by checksums only if the storage promises to write their blocks
    /// atomically, or if the caller says so.
    fn resilience(
        target: &Target,
        data: &Storage,
        options: &Options,
        access: Access,
    ) -> Result<Resilience, Error> {
        let least = target.sector_size.max(target.old_sector_size);
        let largest = match access {
            Access::Sole => LARGEST_BLOCK,
            Access::WithClients { unit } => unit.min(LARGEST_BLOCK),
        };
        if least > largest {
            let message = format!(
                "sector-size: the server uses the volume in units of {largest} bytes until it is \
                 started again"
            );
            return Err(Error::parameters(message));
        }
        let promised = data.backend.atomic_unit().unwrap_or(0);
        let protection = options.protection.unwrap_or(match promised >= least {
            true => Protection::Checksum,
            false => Protection::Journal,
        });
        if protection == Protection::Journal {
            return match options.checksum_hash {
                Some(_) => Err(Error::parameters("resilience-hash goes with checksums")),
                None => Ok(Resilience::Journal),
            };
        }
        // Larger blocks need fewer checksums.
        let block = match promised {
            0 => largest,
            promised => promised.min(largest),
        };
        let block = block.max(least);
        let whole = target.size.is_multiple_of(block.into());
        Ok(Resilience::Checksum {
            hash: options.checksum_hash.unwrap_or(Hash::Sha256),
            sector_size: if whole { block } else { least },
        })
    }
}

/// A reencryption that is in progress, and the key that it leads to.
#[derive(Debug)]
pub(super) struct Begun {
    pub(super) found: Reencryption,
    key: FollowingKey,
}

impl Begun {
    pub(super) fn new(container: &Container, found: Reencryption) -> Self {
        let key = container.following_key(&found);
        Self { found, key }
    }

    /// The names of the options that differ from it, each with what it has.
    fn differences(&self, options: &Options) -> Vec<(&'static str, String)> {
        let Self { found, key } = self;
        let (kept, checksum) = match &found.state.resilience {
            Resilience::Checksum { hash, .. } => (Some(Protection::Checksum), Some(*hash)),
            Resilience::Journal => (Some(Protection::Journal), None),
            _ => (None, None),
        };
        let resilience = found.state.resilience.name();
        let following = &found.following;
        let mut differences = Vec::new();
        let mut compare = |name, agrees: bool, has: String| {
            if !agrees {
                differences.push((name, has));
            }
        };
        compare(
            "cipher",
            is_none_or(options.cipher, Some(following.encryption)),
            following.encryption.to_string(),
        );
        if let Some(size) = key.size {
            let agrees = is_none_or(options.key_size, Some(size));
            compare("key-size", agrees, format!("{} bits", size * 8));
        }
        compare(
            "sector-size",
            is_none_or(options.sector_size, Some(following.sector_size)),
            following.sector_size.to_string(),
        );
        if let Some(hash) = key.hash {
            let agrees = is_none_or(options.hash, Some(hash));
            compare("hash", agrees, hash.to_string());
        }
        if let Some(kdf) = key.kdfs.iter().find(|kdf| {
            let function = Some(function_of(kdf).0);
            !is_none_or(options.cost.function, function)
        }) {
            compare("pbkdf", false, function_of(kdf).1.to_owned());
        }
        compare(
            "resilience",
            is_none_or(options.protection, kept),
            resilience.to_owned(),
        );
        compare(
            "resilience-hash",
            is_none_or(options.checksum_hash, checksum),
            match checksum {
                Some(hash) => hash.to_string(),
                None => format!("resilience {resilience}"),
            },
        );
        differences
    }
}

/// The function of a KDF, and its name.
fn function_of(kdf: &Kdf) -> (Function, &'static str) {
    match kdf {
        Kdf::Pbkdf2 { .. } => (Function::Pbkdf2, "pbkdf2"),
        Kdf::Argon2 { variant, .. } => match variant {
            Argon2Variant::I => (Function::Argon2i, "argon2i"),
            Argon2Variant::Id => (Function::Argon2id, "argon2id"),
        },
    }
}

/// Whether an option is missing or has this value.
fn is_none_or<T: PartialEq>(option: Option<T>, value: Option<T>) -> bool {
    option.is_none() || option == value
}

/// The encryption after the reencryption that is in progress. Options must not differ from it.
pub(super) fn pending_target(begun: &Begun, options: &Options) -> Result<Target, Error> {
    let found = &begun.found;
    let following = &found.following;
    let weak = |error| Error::new(Kind::Unsupported, error);
    following.encryption.check_writable().map_err(weak)?;
    let mut differences = begun.differences(options).into_iter();
    if let Some((name, has)) = differences.next() {
        let mut message = format!("{name}: the reencryption in progress has {has}");
        for (name, has) in differences {
            message.push_str(&format!("; {name}: it has {has}"));
        }
        return Err(Error::parameters(message).advise(Advice::ReencryptAsBegun));
    }
    Ok(Target {
        cipher: following.encryption,
        key_size: begun.key.size.unwrap_or(0),
        sector_size: following.sector_size,
        old_sector_size: found.previous.sector_size(),
        size: found.fixed_size().unwrap_or(0),
    })
}

pub(super) fn new_target(
    container: &Container,
    data: &Storage,
    options: &Options,
) -> Result<Target, Error> {
    let present = container.data_segment()?;
    let cipher = options.cipher.unwrap_or(present.cipher);
    cipher
        .check_writable()
        .map_err(|error| Error::new(Kind::Parameters, error).advise(Advice::UsualCipher))?;
    let present_key = container.volume_key_size().unwrap_or(64);
    let fits = |size: &usize| cipher.check_key_size(*size).is_ok();
    let largest = cipher.key_sizes().iter().copied().max().unwrap_or(64);
    let default = Some(present_key).filter(fits).unwrap_or(largest);
    let key_size = options.key_size.unwrap_or(default);
    if !fits(&key_size) {
        let message = format!("key-size: {cipher} has no keys of {} bits", key_size * 8);
        return Err(Error::parameters(message).advise(Advice::KeySizes(cipher)));
    }
    let sector_size = options.sector_size.unwrap_or(present.sector_size);
    let size = container.data_size(data.backend.geometry().size)?;
    let unit = u64::from(sector_size.max(present.sector_size));
    if size == 0
        || !size.is_multiple_of(unit)
        || present.left_out(data.backend.geometry().size) != 0
    {
        let message = format!("the volume has {size} bytes, which are not whole sectors of {unit}");
        return Err(Error::parameters(message).advise(Advice::WholeSectors));
    }
    Ok(Target {
        cipher,
        key_size,
        sector_size,
        old_sector_size: present.sector_size,
        size,
    })
}
