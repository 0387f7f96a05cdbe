//! The contents of the chunks of structured replies (section "Structured reply types").

use alloc::string::String;
use alloc::vec::Vec;

use super::fields::Fields;
use super::numbers::{ChunkType, ErrorNumber, ExtentFlags};
use super::string::of_len;
use crate::codec::{Reader, Writer};
use crate::error::FormatError;

/// The beginning of an OFFSET_DATA chunk. The data follows.
#[must_use]
pub fn offset_to_bytes(offset: u64) -> [u8; 8] {
    offset.to_be_bytes()
}

/// The offset of the data of an OFFSET_DATA chunk.
#[must_use]
pub fn offset_of_data(bytes: &[u8; 8]) -> u64 {
    u64::from_be_bytes(*bytes)
}

/// An OFFSET_HOLE chunk: a range that reads as zeroes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OffsetHole {
    /// Where the range begins, in bytes.
    pub offset: u64,
    /// How long the range is, in bytes.
    pub len: u32,
}

impl OffsetHole {
    /// The length in bytes.
    pub const LEN: usize = 12;

    /// Writes it.
    #[must_use]
    pub fn to_bytes(self) -> [u8; Self::LEN] {
        Fields::new().u64(self.offset).u32(self.len).finish()
    }

    /// Reads it.
    ///
    /// # Errors
    /// Currently none: every value is valid.
    pub fn parse(bytes: &[u8; Self::LEN]) -> Result<Self, FormatError> {
        let mut reader = Reader::new(bytes, 0);
        Ok(Self {
            offset: reader.u64("hole.offset")?,
            len: reader.u32("hole.length")?,
        })
    }
}

/// A range of bytes with the same status.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extent {
    /// The length in bytes. BLOCK_STATUS without extended headers has 32 bits for it.
    pub len: u64,
    /// The status. BLOCK_STATUS without extended headers has 32 bits for it.
    pub flags: ExtentFlags,
}

/// A BLOCK_STATUS chunk: extents from the offset of the request on, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BlockStatus {
    /// The number of the metadata context, from the reply to SET_META_CONTEXT.
    pub context: u32,
    /// The extents, at least one.
    pub extents: Vec<Extent>,
}

impl BlockStatus {
    /// Writes the form without extended headers. Values are reduced to 32 bits: a length so that
    /// the next request can continue after it, and flags to those that fit.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut writer = Writer::default();
        writer.u32(self.context);
        for extent in &self.extents {
            let low = u64::from(extent.flags) & u64::from(u32::MAX);
            writer
                .u32(u32::try_from(extent.len).unwrap_or(u32::MAX))
                .u32(u32::try_from(low).unwrap_or(u32::MAX));
        }
        writer.finish()
    }

    /// Writes the form with extended headers.
    #[must_use]
    pub fn to_extended(&self) -> Vec<u8> {
        let mut writer = Writer::default();
        writer
            .u32(self.context)
            .u32(u32::try_from(self.extents.len()).unwrap_or(u32::MAX));
        for extent in &self.extents {
            writer.u64(extent.len).u64(extent.flags.into());
        }
        writer.finish()
    }

    /// Reads the form without extended headers.
    ///
    /// # Errors
    /// [`FormatError`] if there is no extent, an incomplete one, or one of length zero.
    pub fn parse(bytes: &[u8]) -> Result<Self, FormatError> {
        let mut reader = Reader::new(bytes, 0);
        let context = reader.u32("block_status.context")?;
        let rest = bytes.len().saturating_sub(4);
        let (extents, cut) = reader.bytes(rest, "block_status.extents")?.as_chunks::<8>();
        let extents = extents.iter().map(|extent| {
            let number = u64::from_be_bytes(*extent);
            Extent {
                len: number >> 32,
                flags: (number & u64::from(u32::MAX)).into(),
            }
        });
        Self {
            context,
            extents: extents.collect(),
        }
        .checked(cut)
    }

    /// Reads the form with extended headers.
    ///
    /// # Errors
    /// As [`parse`](Self::parse), and if the number of extents does not match the length.
    pub fn parse_extended(bytes: &[u8]) -> Result<Self, FormatError> {
        let mut reader = Reader::new(bytes, 0);
        let context = reader.u32("block_status.context")?;
        let count = reader.u32("block_status.count")?;
        let rest = bytes.len().saturating_sub(8);
        let (extents, cut) = reader
            .bytes(rest, "block_status.extents")?
            .as_chunks::<16>();
        let extents: Vec<Extent> = extents
            .iter()
            .map(|extent| {
                let number = u128::from_be_bytes(*extent);
                Extent {
                    len: u64::try_from(number >> 64).unwrap_or(u64::MAX),
                    flags: u64::try_from(number & u128::from(u64::MAX))
                        .unwrap_or(u64::MAX)
                        .into(),
                }
            })
            .collect();
        // A server may send 0 instead of the number of extents.
        if count != 0 && u32::try_from(extents.len()) != Ok(count) {
            let cause = "is not the number of extents";
            return Err(FormatError::malformed("block_status.count", 4, cause));
        }
        Self { context, extents }.checked(cut)
    }

    fn checked(self, cut: &[u8]) -> Result<Self, FormatError> {
        let malformed = |cause| Err(FormatError::malformed("block_status.extents", 4, cause));
        if !cut.is_empty() {
            malformed("ends within an extent")
        } else if self.extents.is_empty() {
            malformed("contains none")
        } else if self.extents.iter().any(|extent| extent.len == 0) {
            malformed("contains one of length zero")
        } else {
            Ok(self)
        }
    }
}

/// An ERROR or ERROR_OFFSET chunk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ErrorChunk {
    /// The error.
    pub error: ErrorNumber,
    /// A message for people, often empty.
    pub message: String,
    /// Where the error occurred, in bytes, if that is known.
    pub offset: Option<u64>,
}

impl ErrorChunk {
    /// The type of the chunk.
    #[must_use]
    pub fn kind(&self) -> ChunkType {
        match self.offset {
            Some(_) => ChunkType::ErrorOffset,
            None => ChunkType::Error,
        }
    }

    /// Writes it. A message is cut to 65,535 bytes.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let message = self.message.as_bytes();
        let len = u16::try_from(message.len()).unwrap_or(0);
        let message = message.get(..usize::from(len)).unwrap_or_default();
        let mut writer = Writer::default();
        writer.u32(self.error.into()).u16(len).bytes(message);
        if let Some(offset) = self.offset {
            writer.u64(offset);
        }
        writer.finish()
    }

    /// Reads it. `kind` tells whether it ends with an offset.
    ///
    /// # Errors
    /// [`FormatError`] if a length does not match the data, the message is not a string, or the
    /// number means no error.
    pub fn parse(kind: ChunkType, bytes: &[u8]) -> Result<Self, FormatError> {
        let mut reader = Reader::new(bytes, 0);
        let error = ErrorNumber::from(reader.u32("error.number")?);
        if error == ErrorNumber::None {
            return Err(FormatError::malformed("error.number", 0, "is zero"));
        }
        let len = reader.u16("error.length")?;
        let message = of_len(&mut reader, len.into(), "error.message")?;
        let offset = if kind == ChunkType::ErrorOffset {
            Some(reader.u64("error.offset")?)
        } else {
            None
        };
        Ok(Self {
            error,
            message,
            offset,
        })
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use alloc::vec;
    use proptest::prelude::*;

    #[test]
    fn parts_are_what_the_protocol_says() {
        let hole = OffsetHole {
            offset: 1 << 32,
            len: 512,
        };
        assert_eq!(hole.to_bytes(), [0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 2, 0]);
        assert_eq!(OffsetHole::parse(&hole.to_bytes()).unwrap(), hole);
        let status = BlockStatus {
            context: 1,
            extents: vec![Extent {
                len: 4096,
                flags: ExtentFlags::ZERO,
            }],
        };
        assert_eq!(status.to_bytes(), [0, 0, 0, 1, 0, 0, 16, 0, 0, 0, 0, 2]);
        assert_eq!(
            status.to_extended(),
            [
                0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 16, 0, 0, 0, 0, 0, 0, 0, 0, 2
            ]
        );
        let error = ErrorChunk {
            error: ErrorNumber::Io,
            message: "no".into(),
            offset: Some(3),
        };
        assert_eq!(error.kind(), ChunkType::ErrorOffset);
        assert_eq!(error.to_bytes(), b"\0\0\0\x05\0\x02no\0\0\0\0\0\0\0\x03");
    }

    #[test]
    fn extents_that_make_no_sense_are_refused() {
        for bad in [
            &b"\0\0\0\x01"[..],
            b"\0\0\0\x01\0\0\x10\0\0\0\0",
            b"\0\0\0\x01\0\0\0\0\0\0\0\0",
        ] {
            assert!(BlockStatus::parse(bad).is_err(), "{bad:?}");
        }
        let mut extended = [0; 24];
        assert!(BlockStatus::parse_extended(&extended).is_err());
        if let Some(len) = extended.get_mut(8) {
            *len = 1;
        }
        assert!(BlockStatus::parse_extended(&extended).is_ok());
        if let Some(count) = extended.get_mut(7) {
            *count = 2;
        }
        assert!(BlockStatus::parse_extended(&extended).is_err());
    }

    #[test]
    fn errors_that_make_no_sense_are_refused() {
        for bad in [
            &b""[..],
            b"\0\0\0\x05\0\x01",
            b"\0\0\0\0\0\0",
            b"\0\0\0\x05\0\x01\0",
        ] {
            assert!(ErrorChunk::parse(ChunkType::Error, bad).is_err(), "{bad:?}");
        }
        let without_offset = b"\0\0\0\x05\0\x01x";
        assert!(ErrorChunk::parse(ChunkType::ErrorOffset, without_offset).is_err());
    }

    proptest! {
        #[test]
        fn parts_come_back(context: u32, len in 1u64.., flags: u64, message in "[^\0]{0,40}", number in 1u32.., offset: Option<u64>) {
            let status = BlockStatus { context, extents: vec![Extent { len, flags: flags.into() }; 3] };
            prop_assert_eq!(BlockStatus::parse_extended(&status.to_extended()).unwrap(), status);
            let (len, flags) = (len >> 32 | 1, flags >> 32);
            let status = BlockStatus { context, extents: vec![Extent { len, flags: flags.into() }; 3] };
            prop_assert_eq!(BlockStatus::parse(&status.to_bytes()).unwrap(), status);
            let error = ErrorChunk { error: number.into(), message, offset };
            prop_assert_eq!(ErrorChunk::parse(error.kind(), &error.to_bytes()).unwrap(), error);
        }

        #[test]
        fn no_part_panics(bytes in proptest::collection::vec(any::<u8>(), 0..100)) {
            let _ = BlockStatus::parse(&bytes);
            let _ = BlockStatus::parse_extended(&bytes);
            let _ = ErrorChunk::parse(ChunkType::Error, &bytes);
            let _ = ErrorChunk::parse(ChunkType::ErrorOffset, &bytes);
        }
    }
}
