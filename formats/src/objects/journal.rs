//! The journal of a writer whose flushes are done when a local file has the data.
//!
//! The file is a sequence of frames: the length of the payload (32 bits), its checksum (8 bytes),
//! and the payload. The first frame is a beginning. A frame that is torn, or was never written,
//! ends the file, unless a later one says that the file was durable there. Numbers are big-endian.

use alloc::vec::Vec;

use super::segment::{Sum, sum};
use super::{Position, Uuid};
use crate::codec::{Reader, Writer};

/// The bytes of a frame before its payload.
pub const HEAD: usize = 12;

/// The longest payload that is read.
const LONGEST: usize = 128 << 20;

/// What a frame says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Entry<'a> {
    /// The writer of this journal claims an epoch.
    Begin(Begin),
    /// The store has the log of the epoch before up to this segment.
    End {
        /// The sequence number.
        sequence: u64,
    },
    /// Data of whole blocks.
    Data {
        /// The segment that will have them.
        position: Position,
        /// The first block.
        block: u64,
        /// The bytes.
        bytes: &'a [u8],
    },
    /// Blocks that read as zeroes.
    Hole {
        /// The segment that will say so.
        position: Position,
        /// The first block.
        block: u64,
        /// How many blocks.
        count: u64,
    },
    /// Another size.
    Resize {
        /// The segment that will say so.
        position: Position,
        /// The size in bytes.
        size: u64,
    },
    /// The file was durable up to here before this frame was written.
    Synced {
        /// The length in bytes.
        length: u64,
    },
}

/// A claim of the writer of a journal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Begin {
    /// Which volume it is.
    pub uuid: Uuid,
    /// The epoch.
    pub epoch: u32,
    /// The nonce of the claim.
    pub nonce: [u8; 16],
}

impl Begin {
    /// A claim of this epoch.
    #[must_use]
    pub fn new(uuid: Uuid, epoch: u32, nonce: [u8; 16]) -> Self {
        Self { uuid, epoch, nonce }
    }
}

const BEGIN: u16 = 1;
const END: u16 = 2;
const DATA: u16 = 3;
const HOLE: u16 = 4;
const RESIZE: u16 = 5;
const SYNCED: u16 = 6;

/// The bytes of the payload of [`Entry::Synced`].
const SYNCED_LENGTH: usize = 10;

/// The bytes of a frame [`Entry::Synced`].
pub const SYNCED_FRAME: usize = HEAD + SYNCED_LENGTH;

/// The bytes of data's payload before the data.
const DATA_HEAD: usize = 22;

impl<'a> Entry<'a> {
    /// The bytes of the frame.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut writer = Writer::default();
        match *self {
            Self::Begin(Begin { uuid, epoch, nonce }) => {
                writer.u16(BEGIN).bytes(&uuid).u32(epoch).bytes(&nonce)
            }
            Self::End { sequence } => writer.u16(END).u64(sequence),
            Self::Data {
                position,
                block,
                bytes,
            } => {
                position.write(writer.u16(DATA));
                writer.u64(block).bytes(bytes)
            }
            Self::Hole {
                position,
                block,
                count,
            } => {
                position.write(writer.u16(HOLE));
                writer.u64(block).u64(count)
            }
            Self::Resize { position, size } => {
                position.write(writer.u16(RESIZE));
                writer.u64(size)
            }
            Self::Synced { length } => writer.u16(SYNCED).u64(length),
        };
        let payload = writer.finish();
        let mut frame = Writer::default();
        frame.u32(u32::try_from(payload.len()).unwrap_or(u32::MAX));
        frame.bytes(&sum(&payload)).bytes(&payload);
        frame.finish()
    }

    /// Reads a payload whose checksum was compared. `None` if it is not one of a journal.
    #[must_use]
    pub fn decode(payload: &'a [u8]) -> Option<Self> {
        let mut reader = Reader::new(payload, 0);
        let entry = match reader.u16("kind").ok()? {
            BEGIN => Self::Begin(Begin {
                uuid: reader.array("uuid").ok()?,
                epoch: reader.u32("epoch").ok()?,
                nonce: reader.array("nonce").ok()?,
            }),
            END => Self::End {
                sequence: reader.u64("sequence").ok()?,
            },
            DATA => {
                let position = Position::read(&mut reader, "position").ok()?;
                let block = reader.u64("block").ok()?;
                let length = payload.len().checked_sub(DATA_HEAD)?;
                let bytes = reader.bytes(length, "bytes").ok()?;
                Self::Data {
                    position,
                    block,
                    bytes,
                }
            }
            HOLE => Self::Hole {
                position: Position::read(&mut reader, "position").ok()?,
                block: reader.u64("block").ok()?,
                count: reader.u64("count").ok()?,
            },
            RESIZE => Self::Resize {
                position: Position::read(&mut reader, "position").ok()?,
                size: reader.u64("size").ok()?,
            },
            SYNCED => Self::Synced {
                length: reader.u64("length").ok()?,
            },
            _ => return None,
        };
        (reader.offset() == payload.len() as u64).then_some(entry)
    }
}

/// The length of the payload after the head of a frame, and its checksum. `None` if it is too long
/// to be one.
#[must_use]
pub fn head(bytes: [u8; HEAD]) -> Option<(usize, Sum)> {
    let (length, sum) = bytes.split_first_chunk::<4>()?;
    let length = usize::try_from(u32::from_be_bytes(*length)).ok()?;
    let sum = sum.first_chunk().copied()?;
    (1..=LONGEST).contains(&length).then_some((length, sum))
}

/// The largest length in the frames [`Entry::Synced`] that are anywhere in these bytes. Bytes that
/// cannot be frames are skipped.
#[must_use]
pub fn synced(bytes: &[u8]) -> Option<u64> {
    let whole = bytes.windows(SYNCED_FRAME);
    let lengths = whole.filter_map(|frame| {
        let (head_bytes, payload) = frame.split_first_chunk()?;
        // The length first, since most bytes are of no frame.
        let (_, sum_there) = head(*head_bytes).filter(|(it, _)| *it == SYNCED_LENGTH)?;
        let Some(Entry::Synced { length }) = Entry::decode(payload) else {
            return None;
        };
        (sum(payload) == sum_there).then_some(length)
    });
    lengths.max()
}
