//! Text from images, files and peers, made safe to show.
//!
//! A terminal obeys control characters, and a reader is misled by characters that turn the order of
//! the text around them. [`Shown`] writes such characters as escapes in the form of Rust: `\n`,
//! `\u{9b}`. [`json::Value::shown`](crate::json::Value::shown) writes them as `\u009b`.

use alloc::borrow::Cow;
use alloc::format;
use core::fmt::{self, Display, Formatter, Write};

/// Whether a character has to be escaped where text is shown: a control character (C0, DEL, C1), a
/// bidirectional control, a line or paragraph separator, or the byte order mark.
#[must_use]
pub fn is_control(c: char) -> bool {
    let other = matches!(
        c,
        '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}'
    );
    c.is_control() || other
}

/// A text whose control characters are written as escapes.
#[derive(Debug, Clone, Copy)]
pub struct Shown<'a>(pub &'a str);

impl Display for Shown<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        for c in self.0.chars() {
            if is_control(c) {
                write!(f, "{}", c.escape_default())?;
            } else {
                f.write_char(c)?;
            }
        }
        Ok(())
    }
}

/// A URL for a message: without its query, which may be a signature.
#[must_use]
pub fn without_query(url: &str) -> Cow<'_, str> {
    match url.split_once('?') {
        Some((place, _)) => Cow::Owned(format!("{place}?\u{2026}")),
        None => Cow::Borrowed(url),
    }
}

/// A name in bytes, such as that of a file. Each byte that is not part of UTF-8 is written as
/// `\xNN`. Control characters are written as they are.
#[derive(Debug, Clone, Copy)]
pub struct Name<'a>(pub &'a [u8]);

impl Display for Name<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        for chunk in self.0.utf8_chunks() {
            f.write_str(chunk.valid())?;
            for byte in chunk.invalid() {
                write!(f, "\\x{byte:02x}")?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::ToString;

    #[test]
    fn control_characters_are_escaped_and_letters_are_not() {
        let text = "a\u{1b}[2J\u{9b}\u{7f}\n\u{202e}\u{2066}\u{61c}\u{feff}\u{2028}é\u{200d}x";
        let shown = r"a\u{1b}[2J\u{9b}\u{7f}\n\u{202e}\u{2066}\u{61c}\u{feff}\u{2028}é";
        assert_eq!(Shown(text).to_string(), [shown, "\u{200d}x"].concat());
    }

    #[test]
    fn bytes_that_are_not_utf8_are_escaped() {
        assert_eq!(
            Name(b"a\xff\xc3\xa9\xe2\x80").to_string(),
            r"a\xffé\xe2\x80"
        );
    }
}
