//! Do keys vanish? The tests search the memory of their own process for pieces of secrets, after
//! the secrets were used.

#![allow(missing_docs)]

mod derive;
mod disk;
mod integrity;
mod kernels;
mod process;
mod sample;
mod scan;
mod schedules;
mod serve;
mod shown;
mod source;
#[cfg(target_arch = "x86_64")]
mod steps;
mod storage;
mod tpm;
#[cfg(target_arch = "x86_64")]
mod undefined;
mod unlock;

/// The allocator of the program, since the tests also cover what other crates leave on the heap.
#[global_allocator]
static ALLOCATOR: luksmith::secret::WipingAllocator = luksmith::secret::WipingAllocator;
