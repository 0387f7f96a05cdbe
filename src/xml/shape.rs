//! Checks of a document before it is parsed, by its tags only: its depth, its counts, and what it
//! declares.
//!
//! The check knows less of XML than the parser. It only refuses: what passes is parsed from the
//! start.

use super::error::{MOST_ATTRIBUTES, MOST_DEPTH, MOST_NAMESPACES, MOST_NODES, XmlError};
use super::lines::Lines;

/// Refuses document types, other encodings, and documents that exceed the bounds.
pub(super) fn check(text: &str, lines: &Lines) -> Result<(), XmlError> {
    encoding(text)?;
    let (mut at, mut depth, mut attributes, mut namespaces) = (0, 0_usize, 0, 0);
    while let Some(rest) = text.get(at..) {
        let Some(found) = rest.find('<') else {
            break;
        };
        let rest = &rest[found..];
        at += found;
        let skipped = [("<!--", "-->"), ("<![CDATA[", "]]>"), ("<?", "?>")];
        if let Some((start, end)) = skipped.iter().find(|(start, _)| rest.starts_with(start)) {
            // It is not closed, which the parser reports.
            let Some(length) = rest[start.len()..].find(end) else {
                break;
            };
            at += start.len() + length + end.len();
            continue;
        }
        let line = || lines.number(at);
        if rest.starts_with("<!") {
            return Err(XmlError::DocumentType(line()));
        }
        let tag = Tag::read(rest);
        if tag.closes {
            depth = depth.saturating_sub(1);
        } else if !tag.is_empty {
            depth += 1;
        }
        attributes += tag.attributes;
        namespaces += tag.namespaces;
        if depth > MOST_DEPTH {
            return Err(XmlError::Depth(line()));
        }
        if tag.attributes > MOST_ATTRIBUTES {
            return Err(XmlError::Attributes(line()));
        }
        if namespaces > MOST_NAMESPACES {
            return Err(XmlError::Namespaces(line()));
        }
        if attributes > MOST_NODES as usize {
            return Err(XmlError::Nodes);
        }
        at += tag.length;
    }
    Ok(())
}

/// Refuses other encodings. This parser would read the document as UTF-8 and another program in the
/// declared encoding, so the two would see different documents.
fn encoding(text: &str) -> Result<(), XmlError> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let declaration = text
        .strip_prefix("<?xml")
        .and_then(|rest| rest.split_once("?>"));
    let Some((_, named)) = declaration.and_then(|(text, _)| text.split_once("encoding")) else {
        return Ok(());
    };
    let name = named.trim_matches(|c: char| c == '=' || c.is_ascii_whitespace());
    let name = name.split(['"', '\'']).nth(1).unwrap_or_default();
    let known = ["utf-8", "utf8", "us-ascii", "ascii"];
    if known.iter().any(|known| name.eq_ignore_ascii_case(known)) {
        Ok(())
    } else {
        Err(XmlError::Encoding)
    }
}

/// The length and the counts of a tag.
struct Tag {
    length: usize,
    closes: bool,
    is_empty: bool,
    attributes: usize,
    namespaces: usize,
}

impl Tag {
    /// Reads from `<` to the first `>` outside quotes.
    fn read(text: &str) -> Self {
        let bytes = text.as_bytes();
        let mut tag = Self {
            length: bytes.len(),
            closes: bytes.get(1) == Some(&b'/'),
            is_empty: false,
            attributes: 0,
            namespaces: 0,
        };
        let (mut quote, mut before) = (None, b'<');
        for (at, byte) in bytes.iter().copied().enumerate().skip(1) {
            match (quote, byte) {
                (Some(open), _) if open == byte => quote = None,
                (Some(_), _) => {}
                (None, b'"' | b'\'') => quote = Some(byte),
                (None, b'=') => tag.attributes += 1,
                (None, b'x') if bytes[at..].starts_with(b"xmlns") => tag.namespaces += 1,
                (None, b'>') => {
                    tag.is_empty = before == b'/';
                    tag.length = at + 1;
                    break;
                }
                (None, _) => {}
            }
            before = byte;
        }
        tag
    }
}
