//! The JSON area (section 3 of the specification): text that starts with `{`, and NULs to the end.
//!
//! The size of the area limits the text, but not its size in memory: a megabyte of `0,0,0` needs
//! many times as much. So the number of values is limited too.

use alloc::format;
use alloc::vec::Vec;

use crate::json::{Problem, Value};

use crate::error::FormatError;
use crate::raw_text;

/// The maximum number of values (members and elements of all depths) in metadata. The largest
/// metadata of cryptsetup has a few thousand.
const MAX_VALUES: usize = 65_536;

/// Reads the text of a JSON area, and parses it.
pub(super) fn parse(area: &[u8], area_offset: u64) -> Result<(&[u8], Value), FormatError> {
    let at = |position: usize| area_offset.saturating_add(position as u64);
    if area.first() != Some(&b'{') {
        return Err(FormatError::malformed(
            "json",
            area_offset,
            "the first byte is not {",
        ));
    }
    let Some(end) = area.iter().position(|&byte| byte == 0) else {
        return Err(FormatError::malformed(
            "json",
            area_offset,
            "the text is not ended by a NUL",
        ));
    };
    let (text, rest) = area.split_at_checked(end).unwrap_or((area, &[]));
    if let Some(stray) = rest.iter().position(|&byte| byte != 0) {
        let stray = end.saturating_add(stray);
        return Err(FormatError::malformed(
            "json",
            at(stray),
            "a byte after the NUL that ends the text is not NUL",
        ));
    }
    let value = parse_text(text, area_offset)?;
    Ok((text, value))
}

/// Parses a text, in the grammar of cryptsetup's parser. Whether the value is an object is checked
/// when its sections are read.
pub(super) fn parse_text(text: &[u8], area_offset: u64) -> Result<Value, FormatError> {
    Value::parse_lenient(text, MAX_VALUES).map_err(|error| {
        let offset = area_offset.saturating_add(error.offset as u64);
        if error.problem == Problem::TooManyValues {
            let cause = format!("the text has more than {MAX_VALUES} values");
            return FormatError::over_limit("json", offset, cause);
        }
        FormatError::malformed("json", offset, format!("is not JSON: {}", error.problem))
    })
}

/// The text of a value, if it fits in an area of this size together with a NUL.
pub(super) fn fitting(value: &Value, json_size: u64) -> Result<Vec<u8>, FormatError> {
    let text = raw_text::encode(&format!("{value}"));
    let length = text.len() as u64;
    if length >= json_size {
        let cause = format!(
            "the text has {length} bytes; the area holds {}",
            json_size.saturating_sub(1)
        );
        return Err(FormatError::over_limit("json", 0, cause));
    }
    Ok(text)
}

/// The offset of the member with this path in a text that was parsed, or of the innermost part of
/// the path that exists. Members with dots in their names, and those in or after comments and
/// single quotes, may not be found, which only makes a message less precise.
pub(super) fn locate(text: &[u8], path: &str) -> u64 {
    let mut at = 0;
    for key in path.split('.') {
        match (Scanner { text, at }).child(key) {
            Some(position) => at = position,
            None => break,
        }
    }
    at as u64
}

/// Walks over a text that was parsed.
struct Scanner<'a> {
    text: &'a [u8],
    at: usize,
}

impl Scanner<'_> {
    /// The start of the member or element `key` of the value at this position. If several members
    /// have the same name, the last one is used, as in the parser.
    fn child(&mut self, key: &str) -> Option<usize> {
        let object = self.peek()? == b'{';
        if !object && self.peek()? != b'[' {
            return None;
        }
        self.step();
        let mut found = None;
        let mut index = 0_usize;
        loop {
            if matches!(self.peek()?, b'}' | b']') {
                return found;
            }
            let here = if object {
                let start = self.at.checked_add(1)?;
                self.skip_string();
                let name = self.text.get(start..self.at.checked_sub(1)?)?;
                self.peek()?;
                self.step();
                name == key.as_bytes()
            } else {
                key.parse() == Ok(index)
            };
            self.peek()?;
            if here {
                found = Some(self.at);
            }
            self.skip_value();
            index = index.checked_add(1)?;
            if self.peek()? == b',' {
                self.step();
            }
        }
    }

    /// The next byte that is not white space.
    fn peek(&mut self) -> Option<u8> {
        while self.text.get(self.at)?.is_ascii_whitespace() {
            self.step();
        }
        self.text.get(self.at).copied()
    }

    fn step(&mut self) {
        self.at = self.at.saturating_add(1);
    }

    fn skip_string(&mut self) {
        self.step();
        while let Some(byte) = self.text.get(self.at) {
            self.step();
            match byte {
                b'\\' => self.step(),
                b'"' => return,
                _ => {}
            }
        }
    }

    fn skip_value(&mut self) {
        let mut depth = 0_usize;
        while let Some(byte) = self.text.get(self.at) {
            match byte {
                b'"' => {
                    self.skip_string();
                    if depth == 0 {
                        return;
                    }
                    continue;
                }
                b'{' | b'[' => depth = depth.saturating_add(1),
                b'}' | b']' if depth == 0 => return,
                b'}' | b']' => {
                    depth = depth.saturating_sub(1);
                    if depth == 0 {
                        self.step();
                        return;
                    }
                }
                b',' if depth == 0 => return,
                _ => {}
            }
            self.step();
        }
    }
}

#[cfg(test)]
#[allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects
)]
mod tests {
    use super::*;

    #[test]
    fn members_are_located() {
        let text = br#"{"a": {"b":[1, "x,]}\"" , {"c":"d"}],"b2":7}, "e":{}, "f" : null, "a2":[[0],[1,2]]}"#;
        let tail = |path: &str| std_str(&text[usize::try_from(locate(text, path)).unwrap()..]);
        assert!(tail("a").starts_with("{\"b\""));
        assert!(tail("a.b").starts_with("[1, "));
        assert!(tail("a.b.0").starts_with("1, "));
        assert!(tail("a.b.1").starts_with("\"x,]"));
        assert!(tail("a.b.2.c").starts_with("\"d\"}"));
        assert!(tail("a.b2").starts_with("7}"));
        assert!(tail("e").starts_with("{}, \"f\""));
        assert!(tail("e.missing").starts_with("{}, \"f\""));
        assert!(tail("f").starts_with("null"));
        assert!(tail("a2.1.1").starts_with("2]"));
        assert_eq!(locate(text, "missing"), 0);
    }

    #[test]
    fn the_last_of_equal_members_is_located() {
        let text = br#"{"a":1,"a":2}"#;
        assert_eq!(locate(text, "a"), 11);
    }

    #[test]
    fn a_syntax_error_is_placed() {
        let error = parse(b"{\"a\":1,\n  x}\0\0", 4096).unwrap_err();
        assert_eq!(error.offset, 4096 + 10);
        assert!(!error.cause.contains("line"), "{error}");
    }

    fn std_str(bytes: &[u8]) -> &str {
        core::str::from_utf8(bytes).unwrap()
    }
}
