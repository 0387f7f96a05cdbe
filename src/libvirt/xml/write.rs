//! The XML writer: nested elements, indented by two spaces, with every string escaped or refused.

use std::convert::Infallible;
use std::fmt::Write as _;
use std::io;

use luksmith_formats::text::is_control;
use quick_xml::Writer;
use quick_xml::escape::escape;
use quick_xml::events::attributes::Attr;
use quick_xml::events::{BytesEnd, BytesStart, BytesText, Event};

/// Why a string cannot be written as XML.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum WriteError {
    /// The string contains a character that XML does not allow, or that a parser would replace by
    /// another one.
    #[error("{what} contains the character U+{:04X}, which XML cannot contain", u32::from(*.character))]
    Character {
        /// The element or attribute.
        what: String,
        /// The first such character.
        character: char,
    },
}

/// Attributes in their order. Those without a value are left out.
pub(super) type Attributes<'a> = &'a [(&'a str, Option<&'a str>)];

/// A document that is being written.
pub(super) struct Out {
    writer: Writer<Vec<u8>>,
    /// The first string that was refused.
    refused: Option<WriteError>,
}

impl Out {
    /// A whole document, which `write` fills.
    pub(super) fn document(write: impl FnOnce(&mut Self)) -> Result<String, WriteError> {
        let mut out = Self {
            writer: Writer::new_with_indent(Vec::new(), b' ', 2),
            refused: None,
        };
        write(&mut out);
        match out.refused {
            Some(error) => Err(error),
            None => Ok(String::from_utf8_lossy(&out.writer.into_inner()).into_owned()),
        }
    }

    /// An element with child elements, which `inner` writes.
    pub(super) fn element(
        &mut self,
        name: &str,
        attributes: Attributes<'_>,
        inner: impl FnOnce(&mut Self),
    ) {
        let start = self.start(name, attributes);
        self.event(Event::Start(start));
        inner(self);
        self.event(Event::End(BytesEnd::new(name)));
    }

    /// An element that has only attributes.
    pub(super) fn empty(&mut self, name: &str, attributes: Attributes<'_>) {
        let start = self.start(name, attributes);
        self.event(Event::Empty(start));
    }

    /// An element that holds text.
    pub(super) fn text(&mut self, name: &str, attributes: Attributes<'_>, text: &str) {
        self.check(name, text);
        let start = self.start(name, attributes);
        self.event(Event::Start(start));
        self.event(Event::Text(BytesText::from_escaped(escaped(text))));
        self.event(Event::End(BytesEnd::new(name)));
    }

    /// The same, if there is text.
    pub(super) fn text_if(&mut self, name: &str, text: Option<&str>) {
        if let Some(text) = text {
            self.text(name, &[], text);
        }
    }

    fn start<'a>(&mut self, name: &'a str, attributes: Attributes<'_>) -> BytesStart<'a> {
        let mut start = BytesStart::new(name);
        for (attribute, value) in attributes {
            if let Some(value) = value {
                self.check(attribute, value);
                start.push_attribute(Attr::DoubleQ(*attribute, escaped(value).as_str()));
            }
        }
        start
    }

    fn event(&mut self, event: Event<'_>) {
        let written: io::Result<()> = self.writer.write_event(event);
        // Writing to a vector does not fail.
        let _: Result<(), Infallible> = written.or(Ok(()));
    }

    /// Refuses control characters: XML does not allow them, or a parser normalises them (XML 1.0,
    /// sections 2.2, 2.11 and 3.3.3).
    fn check(&mut self, what: &str, text: &str) {
        let bad = |c: &char| c.is_control() || matches!(c, '\u{fffe}' | '\u{ffff}');
        if let (None, Some(character)) = (&self.refused, text.chars().find(bad)) {
            self.refused = Some(WriteError::Character {
                what: what.to_owned(),
                character,
            });
        }
    }
}

/// A text for an element or an attribute. The characters that turn the direction of text are
/// references, so that the XML reads as it is.
fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in escape(text).chars() {
        if is_control(c) {
            // Writing to a string does not fail.
            let _ = write!(out, "&#x{:X};", u32::from(c));
        } else {
            out.push(c);
        }
    }
    out
}
