//! The data of options and of their replies (sections "Option types" and "Option reply types").

use alloc::string::String;
use alloc::vec::Vec;

use super::numbers::{InfoType, TransmissionFlags};
use super::string::{counted, of_len};
use crate::codec::{Reader, Writer};
use crate::error::FormatError;

/// The data of INFO and GO.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct InfoRequest {
    /// The name of the export; empty for the default one.
    pub name: String,
    /// The information that the client asks for, besides size and flags.
    pub wanted: Vec<InfoType>,
}

impl InfoRequest {
    /// Writes it.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut writer = Writer::default();
        counted_text(&mut writer, &self.name);
        writer.u16(u16::try_from(self.wanted.len()).unwrap_or(u16::MAX));
        for &wanted in self.wanted.iter().take(usize::from(u16::MAX)) {
            writer.u16(wanted.into());
        }
        writer.finish()
    }

    /// Reads the whole data of an option.
    ///
    /// # Errors
    /// [`FormatError`] if a length does not match the data, or the name is not a string.
    pub fn parse(bytes: &[u8]) -> Result<Self, FormatError> {
        let mut reader = Reader::new(bytes, 0);
        let name = counted(&mut reader, "info.name")?;
        let count = reader.u16("info.count")?;
        let requests = reader.bytes(usize::from(count).saturating_mul(2), "info.requests")?;
        ended(&reader, bytes, "info")?;
        let wanted = requests
            .as_chunks::<2>()
            .0
            .iter()
            .map(|&number| u16::from_be_bytes(number).into())
            .collect();
        Ok(Self { name, wanted })
    }
}

/// The block sizes of an export, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BlockSizes {
    /// Offsets and lengths are multiples of this power of two.
    pub minimum: u32,
    /// The preferred size for fast access.
    pub preferred: u32,
    /// The longest payload of a request or reply.
    pub maximum: u32,
}

/// The data of an INFO reply.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Info {
    /// The size, and what the export supports.
    Export {
        /// The size in bytes.
        size: u64,
        /// What it supports.
        flags: TransmissionFlags,
    },
    /// The canonical name of the export.
    Name(String),
    /// A description for people.
    Description(String),
    /// The block sizes.
    BlockSize(BlockSizes),
    /// Information of an unknown kind. The client ignores it.
    Other(InfoType),
}

impl Info {
    /// The kind of information.
    #[must_use]
    pub fn kind(&self) -> InfoType {
        match self {
            Self::Export { .. } => InfoType::Export,
            Self::Name(_) => InfoType::Name,
            Self::Description(_) => InfoType::Description,
            Self::BlockSize(_) => InfoType::BlockSize,
            Self::Other(kind) => *kind,
        }
    }

    /// Writes it.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut writer = Writer::default();
        match self {
            Self::Export { size, flags } => writer
                .u16(InfoType::Export.into())
                .u64(*size)
                .u16((*flags).into()),
            Self::Name(name) => writer.u16(InfoType::Name.into()).bytes(name.as_bytes()),
            Self::Description(text) => writer
                .u16(InfoType::Description.into())
                .bytes(text.as_bytes()),
            Self::BlockSize(sizes) => writer
                .u16(InfoType::BlockSize.into())
                .u32(sizes.minimum)
                .u32(sizes.preferred)
                .u32(sizes.maximum),
            Self::Other(kind) => writer.u16((*kind).into()),
        };
        writer.finish()
    }

    /// Reads the whole data of a reply.
    ///
    /// # Errors
    /// [`FormatError`] if the length is wrong, or a text is not a string. The values of block sizes
    /// are not checked.
    pub fn parse(bytes: &[u8]) -> Result<Self, FormatError> {
        let mut reader = Reader::new(bytes, 0);
        let kind = InfoType::from(reader.u16("info.type")?);
        let rest = bytes.len().saturating_sub(2);
        let info = match kind {
            InfoType::Export => Self::Export {
                size: reader.u64("info.export.size")?,
                flags: reader.u16("info.export.flags")?.into(),
            },
            InfoType::Name => Self::Name(of_len(&mut reader, rest, "info.name")?),
            InfoType::Description => {
                Self::Description(of_len(&mut reader, rest, "info.description")?)
            }
            InfoType::BlockSize => Self::BlockSize(BlockSizes {
                minimum: reader.u32("info.block_size.minimum")?,
                preferred: reader.u32("info.block_size.preferred")?,
                maximum: reader.u32("info.block_size.maximum")?,
            }),
            InfoType::Unknown(_) => return Ok(Self::Other(kind)),
        };
        ended(&reader, bytes, "info")?;
        Ok(info)
    }
}

/// The data of a SERVER reply: one export of a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExportEntry {
    /// The name.
    pub name: String,
    /// A description for people, often empty.
    pub description: String,
}

impl ExportEntry {
    /// Writes it.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut writer = Writer::default();
        counted_text(&mut writer, &self.name);
        writer.bytes(self.description.as_bytes()).finish()
    }

    /// Reads the whole data of a reply.
    ///
    /// # Errors
    /// [`FormatError`] if a length does not match the data, or a text is not a string.
    pub fn parse(bytes: &[u8]) -> Result<Self, FormatError> {
        let mut reader = Reader::new(bytes, 0);
        let name = counted(&mut reader, "export.name")?;
        let rest = left(&reader, bytes);
        let description = of_len(&mut reader, rest, "export.description")?;
        Ok(Self { name, description })
    }
}

/// The data of LIST_META_CONTEXT and SET_META_CONTEXT.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MetaContextRequest {
    /// The name of the export.
    pub export: String,
    /// Names of contexts, or `namespace:` for all of a namespace. An empty list asks for all
    /// contexts in LIST_META_CONTEXT, and chooses none in SET_META_CONTEXT.
    pub queries: Vec<String>,
}

impl MetaContextRequest {
    /// Writes it.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut writer = Writer::default();
        counted_text(&mut writer, &self.export);
        writer.u32(length(self.queries.len()));
        for query in &self.queries {
            counted_text(&mut writer, query);
        }
        writer.finish()
    }

    /// Reads the whole data of an option.
    ///
    /// # Errors
    /// [`FormatError`] if a length does not match the data, or a text is not a string.
    pub fn parse(bytes: &[u8]) -> Result<Self, FormatError> {
        let mut reader = Reader::new(bytes, 0);
        let export = counted(&mut reader, "meta_context.export")?;
        let count = reader.u32("meta_context.count")?;
        // Each query takes at least the bytes of its length, so the data limits the loop.
        let mut queries = Vec::new();
        for _ in 0..count {
            queries.push(counted(&mut reader, "meta_context.query")?);
        }
        ended(&reader, bytes, "meta_context")?;
        Ok(Self { export, queries })
    }
}

/// The data of a META_CONTEXT reply.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MetaContext {
    /// The number of the context in BLOCK_STATUS replies. In a list it has no meaning.
    pub id: u32,
    /// The name.
    pub name: String,
}

impl MetaContext {
    /// Writes it.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut writer = Writer::default();
        writer.u32(self.id).bytes(self.name.as_bytes()).finish()
    }

    /// Reads the whole data of a reply.
    ///
    /// # Errors
    /// [`FormatError`] if it is too short, or the name is not a string.
    pub fn parse(bytes: &[u8]) -> Result<Self, FormatError> {
        let mut reader = Reader::new(bytes, 0);
        let id = reader.u32("meta_context.id")?;
        let rest = left(&reader, bytes);
        let name = of_len(&mut reader, rest, "meta_context.name")?;
        Ok(Self { id, name })
    }
}

fn counted_text(writer: &mut Writer, text: &str) {
    writer.u32(length(text.len())).bytes(text.as_bytes());
}

/// Converts a length of data in memory, which is short: `MAX_STRING` limits each string.
fn length(len: usize) -> u32 {
    u32::try_from(len).unwrap_or(u32::MAX)
}

fn left(reader: &Reader<'_>, bytes: &[u8]) -> usize {
    let read = usize::try_from(reader.offset()).unwrap_or(usize::MAX);
    bytes.len().saturating_sub(read)
}

fn ended(reader: &Reader<'_>, bytes: &[u8], field: &str) -> Result<(), FormatError> {
    if left(reader, bytes) == 0 {
        return Ok(());
    }
    Err(FormatError::malformed(
        field,
        reader.offset(),
        "ends before its data does",
    ))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use alloc::vec;
    use proptest::prelude::*;

    #[test]
    fn a_request_for_info_has_the_bytes_of_the_specification() {
        let request = InfoRequest {
            name: "disk".into(),
            wanted: vec![InfoType::BlockSize, InfoType::Unknown(0x1234)],
        };
        assert_eq!(
            request.to_bytes(),
            b"\x00\x00\x00\x04disk\x00\x02\x00\x03\x12\x34"
        );
        assert_eq!(InfoRequest::parse(&request.to_bytes()).unwrap(), request);
    }

    #[test]
    fn wrong_lengths_are_refused() {
        for bad in [
            &b""[..],
            b"\0\0\0",
            b"\0\0\0\x01",
            b"\xff\xff\xff\xffdisk\0\0",
            b"\0\0\0\x04disk\0\x02\0\x03",
            b"\0\0\0\x04disk\0\x01\0\x03\0",
            b"\0\0\0\x04di\0k\0\0",
            b"\0\0\0\x02\xff\xff\0\0",
        ] {
            assert!(InfoRequest::parse(bad).is_err(), "{bad:?}");
        }
        for bad in [
            &b"\0\0\0\0"[..],
            b"\0\0\0\0\xff\xff\xff\xff",
            b"\0\0\0\0\0\0\0\x01\0\0\0\x05base",
            b"\0\0\0\0\0\0\0\0\0",
        ] {
            assert!(MetaContextRequest::parse(bad).is_err(), "{bad:?}");
        }
        assert!(Info::parse(b"\0\0\0\0\0\0").is_err());
        assert!(Info::parse(b"\0\x03\0\0\0\x01\0\0\x10\0\0\0\x10\0\0").is_err());
        let long = [b'x'; super::super::MAX_STRING + 1];
        assert!(ExportEntry::parse(&[&[0; 4], &long[..]].concat()).is_err());
    }

    #[test]
    fn info_replies_have_the_bytes_of_the_specification() {
        let export = Info::Export {
            size: 512,
            flags: TransmissionFlags::READ_ONLY | TransmissionFlags::HAS_FLAGS,
        };
        assert_eq!(export.to_bytes(), [0, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 3]);
        let sizes = Info::BlockSize(BlockSizes {
            minimum: 1,
            preferred: 4096,
            maximum: 32 << 20,
        });
        assert_eq!(
            sizes.to_bytes(),
            [0, 3, 0, 0, 0, 1, 0, 0, 16, 0, 2, 0, 0, 0]
        );
        assert_eq!(
            Info::parse(b"\0\x09whatever").unwrap(),
            Info::Other(InfoType::Unknown(9))
        );
    }

    proptest! {
        #[test]
        fn data_of_options_comes_back(name in "[^\0]{0,40}", other in "[^\0]{0,40}", id: u32, size: u64, number: u16) {
            let request = InfoRequest { name: name.clone(), wanted: vec![number.into()] };
            prop_assert_eq!(InfoRequest::parse(&request.to_bytes()).unwrap(), request);
            let request = MetaContextRequest { export: name.clone(), queries: vec![other.clone(), name.clone()] };
            prop_assert_eq!(MetaContextRequest::parse(&request.to_bytes()).unwrap(), request);
            let entry = ExportEntry { name: name.clone(), description: other.clone() };
            prop_assert_eq!(ExportEntry::parse(&entry.to_bytes()).unwrap(), entry);
            let context = MetaContext { id, name: name.clone() };
            prop_assert_eq!(MetaContext::parse(&context.to_bytes()).unwrap(), context);
            for info in [
                Info::Export { size, flags: number.into() },
                Info::Name(name),
                Info::Description(other),
                Info::BlockSize(BlockSizes { minimum: id, preferred: id, maximum: id }),
            ] {
                prop_assert_eq!(Info::parse(&info.to_bytes()).unwrap(), info);
            }
        }

        #[test]
        fn no_data_panics(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = InfoRequest::parse(&bytes);
            let _ = MetaContextRequest::parse(&bytes);
            let _ = ExportEntry::parse(&bytes);
            let _ = MetaContext::parse(&bytes);
            let _ = Info::parse(&bytes);
        }
    }
}
