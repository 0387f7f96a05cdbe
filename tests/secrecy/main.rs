//! Do keys vanish? The memory of this very process is searched for pieces of secrets after they were used.

#![allow(missing_docs)]

mod derive;
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
#[cfg(target_arch = "x86_64")]
mod undefined;
mod unlock;

/// As in the binary: what code of others leaves on the heap is part of the question.
#[global_allocator]
static ALLOCATOR: luksmith::secret::WipingAllocator = luksmith::secret::WipingAllocator;
