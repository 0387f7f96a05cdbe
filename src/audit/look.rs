//! Reads the headers of an image: the formats whose signature it has, and the other files that it
//! names.

use super::inventory::Look;
use crate::backend::{Backend, IoError};
use crate::vet::{Format, Policy, headers, identify};

/// The most bytes of an image that are read, for its headers and descriptors. The header extensions
/// of a qcow2 image are in its first cluster, of up to 2 MiB. Its tables are not all checked.
const BUDGET: u64 = 8 << 20;

/// Reads the headers of an image. `format` is libvirt's name of its format. No reference is
/// followed.
///
/// # Errors
/// Returns the error of the storage.
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
