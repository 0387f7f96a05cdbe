//! Argon2i and argon2id (RFC 9106) as LUKS2 uses them: version 0x13, without secret and associated
//! data.
//!
//! The work runs in separate threads that own all of their memory. After an interrupt the caller
//! returns immediately. The threads then end on their own: they discard the result and wipe their
//! memory. On CPUs with AVX-512, where this module fills the memory itself, they end soon.
//! Elsewhere the `argon2` crate fills it, which cannot be interrupted, so they run to their end.

use std::sync::mpsc::{RecvTimeoutError, sync_channel};
use std::time::Duration;

use ::argon2::{Algorithm, Argon2, Params, Version};
use luksmith_formats::luks2::Argon2Variant;
use rayon::ThreadPool;

use super::error::KdfError;
#[cfg(target_arch = "x86_64")]
use super::x86_64::{
    compress, ends,
    fill::{Shape, fill},
};
use crate::Interrupt;
use crate::secret::{LockedBytes, scrub_stack};
use crate::sys::memory::Mapping;
use crate::sys::process::thread_time;

/// How often the waiting caller checks the interrupt.
const LOOK: Duration = Duration::from_millis(20);

/// The cost of one derivation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Argon2Cost {
    /// argon2i or argon2id.
    pub variant: Argon2Variant,
    /// Passes over the memory, at least 1.
    pub passes: u32,
    /// Memory in KiB, at least 8 KiB for each lane.
    pub memory_kib: u32,
    /// Lanes. There are as many threads as lanes, but at most as many as processors.
    pub lanes: u32,
}

/// Derives `out_len` bytes from `passphrase`.
///
/// # Errors
/// Returns [`KdfError::Interrupted`], [`KdfError::Memory`], [`KdfError::Thread`],
/// [`KdfError::Lock`], or [`KdfError::Parameters`] for a salt or a cost below the minimum of
/// argon2.
pub fn argon2(
    cost: Argon2Cost,
    passphrase: &[u8],
    salt: &[u8],
    out_len: usize,
    interrupt: &Interrupt,
) -> Result<LockedBytes, KdfError> {
    Ok(timed(cost, passphrase, salt, out_len, interrupt)?.0)
}

/// Like [`argon2`], and also returns how long the derivation would have taken if it had had the
/// processors for itself, which is the running time of its busiest thread.
pub(super) fn timed(
    cost: Argon2Cost,
    passphrase: &[u8],
    salt: &[u8],
    out_len: usize,
    interrupt: &Interrupt,
) -> Result<(LockedBytes, Duration), KdfError> {
    if interrupt.is_set() {
        return Err(KdfError::Interrupted);
    }
    let work = Work::new(cost, passphrase, salt, out_len, interrupt)?;
    let (result, waiting) = sync_channel(1);
    std::thread::Builder::new()
        .name("argon2".to_owned())
        .spawn(move || {
            // After an interrupt the receiver is gone. The result is then dropped, and so wiped.
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

/// The inputs, the memory and the output of one derivation.
#[cfg_attr(not(target_arch = "x86_64"), allow(dead_code))] // the crate has its own copy of the cost
struct Work {
    argon2: Argon2<'static>,
    cost: Argon2Cost,
    lanes: usize,
    interrupt: Interrupt,
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
        interrupt: &Interrupt,
    ) -> Result<Self, KdfError> {
        let params = Params::new(cost.memory_kib, cost.passes, cost.lanes, Some(out_len))
            .map_err(not_allowed)?;
        let algorithm = match cost.variant {
            Argon2Variant::I => Algorithm::Argon2i,
            Argon2Variant::Id => Algorithm::Argon2id,
        };
        Ok(Self {
            argon2: Argon2::new(algorithm, Version::V0x13, params),
            cost,
            lanes: usize::try_from(cost.lanes).unwrap_or(usize::MAX),
            interrupt: interrupt.clone(),
            passphrase: LockedBytes::copy_from(passphrase)?,
            salt: salt.to_vec(),
            memory: block_memory(cost.memory_kib)?,
            out: LockedBytes::new(out_len)?,
        })
    }

    fn run(mut self) -> Result<(LockedBytes, Duration), KdfError> {
        let threads = self.threads()?;
        let hashed = self.hash(&threads);
        let ran = threads.broadcast(|_| {
            scrub_stack();
            thread_time()
        });
        hashed?;
        // The lanes of a thread are not always the same ones, so the sum is divided.
        let lanes_of_a_thread = self.lanes.div_ceil(ran.len()).max(1);
        let busy = self.lanes.div_ceil(lanes_of_a_thread).max(1);
        let time = ran.iter().sum::<Duration>() / u32::try_from(busy).unwrap_or(1);
        Ok((self.out, time))
    }

    /// Starts threads for this derivation only, since their stacks have to be scrubbed after it.
    /// The last blocks, which are computed there, are as secret as the key.
    fn threads(&self) -> Result<ThreadPool, KdfError> {
        let processors = std::thread::available_parallelism().map_or(1, usize::from);
        rayon::ThreadPoolBuilder::new()
            .num_threads(self.lanes.min(processors))
            .build()
            .map_err(|error| KdfError::Thread(error.into()))
    }

    fn hash(&mut self, threads: &ThreadPool) -> Result<(), KdfError> {
        #[cfg(target_arch = "x86_64")]
        if let Some(token) = compress::Token::detect() {
            return self.hash_here(token, threads);
        }
        self.hash_by_crate(threads)
    }

    fn hash_by_crate(&mut self, threads: &ThreadPool) -> Result<(), KdfError> {
        let hashed = threads.install(|| {
            self.argon2.hash_password_into_with_memory(
                &self.passphrase,
                &self.salt,
                &mut self.out,
                self.memory.as_mut_blocks(),
            )
        });
        hashed.map_err(not_allowed)
    }

    #[cfg(target_arch = "x86_64")]
    fn hash_here(&mut self, token: compress::Token, threads: &ThreadPool) -> Result<(), KdfError> {
        // The crate checks this too, before it starts.
        if self.salt.len() < ::argon2::MIN_SALT_LEN {
            return Err(not_allowed(::argon2::Error::SaltTooShort));
        }
        let shape = Shape {
            variant: match self.cost.variant {
                Argon2Variant::I => 1,
                Argon2Variant::Id => 2,
            },
            passes: self.cost.passes,
            lanes: self.lanes,
            segment: self.argon2.params().block_count() / (4 * self.lanes),
        };
        let memory = &mut self.memory.as_mut_blocks()[..shape.blocks()];
        let (passphrase, salt, out) = (&self.passphrase, &self.salt, &mut self.out);
        let (kib, len) = (self.cost.memory_kib, out.len());
        threads.install(|| {
            ends::begin(shape, kib, passphrase, salt, len, memory);
            fill(token, shape, threads, memory, &self.interrupt);
            if self.interrupt.is_set() {
                return Err(KdfError::Interrupted);
            }
            ends::end(shape, memory, out);
            Ok(())
        })
    }
}

/// Allocates the memory of argon2, in huge pages if the kernel has them. Its accesses are random,
/// and with small pages the TLB limits their speed.
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

    proptest::proptest! {
        /// Both implementations, with sizes of which argon2 does not use the remainder, more lanes
        /// than processors, and tags shorter and longer than the 64 bytes of BLAKE2b.
        #[test]
        fn agrees_with_the_crate_on_its_own_memory(
            independent in proptest::bool::ANY,
            passes in 1..4u32,
            lanes in 1..7u32,
            more_kib in 0..1500u32,
            passphrase in proptest::collection::vec(proptest::num::u8::ANY, 0..150),
            salt in proptest::collection::vec(proptest::num::u8::ANY, 8..70),
            len in 4..200usize,
        ) {
            let (variant, algorithm) = if independent {
                (Argon2Variant::I, Algorithm::Argon2i)
            } else {
                (Argon2Variant::Id, Algorithm::Argon2id)
            };
            let memory_kib = 8 * lanes + more_kib;
            let cost = Argon2Cost { variant, passes, memory_kib, lanes };
            let mut theirs = vec![0; len];
            let params = Params::new(memory_kib, passes, lanes, None).unwrap();
            Argon2::new(algorithm, Version::V0x13, params)
                .hash_password_into(&passphrase, &salt, &mut theirs)
                .unwrap();
            let interrupt = Interrupt::new();
            let chosen = argon2(cost, &passphrase, &salt, len, &interrupt).unwrap();
            proptest::prop_assert_eq!(&chosen[..], &theirs);
            let mut work = Work::new(cost, &passphrase, &salt, len, &interrupt).unwrap();
            let threads = work.threads().unwrap();
            work.hash_by_crate(&threads).unwrap();
            proptest::prop_assert_eq!(&work.out[..], &theirs);
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

    /// Without the interrupt this would run for hours.
    #[cfg(target_arch = "x86_64")]
    #[test]
    fn interrupted_work_ends_with_avx512() {
        if compress::Token::detect().is_none() {
            return; // the crate cannot be interrupted
        }
        let long = Argon2Cost {
            passes: u32::MAX,
            ..SMALL
        };
        let interrupt = Interrupt::new();
        let work = Work::new(long, b"pass", b"saltsalt", 32, &interrupt).unwrap();
        let working = std::thread::spawn(move || work.run());
        std::thread::sleep(Duration::from_millis(10));
        interrupt.trigger();
        let ended = working.join().unwrap();
        assert!(matches!(ended, Err(KdfError::Interrupted)));
    }

    #[test]
    fn memory_that_cannot_be_allocated_is_an_error() {
        // 4 TiB. A kernel that always overcommits grants even this, the most that a u32 can
        // express.
        let absurd = Argon2Cost {
            memory_kib: u32::MAX,
            ..SMALL
        };
        let policy = std::fs::read_to_string("/proc/sys/vm/overcommit_memory").unwrap_or_default();
        if policy.trim() == "1" {
            return; // every allocation succeeds on such a machine
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
