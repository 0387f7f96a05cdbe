//! XML from untrusted sources, parsed within bounds.
//!
//! Only elements, attributes and text are read. A document type declaration, which could define
//! entities, is refused, so that nothing is expanded and nothing is fetched. Size, depth and
//! counts are checked before the parser runs, because the parser compares the attributes of an
//! element with each other and copies namespaces to elements, which an attacker could make
//! expensive. Every element knows its line.
//!
//! ```
//! let xml = luksmith::xml::Xml::parse(b"<domain>\n<name>vm1</name>\n</domain>")?;
//! let name = xml.root().child("name").unwrap();
//! assert_eq!((name.text().as_str(), name.line()), ("vm1", 2));
//! # Ok::<(), luksmith::xml::XmlError>(())
//! ```

mod error;
mod lines;
mod shape;
#[cfg(any(feature = "libvirt", feature = "vet"))]
mod shared_memory;

#[cfg(test)]
mod tests;

#[cfg(any(feature = "libvirt", feature = "vet"))]
pub(crate) use shared_memory::shares_memory;

pub use error::{MOST_ATTRIBUTES, MOST_BYTES, MOST_DEPTH, MOST_NAMESPACES, MOST_NODES, XmlError};

use std::fmt;
use std::ops::Range;

use lines::Lines;
use roxmltree::{Document, Node, ParsingOptions};

/// A parsed document.
pub struct Xml<'a> {
    document: Document<'a>,
    lines: Lines,
}

impl<'a> Xml<'a> {
    /// Parses a document.
    ///
    /// # Errors
    /// [`XmlError`] when it is not well-formed, or exceeds a bound.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, XmlError> {
        let text = text(bytes)?;
        let length = shape::check(text, 0)?;
        let lines = Lines::of(text, 0);
        if length < text.len() {
            return Err(XmlError::Second(lines.number(length)));
        }
        Self::checked(text, lines)
    }

    /// Parses a text that was found to be within the bounds.
    fn checked(text: &'a str, lines: Lines) -> Result<Self, XmlError> {
        let options = ParsingOptions {
            allow_dtd: false,
            nodes_limit: MOST_NODES,
            ..ParsingOptions::default()
        };
        match Document::parse_with_options(text, options) {
            Ok(document) => Ok(Self { document, lines }),
            Err(roxmltree::Error::NodesLimitReached) => Err(XmlError::Nodes),
            Err(error) => {
                let place = error.pos();
                let said = error.to_string();
                let said = match said.strip_suffix(&format!(" at {place}")) {
                    Some(what) => {
                        format!("{what} at {}:{}", lines.of_row(place.row), place.col)
                    }
                    None => said,
                };
                Err(XmlError::Syntax(said))
            }
        }
    }

    /// The root element.
    pub fn root(&self) -> Element<'_> {
        Element {
            node: self.document.root_element(),
            lines: &self.lines,
        }
    }
}

/// The documents of a text, one after another, as in a file with the output of several `virsh
/// dumpxml`. Their elements know their lines in the whole text.
///
/// If a document has an error, nothing after it is read.
pub fn documents(bytes: &[u8]) -> impl Iterator<Item = Result<Xml<'_>, XmlError>> {
    let (rest, error) = match text(bytes) {
        Ok(text) => (Some(text), None),
        Err(error) => (None, Some(error)),
    };
    let first = error.map(Err);
    first.into_iter().chain(Documents { rest, before: 0 })
}

struct Documents<'a> {
    /// What is not read yet.
    rest: Option<&'a str>,
    /// How many line ends are before it.
    before: usize,
}

impl<'a> Iterator for Documents<'a> {
    type Item = Result<Xml<'a>, XmlError>;

    fn next(&mut self) -> Option<Self::Item> {
        let rest = self.rest.take()?;
        let length = match shape::check(rest, self.before) {
            Ok(length) => length,
            Err(error) => return Some(Err(error)),
        };
        let (text, after) = rest.split_at(length);
        let lines = Lines::of(text, self.before);
        self.before = lines.until_end();
        let xml = Xml::checked(text, lines);
        self.rest = (xml.is_ok() && !after.is_empty()).then_some(after);
        Some(xml)
    }
}

/// The text of a document, within the limit of its size.
fn text(bytes: &[u8]) -> Result<&str, XmlError> {
    let begins = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
    let begins = begins.trim_ascii_start().first();
    if begins.is_some_and(|first| *first != b'<') {
        return Err(XmlError::Other);
    }
    if bytes.len() > MOST_BYTES {
        return Err(XmlError::Size(bytes.len()));
    }
    Ok(std::str::from_utf8(bytes)?)
}

impl fmt::Debug for Xml<'_> {
    /// Shows only the name of the root: the rest may hold passwords.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Xml({})", self.root().name())
    }
}

/// An element of a document. The names that its methods take are names in no namespace, as
/// libvirt's own are.
#[derive(Clone, Copy)]
pub struct Element<'a> {
    node: Node<'a, 'a>,
    lines: &'a Lines,
}

impl<'a> Element<'a> {
    /// Its name, without a prefix.
    pub fn name(self) -> &'a str {
        self.node.tag_name().name()
    }

    /// The URI of its namespace.
    pub fn namespace(self) -> Option<&'a str> {
        self.node.tag_name().namespace()
    }

    /// The number of the line in which it begins, counted from 1.
    pub fn line(self) -> usize {
        self.lines.number(self.node.range().start)
    }

    /// Where it is in the text, from its start tag to its end tag, in bytes.
    pub fn range(self) -> Range<usize> {
        self.node.range()
    }

    /// Where the value of an attribute is in the text, without its quotes, in bytes.
    pub fn range_of(self, attribute: &str) -> Option<Range<usize>> {
        let attribute = self.node.attribute_node(attribute)?;
        Some(attribute.range_value())
    }

    /// The value of an attribute.
    pub fn attribute(self, name: &str) -> Option<&'a str> {
        self.node.attribute(name)
    }

    /// Its child elements.
    pub fn elements(self) -> impl Iterator<Item = Self> {
        let within = self.node.children().filter(Node::is_element);
        within.map(move |node| Self { node, ..self })
    }

    /// Its child elements with this name.
    pub fn children(self, name: &str) -> impl Iterator<Item = Self> {
        self.elements().filter(move |one| one.is(name))
    }

    /// Its first child element with this name.
    pub fn child(self, name: &str) -> Option<Self> {
        self.children(name).next()
    }

    /// The element at a path of names, such as `["memoryBacking", "source"]`, by the first child
    /// of each name.
    pub fn at(self, path: &[&str]) -> Option<Self> {
        path.iter().try_fold(self, |one, name| one.child(name))
    }

    /// Itself, and every element inside it at any depth.
    pub fn descendants(self) -> impl Iterator<Item = Self> {
        let within = self.node.descendants().filter(Node::is_element);
        within.map(move |node| Self { node, ..self })
    }

    /// Whether it has this name and no namespace.
    pub fn is(self, name: &str) -> bool {
        self.namespace().is_none() && self.name() == name
    }

    /// Its own text, without that of child elements, and without leading and trailing white space.
    pub fn text(self) -> String {
        let texts = self.node.children().filter(Node::is_text);
        let text: String = texts.filter_map(|one| one.text()).collect();
        text.trim().to_owned()
    }
}

impl fmt::Debug for Element<'_> {
    /// Shows only its name and line: the rest may hold passwords.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Element({}, line {})", self.name(), self.line())
    }
}
