//! What may help after a failure, as data.

use std::fmt;

/// What may help after a failure. Its `Display` is a sentence that names no option; a front end
/// with options of its own names the one to use instead.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Advice {
    /// The device cannot be claimed because it is mounted, or part of another device.
    DeviceInUse,
}

impl fmt::Display for Advice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::DeviceInUse => "it is mounted, or part of another device",
        })
    }
}
