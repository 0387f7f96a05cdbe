//! The process itself: kept out of core files and out of reach of other processes of the same user.

use rustix::io;
use rustix::process::{DumpableBehavior, Resource, Rlimit, set_dumpable_behavior, setrlimit};

/// Makes the process undumpable: no core file, no ptrace by another process of the same user, and its /proc entries
/// belong to root. For a program's `main`, before the first secret is read; the library never calls it by itself.
///
/// # Errors
/// What the kernel answered; a program that goes on regardless has weaker protection, not none.
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
