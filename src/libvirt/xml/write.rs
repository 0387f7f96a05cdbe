//! The writer: elements inside of elements, two blanks deep, every text escaped or refused.

use std::convert::Infallible;
use std::io;

use quick_xml::Writer;
use quick_xml::events::{BytesEnd, BytesStart, BytesText, Event};

/// Why something cannot be written as XML.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum WriteError {
    /// A character that XML cannot hold, or that a reader would turn into another.
    #[error("{what} holds the character {character:?}, which XML does not carry")]
    Character {
        /// The element or attribute.
        what: String,
        /// The first such character.
        character: char,
    },
}

/// Attributes in their order; those without a value are left out.
pub(super) type Attributes<'a> = &'a [(&'a str, Option<&'a str>)];

/// A document that is being written.
pub(super) struct Out {
    writer: Writer<Vec<u8>>,
    /// The first thing that could not be written.
    refused: Option<WriteError>,
}

impl Out {
    /// A whole document, of what `write` puts into it.
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

    /// An element with others inside of it.
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

    /// An element of attributes alone.
    pub(super) fn empty(&mut self, name: &str, attributes: Attributes<'_>) {
        let start = self.start(name, attributes);
        self.event(Event::Empty(start));
    }

    /// An element of text alone.
    pub(super) fn text(&mut self, name: &str, attributes: Attributes<'_>, text: &str) {
        self.check(name, text);
        let start = self.start(name, attributes);
        self.event(Event::Start(start));
        self.event(Event::Text(BytesText::new(text)));
        self.event(Event::End(BytesEnd::new(name)));
    }

    /// The same if there is a text.
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
                start.push_attribute((*attribute, *value));
            }
        }
        start
    }

    fn event(&mut self, event: Event<'_>) {
        let written: io::Result<()> = self.writer.write_event(event);
        // A vector takes everything.
        let _: Result<(), Infallible> = written.or(Ok(()));
    }

    /// Control characters are not XML, or are normalised by who reads it (XML 1.0, sections 2.2, 2.11 and 3.3.3).
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
