//! The beginning of a connection, and the headers of options and their replies (sections
//! "Handshake" and "Option haggling").

use alloc::format;

use super::fields::Fields;
use super::numbers::{OptionReply, OptionType, TransmissionFlags, flags};
use crate::codec::Reader;
use crate::error::FormatError;

const NBD_MAGIC: u64 = u64::from_be_bytes(*b"NBDMAGIC");
const OPTION_MAGIC: u64 = u64::from_be_bytes(*b"IHAVEOPT");
const OPTION_REPLY_MAGIC: u64 = 0x0003_e889_0455_65a9;
const OLDSTYLE_MAGIC: u64 = 0x0000_4202_8186_1253;

flags! {
    /// What the server supports before an export is chosen.
    HandshakeFlags: u16 {
        /// Options have replies.
        FIXED_NEWSTYLE = 0,
        /// The zeroes after the reply to EXPORT_NAME can be left out.
        NO_ZEROES = 1,
    }
}

flags! {
    /// What the client uses of that.
    ClientFlags: u32 {
        /// Options have replies.
        FIXED_NEWSTYLE = 0,
        /// The zeroes after the reply to EXPORT_NAME are left out.
        NO_ZEROES = 1,
    }
}

impl ClientFlags {
    /// The length in bytes.
    pub const LEN: usize = 4;

    /// Writes it.
    #[must_use]
    pub fn to_bytes(self) -> [u8; Self::LEN] {
        u32::from(self).to_be_bytes()
    }

    /// Reads them. Every value is valid.
    #[must_use]
    pub fn parse(bytes: &[u8; Self::LEN]) -> Self {
        u32::from_be_bytes(*bytes).into()
    }
}

/// The first message, from the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Greeting {
    /// What the server supports.
    pub flags: HandshakeFlags,
}

impl Greeting {
    /// The length in bytes.
    pub const LEN: usize = 18;

    /// Writes it.
    #[must_use]
    pub fn to_bytes(self) -> [u8; Self::LEN] {
        Fields::new()
            .u64(NBD_MAGIC)
            .u64(OPTION_MAGIC)
            .u16(self.flags)
            .finish()
    }

    /// Reads it.
    ///
    /// # Errors
    /// [`FormatError`] if it is not an NBD server, or one of the old style, which has no options.
    pub fn parse(bytes: &[u8; Self::LEN]) -> Result<Self, FormatError> {
        let mut reader = Reader::new(bytes, 0);
        expect(&mut reader, NBD_MAGIC, "greeting.magic")?;
        let at = reader.offset();
        match reader.u64("greeting.style")? {
            OPTION_MAGIC => {}
            OLDSTYLE_MAGIC => {
                let cause = "is that of an oldstyle server, which has no options";
                return Err(FormatError::unsupported("greeting.style", at, cause));
            }
            other => return Err(wrong_magic("greeting.style", at, other)),
        }
        Ok(Self {
            flags: reader.u16("greeting.flags")?.into(),
        })
    }
}

/// The header of an option. Its data follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OptionHeader {
    /// The option.
    pub option: OptionType,
    /// How many bytes of data follow.
    pub len: u32,
}

impl OptionHeader {
    /// The length in bytes.
    pub const LEN: usize = 16;

    /// Writes it.
    #[must_use]
    pub fn to_bytes(self) -> [u8; Self::LEN] {
        Fields::new()
            .u64(OPTION_MAGIC)
            .u32(self.option)
            .u32(self.len)
            .finish()
    }

    /// Reads it.
    ///
    /// # Errors
    /// [`FormatError`] if the magic number is wrong.
    pub fn parse(bytes: &[u8; Self::LEN]) -> Result<Self, FormatError> {
        let mut reader = Reader::new(bytes, 0);
        expect(&mut reader, OPTION_MAGIC, "option.magic")?;
        Ok(Self {
            option: reader.u32("option.type")?.into(),
            len: reader.u32("option.length")?,
        })
    }
}

/// The header of a reply to an option. Its data follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OptionReplyHeader {
    /// The option that the reply belongs to.
    pub option: OptionType,
    /// The type of the reply.
    pub reply: OptionReply,
    /// How many bytes of data follow. In an error reply they are a message for people.
    pub len: u32,
}

impl OptionReplyHeader {
    /// The length in bytes.
    pub const LEN: usize = 20;

    /// Writes it.
    #[must_use]
    pub fn to_bytes(self) -> [u8; Self::LEN] {
        Fields::new()
            .u64(OPTION_REPLY_MAGIC)
            .u32(self.option)
            .u32(self.reply)
            .u32(self.len)
            .finish()
    }

    /// Reads it.
    ///
    /// # Errors
    /// [`FormatError`] if the magic number is wrong.
    pub fn parse(bytes: &[u8; Self::LEN]) -> Result<Self, FormatError> {
        let mut reader = Reader::new(bytes, 0);
        expect(&mut reader, OPTION_REPLY_MAGIC, "option_reply.magic")?;
        Ok(Self {
            option: reader.u32("option_reply.option")?.into(),
            reply: reader.u32("option_reply.type")?.into(),
            len: reader.u32("option_reply.length")?,
        })
    }
}

/// The reply to EXPORT_NAME, which has no header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ExportNameReply {
    /// The size of the export in bytes.
    pub size: u64,
    /// What the export supports.
    pub flags: TransmissionFlags,
}

impl ExportNameReply {
    /// The length in bytes.
    pub const LEN: usize = 10;
    /// How many zero bytes follow, unless both sides have agreed to leave them out.
    pub const ZEROES: usize = 124;

    /// Writes it, without the zeroes.
    #[must_use]
    pub fn to_bytes(self) -> [u8; Self::LEN] {
        Fields::new().u64(self.size).u16(self.flags).finish()
    }

    /// Reads it.
    ///
    /// # Errors
    /// Currently none: every value is valid.
    pub fn parse(bytes: &[u8; Self::LEN]) -> Result<Self, FormatError> {
        let mut reader = Reader::new(bytes, 0);
        Ok(Self {
            size: reader.u64("export.size")?,
            flags: reader.u16("export.flags")?.into(),
        })
    }
}

fn expect(reader: &mut Reader<'_>, magic: u64, field: &str) -> Result<(), FormatError> {
    let at = reader.offset();
    match reader.u64(field)? {
        found if found == magic => Ok(()),
        found => Err(wrong_magic(field, at, found)),
    }
}

fn wrong_magic(field: &str, at: u64, found: u64) -> FormatError {
    FormatError::malformed(field, at, format!("is {found:#018x}, no number of NBD"))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::error::Kind;

    #[test]
    fn the_greeting_is_what_the_protocol_says() {
        let flags = HandshakeFlags::FIXED_NEWSTYLE | HandshakeFlags::NO_ZEROES;
        let bytes = Greeting { flags }.to_bytes();
        assert_eq!(&bytes, b"NBDMAGICIHAVEOPT\0\x03");
        assert_eq!(Greeting::parse(&bytes).unwrap().flags, flags);
    }

    #[test]
    fn an_oldstyle_server_is_told_from_garbage() {
        let old = b"NBDMAGIC\x00\x00\x42\x02\x81\x86\x12\x53\0\0";
        assert_eq!(Greeting::parse(old).unwrap_err().kind, Kind::Unsupported);
        let garbage = Greeting::parse(b"SSH-2.0-OpenSSH_9.").unwrap_err();
        assert_eq!(
            (garbage.kind, &*garbage.field),
            (Kind::Malformed, "greeting.magic")
        );
        let other = Greeting::parse(b"NBDMAGICIHAVENOT\0\0").unwrap_err();
        assert_eq!(
            (other.kind, &*other.field, other.offset),
            (Kind::Malformed, "greeting.style", 8)
        );
    }

    #[test]
    fn frames_of_options_are_what_the_protocol_says() {
        let header = OptionHeader {
            option: OptionType::Go,
            len: 0x0102,
        };
        assert_eq!(
            &header.to_bytes(),
            b"IHAVEOPT\x00\x00\x00\x07\x00\x00\x01\x02"
        );
        assert_eq!(OptionHeader::parse(&header.to_bytes()).unwrap(), header);
        let reply = OptionReplyHeader {
            option: OptionType::List,
            reply: OptionReply::ErrTlsRequired,
            len: 3,
        };
        assert_eq!(
            reply.to_bytes(),
            [
                0, 3, 0xe8, 0x89, 4, 0x55, 0x65, 0xa9, 0, 0, 0, 3, 0x80, 0, 0, 5, 0, 0, 0, 3
            ]
        );
        assert_eq!(OptionReplyHeader::parse(&reply.to_bytes()).unwrap(), reply);
        assert!(OptionHeader::parse(b"IHAVEOPS\0\0\0\x07\0\0\0\0").is_err());
        assert!(OptionReplyHeader::parse(&[0; 20]).is_err());
    }

    #[test]
    fn the_answer_to_export_name_has_no_frame() {
        let reply = ExportNameReply {
            size: 1 << 20,
            flags: TransmissionFlags::HAS_FLAGS,
        };
        assert_eq!(reply.to_bytes(), [0, 0, 0, 0, 0, 16, 0, 0, 0, 1]);
        assert_eq!(ExportNameReply::parse(&reply.to_bytes()).unwrap(), reply);
    }
}
