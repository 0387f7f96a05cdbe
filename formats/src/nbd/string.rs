//! Names, descriptions and messages: UTF-8 without NUL, whose length is stated elsewhere.

use alloc::borrow::ToOwned;
use alloc::format;
use alloc::string::String;

use crate::codec::Reader;
use crate::error::FormatError;

/// The longest string of the protocol, in bytes.
pub const MAX_STRING: usize = 4096;

/// Checks that a text can be sent as a string.
///
/// # Errors
/// [`FormatError`] if it is longer than [`MAX_STRING`] or contains a NUL.
pub fn check_string(text: &str, field: &str) -> Result<(), FormatError> {
    check(text.as_bytes(), field, 0).map(|_| ())
}

pub(super) fn check<'a>(bytes: &'a [u8], field: &str, at: u64) -> Result<&'a str, FormatError> {
    if bytes.len() > MAX_STRING {
        let cause = format!(
            "is {} bytes long; a string has at most {MAX_STRING}",
            bytes.len()
        );
        return Err(FormatError::malformed(field, at, cause));
    }
    if bytes.contains(&0) {
        return Err(FormatError::malformed(field, at, "contains a NUL"));
    }
    core::str::from_utf8(bytes).map_err(|_| FormatError::malformed(field, at, "is not UTF-8"))
}

/// Reads a string after its length of 32 bits.
pub(super) fn counted(reader: &mut Reader<'_>, field: &str) -> Result<String, FormatError> {
    let len = reader.u32(field)?;
    of_len(reader, usize::try_from(len).unwrap_or(usize::MAX), field)
}

pub(super) fn of_len(
    reader: &mut Reader<'_>,
    len: usize,
    field: &str,
) -> Result<String, FormatError> {
    let at = reader.offset();
    check(reader.bytes(len, field)?, field, at).map(ToOwned::to_owned)
}
