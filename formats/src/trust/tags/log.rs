//! A log of tags: a head with a generation, then frames.
//!
//! A frame is the length of its payload (32 bits), its checksum (8 bytes), and the payload:
//! records. The checksum covers the generation of the log and the offset of the frame too, so that
//! no frame of an earlier generation is taken for one of this. A frame that is torn, or was never
//! written, ends the log.

use alloc::vec::Vec;

use super::{MOST_BLOCKS, TAG, Tag, sum};
use crate::codec::{Reader, Writer};

const MAGIC: &[u8; 16] = b"luksmith-taglog\n";

/// The bytes of the head of a log, which a disk writes completely or not at all.
pub const HEAD: usize = 512;

/// The bytes of a frame before its payload.
pub const FRAME: usize = 12;

/// The longest payload of a frame.
pub const LONGEST: usize = 16 << 20;

/// The bytes of a record without its tags.
pub const RECORD: usize = 22;

/// The head of a log of this generation.
#[must_use]
pub fn head(generation: u64) -> Vec<u8> {
    let mut writer = Writer::default();
    let mut bytes = writer.bytes(MAGIC).u64(generation).finish();
    let sum = sum(&[&bytes]);
    bytes.extend_from_slice(&sum);
    bytes.resize(HEAD, 0);
    bytes
}

/// The generation of a log that begins with these bytes, if it has one.
#[must_use]
pub fn generation(bytes: &[u8]) -> Option<u64> {
    let mut reader = Reader::new(bytes, 0);
    let magic: [u8; 16] = reader.array("magic").ok()?;
    let generation = reader.u64("generation").ok()?;
    let there: [u8; 8] = reader.array("sum").ok()?;
    let right = sum(&[&magic, &generation.to_be_bytes()]);
    (magic == *MAGIC && right == there).then_some(generation)
}

/// A frame with this payload at an offset of a log of this generation.
#[must_use]
pub fn frame(generation: u64, offset: u64, payload: &[u8]) -> Vec<u8> {
    let mut writer = Writer::default();
    let length = u32::try_from(payload.len()).unwrap_or(u32::MAX);
    let sum = frame_sum(generation, offset, payload);
    writer.u32(length).bytes(&sum).bytes(payload).finish()
}

fn frame_sum(generation: u64, offset: u64, payload: &[u8]) -> [u8; 8] {
    let (generation, offset) = (generation.to_be_bytes(), offset.to_be_bytes());
    sum(&[&generation, &offset, payload])
}

/// The length of the payload after these first bytes of a frame. `None` if there is no frame.
#[must_use]
pub fn payload_length(begin: [u8; FRAME]) -> Option<usize> {
    let length = u32::from_be_bytes(*begin.first_chunk()?);
    let length = usize::try_from(length).ok()?;
    (1..=LONGEST).contains(&length).then_some(length)
}

/// Whether the payload is that of the frame with these first bytes, at this offset.
#[must_use]
pub fn is_whole(begin: [u8; FRAME], generation: u64, offset: u64, payload: &[u8]) -> bool {
    let (_, there) = begin.split_at(4);
    there == frame_sum(generation, offset, payload)
}

/// What a record says. Every change has a sequence number, larger than those before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Record<'a> {
    /// Consecutive blocks may get the content with these tags.
    Write {
        /// The sequence number.
        sequence: u64,
        /// The first block.
        block: u64,
        /// The tags, one for each block.
        tags: &'a [Tag],
    },
    /// Consecutive blocks may get no content: they read as zeroes.
    Never {
        /// The sequence number.
        sequence: u64,
        /// The first block.
        block: u64,
        /// How many blocks.
        count: u32,
    },
    /// A block has content with one of these tags, since a write of it has failed.
    Among {
        /// The sequence number.
        sequence: u64,
        /// The block.
        block: u64,
        /// The tags.
        tags: &'a [Tag],
    },
    /// A block was found to have durable content with this tag, whatever was said before, or none
    /// that was ever written.
    Settled {
        /// The sequence number.
        sequence: u64,
        /// The block.
        block: u64,
        /// The tag.
        tag: Option<Tag>,
    },
    /// Every change up to this sequence number is durable on the storage.
    Durable {
        /// The sequence number.
        sequence: u64,
    },
}

const WRITE: u16 = 1;
const NEVER: u16 = 2;
const AMONG: u16 = 3;
const SETTLED: u16 = 4;
const DURABLE: u16 = 5;

impl<'a> Record<'a> {
    /// Appends its bytes to a payload.
    pub fn encode(&self, payload: &mut Vec<u8>) {
        let (kind, count, sequence, block, tags) = match *self {
            Self::Write {
                sequence,
                block,
                tags,
            } => (WRITE, number(tags), sequence, block, tags),
            Self::Never {
                sequence,
                block,
                count,
            } => (NEVER, count, sequence, block, &[][..]),
            Self::Among {
                sequence,
                block,
                tags,
            } => (AMONG, number(tags), sequence, block, tags),
            Self::Settled {
                sequence,
                block,
                ref tag,
            } => (
                SETTLED,
                number(tag.as_slice()),
                sequence,
                block,
                tag.as_slice(),
            ),
            Self::Durable { sequence } => (DURABLE, 0, sequence, 0, &[][..]),
        };
        payload.extend_from_slice(&kind.to_be_bytes());
        payload.extend_from_slice(&count.to_be_bytes());
        payload.extend_from_slice(&sequence.to_be_bytes());
        payload.extend_from_slice(&block.to_be_bytes());
        payload.extend_from_slice(tags.as_flattened());
    }

    /// Reads the first record of a payload. Returns it with the rest, or `None` if it is not one.
    #[must_use]
    pub fn decode(payload: &'a [u8]) -> Option<(Self, &'a [u8])> {
        let mut reader = Reader::new(payload, 0);
        let kind = reader.u16("kind").ok()?;
        let count = reader.u32("count").ok()?;
        let sequence = reader.u64("sequence").ok()?;
        let block = reader.u64("block").ok()?;
        let end = block.checked_add(count.into())?;
        if end > MOST_BLOCKS {
            return None;
        }
        let has_tags = matches!(kind, WRITE | AMONG | SETTLED);
        let length = match has_tags {
            true => usize::try_from(count).ok()?.checked_mul(TAG)?,
            false => 0,
        };
        let (tags, _) = reader.bytes(length, "tags").ok()?.as_chunks();
        let rest = payload.get(usize::try_from(reader.offset()).ok()?..)?;
        let record = match kind {
            WRITE => Self::Write {
                sequence,
                block,
                tags,
            },
            NEVER => Self::Never {
                sequence,
                block,
                count,
            },
            AMONG => Self::Among {
                sequence,
                block,
                tags,
            },
            SETTLED if count <= 1 => Self::Settled {
                sequence,
                block,
                tag: tags.first().copied(),
            },
            DURABLE if (count, block) == (0, 0) => Self::Durable { sequence },
            _ => return None,
        };
        Some((record, rest))
    }
}

fn number(tags: &[Tag]) -> u32 {
    u32::try_from(tags.len()).unwrap_or(u32::MAX)
}
