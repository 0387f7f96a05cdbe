//! What QEMU reads from the text of a descriptor.
//!
//! QEMU does not parse the lines. It searches the text for words (`strstr`), and it reads an extent
//! at the start of each line with `sscanf`, whose white space includes line ends. This file follows
//! `vmdk_parse_extents`, `vmdk_parent_open` and `vmdk_read_cid` of `block/vmdk.c`, which read the
//! same in QEMU 7.2, 8.2, 9.2 and 10.

/// An extent as QEMU reads it.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Scanned<'a> {
    /// The offset of the line at which it was read, in bytes from the start of the text.
    pub(super) at: usize,
    pub(super) sectors: i64,
    pub(super) kind: &'a [u8],
    pub(super) name: &'a [u8],
    pub(super) offset: Option<i64>,
}

/// The extents that QEMU opens, in its order. These are the ones that it can write to (`RW`).
///
/// This takes time in proportion to the number of lines times the longest run of white space, which
/// the caller bounds.
pub(super) fn extents(text: &[u8]) -> Vec<Scanned<'_>> {
    let mut found = Vec::new();
    let mut start = 0;
    while start < text.len() {
        found.extend(extent(text, start));
        let line = text.get(start..).unwrap_or_default();
        let len = line.iter().position(|byte| *byte == b'\n');
        start += len.map_or(line.len(), |end| end + 1);
    }
    found
}

/// `sscanf(…, "%10s %lld %10s \"%511[^\n\r\"]\" %lld")` at `start`, if it reads four fields or
/// more.
fn extent(text: &[u8], start: usize) -> Option<Scanned<'_>> {
    let mut rest = Rest(text.get(start..)?);
    if rest.word()? != b"RW" {
        return None;
    }
    let sectors = rest.number()?;
    let kind = rest.word()?;
    rest.skip_space();
    rest.literal(b'"')?;
    let name = rest.name()?;
    let offset = rest.literal(b'"').and_then(|()| rest.number());
    Some(Scanned {
        at: start,
        sectors,
        kind,
        name,
        offset,
    })
}

/// The text that `sscanf` has not read yet.
struct Rest<'a>(&'a [u8]);

impl<'a> Rest<'a> {
    fn take(&mut self, len: usize) -> &'a [u8] {
        let (taken, rest) = self.0.split_at_checked(len).unwrap_or((self.0, &[]));
        self.0 = rest;
        taken
    }

    fn skip_space(&mut self) {
        let len = self.0.iter().take_while(|byte| is_space(**byte)).count();
        self.take(len);
    }

    fn literal(&mut self, byte: u8) -> Option<()> {
        (self.0.first() == Some(&byte)).then(|| {
            self.take(1);
        })
    }

    /// `%10s`
    fn word(&mut self) -> Option<&'a [u8]> {
        self.skip_space();
        let letters = self.0.iter().take(10);
        let len = letters.take_while(|byte| !is_space(**byte)).count();
        (len > 0).then(|| self.take(len))
    }

    /// `%lld`: a number that is out of range becomes the nearest one in range.
    fn number(&mut self) -> Option<i64> {
        self.skip_space();
        let negative = self.0.first() == Some(&b'-');
        if negative || self.0.first() == Some(&b'+') {
            self.take(1);
        }
        let len = self.0.iter().take_while(|byte| byte.is_ascii_digit());
        let digits = self.take(len.count());
        let magnitude = digits.iter().fold(0_i128, |value, digit| {
            (value * 10 + i128::from(digit - b'0')).min(1 << 64)
        });
        let value = if negative { -magnitude } else { magnitude };
        let clamped = value.clamp(i64::MIN.into(), i64::MAX.into());
        (!digits.is_empty()).then(|| i64::try_from(clamped).unwrap_or(i64::MAX))
    }

    /// `%511[^\n\r"]`
    fn name(&mut self) -> Option<&'a [u8]> {
        let letters = self.0.iter().take(511);
        let len = letters.take_while(|byte| !matches!(byte, b'\n' | b'\r' | b'"'));
        let len = len.count();
        (len > 0).then(|| self.take(len))
    }
}

/// `isspace` of the C locale.
fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | 9..=13)
}

/// The length of the longest run of white space.
pub(super) fn longest_space(text: &[u8]) -> usize {
    let runs = text.split(|byte| !is_space(*byte));
    runs.map(<[u8]>::len).max().unwrap_or(0)
}

/// The offsets of `word` in the text. The case of letters counts.
pub(super) fn places(text: &[u8], word: &[u8]) -> Vec<usize> {
    let windows = text.windows(word.len()).enumerate();
    windows
        .filter(|(_, window)| *window == word)
        .map(|(at, _)| at)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Vec<(usize, i64, String, Option<i64>)> {
        let shown = |name: &[u8]| String::from_utf8_lossy(name).into_owned();
        extents(text.as_bytes())
            .into_iter()
            .map(|one| (one.at, one.sectors, shown(one.name), one.offset))
            .collect()
    }

    #[test]
    fn white_space_includes_line_ends() {
        let a = |at, offset| (at, 10, "a".to_owned(), offset);
        assert_eq!(read("RW 10 FLAT \"a\" 0\n"), [a(0, Some(0))]);
        assert_eq!(
            read("\n\nRW 10 SPARSE \"a\"\n"),
            [a(0, None), a(1, None), a(2, None)]
        );
        assert_eq!(read("RW\n10\nFLAT\n\"a\"\n7"), [a(0, Some(7))]);
        assert_eq!(read("RW 10 FLAT \"a\n"), [a(0, None)]);
    }

    #[test]
    fn extents_that_are_not_writable_are_skipped() {
        for text in [
            "RDONLY 10 FLAT \"a\" 0",
            "RW 10 ZERO\n#",
            "#RW 10 FLAT \"a\" 0",
            "RW x FLAT \"a\" 0",
            "RW 10 FLAT \"\" 0",
            "RWRWRWRWRW 10 FLAT \"a\" 0",
            "",
        ] {
            assert_eq!(read(text), [], "{text}");
        }
    }

    #[test]
    fn numbers_stay_in_range() {
        let sectors = |text: &str| read(text).first().map(|one| one.1);
        assert_eq!(
            sectors("RW 99999999999999999999999 FLAT \"a\""),
            Some(i64::MAX)
        );
        assert_eq!(
            sectors("RW -99999999999999999999999 FLAT \"a\""),
            Some(i64::MIN)
        );
        assert_eq!(sectors("RW +7 FLAT \"a\""), Some(7));
    }
}
