//! Sizes as users write and read them. `10G` and `10GiB` mean 10 × 1024³ bytes, as for cryptsetup
//! and qemu-img; `10GB` means 10 × 1000³, as for cryptsetup. Results are printed in bytes and in
//! binary units.

pub(crate) use luksmith::task::size::{both, human};
use parse_size::{ByteSuffix, Config};

/// The name of a size in `--help`.
pub(crate) const SIZE: &str = "SIZE";

/// Parses a size in bytes with an optional suffix.
pub(crate) fn parse(text: &str) -> Result<u64, String> {
    let decimal = text
        .to_ascii_lowercase()
        .strip_suffix('b')
        .is_some_and(|rest| rest.ends_with(['k', 'm', 'g', 't', 'p', 'e']));
    let config = Config::new().with_byte_suffix(ByteSuffix::Allow);
    let parsed = if decimal {
        config.with_decimal().parse_size(text)
    } else {
        config.with_binary().parse_size(text)
    };
    match parsed {
        Ok(size) if text.starts_with(|c: char| c.is_ascii_digit()) => Ok(size),
        _ => Err(
            "not a size; write bytes, or a number with K, M, G or T (binary units: 10G is 10 GiB)"
                .to_owned(),
        ),
    }
}

/// Parses a size that must fit 32 bits of KiB.
pub(crate) fn parse_kib(text: &str) -> Result<u32, String> {
    u32::try_from(parse(text)? / 1024).map_err(|_| "larger than 4 TiB".to_owned())
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
    }
}
