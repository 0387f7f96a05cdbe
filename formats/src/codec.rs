//! A bounds-checked reader and a writer for fixed big-endian layouts.
//!
//! The reader keeps its offset on the device, so that an error can name it.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use crate::error::FormatError;
use crate::raw_text;

/// Reads consecutive fields. The caller names each field, for error messages.
pub(crate) struct Reader<'a> {
    rest: &'a [u8],
    offset: u64,
}

impl<'a> Reader<'a> {
    /// A reader of `bytes`, which are at `offset` on the device.
    pub(crate) fn new(bytes: &'a [u8], offset: u64) -> Self {
        Self {
            rest: bytes,
            offset,
        }
    }

    /// The offset of the next field on the device.
    pub(crate) fn offset(&self) -> u64 {
        self.offset
    }

    pub(crate) fn bytes(&mut self, len: usize, field: &str) -> Result<&'a [u8], FormatError> {
        let Some((taken, rest)) = self.rest.split_at_checked(len) else {
            let cause = format!("needs {len} bytes, but only {} are left", self.rest.len());
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

    /// Reads a field of `len` bytes that contains text, ended by a NUL. As cryptsetup, it takes the
    /// last byte for a NUL if there is none before it. Bytes that are not UTF-8 have the form of
    /// [`raw_text`].
    pub(crate) fn text(&mut self, len: usize, field: &str) -> Result<String, FormatError> {
        let bytes = self.bytes(len, field)?;
        let end = bytes.iter().position(|&byte| byte == 0);
        let end = end.unwrap_or(len.saturating_sub(1));
        Ok(raw_text::decode(bytes.get(..end).unwrap_or_default()))
    }
}

/// Appends consecutive fields to a buffer.
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

    /// Appends text in a field of `len` bytes, padded with NULs. Text that is too long is cut, so
    /// that the field always ends with a NUL. The caller checks the length first, with
    /// [`check_text`].
    pub(crate) fn text(&mut self, text: &str, len: usize) -> &mut Self {
        let text = raw_text::encode(text);
        let room = len.saturating_sub(1).min(text.len());
        let taken = text.get(..room).unwrap_or_default();
        self.bytes(taken).zeros(len.saturating_sub(taken.len()))
    }

    pub(crate) fn finish(&mut self) -> Vec<u8> {
        core::mem::take(&mut self.bytes)
    }
}

/// Checks that a text and its final NUL fit in a field of `len` bytes.
pub(crate) fn check_text(
    text: &str,
    len: usize,
    field: &str,
    offset: u64,
) -> Result<(), FormatError> {
    let length = raw_text::encode(text).len();
    if length >= len {
        let most = len.saturating_sub(1);
        let cause = format!("is {length} bytes long; the field holds {most}");
        return Err(FormatError::malformed(field, offset, cause));
    }
    if text.contains('\0') {
        return Err(FormatError::malformed(field, offset, "contains a NUL"));
    }
    Ok(())
}
