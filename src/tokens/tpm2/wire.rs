//! Numbers and buffers of TPM 2.0 messages, big-endian.
//!
//! Reference: TPM 2.0 Library, part 2, sections 5 and 10.4: a `TPM2B` is a size of two bytes and
//! that many bytes.

use super::error::Tpm2Error;

/// The largest command and the largest response, in bytes. TPMs have at most 4096.
pub(super) const MAX_MESSAGE: usize = 4096;

/// The values of the TPM library that are used here: algorithms, commands, handles, tags.
pub(super) mod code {
    pub(in crate::tokens::tpm2) const RSA: u16 = 0x0001;
    pub(in crate::tokens::tpm2) const AES: u16 = 0x0006;
    pub(in crate::tokens::tpm2) const KEYED_HASH: u16 = 0x0008;
    pub(in crate::tokens::tpm2) const SHA256: u16 = 0x000b;
    pub(in crate::tokens::tpm2) const NULL: u16 = 0x0010;
    pub(in crate::tokens::tpm2) const ECC: u16 = 0x0023;
    pub(in crate::tokens::tpm2) const CFB: u16 = 0x0043;
    pub(in crate::tokens::tpm2) const P256: u16 = 0x0003;

    pub(in crate::tokens::tpm2) const NO_SESSIONS: u16 = 0x8001;
    pub(in crate::tokens::tpm2) const SESSIONS: u16 = 0x8002;

    pub(in crate::tokens::tpm2) const OWNER: u32 = 0x4000_0001;
    pub(in crate::tokens::tpm2) const NO_HANDLE: u32 = 0x4000_0007;
    pub(in crate::tokens::tpm2) const PASSWORD: u32 = 0x4000_0009;
}

/// A command of the TPM.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub(super) enum Command {
    CreatePrimary = 0x131,
    Startup = 0x144,
    Create = 0x153,
    Load = 0x157,
    Unseal = 0x15e,
    FlushContext = 0x165,
    PolicyAuthValue = 0x16b,
    ReadPublic = 0x173,
    StartAuthSession = 0x176,
    PcrRead = 0x17e,
    PolicyPcr = 0x17f,
    PolicyGetDigest = 0x189,
}

impl Command {
    pub(super) fn code(self) -> u32 {
        self as u32
    }

    /// Its name in the specification.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::CreatePrimary => "TPM2_CreatePrimary",
            Self::Startup => "TPM2_Startup",
            Self::Create => "TPM2_Create",
            Self::Load => "TPM2_Load",
            Self::Unseal => "TPM2_Unseal",
            Self::FlushContext => "TPM2_FlushContext",
            Self::PolicyAuthValue => "TPM2_PolicyAuthValue",
            Self::ReadPublic => "TPM2_ReadPublic",
            Self::StartAuthSession => "TPM2_StartAuthSession",
            Self::PcrRead => "TPM2_PCR_Read",
            Self::PolicyPcr => "TPM2_PolicyPCR",
            Self::PolicyGetDigest => "TPM2_PolicyGetDigest",
        }
    }
}

/// What is written to the TPM.
#[derive(Default)]
pub(super) struct Writer(Vec<u8>);

impl Writer {
    pub(super) fn new() -> Self {
        Self::default()
    }

    pub(super) fn u8(mut self, value: u8) -> Self {
        self.0.push(value);
        self
    }

    pub(super) fn u16(mut self, value: u16) -> Self {
        self.0.extend_from_slice(&value.to_be_bytes());
        self
    }

    pub(super) fn u32(mut self, value: u32) -> Self {
        self.0.extend_from_slice(&value.to_be_bytes());
        self
    }

    pub(super) fn bytes(mut self, bytes: &[u8]) -> Self {
        self.0.extend_from_slice(bytes);
        self
    }

    /// A `TPM2B`. The size of what is longer than 64 KiB is wrong; it is longer than
    /// [`MAX_MESSAGE`] too, and never sent.
    pub(super) fn sized(self, bytes: &[u8]) -> Self {
        let size = u16::try_from(bytes.len()).unwrap_or(u16::MAX);
        self.u16(size).bytes(bytes)
    }

    pub(super) fn into_bytes(self) -> Vec<u8> {
        self.0
    }
}

/// What the TPM or a token says. Everything is checked to be there before it is taken.
#[derive(Clone, Copy)]
pub(super) struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    pub(super) fn take(&mut self, count: usize) -> Result<&'a [u8], Tpm2Error> {
        let (taken, rest) = self
            .0
            .split_at_checked(count)
            .ok_or(Tpm2Error::Malformed("it ends within a field"))?;
        self.0 = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Tpm2Error> {
        let mut bytes = [0; N];
        bytes.copy_from_slice(self.take(N)?);
        Ok(bytes)
    }

    pub(super) fn u8(&mut self) -> Result<u8, Tpm2Error> {
        self.array().map(u8::from_be_bytes)
    }

    pub(super) fn u16(&mut self) -> Result<u16, Tpm2Error> {
        self.array().map(u16::from_be_bytes)
    }

    pub(super) fn u32(&mut self) -> Result<u32, Tpm2Error> {
        self.array().map(u32::from_be_bytes)
    }

    /// The bytes of a `TPM2B`.
    pub(super) fn sized(&mut self) -> Result<&'a [u8], Tpm2Error> {
        let size = self.u16()?;
        self.take(usize::from(size))
    }

    pub(super) fn rest(self) -> &'a [u8] {
        self.0
    }

    pub(super) fn end(self) -> Result<(), Tpm2Error> {
        match self.0 {
            [] => Ok(()),
            _ => Err(Tpm2Error::Malformed("bytes follow its end")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let bytes = Writer::new()
            .u8(1)
            .u16(2)
            .u32(3)
            .sized(b"four")
            .into_bytes();
        assert_eq!(bytes, b"\x01\0\x02\0\0\0\x03\0\x04four");
        let mut reader = Reader::new(&bytes);
        assert_eq!(reader.u8().unwrap(), 1);
        assert_eq!(reader.u16().unwrap(), 2);
        assert_eq!(reader.u32().unwrap(), 3);
        assert_eq!(reader.sized().unwrap(), b"four");
        reader.end().unwrap();
    }

    #[test]
    fn nothing_is_read_that_is_not_there() {
        for bytes in [&b""[..], b"\0", b"\0\x02x"] {
            assert!(Reader::new(bytes).sized().is_err());
        }
        assert!(Reader::new(b"x").end().is_err());
    }
}
