//! The cost of opening a new keyslot: measured on this machine, or stated by the caller.

use std::time::Duration;

use luksmith_formats::hash::Hash;
use luksmith_formats::luks2::Argon2Variant;

use super::{Advice, Error, Note, Watch, Work, Working};
use crate::container::{Container, Header, Version};
use crate::kdf::Argon2Cost;
use crate::kdf::calibrate::{
    self, Cost, DEFAULT_MAX_LANES, DEFAULT_MAX_MEMORY_KIB, KdfKind, Target,
};

/// A key derivation function.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Function {
    /// PBKDF2, with the hash of the volume.
    Pbkdf2,
    /// argon2i.
    Argon2i,
    /// argon2id.
    Argon2id,
}

/// The cost that a new keyslot will have.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct CostOptions {
    /// The function; by default argon2id for LUKS2, and PBKDF2 for LUKS1, which has no other.
    pub function: Option<Function>,
    /// How long opening the keyslot should take on this machine.
    pub time: Duration,
    /// The cost itself instead of `time`: iterations of PBKDF2, passes of argon2.
    pub iterations: Option<u32>,
    /// The most memory that argon2 may take, in KiB.
    pub memory_kib: Option<u32>,
    /// The most threads that argon2 may take.
    pub lanes: Option<u32>,
}

impl Default for CostOptions {
    /// Two seconds on this machine, as cryptsetup.
    fn default() -> Self {
        Self {
            function: None,
            time: Duration::from_secs(2),
            iterations: None,
            memory_kib: None,
            lanes: None,
        }
    }
}

impl CostOptions {
    /// The cost of a new keyslot for a key of `key_size` bytes.
    ///
    /// # Errors
    /// Options that contradict each other or the version; an interrupt; a failed measurement.
    pub fn of_keyslot(
        &self,
        hash: Hash,
        version: Version,
        key_size: usize,
        watch: &dyn Watch,
    ) -> Result<Cost, Error> {
        let kind = self.kind(hash, version)?;
        let max_memory_kib = self.memory_kib.unwrap_or(DEFAULT_MAX_MEMORY_KIB);
        let max_lanes = self.lanes.unwrap_or(DEFAULT_MAX_LANES);
        if let Some(iterations) = self.iterations {
            return forced(kind, iterations, max_memory_kib, max_lanes);
        }
        let target = Target::new(kind, key_size)
            .time(self.time)
            .max_memory_kib(max_memory_kib)
            .max_lanes(max_lanes);
        let working = Working::begin(watch, Work::Calibrate, None);
        let measured = calibrate::measure(&target, watch.interrupt())?;
        working.finish();
        if measured.was_busy() {
            let (cost, share) = (measured.cost, measured.share);
            watch.notes(Note::MeasuredBusy { cost, share });
        }
        Ok(measured.cost)
    }

    /// Refuses options that contradict each other or the container, before a key derivation.
    ///
    /// # Errors
    /// [`Kind::Parameters`](super::Kind::Parameters).
    pub fn check(&self, container: &Container) -> Result<(), Error> {
        let kind = self.kind(Hash::Sha256, container.version())?;
        match self.iterations {
            Some(iterations) => forced(kind, iterations, 0, 0).map(drop),
            None => Ok(()),
        }
    }

    /// The cost of another keyslot in a container. All of a LUKS1 container has one hash.
    ///
    /// # Errors
    /// As [`CostOptions::of_keyslot`].
    pub fn of_another_keyslot(
        &self,
        container: &Container,
        key_size: usize,
        watch: &dyn Watch,
    ) -> Result<Cost, Error> {
        let hash = match container.header() {
            Header::Luks1(header) => header.hash()?,
            Header::Luks2(_) => Hash::Sha256,
        };
        self.of_keyslot(hash, container.version(), key_size, watch)
    }

    /// The iterations of the volume key's digest: few if those of the keyslot are stated, as in
    /// cryptsetup.
    pub(super) fn of_digest(&self, hash: Hash, watch: &dyn Watch) -> Result<u32, Error> {
        if self.iterations.is_some() {
            return Ok(1000);
        }
        Ok(calibrate::digest_iterations(hash, watch.interrupt())?)
    }

    /// The function, if the version and the other options allow it.
    pub(super) fn kind(&self, hash: Hash, version: Version) -> Result<KdfKind, Error> {
        let function = match (self.function, version) {
            (Some(Function::Argon2i | Function::Argon2id), Version::Luks1) => {
                let message = "pbkdf: LUKS1 has only pbkdf2";
                return Err(Error::parameters(message).advise(Advice::Luks2HasArgon2));
            }
            (None, Version::Luks1) => Function::Pbkdf2,
            (None, Version::Luks2) => Function::Argon2id,
            (Some(function), _) => function,
        };
        match function {
            Function::Pbkdf2 if self.memory_kib.is_some() || self.lanes.is_some() => {
                let message = "pbkdf-memory and pbkdf-parallel are for argon2";
                Err(Error::parameters(message).advise(Advice::Argon2OrNeither))
            }
            Function::Pbkdf2 => Ok(KdfKind::Pbkdf2(hash)),
            Function::Argon2i => Ok(KdfKind::Argon2i),
            Function::Argon2id => Ok(KdfKind::Argon2id),
        }
    }
}

/// The minimum numbers of iterations are cryptsetup's.
fn forced(kind: KdfKind, iterations: u32, memory_kib: u32, lanes: u32) -> Result<Cost, Error> {
    let least = match kind {
        KdfKind::Pbkdf2(_) => 1000,
        KdfKind::Argon2i | KdfKind::Argon2id => 4,
    };
    if iterations < least {
        let message = format!("pbkdf-force-iterations: at least {least}");
        return Err(Error::parameters(message));
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
