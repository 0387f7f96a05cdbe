//! Checks of a document before it is parsed, by its tags only: its depth, its counts, and what it
//! declares.
//!
//! The check knows less of XML than the parser. It only refuses: what passes is parsed from the
//! start.

use super::error::{MOST_ATTRIBUTES, MOST_DEPTH, MOST_NAMESPACES, MOST_NODES, XmlError};

/// Refuses document types, other encodings, and documents that exceed the bounds. `before` is the
/// number of line ends before the text. Returns the length of the first document: up to where
/// another document begins, or else the whole text.
pub(super) fn check(text: &str, before: usize) -> Result<usize, XmlError> {
    encoding(text)?;
    let line = |at: usize| before + 1 + text.get(..at).unwrap_or(text).matches('\n').count();
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
        if rest.starts_with("<!") {
            return Err(XmlError::DocumentType(line(at)));
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
            return Err(XmlError::Depth(line(at)));
        }
        if tag.attributes > MOST_ATTRIBUTES {
            return Err(XmlError::Attributes(line(at)));
        }
        if namespaces > MOST_NAMESPACES {
            return Err(XmlError::Namespaces(line(at)));
        }
        if attributes > MOST_NODES as usize {
            return Err(XmlError::Nodes);
        }
        at += tag.length;
        if depth == 0
            && let Some(start) = another(text.get(at..).unwrap_or_default())
        {
            return Ok(at + start);
        }
    }
    Ok(text.len())
}

/// Where another document begins in what follows a root element: at a tag or an XML declaration
/// after white space, comments and instructions.
fn another(text: &str) -> Option<usize> {
    let mut rest = text;
    loop {
        rest = rest.trim_ascii_start();
        let at = text.len() - rest.len();
        let marked = rest.strip_prefix('\u{feff}').unwrap_or(rest);
        let skipped = [("<!--", "-->"), ("<?", "?>")];
        let Some((start, end)) = skipped.iter().find(|(start, _)| marked.starts_with(start)) else {
            let begins = marked.starts_with('<') && !marked.starts_with("</");
            return begins.then_some(at);
        };
        if is_declaration(marked) {
            return Some(at);
        }
        rest = marked[start.len()..].split_once(end)?.1;
    }
}

fn is_declaration(text: &str) -> bool {
    let rest = text.strip_prefix("<?xml");
    rest.is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_whitespace()))
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
