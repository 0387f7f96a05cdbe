//! The one error of this crate: which field, where, and why.
//!
//! It carries numbers and names from public header fields only, and never an I/O error.

use alloc::string::String;
use core::fmt;

/// Who is at fault, roughly: the bytes, this crate, or the caller's limits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Kind {
    /// The bytes break a rule of the format.
    Malformed,
    /// The bytes may be right, but ask for something that is not supported, or is refused on principle.
    Unsupported,
    /// The bytes are right, but ask for more than [`Limits`](crate::Limits) allows.
    OverLimit,
}

/// A header that is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FormatError {
    /// What sort of refusal it is.
    pub kind: Kind,
    /// The field's name; inside LUKS2 metadata the path to it, such as `keyslots.3.area.offset`.
    pub field: String,
    /// The byte offset of the field from the start of the device. Zero when the refused value does not come
    /// from storage (an edit, a cost limit).
    pub offset: u64,
    /// Why it is refused.
    pub cause: String,
}

impl FormatError {
    /// The bytes break a rule of the format.
    pub fn malformed(field: impl Into<String>, offset: u64, cause: impl Into<String>) -> Self {
        Self::new(Kind::Malformed, field, offset, cause)
    }

    /// The bytes ask for something that is not supported.
    pub fn unsupported(field: impl Into<String>, offset: u64, cause: impl Into<String>) -> Self {
        Self::new(Kind::Unsupported, field, offset, cause)
    }

    /// The bytes ask for more than the caller's limits allow.
    pub fn over_limit(field: impl Into<String>, offset: u64, cause: impl Into<String>) -> Self {
        Self::new(Kind::OverLimit, field, offset, cause)
    }

    fn new(kind: Kind, field: impl Into<String>, offset: u64, cause: impl Into<String>) -> Self {
        Self {
            kind,
            field: field.into(),
            offset,
            cause: cause.into(),
        }
    }
}

impl fmt::Display for FormatError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} at byte {}: {}", self.field, self.offset, self.cause)
    }
}

impl core::error::Error for FormatError {}
