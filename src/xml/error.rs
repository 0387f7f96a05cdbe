//! The bounds of a document, and why it is not read.

/// The largest size of a document, in bytes: that of the longest string that libvirt sends.
pub const MOST_BYTES: usize = 4 << 20;
/// The largest depth of nested elements.
pub const MOST_DEPTH: usize = 64;
/// The largest number of nodes: elements, texts and comments.
pub const MOST_NODES: u32 = 100_000;
/// The largest number of attributes of one element.
pub const MOST_ATTRIBUTES: usize = 256;
/// The largest number of namespace declarations.
pub const MOST_NAMESPACES: usize = 64;

/// Why input is not read as XML.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum XmlError {
    /// It is longer than [`MOST_BYTES`].
    #[error("the XML has {0} bytes; the most is {MOST_BYTES}")]
    Size(usize),
    /// It does not begin with a tag.
    #[error("it is not XML in UTF-8: it does not begin with a tag")]
    Other,
    /// It is not UTF-8.
    #[error("the XML is not UTF-8")]
    Utf8(#[from] std::str::Utf8Error),
    /// Its XML declaration names another encoding.
    #[error("the XML declares another encoding than UTF-8")]
    Encoding,
    /// It has a document type declaration, which could define entities.
    #[error("line {0}: the XML has a document type, which is not read")]
    DocumentType(usize),
    /// Its elements are nested deeper than [`MOST_DEPTH`].
    #[error("line {0}: more than {MOST_DEPTH} elements are nested")]
    Depth(usize),
    /// It has more nodes, or more attributes in total, than [`MOST_NODES`].
    #[error("the XML has more than {MOST_NODES} elements, texts or attributes")]
    Nodes,
    /// One element has more attributes than [`MOST_ATTRIBUTES`].
    #[error("line {0}: an element has more than {MOST_ATTRIBUTES} attributes")]
    Attributes(usize),
    /// It declares more namespaces than [`MOST_NAMESPACES`].
    #[error("line {0}: more than {MOST_NAMESPACES} namespaces are declared")]
    Namespaces(usize),
    /// Another root element follows the first one. [`documents`](super::documents) reads both.
    #[error("line {0}: a second document begins here")]
    Second(usize),
    /// It is not well-formed XML. The text says what is wrong, and at which line and column.
    #[error("the XML is not well-formed: {0}")]
    Syntax(String),
}
