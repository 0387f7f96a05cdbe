//! Formats sizes for people.

/// A size for people, and exactly: `10 GiB (10737418240 bytes)`, `512 bytes`.
#[must_use]
pub fn both(bytes: u64) -> String {
    if bytes < 1024 {
        human(bytes)
    } else {
        format!("{} ({bytes} bytes)", human(bytes))
    }
}

/// A size for people: `10 GiB`, `15.97 MiB`, `512 bytes`.
#[must_use]
pub fn human(bytes: u64) -> String {
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
            // Two digits after the point, cut off rather than rounded up.
            let hundredths = u128::from(bytes % one) * 100 / u128::from(one);
            if hundredths == 0 {
                return format!("{whole} {unit}");
            }
            let text = format!("{whole}.{hundredths:02}");
            return format!("{} {unit}", text.trim_end_matches('0'));
        }
    }
    format!("{bytes} bytes")
}

#[cfg(test)]
mod tests {
    use super::*;

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
        assert_eq!(both(1536), "1.5 KiB (1536 bytes)");
        assert_eq!(both(512), "512 bytes");
    }
}
