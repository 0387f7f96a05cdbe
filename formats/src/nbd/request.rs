//! Requests, with compact and with extended headers (section "Request message").

use alloc::format;

use super::fields::Fields;
use super::numbers::{Command, CommandFlags};
use crate::codec::Reader;
use crate::error::FormatError;

const COMPACT_MAGIC: u32 = 0x2560_9513;
const EXTENDED_MAGIC: u32 = 0x21e4_1c71;

/// The header of a request. The payload of a WRITE follows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Request {
    /// Flags of the command.
    pub flags: CommandFlags,
    /// The command.
    pub command: Command,
    /// A number that the reply repeats.
    pub cookie: u64,
    /// Where the range begins, in bytes.
    pub offset: u64,
    /// How long the range is, in bytes. The compact form has 32 bits for it.
    pub len: u64,
}

impl Request {
    /// The length of the compact form in bytes.
    pub const COMPACT_LEN: usize = 28;
    /// The length of the extended form in bytes.
    pub const EXTENDED_LEN: usize = 32;

    /// The form without extended headers. A `len` of more than 32 bits is written as the largest
    /// length, which no server accepts.
    #[must_use]
    pub fn to_compact(self) -> [u8; Self::COMPACT_LEN] {
        self.head(COMPACT_MAGIC)
            .u32(u32::try_from(self.len).unwrap_or(u32::MAX))
            .finish()
    }

    /// The form with extended headers.
    #[must_use]
    pub fn to_extended(self) -> [u8; Self::EXTENDED_LEN] {
        self.head(EXTENDED_MAGIC).u64(self.len).finish()
    }

    /// Reads the compact form.
    ///
    /// # Errors
    /// [`FormatError`] if the magic number is wrong. Then the start of the next request is unknown.
    pub fn parse_compact(bytes: &[u8; Self::COMPACT_LEN]) -> Result<Self, FormatError> {
        let mut reader = Reader::new(bytes, 0);
        Self::parse(&mut reader, COMPACT_MAGIC, |reader| {
            reader.u32("request.length").map(u64::from)
        })
    }

    /// Reads the extended form.
    ///
    /// # Errors
    /// As [`parse_compact`](Self::parse_compact).
    pub fn parse_extended(bytes: &[u8; Self::EXTENDED_LEN]) -> Result<Self, FormatError> {
        let mut reader = Reader::new(bytes, 0);
        Self::parse(&mut reader, EXTENDED_MAGIC, |reader| {
            reader.u64("request.length")
        })
    }

    fn head<const N: usize>(self, magic: u32) -> Fields<N> {
        Fields::new()
            .u32(magic)
            .u16(self.flags)
            .u16(self.command)
            .u64(self.cookie)
            .u64(self.offset)
    }

    fn parse(
        reader: &mut Reader<'_>,
        magic: u32,
        len: impl FnOnce(&mut Reader<'_>) -> Result<u64, FormatError>,
    ) -> Result<Self, FormatError> {
        let found = reader.u32("request.magic")?;
        if found != magic {
            let cause = format!("is {found:#010x}, not {magic:#010x}");
            return Err(FormatError::malformed("request.magic", 0, cause));
        }
        Ok(Self {
            flags: reader.u16("request.flags")?.into(),
            command: reader.u16("request.type")?.into(),
            cookie: reader.u64("request.cookie")?,
            offset: reader.u64("request.offset")?,
            len: len(reader)?,
        })
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const WRITE: Request = Request {
        flags: CommandFlags::FUA,
        command: Command::Write,
        cookie: 0x1122_3344_5566_7788,
        offset: 0x1000,
        len: 0x200,
    };

    #[test]
    fn requests_have_the_bytes_of_the_specification() {
        let head =
            b"\x00\x01\x00\x01\x11\x22\x33\x44\x55\x66\x77\x88\x00\x00\x00\x00\x00\x00\x10\x00";
        let compact = [b"\x25\x60\x95\x13", &head[..], b"\x00\x00\x02\x00"].concat();
        let extended = [
            b"\x21\xe4\x1c\x71",
            &head[..],
            b"\x00\x00\x00\x00\x00\x00\x02\x00",
        ]
        .concat();
        assert_eq!(&WRITE.to_compact()[..], compact);
        assert_eq!(&WRITE.to_extended()[..], extended);
    }

    #[test]
    fn one_form_is_not_taken_for_the_other() {
        let extended = WRITE.to_extended();
        let cut = extended.first_chunk().unwrap();
        assert_eq!(
            Request::parse_compact(cut).unwrap_err().field,
            "request.magic"
        );
        let mut long = [0; Request::EXTENDED_LEN];
        long.split_at_mut(Request::COMPACT_LEN)
            .0
            .copy_from_slice(&WRITE.to_compact());
        assert!(Request::parse_extended(&long).is_err());
    }

    proptest! {
        #[test]
        fn requests_are_read_back(flags: u16, command: u16, cookie: u64, offset: u64, len: u64) {
            let request = Request { flags: flags.into(), command: command.into(), cookie, offset, len };
            prop_assert_eq!(Request::parse_extended(&request.to_extended()).unwrap(), request);
            let request = Request { len: len & 0xffff_ffff, ..request };
            prop_assert_eq!(Request::parse_compact(&request.to_compact()).unwrap(), request);
        }
    }
}
