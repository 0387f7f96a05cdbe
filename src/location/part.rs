//! A part of a file, a device or an export, as the end of a location: `,partition=N`, `,offset=N`
//! or `,offset=N,size=N`.

use std::fmt;

/// Why a text names no part.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PartError {
    /// The number of a partition is not of its form.
    #[error("partition= takes the number of a partition, from 1 on")]
    Partition,
    /// The offset or the size is not of its form.
    #[error("offset= and size= take bytes, or a number with K, M, G or T (1M is 1 MiB)")]
    Size,
}

/// A part of a file, a block device or an export.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Part {
    /// The partition with this number in its GPT or MBR. It is the number that the kernel and fdisk
    /// show: the first is 1, and logical partitions of an MBR begin at 5.
    Partition(u32),
    /// The bytes from an offset on.
    Range {
        /// Where it begins, in bytes.
        offset: u64,
        /// Its length in bytes. `None` is up to the end.
        size: Option<u64>,
    },
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Partition(number) => write!(f, "partition={number}"),
            Self::Range { offset, size } => {
                write!(f, "offset={offset}")?;
                size.iter().try_for_each(|size| write!(f, ",size={size}"))
            }
        }
    }
}

/// The text before the part, and the part, if the text ends with one.
pub(super) fn split(text: &[u8]) -> Result<Option<(&[u8], Part)>, PartError> {
    let Some((before, key, value)) = item(text) else {
        return Ok(None);
    };
    let part = match key {
        b"partition" => Part::Partition(number(value)?),
        b"offset" => Part::Range {
            offset: bytes(value)?,
            size: None,
        },
        b"size" => {
            let Some((before, b"offset", offset)) = item(before) else {
                return Ok(None);
            };
            let (offset, size) = (bytes(offset)?, bytes(value)?);
            if size == 0 {
                return Err(PartError::Size);
            }
            let size = Some(size);
            return Ok(Some((before, Part::Range { offset, size })));
        }
        _ => return Ok(None),
    };
    Ok(Some((before, part)))
}

/// The text before the last comma, and the key and the value after it.
fn item(text: &[u8]) -> Option<(&[u8], &[u8], &[u8])> {
    let comma = text.iter().rposition(|byte| *byte == b',')?;
    let (before, rest) = (text.get(..comma)?, text.get(comma + 1..)?);
    let equals = rest.iter().position(|byte| *byte == b'=')?;
    Some((before, rest.get(..equals)?, rest.get(equals + 1..)?))
}

fn number(text: &[u8]) -> Result<u32, PartError> {
    let number = digits(text).and_then(|number| u32::try_from(number).ok());
    number
        .filter(|number| *number > 0)
        .ok_or(PartError::Partition)
}

/// A number of bytes: `512`, `1M`, `1MiB` (1024 × 1024), `1MB` (1000 × 1000).
fn bytes(text: &[u8]) -> Result<u64, PartError> {
    let length = text.iter().take_while(|c| c.is_ascii_digit()).count();
    let (number, unit) = text.split_at(length);
    let unit = unit.to_ascii_lowercase();
    let (prefix, base) = match unit.as_slice() {
        [] | [b'b'] => (None, 1024),
        [prefix] | [prefix, b'i', b'b'] => (Some(*prefix), 1024),
        [prefix, b'b'] => (Some(*prefix), 1000),
        _ => return Err(PartError::Size),
    };
    let power = match prefix {
        None => 0,
        Some(prefix) => match b"kmgtpe".iter().position(|known| *known == prefix) {
            Some(place) => u32::try_from(place).unwrap_or(u32::MAX).saturating_add(1),
            None => return Err(PartError::Size),
        },
    };
    let number = digits(number).ok_or(PartError::Size)?;
    u64::checked_pow(base, power)
        .and_then(|unit| unit.checked_mul(number))
        .ok_or(PartError::Size)
}

fn digits(text: &[u8]) -> Option<u64> {
    let text = str::from_utf8(text).ok()?;
    let plain = !text.is_empty() && text.bytes().all(|c| c.is_ascii_digit());
    plain.then(|| text.parse().ok())?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_last_item_with_a_known_key_counts() {
        let range = |offset, size| Part::Range { offset, size };
        for (text, before, part) in [
            ("a,partition=2", "a", Part::Partition(2)),
            ("a,offset=1M", "a", range(1 << 20, None)),
            ("a,offset=512,size=2KiB", "a", range(512, Some(2048))),
            ("a,offset=1,partition=12", "a,offset=1", Part::Partition(12)),
            ("a,b,offset=1KB", "a,b", range(1000, None)),
            ("a,offset=7b", "a", range(7, None)),
            (",offset=0", "", range(0, None)),
        ] {
            let expected = Some((before.as_bytes(), part));
            assert_eq!(split(text.as_bytes()), Ok(expected), "{text}");
        }
        for text in [
            "a",
            "a,b",
            "a,size=1",
            "a,partition=1,b",
            "a,Partition=1",
            "a,partition",
            "partition=1",
            "a,offset=1,size",
        ] {
            assert_eq!(split(text.as_bytes()), Ok(None), "{text}");
        }
    }

    #[test]
    fn values_are_checked() {
        for text in ["0", "", "x", "-1", "+1", "1K", "4294967296", "1 "] {
            let text = format!("a,partition={text}");
            assert_eq!(split(text.as_bytes()), Err(PartError::Partition));
        }
        for text in ["", "x", "-1", "+1", "1.5K", "1Q", "16E", "1Mi", "1MiBB"] {
            let text = format!("a,offset={text}");
            assert_eq!(split(text.as_bytes()), Err(PartError::Size), "{text}");
        }
        for text in ["a,offset=0,size=0", "a,offset=x,size=1"] {
            assert_eq!(split(text.as_bytes()), Err(PartError::Size), "{text}");
        }
    }

    #[test]
    fn a_part_is_shown_as_it_is_parsed() {
        for text in ["partition=5", "offset=512", "offset=0,size=1024"] {
            let whole = format!("x,{text}");
            let (_, part) = split(whole.as_bytes()).unwrap().unwrap();
            assert_eq!(part.to_string(), text);
        }
    }
}
