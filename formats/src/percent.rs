//! Percent-encoding (RFC 3986, section 2.1).

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

/// The bytes that a text stands for, or `None` if a percent sign has no two hexadecimal digits. A
/// plus sign is not a space.
pub fn decode(text: &str) -> Option<Vec<u8>> {
    let mut decoded = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        if byte != b'%' {
            decoded.push(byte);
            continue;
        }
        let mut digit = || {
            let digit = char::from(bytes.next()?).to_digit(16)?;
            u8::try_from(digit).ok()
        };
        let (high, low) = (digit()?, digit()?);
        decoded.push(high << 4 | low);
    }
    Some(decoded)
}

/// Encodes everything but unreserved characters (section 2.3) and slashes.
pub(crate) fn encode(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len());
    for &byte in bytes {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' | b'/' => {
                text.push(byte.into());
            }
            _ => text.push_str(&format!("%{byte:02X}")),
        }
    }
    text
}
