//! What the parts of structured replies hold (section "Structured reply types").

use alloc::string::String;
use alloc::vec::Vec;

use super::fields::Fields;
use super::numbers::{ChunkType, ErrorNumber, ExtentFlags};
use super::string::of_len;
use crate::codec::{Reader, Writer};
use crate::error::FormatError;

/// What an OFFSET_DATA begins with; the bytes follow.
#[must_use]
pub fn offset_to_bytes(offset: u64) -> [u8; 8] {
    offset.to_be_bytes()
}

/// Where the bytes of an OFFSET_DATA belong.
#[must_use]
pub fn offset_of_data(bytes: &[u8; 8]) -> u64 {
    u64::from_be_bytes(*bytes)
}

/// An OFFSET_HOLE: a range that reads as zeroes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OffsetHole {
    /// Where, in bytes.
    pub offset: u64,
    /// How long, in bytes.
    pub len: u32,
}

impl OffsetHole {
    /// The length in bytes.
    pub const LEN: usize = 12;

    /// As the server sends it.
    #[must_use]
    pub fn to_bytes(self) -> [u8; Self::LEN] {
        Fields::new().u64(self.offset).u32(self.len).finish()
    }

    /// Reads it.
    ///
    /// # Errors
    /// None at present; every such message means something.
    pub fn parse(bytes: &[u8; Self::LEN]) -> Result<Self, FormatError> {
        let mut reader = Reader::new(bytes, 0);
        Ok(Self {
            offset: reader.u64("hole.offset")?,
            len: reader.u32("hole.length")?,
        })
    }
}

/// A run of bytes of which the same is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extent {
    /// How long, in bytes; 32 bits in a BLOCK_STATUS that is not extended.
    pub len: u64,
    /// What is known; 32 bits likewise.
    pub flags: ExtentFlags,
}

/// A BLOCK_STATUS: extents from the request's offset on, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BlockStatus {
    /// The metadata context's number, as SET_META_CONTEXT was answered.
    pub context: u32,
    /// The extents, one at least.
    pub extents: Vec<Extent>,
}

impl BlockStatus {
    /// As the server sends it without extended headers. What 32 bits cannot say is cut: a length so that the next
    /// request goes on there, flags to those that fit.
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

    /// As the server sends it with extended headers.
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
    /// [`FormatError`] where there is no extent, a part of one, or one without length.
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
    /// As for [`parse`](Self::parse), and where the number of extents disagrees with the length.
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
        // The protocol lets a server say 0 for "see the length".
        if count != 0 && u32::try_from(extents.len()) != Ok(count) {
            let cause = "is not how many extents there are";
            return Err(FormatError::malformed("block_status.count", 4, cause));
        }
        Self { context, extents }.checked(cut)
    }

    fn checked(self, cut: &[u8]) -> Result<Self, FormatError> {
        let malformed = |cause| Err(FormatError::malformed("block_status.extents", 4, cause));
        if !cut.is_empty() {
            malformed("ends within an extent")
        } else if self.extents.is_empty() {
            malformed("holds none")
        } else if self.extents.iter().any(|extent| extent.len == 0) {
            malformed("holds one without length")
        } else {
            Ok(self)
        }
    }
}

/// An ERROR or ERROR_OFFSET.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ErrorChunk {
    /// What is wrong.
    pub error: ErrorNumber,
    /// A text for people, often empty.
    pub message: String,
    /// Where, in bytes, if it is known.
    pub offset: Option<u64>,
}

impl ErrorChunk {
    /// How a reply with it is marked.
    #[must_use]
    pub fn kind(&self) -> ChunkType {
        match self.offset {
            Some(_) => ChunkType::ErrorOffset,
            None => ChunkType::Error,
        }
    }

    /// As the server sends it. What is over 65,535 bytes of the message is left out.
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

    /// Reads one, of which `kind` says whether an offset ends it.
    ///
    /// # Errors
    /// [`FormatError`] where a length disagrees with the data, the message is no string, or the error is none.
    pub fn parse(kind: ChunkType, bytes: &[u8]) -> Result<Self, FormatError> {
        let mut reader = Reader::new(bytes, 0);
        let error = ErrorNumber::from(reader.u32("error.number")?);
        if error == ErrorNumber::None {
            return Err(FormatError::malformed("error.number", 0, "is none"));
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
