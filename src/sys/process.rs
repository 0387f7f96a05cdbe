//! Hardening of the process: no core files, and no access for other processes of the same user.
//! Also the end of the process with its parent, and the running time of a thread.

use std::time::Duration;

use rustix::io;
use rustix::process::{
    DumpableBehavior, Resource, Rlimit, Signal, getpid, getppid, kill_process,
    set_dumpable_behavior, set_parent_process_death_signal, setrlimit,
};
use rustix::time::{ClockId, clock_gettime};

/// Makes the process undumpable.
///
/// It then leaves no core file, other processes of the same user cannot trace it, and its entries
/// in `/proc` belong to root. A program calls this in `main`, before it reads the first secret. The
/// library never calls it.
///
/// # Errors
/// Returns the error of the kernel. A program that continues then has weaker protection, but some.
pub fn harden() -> std::io::Result<()> {
    let no_core = Rlimit {
        current: Some(0),
        maximum: Some(0),
    };
    let limited: io::Result<()> = setrlimit(Resource::Core, no_core);
    set_dumpable_behavior(DumpableBehavior::NotDumpable)?;
    limited?;
    Ok(())
}

/// How long the calling thread has run on a processor.
pub(crate) fn thread_time() -> Duration {
    let ran = clock_gettime(ClockId::ThreadCPUTime);
    Duration::try_from(ran).unwrap_or_default()
}

/// Lets the kernel send SIGTERM to this process when its parent ends, or more exactly the thread of
/// the parent that has started it. A program calls this first of all: if its parent ended before,
/// that is not noticed.
///
/// # Errors
/// Returns the error of the kernel.
pub fn end_with_parent() -> std::io::Result<()> {
    let parent = getppid();
    set_parent_process_death_signal(Some(Signal::TERM))?;
    // If the parent ended before this call, then this process has another one now.
    if getppid() != parent {
        kill_process(getpid(), Signal::TERM)?;
    }
    Ok(())
}
