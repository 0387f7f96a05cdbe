//! XML from strangers, read within bounds.
//!
//! What is read is plain elements, attributes and text. A document type, and with it every entity of its own, is refused, so that
//! nothing expands and nothing is fetched. Size, depth and counts are capped before the parser sees a byte: it compares the
//! attributes of an element with each other, and copies namespaces to elements, which a stranger could make expensive. Every element
//! knows its line.
//!
//! ```
//! let xml = luksmith::xml::Xml::parse(b"<domain>\n<name>vm1</name>\n</domain>")?;
//! let name = xml.root().child("name").unwrap();
//! assert_eq!((name.text().as_str(), name.line()), ("vm1", 2));
//! # Ok::<(), luksmith::xml::XmlError>(())
//! ```

mod shape;

#[cfg(test)]
mod tests;

use std::fmt;

use roxmltree::{Document, Node, ParsingOptions};

/// The largest document in bytes: the longest string that libvirt sends.
pub const MOST_BYTES: usize = 4 << 20;
/// How many elements may lie inside of one another.
pub const MOST_DEPTH: usize = 64;
/// The most nodes: elements, texts and comments.
pub const MOST_NODES: u32 = 100_000;
/// The most attributes of one element.
pub const MOST_ATTRIBUTES: usize = 256;
/// The most namespaces that are declared.
pub const MOST_NAMESPACES: usize = 64;

/// Why a text is not read as XML.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum XmlError {
    /// More bytes than [`MOST_BYTES`].
    #[error("the XML has {0} bytes; the most is {MOST_BYTES}")]
    Size(usize),
    /// It does not begin with a tag: an image, a table, anything.
    #[error("it is no XML in UTF-8: it begins with something else")]
    Other,
    /// It is not UTF-8.
    #[error("the XML is not UTF-8")]
    Utf8(#[from] std::str::Utf8Error),
    /// It says of itself that it has another encoding.
    #[error("the XML declares another encoding than UTF-8")]
    Encoding,
    /// It has a document type, by which it could define entities.
    #[error("line {0}: the XML has a document type, which is not read")]
    DocumentType(usize),
    /// Elements lie in more elements than [`MOST_DEPTH`].
    #[error("line {0}: more than {MOST_DEPTH} elements lie inside of one another")]
    Depth(usize),
    /// More nodes than [`MOST_NODES`], or as many attributes.
    #[error("the XML has more than {MOST_NODES} elements, texts or attributes")]
    Nodes,
    /// More attributes of one element than [`MOST_ATTRIBUTES`].
    #[error("line {0}: an element has more than {MOST_ATTRIBUTES} attributes")]
    Attributes(usize),
    /// More namespaces than [`MOST_NAMESPACES`].
    #[error("line {0}: more than {MOST_NAMESPACES} namespaces are declared")]
    Namespaces(usize),
    /// It is no XML.
    #[error("the XML is not well-formed")]
    Syntax(#[from] roxmltree::Error),
}

/// A document that was read.
pub struct Xml<'a> {
    document: Document<'a>,
    /// Where each line begins, in bytes.
    lines: Vec<usize>,
}

impl<'a> Xml<'a> {
    /// Reads a document.
    ///
    /// # Errors
    /// [`XmlError`] where it is not well-formed, or goes beyond a bound.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, XmlError> {
        let begins = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
        let begins = begins.trim_ascii_start().first();
        if begins.is_some_and(|first| *first != b'<') {
            return Err(XmlError::Other);
        }
        if bytes.len() > MOST_BYTES {
            return Err(XmlError::Size(bytes.len()));
        }
        let text = std::str::from_utf8(bytes)?;
        let lines: Vec<_> = std::iter::once(0)
            .chain(text.match_indices('\n').map(|(at, _)| at + 1))
            .collect();
        shape::check(text, &lines)?;
        let options = ParsingOptions {
            allow_dtd: false,
            nodes_limit: MOST_NODES,
            ..ParsingOptions::default()
        };
        let document =
            Document::parse_with_options(text, options).map_err(|error| match error {
                roxmltree::Error::NodesLimitReached => XmlError::Nodes,
                error => XmlError::Syntax(error),
            })?;
        Ok(Self { document, lines })
    }

    /// The outermost element.
    pub fn root(&self) -> Element<'_> {
        Element {
            node: self.document.root_element(),
            lines: &self.lines,
        }
    }
}

impl fmt::Debug for Xml<'_> {
    /// The name of the root alone: the rest may hold passwords.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Xml({})", self.root().name())
    }
}

/// The number of the line, from 1, in which a byte lies.
fn line_of(lines: &[usize], at: usize) -> usize {
    lines.partition_point(|start| *start <= at)
}

/// An element of a document. Names are those without a namespace, as libvirt's own are, where nothing else is said.
#[derive(Clone, Copy)]
pub struct Element<'a> {
    node: Node<'a, 'a>,
    lines: &'a [usize],
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

    /// The line in which it begins, from 1.
    pub fn line(self) -> usize {
        line_of(self.lines, self.node.range().start)
    }

    /// The value of an attribute.
    pub fn attribute(self, name: &str) -> Option<&'a str> {
        self.node.attribute(name)
    }

    /// The elements directly inside of it.
    pub fn elements(self) -> impl Iterator<Item = Self> {
        let within = self.node.children().filter(Node::is_element);
        within.map(move |node| Self { node, ..self })
    }

    /// Those of a name, in no namespace.
    pub fn children(self, name: &str) -> impl Iterator<Item = Self> {
        self.elements().filter(move |one| one.is(name))
    }

    /// The first of a name, in no namespace.
    pub fn child(self, name: &str) -> Option<Self> {
        self.children(name).next()
    }

    /// The first at the end of a path of names, such as `["memoryBacking", "source"]`.
    pub fn at(self, path: &[&str]) -> Option<Self> {
        path.iter().try_fold(self, |one, name| one.child(name))
    }

    /// Every element inside of it, at any depth, and itself first.
    pub fn descendants(self) -> impl Iterator<Item = Self> {
        let within = self.node.descendants().filter(Node::is_element);
        within.map(move |node| Self { node, ..self })
    }

    /// Whether it has this name and no namespace.
    pub fn is(self, name: &str) -> bool {
        self.namespace().is_none() && self.name() == name
    }

    /// The text directly inside of it, without the blanks around it.
    pub fn text(self) -> String {
        let texts = self.node.children().filter(Node::is_text);
        let text: String = texts.filter_map(|one| one.text()).collect();
        text.trim().to_owned()
    }
}

impl fmt::Debug for Element<'_> {
    /// Its name and line alone: the rest may hold passwords.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Element({}, line {})", self.name(), self.line())
    }
}
