//! From `--pbkdf` and its companions to the cost of a keyslot.

use std::time::Duration;

use luksmith::container::{Container, Header, Version};
use luksmith::kdf::Argon2Cost;
use luksmith::kdf::calibrate::{
    Cost, DEFAULT_MAX_LANES, DEFAULT_MAX_MEMORY_KIB, KdfKind, Target, calibrate,
};
use luksmith::task::{Work, Working};
use luksmith_formats::hash::Hash;
use luksmith_formats::luks2::Argon2Variant;

use super::Session;
use super::args::{Pbkdf, PbkdfArgs};
use super::error::CommandError;

/// The cost of a new keyslot for a key of `key_size` bytes: measured on this machine, or as forced.
pub(crate) fn of_keyslot(
    session: &Session,
    args: &PbkdfArgs,
    hash: Hash,
    version: Version,
    key_size: usize,
) -> Result<Cost, CommandError> {
    let kind = kind(args, hash, version)?;
    let max_memory_kib = args.pbkdf_memory.unwrap_or(DEFAULT_MAX_MEMORY_KIB);
    let max_lanes = args.pbkdf_parallel.unwrap_or(DEFAULT_MAX_LANES);
    if let Some(iterations) = args.pbkdf_force_iterations {
        return forced(kind, iterations, max_memory_kib, max_lanes);
    }
    let target = Target::new(kind, key_size)
        .time(Duration::from_millis(u64::from(args.iter_time)))
        .max_memory_kib(max_memory_kib)
        .max_lanes(max_lanes);
    let _measuring = Working::begin(session, Work::Calibrate, None);
    Ok(calibrate(&target, session.signals.interrupt())?)
}

/// The cost of another keyslot in a container. All of a LUKS1 container has one hash.
pub(crate) fn of_another_keyslot(
    session: &Session,
    args: &PbkdfArgs,
    container: &Container,
    key_size: usize,
) -> Result<Cost, CommandError> {
    let hash = match container.header() {
        Header::Luks1(header) => header.hash()?,
        Header::Luks2(_) => Hash::Sha256,
    };
    of_keyslot(session, args, hash, container.version(), key_size)
}

/// The function that the arguments name, if it goes with the format and with the other arguments.
pub(crate) fn kind(
    args: &PbkdfArgs,
    hash: Hash,
    version: Version,
) -> Result<KdfKind, CommandError> {
    let pbkdf = match (args.pbkdf, version) {
        (Some(Pbkdf::Argon2i | Pbkdf::Argon2id), Version::Luks1) => {
            return Err(CommandError::parameters("--pbkdf: LUKS1 has pbkdf2 alone")
                .hint("--type luks2 has argon2"));
        }
        (None, Version::Luks1) => Pbkdf::Pbkdf2,
        (None, Version::Luks2) => Pbkdf::Argon2id,
        (Some(pbkdf), _) => pbkdf,
    };
    match pbkdf {
        Pbkdf::Pbkdf2 if args.pbkdf_memory.is_some() || args.pbkdf_parallel.is_some() => Err(
            CommandError::parameters("--pbkdf-memory and --pbkdf-parallel are for argon2")
                .hint("--pbkdf argon2id, or leave them out"),
        ),
        Pbkdf::Pbkdf2 => Ok(KdfKind::Pbkdf2(hash)),
        Pbkdf::Argon2i => Ok(KdfKind::Argon2i),
        Pbkdf::Argon2id => Ok(KdfKind::Argon2id),
    }
}

/// The iterations of the volume key's digest: few where the keyslot's were forced, as cryptsetup does it.
pub(crate) fn of_digest(
    session: &Session,
    args: &PbkdfArgs,
    hash: Hash,
) -> Result<u32, CommandError> {
    if args.pbkdf_force_iterations.is_some() {
        return Ok(1000);
    }
    Ok(luksmith::kdf::calibrate::digest_iterations(
        hash,
        session.signals.interrupt(),
    )?)
}

/// The floors are cryptsetup's.
fn forced(
    kind: KdfKind,
    iterations: u32,
    memory_kib: u32,
    lanes: u32,
) -> Result<Cost, CommandError> {
    let least = match kind {
        KdfKind::Pbkdf2(_) => 1000,
        KdfKind::Argon2i | KdfKind::Argon2id => 4,
    };
    if iterations < least {
        return Err(CommandError::parameters(format!(
            "--pbkdf-force-iterations: at least {least}"
        )));
    }
    let argon2 = |variant| {
        Cost::Argon2(Argon2Cost {
            variant,
            passes: iterations,
            memory_kib,
            lanes,
        })
    };
    Ok(match kind {
        KdfKind::Pbkdf2(hash) => Cost::Pbkdf2 { hash, iterations },
        KdfKind::Argon2i => argon2(Argon2Variant::I),
        KdfKind::Argon2id => argon2(Argon2Variant::Id),
    })
}
