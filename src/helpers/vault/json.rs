//! The little JSON that an answer with a secret needs, read in place and written in locked memory
//! (RFC 8259): the parser of `formats` would make copies of it in ordinary memory.
//!
//! Values that are not needed are skipped without a check of their inside.

use crate::helpers::failure::Failure;
use crate::secret::LockedBytes;

/// The first value of a text, as it is written, and what follows it. Both are empty if there is
/// none.
pub(super) fn value(text: &[u8]) -> (&[u8], &[u8]) {
    let text = text.trim_ascii_start();
    let mut depth = 0_usize;
    let mut in_string = false;
    let mut escaped = false;
    for (at, byte) in text.iter().enumerate() {
        let ends_here = if in_string {
            match byte {
                _ if escaped => escaped = false,
                b'\\' => escaped = true,
                b'"' => in_string = false,
                _ => {}
            }
            !in_string && depth == 0
        } else {
            match byte {
                b'"' => in_string = true,
                b'{' | b'[' => depth += 1,
                b'}' | b']' if depth > 0 => depth -= 1,
                // The end of what a number or a word is in.
                b'}' | b']' | b',' | b':' if depth == 0 => return text.split_at(at),
                byte if byte.is_ascii_whitespace() && depth == 0 => return text.split_at(at),
                _ => {}
            }
            depth == 0 && matches!(byte, b'}' | b']')
        };
        if ends_here {
            return text.split_at(at + 1);
        }
    }
    match depth == 0 && !in_string {
        true => (text, &[]),
        false => (&[], &[]),
    }
}

/// The members of an object: each name as it is written, without its quotes, and each value.
pub(super) fn members(object: &[u8]) -> impl Iterator<Item = (&[u8], &[u8])> {
    let mut rest = object.trim_ascii().strip_prefix(b"{").unwrap_or_default();
    std::iter::from_fn(move || {
        let (name, after) = value(rest);
        let name = name.strip_prefix(b"\"")?.strip_suffix(b"\"")?;
        let (found, after) = value(after.trim_ascii_start().strip_prefix(b":")?);
        if found.is_empty() {
            return None;
        }
        let after = after.trim_ascii_start();
        rest = after.strip_prefix(b",").unwrap_or_default();
        Some((name, found))
    })
}

/// The value of a member of a member.
pub(super) fn member<'a>(object: &'a [u8], path: &[&str]) -> Option<&'a [u8]> {
    path.iter().try_fold(object, |object, name| {
        let mut all = members(object);
        all.find(|(found, _)| *found == name.as_bytes())
            .map(|(_, value)| value)
    })
}

/// The text of a string, in UTF-8.
pub(super) fn text(string: &[u8]) -> Result<LockedBytes, Failure> {
    let broken = || Failure::other("the answer has something else than a text");
    let inner = string
        .strip_prefix(b"\"")
        .and_then(|rest| rest.strip_suffix(b"\""))
        .ok_or_else(broken)?;
    let mut bytes = LockedBytes::new(inner.len()).map_err(Failure::other)?;
    let mut len = 0;
    let mut rest = inner;
    while let Some((&byte, after)) = rest.split_first() {
        rest = after;
        if byte != b'\\' {
            bytes[len] = byte;
            len += 1;
            continue;
        }
        let (&kind, after) = rest.split_first().ok_or_else(broken)?;
        rest = after;
        let character = match kind {
            b'"' | b'\\' | b'/' => char::from(kind),
            b'b' => '\u{8}',
            b'f' => '\u{c}',
            b'n' => '\n',
            b'r' => '\r',
            b't' => '\t',
            b'u' => {
                let (character, after) = escaped(rest).ok_or_else(broken)?;
                rest = after;
                character
            }
            _ => return Err(broken()),
        };
        // Its UTF-8 is never longer than its escape.
        len += character.encode_utf8(&mut bytes[len..]).len();
    }
    LockedBytes::copy_from(&bytes[..len]).map_err(Failure::other)
}

/// The character of `XXXX` or `XXXX\uXXXX`, and what follows it.
fn escaped(text: &[u8]) -> Option<(char, &[u8])> {
    let number = |text: &[u8]| {
        let digits = std::str::from_utf8(text.get(..4)?).ok()?;
        digits
            .bytes()
            .all(|byte| byte.is_ascii_hexdigit())
            .then_some(())?;
        u32::from_str_radix(digits, 16).ok()
    };
    let (first, rest) = (number(text)?, text.get(4..)?);
    if !(0xd800..0xdc00).contains(&first) {
        return Some((char::from_u32(first)?, rest));
    }
    let low = rest.strip_prefix(b"\\u")?;
    let second = number(low).filter(|second| (0xdc00..0xe000).contains(second))?;
    let character = 0x10000 + ((first - 0xd800) << 10) + (second - 0xdc00);
    Some((char::from_u32(character)?, low.get(4..)?))
}

/// A text in UTF-8 as a string.
pub(super) fn quoted(text: &[u8]) -> Result<LockedBytes, Failure> {
    let len = |byte: u8| match byte {
        b'"' | b'\\' => 2,
        0..0x20 => 6,
        _ => 1,
    };
    let total = text.iter().map(|byte| len(*byte)).sum::<usize>() + 2;
    let mut string = LockedBytes::new(total).map_err(Failure::other)?;
    let mut at = 0;
    let mut put = |bytes: &[u8]| {
        string[at..at + bytes.len()].copy_from_slice(bytes);
        at += bytes.len();
    };
    put(b"\"");
    for &byte in text {
        let hex = |digit: u8| b"0123456789abcdef"[usize::from(digit)];
        match len(byte) {
            1 => put(&[byte]),
            2 => put(&[b'\\', byte]),
            _ => put(&[b'\\', b'u', b'0', b'0', hex(byte >> 4), hex(byte & 15)]),
        }
    }
    put(b"\"");
    Ok(string)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_are_found_by_their_path() {
        let object = br#" { "a" : {"b}" : [1, {"c":"]"}], "d": "x\"}" } , "e":-1.5e3,"f":null } "#;
        assert_eq!(member(object, &["a", "d"]), Some(&br#""x\"}""#[..]));
        assert_eq!(
            member(object, &["a", "b}"]),
            Some(&br#"[1, {"c":"]"}]"#[..])
        );
        assert_eq!(member(object, &["e"]), Some(&b"-1.5e3"[..]));
        assert_eq!(member(object, &["f"]), Some(&b"null"[..]));
        assert_eq!(members(object).count(), 3);
        for path in [&["x"][..], &["a", "x"], &["e", "x"], &["f", "x"]] {
            assert_eq!(member(object, path), None, "{path:?}");
        }
        // What is cut off ends without a panic.
        for end in 0..object.len() {
            let _ = member(&object[..end], &["a", "d"]);
        }
    }

    #[test]
    fn texts_are_what_the_parser_of_formats_reads() {
        use luksmith_formats::json::Value;
        for string in [
            r#""""#,
            r#""plain ä""#,
            r#""\"\\\/\b\f\n\r\t""#,
            r#""\u0041\u00e4\u20ac\ud83d\ude00""#,
        ] {
            let ours = text(string.as_bytes()).unwrap();
            let theirs: Value = string.parse().unwrap();
            assert_eq!(ours[..], *theirs.as_str().unwrap().as_bytes(), "{string}");
        }
        for string in [
            "",
            "\"",
            "7",
            r#""\x""#,
            r#""\u12""#,
            r#""\ud83d""#,
            r#""\udc00""#,
            r#""\"#,
        ] {
            assert!(text(string.as_bytes()).is_err(), "{string}");
        }
    }

    #[test]
    fn what_is_quoted_is_read_again() {
        let all: String = (0..0x250).filter_map(char::from_u32).collect();
        let string = quoted(all.as_bytes()).unwrap();
        assert_eq!(text(&string).unwrap()[..], *all.as_bytes());
        let theirs: luksmith_formats::json::Value =
            std::str::from_utf8(&string).unwrap().parse().unwrap();
        assert_eq!(theirs.as_str(), Some(all.as_str()));
    }
}
