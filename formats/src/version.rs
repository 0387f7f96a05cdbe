//! The LUKS version of a device, from the magic and version number in its first eight bytes.

use crate::codec::Reader;
use crate::error::FormatError;

/// The magic of a LUKS1 header and of a primary LUKS2 header.
pub const MAGIC: [u8; 6] = *b"LUKS\xba\xbe";

/// The two on-disk formats.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Version {
    /// LUKS1.
    Luks1,
    /// LUKS2.
    Luks2,
}

impl core::fmt::Display for Version {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(match self {
            Self::Luks1 => "LUKS1",
            Self::Luks2 => "LUKS2",
        })
    }
}

impl Version {
    /// Reads the magic and the version from the start of a device.
    ///
    /// This does not look for the secondary header of LUKS2. A caller that repairs a LUKS2 device
    /// whose primary header is destroyed has to find the secondary one itself.
    ///
    /// # Errors
    /// Returns [`FormatError`] for another magic or an unknown version.
    pub fn detect(start: &[u8]) -> Result<Self, FormatError> {
        let mut reader = Reader::new(start, 0);
        if reader.array::<6>("magic")? != MAGIC {
            return Err(FormatError::malformed("magic", 0, "not a LUKS header"));
        }
        match reader.u16("version")? {
            1 => Ok(Self::Luks1),
            2 => Ok(Self::Luks2),
            other => Err(FormatError::unsupported(
                "version",
                6,
                alloc::format!("LUKS version {other} is not known; known are 1 and 2"),
            )),
        }
    }
}
