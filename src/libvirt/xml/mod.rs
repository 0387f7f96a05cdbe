//! libvirt's XML: what a domain's disks are, which secrets open them, and the forms in which secrets, volumes and disks are defined.
//!
//! What is read is what luksmith acts on, and nothing else: a document that is read and written again loses the rest, so what libvirt
//! defined is never rewritten from here. Texts come through [`Xml`](crate::xml::Xml), within its bounds; elements that a newer libvirt
//! may have are passed over. What is written is escaped by the writer, and a text that XML cannot hold is refused ([`WriteError`]).
//!
//! References: libvirt's `formatdomain`, `formatstorage`, `formatstorageencryption` and `formatsecret` pages, and its RELAX NG schemas,
//! against which the tests hold what is written.

mod disk;
mod domain;
mod encryption;
mod secret;
mod source;
mod volume;
mod write;

#[cfg(test)]
mod tests;

pub use disk::{Device, Disk, Driver, Target};
pub use domain::{DomainXml, SecretUse};
pub use encryption::{Encryption, Engine, Format, SecretRef};
pub use secret::{SecretXml, Usage, UsageType};
pub use source::{Auth, Host, Label, Layer, Network, Source, Store};
pub use volume::VolumeXml;
pub use write::WriteError;

use crate::xml::{Element, XmlError};

/// Why a text is not read as one of libvirt's documents.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReadError {
    /// It is no XML, or more than is read.
    #[error(transparent)]
    Xml(#[from] XmlError),
    /// Another document.
    #[error("the XML is of a <{found}>, not of a <{wanted}>")]
    Root {
        /// The outermost element.
        found: String,
        /// The one that was to be read.
        wanted: &'static str,
    },
    /// An element or attribute without which nothing can be done.
    #[error("line {line}: <{element}> has no {missing}")]
    Missing {
        /// Where the element begins.
        line: usize,
        /// The element.
        element: String,
        /// The attribute or the element in it.
        missing: &'static str,
    },
    /// A value that is none of those that libvirt has.
    #[error("line {line}: {what} is {value:?}, which is not known")]
    Value {
        /// Where the element begins.
        line: usize,
        /// The element or attribute.
        what: &'static str,
        /// What is there.
        value: String,
    },
}

/// The outermost element, if it is of this name.
fn root<'a>(xml: &'a crate::xml::Xml<'_>, wanted: &'static str) -> Result<Element<'a>, ReadError> {
    let root = xml.root();
    if root.is(wanted) {
        return Ok(root);
    }
    Err(ReadError::Root {
        found: root.name().to_owned(),
        wanted,
    })
}

fn missing(element: Element<'_>, missing: &'static str) -> ReadError {
    ReadError::Missing {
        line: element.line(),
        element: element.name().to_owned(),
        missing,
    }
}

fn unknown(element: Element<'_>, what: &'static str, value: &str) -> ReadError {
    ReadError::Value {
        line: element.line(),
        what,
        value: value.to_owned(),
    }
}

/// An attribute that has to be there.
fn required<'a>(element: Element<'a>, name: &'static str) -> Result<&'a str, ReadError> {
    element
        .attribute(name)
        .ok_or_else(|| missing(element, name))
}

/// An attribute, as its owner keeps it.
fn optional(element: Element<'_>, name: &str) -> Option<String> {
    element.attribute(name).map(str::to_owned)
}

/// The text of an element in another, if it is there and not empty.
fn text(element: Element<'_>, name: &str) -> Option<String> {
    let text = element.child(name)?.text();
    (!text.is_empty()).then_some(text)
}
