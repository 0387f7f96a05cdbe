//! Sizes as users write and read them. `10G` and `10GiB` mean 10 × 1024³ bytes, as for cryptsetup
//! and qemu-img; `10GB` means 10 × 1000³, as for cryptsetup. Results are printed in bytes and in
//! binary units.

pub(crate) use luksmith::task::size::{both, human};
use parse_size::{ByteSuffix, Config};

use super::error::CommandError;

/// The name of a size in `--help`.
pub(crate) const SIZE: &str = "SIZE";

/// Parses a size in bytes with an optional suffix.
pub(crate) fn parse(text: &str) -> Result<u64, String> {
    let decimal = text
        .to_ascii_lowercase()
        .strip_suffix('b')
        .is_some_and(|rest| rest.ends_with(['k', 'm', 'g', 't', 'p', 'e']));
    let config = Config::new().with_byte_suffix(ByteSuffix::Allow);
    let config = match decimal {
        true => config.with_decimal(),
        false => config.with_binary(),
    };
    match config.parse_size(text) {
        Ok(size) if i64::try_from(size).is_err() => {
            Err("2^63 bytes or more, which no file and no device has".to_owned())
        }
        Ok(size) if text.starts_with(|c: char| c.is_ascii_digit()) => Ok(size),
        Err(parse_size::Error::PosOverflow) => Err("2^64 bytes or more".to_owned()),
        _ => Err(
            "not a size; write bytes, or a number with K, M, G or T (10G is 10 GiB, 10GB are 10^10 \
             bytes)"
                .to_owned(),
        ),
    }
}

/// Whether an argument that should be something else is a size with a unit.
pub(crate) fn is_size(text: &str) -> bool {
    parse(text).is_ok() && text.ends_with(|c: char| c.is_ascii_alphabetic())
}

/// A new size: stated, or relative to the present one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NewSize {
    /// This many bytes.
    Exactly(u64),
    /// This many bytes more.
    More(u64),
}

impl NewSize {
    /// Parses `20G` or `+10G`.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        if text.starts_with('-') {
            let message = "the new size itself is needed to shrink, as in --size 5G";
            return Err(message.to_owned());
        }
        match text.strip_prefix('+') {
            Some(more) => parse(more).map(Self::More),
            None => parse(text).map(Self::Exactly),
        }
    }

    /// The new size in bytes of what has `old` bytes.
    pub(crate) fn of(self, old: u64) -> Result<u64, CommandError> {
        match self {
            Self::Exactly(size) => Ok(size),
            Self::More(more) => old.checked_add(more).ok_or_else(|| {
                CommandError::parameters(format!("--size: {old} and {more} are 2^64 bytes or more"))
            }),
        }
    }
}

/// Parses a size that must fit 32 bits of KiB.
pub(crate) fn parse_kib(text: &str) -> Result<u32, String> {
    u32::try_from(parse(text)? / 1024).map_err(|_| "4 TiB or more".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn suffixes_are_binary_unless_they_end_in_b() {
        for (text, size) in [
            ("512", 512),
            ("10G", 10 << 30),
            ("10GiB", 10 << 30),
            ("64m", 64 << 20),
            ("1.5K", 1536),
            ("1T", 1 << 40),
            ("10GB", 10_000_000_000),
            ("3kb", 3000),
            ("7B", 7),
        ] {
            assert_eq!(parse(text), Ok(size), "{text}");
        }
        for text in ["", "G", "-1", "10Q", "ten", "0x10", "99999999999T"] {
            assert!(parse(text).is_err(), "{text}");
        }
        for text in ["99999999999T", "16E", "18446744073709551616"] {
            assert_eq!(parse(text).unwrap_err(), "2^64 bytes or more", "{text}");
        }
        assert!(parse("8E").unwrap_err().starts_with("2^63 bytes or more"));
        assert!(is_size("64M") && !is_size("64") && !is_size("disk.img"));
    }

    #[test]
    fn a_new_size_may_be_relative() {
        assert_eq!(NewSize::parse("10K"), Ok(NewSize::Exactly(10240)));
        assert_eq!(NewSize::parse("+10K"), Ok(NewSize::More(10240)));
        for text in ["-10K", "+-10K", "++1", "+"] {
            assert!(NewSize::parse(text).is_err(), "{text}");
        }
        assert_eq!(NewSize::More(5).of(7).unwrap(), 12);
        assert!(NewSize::More(5).of(u64::MAX).is_err());
    }
}
