//! Argon2i and argon2id (RFC 9106), version 0x13, with empty secret and associated data, as LUKS2 uses them.
//!
//! The work cannot be stopped half way, so it runs in threads of its own that own all that they work on. Who is
//! interrupted returns at once; the work ends by itself, wiped, and its result goes nowhere.

use std::sync::mpsc::{RecvTimeoutError, sync_channel};
use std::time::Duration;

use ::argon2::{Algorithm, Argon2, Params, Version};
use luksmith_formats::luks2::Argon2Variant;

use super::KdfError;
use crate::Interrupt;
use crate::secret::{LockedBytes, scrub_stack};
use crate::sys::memory::Mapping;

/// How often the waiting caller looks at the interrupt.
const LOOK: Duration = Duration::from_millis(20);

/// What one derivation costs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Argon2Cost {
    /// argon2i or argon2id.
    pub variant: Argon2Variant,
    /// Passes over the memory, at least 1.
    pub passes: u32,
    /// Memory in KiB, at least 8 for each lane.
    pub memory_kib: u32,
    /// Lanes, each one thread where there are as many processors.
    pub lanes: u32,
}

/// Derives `out_len` bytes from `passphrase`.
///
/// # Errors
/// [`KdfError::Interrupted`], [`KdfError::Memory`], [`KdfError::Thread`], [`KdfError::Lock`], and
/// [`KdfError::Parameters`] for a salt or costs below argon2's own minimum.
pub fn argon2(
    cost: Argon2Cost,
    passphrase: &[u8],
    salt: &[u8],
    out_len: usize,
    interrupt: &Interrupt,
) -> Result<LockedBytes, KdfError> {
    if interrupt.is_set() {
        return Err(KdfError::Interrupted);
    }
    let work = Work::new(cost, passphrase, salt, out_len)?;
    let (result, waiting) = sync_channel(1);
    std::thread::Builder::new()
        .name("argon2".to_owned())
        .spawn(move || {
            // Nobody is waiting after an interrupt; the result is wiped then like any other.
            let _ = result.send(work.run());
        })
        .map_err(|error| KdfError::Thread(error.into()))?;
    loop {
        match waiting.recv_timeout(LOOK) {
            Ok(result) => return result,
            Err(RecvTimeoutError::Timeout) if !interrupt.is_set() => {}
            Err(RecvTimeoutError::Timeout) => return Err(KdfError::Interrupted),
            Err(RecvTimeoutError::Disconnected) => {
                return Err(KdfError::Thread("it ended without a result".into()));
            }
        }
    }
}

/// All that one derivation works on.
struct Work {
    argon2: Argon2<'static>,
    lanes: u32,
    passphrase: LockedBytes,
    salt: Vec<u8>,
    memory: Mapping,
    out: LockedBytes,
}

impl Work {
    fn new(
        cost: Argon2Cost,
        passphrase: &[u8],
        salt: &[u8],
        out_len: usize,
    ) -> Result<Self, KdfError> {
        let params = Params::new(cost.memory_kib, cost.passes, cost.lanes, Some(out_len))
            .map_err(not_allowed)?;
        let algorithm = match cost.variant {
            Argon2Variant::I => Algorithm::Argon2i,
            Argon2Variant::Id => Algorithm::Argon2id,
        };
        Ok(Self {
            argon2: Argon2::new(algorithm, Version::V0x13, params),
            lanes: cost.lanes,
            passphrase: LockedBytes::copy_from(passphrase)?,
            salt: salt.to_vec(),
            memory: block_memory(cost.memory_kib)?,
            out: LockedBytes::new(out_len)?,
        })
    }

    fn run(mut self) -> Result<LockedBytes, KdfError> {
        let processors = std::thread::available_parallelism().map_or(1, usize::from);
        let lanes = usize::try_from(self.lanes).unwrap_or(usize::MAX);
        // Threads of this derivation alone, because their stacks have to be scrubbed after it: the last blocks that
        // were computed there are as good as the key.
        let threads = rayon::ThreadPoolBuilder::new()
            .num_threads(lanes.min(processors))
            .build()
            .map_err(|error| KdfError::Thread(error.into()))?;
        let hashed = threads.install(|| {
            self.argon2.hash_password_into_with_memory(
                &self.passphrase,
                &self.salt,
                &mut self.out,
                self.memory.as_mut_blocks(),
            )
        });
        threads.broadcast(|_| scrub_stack());
        hashed.map_err(not_allowed)?;
        Ok(self.out)
    }
}

/// Huge pages where the kernel has them: the accesses are random, and with small pages the TLB is the bottleneck.
fn block_memory(kib: u32) -> Result<Mapping, KdfError> {
    let refused = |errno: rustix::io::Errno| KdfError::Memory {
        kib,
        source: errno.into(),
    };
    let bytes =
        usize::try_from(u64::from(kib) * 1024).map_err(|_| refused(rustix::io::Errno::NOMEM))?;
    let mut memory = Mapping::new(bytes).map_err(refused)?;
    memory.keep_out_of_dumps().map_err(refused)?;
    if let Err(errno) = memory.prefer_huge_pages() {
        tracing::debug!(%errno, "no huge pages for argon2");
    }
    Ok(memory)
}

fn not_allowed(error: ::argon2::Error) -> KdfError {
    KdfError::Parameters {
        function: "argon2",
        cause: error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SMALL: Argon2Cost = Argon2Cost {
        variant: Argon2Variant::Id,
        passes: 2,
        memory_kib: 256,
        lanes: 4,
    };

    #[test]
    fn agrees_with_the_crate_on_its_own_memory() {
        for variant in [Argon2Variant::I, Argon2Variant::Id] {
            for lanes in [1, 3, 4] {
                // 259 is no multiple of 4 lanes: the remainder is memory that argon2 leaves alone.
                let cost = Argon2Cost {
                    variant,
                    lanes,
                    memory_kib: 259,
                    ..SMALL
                };
                let ours = argon2(cost, b"pass", b"saltsalt", 64, &Interrupt::new()).unwrap();
                let mut theirs = [0; 64];
                let algorithm = match variant {
                    Argon2Variant::I => Algorithm::Argon2i,
                    Argon2Variant::Id => Algorithm::Argon2id,
                };
                Argon2::new(
                    algorithm,
                    Version::V0x13,
                    Params::new(259, 2, lanes, None).unwrap(),
                )
                .hash_password_into(b"pass", b"saltsalt", &mut theirs)
                .unwrap();
                assert_eq!(ours[..], theirs);
            }
        }
    }

    #[test]
    fn an_interrupted_caller_does_not_wait() {
        let long = Argon2Cost {
            passes: 2000,
            memory_kib: 16 << 10,
            lanes: 1,
            ..SMALL
        };
        let interrupt = Interrupt::new();
        let other = interrupt.clone();
        let stopper = std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(50));
            other.trigger();
        });
        let started = std::time::Instant::now();
        let result = argon2(long, b"pass", b"saltsalt", 32, &interrupt);
        assert!(matches!(result, Err(KdfError::Interrupted)));
        assert!(started.elapsed() < Duration::from_secs(1));
        stopper.join().unwrap();
    }

    #[test]
    fn memory_that_cannot_be_had_is_an_error() {
        // 4 TiB; a kernel that overcommits everything would have to be asked for more than a u32 of KiB holds.
        let absurd = Argon2Cost {
            memory_kib: u32::MAX,
            ..SMALL
        };
        let policy = std::fs::read_to_string("/proc/sys/vm/overcommit_memory").unwrap_or_default();
        if policy.trim() == "1" {
            return; // every mapping succeeds on such a machine
        }
        assert!(matches!(
            block_memory(absurd.memory_kib),
            Err(KdfError::Memory { kib: u32::MAX, .. })
        ));
    }

    #[test]
    fn costs_below_the_minimum_are_errors() {
        let tiny = Argon2Cost {
            memory_kib: 8,
            ..SMALL
        };
        let result = argon2(tiny, b"p", b"saltsalt", 32, &Interrupt::new());
        assert!(matches!(result, Err(KdfError::Parameters { .. })));
        let result = argon2(SMALL, b"p", b"salt", 32, &Interrupt::new());
        assert!(matches!(result, Err(KdfError::Parameters { .. })));
    }
}
