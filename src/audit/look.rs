//! A look at the bytes of an image: what they resemble, and which other files they name. It stays at the headers.

use super::inventory::Look;
use crate::backend::{Backend, IoError};
use crate::vet::{Format, Policy, headers, identify};

/// The most bytes of an image that are read for its headers and descriptors; the tables are not walked.
const BUDGET: u64 = 2 << 20;

/// Looks at an image of a format, as libvirt spells it. No reference is followed.
///
/// # Errors
/// What the storage says.
pub fn look(storage: &dyn Backend, format: &str) -> Result<Look, IoError> {
    let mut look = Look {
        looks_like: identify(storage)?,
        size: Some(storage.geometry().size),
        references: Vec::new(),
    };
    let format = match format {
        "vpc" => "vhd",
        format => format,
    };
    if let Some(format) = Format::by_name(format).filter(|format| *format != Format::Raw) {
        let report = headers(storage, format, &Policy::default(), BUDGET)?;
        look.size = report.virtual_size;
        look.references = report.references;
    }
    Ok(look)
}
