//! Sizes as users write and read them. `10G` and `10GiB` are 1024³, as for cryptsetup and qemu-img; `10GB` is 1000³, as for
//! cryptsetup. Results are printed in bytes and in binary units.

use parse_size::{ByteSuffix, Config};

/// What `--help` says of a size.
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

/// A size for people, and exactly: `10 GiB (10737418240 bytes)`, `512 bytes`.
pub(crate) fn both(bytes: u64) -> String {
    if bytes < 1024 {
        human(bytes)
    } else {
        format!("{} ({bytes} bytes)", human(bytes))
    }
}

/// A size for people: `10 GiB`, `15.97 MiB`, `512 bytes`.
pub(crate) fn human(bytes: u64) -> String {
    const UNITS: [(&str, u32); 6] = [
        ("EiB", 60),
        ("PiB", 50),
        ("TiB", 40),
        ("GiB", 30),
        ("MiB", 20),
        ("KiB", 10),
    ];
    for (unit, shift) in UNITS {
        let one = 1_u64 << shift;
        if bytes >= one {
            let whole = bytes / one;
            // Two digits after the point, cut off rather than rounded up: never more than there is.
            let hundredths = u128::from(bytes % one) * 100 / u128::from(one);
            let text = if hundredths == 0 {
                format!("{whole}")
            } else {
                format!("{whole}.{hundredths:02}")
            };
            return format!(
                "{} {unit}",
                if hundredths == 0 {
                    &text
                } else {
                    text.trim_end_matches('0')
                }
            );
        }
    }
    format!("{bytes} bytes")
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

    #[test]
    fn people_read_binary_units() {
        for (size, text) in [
            (0, "0 bytes"),
            (512, "512 bytes"),
            (1536, "1.5 KiB"),
            (16_744_448, "15.96 MiB"),
            (10 << 30, "10 GiB"),
            (1024, "1 KiB"),
        ] {
            assert_eq!(human(size), text);
        }
    }
}
