//! A bounded reader and writer for fixed big-endian layouts. Both know where they are, so that an error can
//! say it.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use crate::error::FormatError;

/// Reads named fields one after the other.
pub(crate) struct Reader<'a> {
    rest: &'a [u8],
    offset: u64,
}

impl<'a> Reader<'a> {
    /// `offset` is where the bytes lie on the device.
    pub(crate) fn new(bytes: &'a [u8], offset: u64) -> Self {
        Self {
            rest: bytes,
            offset,
        }
    }

    /// The offset of the next field.
    pub(crate) fn offset(&self) -> u64 {
        self.offset
    }

    pub(crate) fn bytes(&mut self, len: usize, field: &str) -> Result<&'a [u8], FormatError> {
        let Some((taken, rest)) = self.rest.split_at_checked(len) else {
            let cause = format!("needs {len} bytes, but only {} are there", self.rest.len());
            return Err(FormatError::malformed(field, self.offset, cause));
        };
        self.rest = rest;
        self.offset = self.offset.saturating_add(len as u64);
        Ok(taken)
    }

    pub(crate) fn array<const N: usize>(&mut self, field: &str) -> Result<[u8; N], FormatError> {
        let offset = self.offset;
        self.bytes(N, field)?
            .try_into()
            .map_err(|_| FormatError::malformed(field, offset, "has the wrong length"))
    }

    pub(crate) fn u16(&mut self, field: &str) -> Result<u16, FormatError> {
        self.array(field).map(u16::from_be_bytes)
    }

    pub(crate) fn u32(&mut self, field: &str) -> Result<u32, FormatError> {
        self.array(field).map(u32::from_be_bytes)
    }

    pub(crate) fn u64(&mut self, field: &str) -> Result<u64, FormatError> {
        self.array(field).map(u64::from_be_bytes)
    }

    /// A text of UTF-8 that ends with a NUL inside its field of `len` bytes.
    pub(crate) fn text(&mut self, len: usize, field: &str) -> Result<String, FormatError> {
        let offset = self.offset;
        let bytes = self.bytes(len, field)?;
        let Some((text, _)) = bytes
            .iter()
            .position(|&b| b == 0)
            .and_then(|end| bytes.split_at_checked(end))
        else {
            let cause = format!("is not ended by a NUL within its {len} bytes");
            return Err(FormatError::malformed(field, offset, cause));
        };
        match core::str::from_utf8(text) {
            Ok(text) => Ok(text.into()),
            Err(_) => Err(FormatError::malformed(field, offset, "is not UTF-8")),
        }
    }
}

/// Appends fields one after the other.
#[derive(Default)]
pub(crate) struct Writer {
    bytes: Vec<u8>,
}

impl Writer {
    pub(crate) fn bytes(&mut self, bytes: &[u8]) -> &mut Self {
        self.bytes.extend_from_slice(bytes);
        self
    }

    pub(crate) fn u16(&mut self, value: u16) -> &mut Self {
        self.bytes(&value.to_be_bytes())
    }

    pub(crate) fn u32(&mut self, value: u32) -> &mut Self {
        self.bytes(&value.to_be_bytes())
    }

    pub(crate) fn u64(&mut self, value: u64) -> &mut Self {
        self.bytes(&value.to_be_bytes())
    }

    pub(crate) fn zeros(&mut self, len: usize) -> &mut Self {
        self.bytes.resize(self.bytes.len().saturating_add(len), 0);
        self
    }

    /// A text in a field of `len` bytes, NUL-padded. What does not fit is cut, so that a NUL always ends it:
    /// whoever calls has checked the length with [`check_text`].
    pub(crate) fn text(&mut self, text: &str, len: usize) -> &mut Self {
        let room = len.saturating_sub(1).min(text.len());
        let taken = text.as_bytes().get(..room).unwrap_or_default();
        self.bytes(taken).zeros(len.saturating_sub(taken.len()))
    }

    pub(crate) fn finish(&mut self) -> Vec<u8> {
        core::mem::take(&mut self.bytes)
    }
}

/// Whether a text fits its field of `len` bytes with the NUL that ends it.
pub(crate) fn check_text(
    text: &str,
    len: usize,
    field: &str,
    offset: u64,
) -> Result<(), FormatError> {
    if text.len() >= len {
        let most = len.saturating_sub(1);
        let cause = format!("is {} bytes long; the field holds {most}", text.len());
        return Err(FormatError::malformed(field, offset, cause));
    }
    if text.contains('\0') {
        return Err(FormatError::malformed(field, offset, "contains a NUL"));
    }
    Ok(())
}
