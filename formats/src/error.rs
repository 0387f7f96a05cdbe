//! [`FormatError`], which says which field of a header is refused, where it is, and why.
//!
//! It contains only numbers and names from public header fields. It never contains an I/O error.

use alloc::string::String;
use core::fmt;

/// Why a header is refused: by the format, by this crate, or by the caller's limits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Kind {
    /// The bytes break a rule of the format.
    Malformed,
    /// The bytes break a rule of the format that this crate knows, but a checksum shows that they
    /// are as a program wrote them: they are not damaged.
    NotUnderstood,
    /// The bytes may be valid, but need something that is not supported or is always refused.
    Unsupported,
    /// The bytes are valid, but need more than [`Limits`](crate::Limits) allows.
    OverLimit,
}

/// Why a header is refused, and which of its fields is at fault.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct FormatError {
    /// Which kind of refusal it is.
    pub kind: Kind,
    /// The name of the field. In LUKS2 metadata it is a path, such as `keyslots.3.area.offset`.
    pub field: String,
    /// The offset of the field from the start of the device, in bytes. It is zero if the refused
    /// value does not come from storage (an edit, a cost limit).
    pub offset: u64,
    /// Why the field is refused.
    pub cause: String,
}

impl FormatError {
    /// An error for bytes that break a rule of the format.
    pub fn malformed(field: impl Into<String>, offset: u64, cause: impl Into<String>) -> Self {
        Self::new(Kind::Malformed, field, offset, cause)
    }

    /// An error for bytes that need something that is not supported.
    pub fn unsupported(field: impl Into<String>, offset: u64, cause: impl Into<String>) -> Self {
        Self::new(Kind::Unsupported, field, offset, cause)
    }

    /// An error for bytes that need more than the caller's limits allow.
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
