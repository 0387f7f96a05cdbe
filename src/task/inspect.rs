//! The policy of an inspection, in a file.

use std::fs::File;
use std::io::{self, Read as _};
use std::path::Path;

use super::{Advice, Error, Kind};
use crate::vet::Policy;

/// How many bytes of a policy are read.
const LARGEST_POLICY: u64 = 1 << 20;

/// Reads a policy from a TOML file, which may be a pipe.
///
/// # Errors
/// Returns an error of kind [`Kind::Parameters`] if the file cannot be read, or is not a policy.
pub fn read_policy(path: &Path) -> Result<Policy, Error> {
    let cannot = |error: io::Error| {
        Error::new(Kind::Parameters, error).about(format_args!("cannot read {}", path.display()))
    };
    let mut text = String::new();
    let file = File::open(path).map_err(cannot)?;
    file.take(LARGEST_POLICY)
        .read_to_string(&mut text)
        .map_err(cannot)?;
    Policy::parse(&text).map_err(|error| {
        Error::new(Kind::Parameters, error)
            .about(path.display())
            .advise(Advice::PolicyMembers("docs/inspect.md"))
    })
}
