//! Hardening of the process: no core files, and no access for other processes of the same user.

use rustix::io;
use rustix::process::{DumpableBehavior, Resource, Rlimit, set_dumpable_behavior, setrlimit};

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
