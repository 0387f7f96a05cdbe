//! Text of a header as a `String` that loses nothing, also where the bytes are not UTF-8.
//!
//! A byte that is not part of UTF-8 becomes the character U+10FF00 plus the byte. So that no two
//! texts have the same form, a stored character from U+10FF80 to U+10FFFF becomes four of these,
//! one for each of its bytes.

use alloc::string::String;
use alloc::vec::Vec;

/// The character for the byte 0, if that were not part of UTF-8.
const BASE: u32 = 0x0010_FF00;

/// The text of these bytes.
#[must_use]
pub fn decode(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        for character in chunk.valid().chars() {
            push(&mut text, character);
        }
        text.extend(chunk.invalid().iter().map(|&byte| of_byte(byte)));
    }
    text
}

/// The bytes of this text: the reverse of [`decode`].
#[must_use]
pub fn encode(text: &str) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(text.len());
    for character in text.chars() {
        match to_byte(character) {
            Some(byte) => bytes.push(byte),
            None => bytes.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes()),
        }
    }
    bytes
}

/// The byte for which a character stands, if it stands for one.
#[must_use]
pub fn to_byte(character: char) -> Option<u8> {
    u8::try_from(u32::from(character).checked_sub(BASE)?)
        .ok()
        .filter(|byte| !byte.is_ascii())
}

/// Appends a character that is stored as UTF-8.
pub(crate) fn push(text: &mut String, character: char) {
    if to_byte(character).is_none() {
        text.push(character);
        return;
    }
    let mut buffer = [0; 4];
    let bytes = character.encode_utf8(&mut buffer).bytes();
    text.extend(bytes.map(of_byte));
}

fn of_byte(byte: u8) -> char {
    char::from_u32(BASE.saturating_add(u32::from(byte))).unwrap_or(char::REPLACEMENT_CHARACTER)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_sequence_of_bytes_comes_back() {
        let cases: [&[u8]; 6] = [
            b"plain",
            b"a\xffb\x80",
            b"\xe2\x82",
            "€\u{10ff7f}\u{10ff80}\u{10ffff}".as_bytes(),
            b"\xf4\x8f\xbe\x80",
            b"\xed\xa0\x80",
        ];
        for bytes in cases {
            assert_eq!(encode(&decode(bytes)), bytes, "{bytes:?}");
        }
        assert_eq!(decode(b"a\xff"), "a\u{10ffff}");
        assert_eq!(decode("\u{10ffff}".as_bytes()).chars().count(), 4);
        let all: Vec<u8> = (0..=255).collect();
        assert_eq!(encode(&decode(&all)), all);
    }
}
