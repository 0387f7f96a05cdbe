//! Facts that a task tells its caller.

use std::fmt;
use std::io;
use std::path::Path;

use super::error::chain;
use crate::container::Health;
use crate::location::Location;

/// A fact that the user should know. Its `Display` is a sentence that names no option of the
/// command line, which has its own words for some.
#[derive(Debug)]
#[non_exhaustive]
pub enum Note<'a> {
    /// A copy of a LUKS2 header is damaged or old.
    Health {
        /// Where the header lies.
        location: &'a Location,
        /// How its copies were found.
        health: &'a Health,
    },
    /// A file that was not finished is removed; `name` is the name that it was to have.
    Removed {
        /// The name that the file was to have.
        name: &'a Path,
    },
    /// A file that was not finished could not be removed.
    Left {
        /// The file.
        path: &'a Path,
        /// Why it could not be removed.
        error: io::Error,
    },
    /// Every user can write to the directory of a socket.
    WritableByAll {
        /// The directory.
        directory: &'a Path,
    },
    /// An object of libvirt is left out of an audit.
    NotAudited {
        /// The object, such as `a secret`.
        what: &'a str,
        /// Why it cannot be read.
        error: &'a (dyn std::error::Error + 'static),
    },
}

impl Note<'_> {
    /// Whether it is a warning: something may be wrong, or is left to be done.
    #[must_use]
    pub fn is_warning(&self) -> bool {
        match self {
            Self::Removed { .. } => false,
            Self::Health { .. }
            | Self::Left { .. }
            | Self::WritableByAll { .. }
            | Self::NotAudited { .. } => true,
        }
    }
}

impl fmt::Display for Note<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Health { location, health } => write!(f, "{location}: {health}"),
            Self::Removed { name } => write!(f, "the unfinished {} is removed", name.display()),
            Self::Left { path, error } => {
                write!(f, "the unfinished {} is left: {error}", path.display())
            }
            Self::WritableByAll { directory } => write!(
                f,
                "every user can write to {}: another user could create a socket of this name first, and get \
                 what clients send",
                directory.display()
            ),
            Self::NotAudited { what, error } => write!(f, "cannot audit {what}: {}", chain(*error)),
        }
    }
}
