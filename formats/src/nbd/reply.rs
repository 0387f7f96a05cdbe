//! The headers of replies: simple, structured and extended (sections "Simple reply message" and
//! "Structured reply chunk message").

use alloc::format;

use super::fields::Fields;
use super::numbers::{ChunkFlags, ChunkType, ErrorNumber};
use crate::codec::Reader;
use crate::error::FormatError;

const SIMPLE_MAGIC: u32 = 0x6744_6698;
const STRUCTURED_MAGIC: u32 = 0x668e_33ef;
const EXTENDED_MAGIC: u32 = 0x6e8a_278c;

/// The three forms of the header of a reply. Their first four bytes differ.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReplyForm {
    /// A [`SimpleReply`]. After a successful READ, the data follows.
    Simple,
    /// A [`ChunkHeader`] with a length of 32 bits.
    Structured,
    /// A [`ChunkHeader`] with a length of 64 bits.
    Extended,
}

impl ReplyForm {
    /// The form that begins with these bytes.
    ///
    /// # Errors
    /// [`FormatError`] if none does. Then the start of the next reply is unknown.
    pub fn of_magic(magic: [u8; 4]) -> Result<Self, FormatError> {
        match u32::from_be_bytes(magic) {
            SIMPLE_MAGIC => Ok(Self::Simple),
            STRUCTURED_MAGIC => Ok(Self::Structured),
            EXTENDED_MAGIC => Ok(Self::Extended),
            other => {
                let cause = format!("is {other:#010x}, no reply's");
                Err(FormatError::malformed("reply.magic", 0, cause))
            }
        }
    }

    /// The length of the header in bytes, including the magic number.
    #[must_use]
    pub fn header_len(self) -> usize {
        match self {
            Self::Simple => SimpleReply::LEN,
            Self::Structured => ChunkHeader::STRUCTURED_LEN,
            Self::Extended => ChunkHeader::EXTENDED_LEN,
        }
    }
}

/// The header of a reply, in any form.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReplyHeader {
    /// A simple reply.
    Simple(SimpleReply),
    /// A chunk of a structured reply.
    Chunk(ChunkHeader),
}

impl ReplyHeader {
    /// Reads a header. Its magic number tells the form.
    ///
    /// # Errors
    /// [`FormatError`] if the magic number is unknown, or `bytes` is shorter than
    /// [`ReplyForm::header_len`].
    pub fn parse(bytes: &[u8]) -> Result<Self, FormatError> {
        let mut reader = Reader::new(bytes, 0);
        let form = ReplyForm::of_magic(reader.array("reply.magic")?)?;
        let reader = &mut reader;
        if form == ReplyForm::Simple {
            return Ok(Self::Simple(SimpleReply {
                error: reader.u32("reply.error")?.into(),
                cookie: reader.u64("reply.cookie")?,
            }));
        }
        let extended = form == ReplyForm::Extended;
        Ok(Self::Chunk(ChunkHeader {
            flags: reader.u16("reply.flags")?.into(),
            kind: reader.u16("reply.type")?.into(),
            cookie: reader.u64("reply.cookie")?,
            offset: if extended {
                reader.u64("reply.offset")?
            } else {
                0
            },
            len: if extended {
                reader.u64("reply.length")?
            } else {
                reader.u32("reply.length")?.into()
            },
        }))
    }

    /// The cookie of the request that the reply belongs to.
    #[must_use]
    pub fn cookie(&self) -> u64 {
        match self {
            Self::Simple(reply) => reply.cookie,
            Self::Chunk(chunk) => chunk.cookie,
        }
    }
}

/// The header of a simple reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SimpleReply {
    /// Why the request failed, or [`ErrorNumber::None`].
    pub error: ErrorNumber,
    /// The cookie of the request.
    pub cookie: u64,
}

impl SimpleReply {
    /// The length in bytes.
    pub const LEN: usize = 16;

    /// Writes it.
    #[must_use]
    pub fn to_bytes(self) -> [u8; Self::LEN] {
        Fields::new()
            .u32(SIMPLE_MAGIC)
            .u32(self.error)
            .u64(self.cookie)
            .finish()
    }
}

/// The header of a chunk of a structured reply. Its content follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChunkHeader {
    /// Flags, such as whether it is the last chunk.
    pub flags: ChunkFlags,
    /// The type of the content.
    pub kind: ChunkType,
    /// The cookie of the request that the reply belongs to.
    pub cookie: u64,
    /// The offset of that request. Only the extended form has it; otherwise it is 0.
    pub offset: u64,
    /// The length of the content in bytes. The structured form has 32 bits for it.
    pub len: u64,
}

impl ChunkHeader {
    /// The length of the structured form in bytes.
    pub const STRUCTURED_LEN: usize = 20;
    /// The length of the extended form in bytes.
    pub const EXTENDED_LEN: usize = 32;

    /// Writes the form without extended headers. No server sends content that is longer than 32
    /// bits can express.
    #[must_use]
    pub fn to_structured(self) -> [u8; Self::STRUCTURED_LEN] {
        debug_assert!(u32::try_from(self.len).is_ok());
        self.head(STRUCTURED_MAGIC)
            .u32(u32::try_from(self.len).unwrap_or(u32::MAX))
            .finish()
    }

    /// Writes the form with extended headers.
    #[must_use]
    pub fn to_extended(self) -> [u8; Self::EXTENDED_LEN] {
        self.head(EXTENDED_MAGIC)
            .u64(self.offset)
            .u64(self.len)
            .finish()
    }

    fn head<const N: usize>(self, magic: u32) -> Fields<N> {
        Fields::new()
            .u32(magic)
            .u16(self.flags)
            .u16(self.kind)
            .u64(self.cookie)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn replies_are_what_the_protocol_says() {
        let simple = SimpleReply {
            error: ErrorNumber::NoSpace,
            cookie: 5,
        };
        assert_eq!(
            simple.to_bytes(),
            [0x67, 0x44, 0x66, 0x98, 0, 0, 0, 28, 0, 0, 0, 0, 0, 0, 0, 5]
        );
        let chunk = ChunkHeader {
            flags: ChunkFlags::DONE,
            kind: ChunkType::OffsetData,
            cookie: 5,
            offset: 0,
            len: 9,
        };
        let head = [0, 1, 0, 1, 0, 0, 0, 0, 0, 0, 0, 5];
        assert_eq!(
            chunk.to_structured()[..],
            [&[0x66, 0x8e, 0x33, 0xef], &head[..], &[0, 0, 0, 9]].concat()
        );
        let extended = [
            &[0x6e, 0x8a, 0x27, 0x8c],
            &head[..],
            &7u64.to_be_bytes(),
            &9u64.to_be_bytes(),
        ];
        assert_eq!(
            ChunkHeader { offset: 7, ..chunk }.to_extended()[..],
            extended.concat()
        );
    }

    #[test]
    fn what_is_cut_or_no_reply_is_refused() {
        assert!(ReplyHeader::parse(&[0; 32]).is_err());
        let bytes = SimpleReply {
            error: ErrorNumber::None,
            cookie: 1,
        }
        .to_bytes();
        for len in 0..bytes.len() {
            assert!(ReplyHeader::parse(bytes.get(..len).unwrap()).is_err());
        }
    }

    proptest! {
        #[test]
        fn replies_come_back(flags: u16, kind: u16, cookie: u64, offset: u64, len: u64, error: u32) {
            let simple = SimpleReply { error: error.into(), cookie };
            prop_assert_eq!(ReplyHeader::parse(&simple.to_bytes()).unwrap(), ReplyHeader::Simple(simple));
            let chunk = ChunkHeader { flags: flags.into(), kind: kind.into(), cookie, offset, len };
            prop_assert_eq!(ReplyHeader::parse(&chunk.to_extended()).unwrap(), ReplyHeader::Chunk(chunk));
            let chunk = ChunkHeader { offset: 0, len: len & 0xffff_ffff, ..chunk };
            let bytes = chunk.to_structured();
            prop_assert_eq!(ReplyHeader::parse(&bytes).unwrap(), ReplyHeader::Chunk(chunk));
            let form = ReplyForm::of_magic(*bytes.first_chunk().unwrap()).unwrap();
            prop_assert_eq!(form.header_len(), bytes.len());
        }
    }
}
