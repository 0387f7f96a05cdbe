//! libvirt's XML: the disks of a domain, the secrets that open them, and the definitions of
//! secrets, volumes and disks.
//!
//! Only what luksmith acts on is read. A document that is parsed and written again would lose the
//! rest, so a definition that libvirt already has is never rewritten: [`with_source`] changes one
//! source within its text. Input is parsed by
//! [`Xml`](crate::xml::Xml), within its bounds, and unknown elements of a newer libvirt are
//! ignored. Output is escaped, and a string that XML cannot carry is refused ([`WriteError`]).
//!
//! References: libvirt's `formatdomain`, `formatstorage`, `formatstorageencryption` and
//! `formatsecret` pages, and its RELAX NG schemas, against which the tests validate the output.

mod disk;
mod domain;
mod encryption;
mod secret;
mod source;
mod splice;
mod volume;
mod write;

#[cfg(test)]
mod tests;

pub use disk::{Device, Disk, Driver, Target};
pub use domain::{DomainXml, SecretUse};
pub use encryption::{Encryption, Engine, Format, SecretRef};
pub use secret::{SecretXml, Usage, UsageType};
pub use source::{Auth, Host, Label, Layer, Network, Source, Store, VhostUser};
pub use splice::{SpliceError, with_source};
pub use volume::VolumeXml;
pub use write::WriteError;

use crate::xml::{Element, XmlError};

/// Why input is not one of libvirt's documents.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReadError {
    /// The input is not XML, or exceeds the bounds of the parser.
    #[error(transparent)]
    Xml(#[from] XmlError),
    /// The input is another kind of document.
    #[error("the XML is of a <{found}>, not of a <{wanted}>")]
    Root {
        /// The root element.
        found: String,
        /// The expected root element.
        wanted: &'static str,
    },
    /// A required element or attribute is missing.
    #[error("line {line}: <{element}> has no {missing}")]
    Missing {
        /// The line on which the element begins.
        line: usize,
        /// The element.
        element: String,
        /// The missing attribute or child element.
        missing: &'static str,
    },
    /// A value that this crate does not know.
    #[error("line {line}: {what} is \"{value}\", which is not known")]
    Value {
        /// The line on which the element begins.
        line: usize,
        /// The element or attribute.
        what: &'static str,
        /// The value.
        value: String,
    },
}

/// The root element, if it has this name.
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

/// A required attribute.
fn required<'a>(element: Element<'a>, name: &'static str) -> Result<&'a str, ReadError> {
    element
        .attribute(name)
        .ok_or_else(|| missing(element, name))
}

/// An optional attribute.
fn optional(element: Element<'_>, name: &str) -> Option<String> {
    element.attribute(name).map(str::to_owned)
}

/// The text of a child element, if it exists and is not empty.
fn text(element: Element<'_>, name: &str) -> Option<String> {
    let text = element.child(name)?.text();
    (!text.is_empty()).then_some(text)
}
