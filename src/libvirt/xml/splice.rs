//! Another source for a disk of a domain. All else of the disk stays as libvirt wrote it.

use std::ops::Range;

use super::source::Source;
use super::{ReadError, WriteError, missing, root};
use crate::xml::Xml;

/// Why the XML of a disk cannot get another source.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SpliceError {
    /// The domain, or the result, is not XML of libvirt.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The source has a string that XML cannot contain.
    #[error(transparent)]
    Write(#[from] WriteError),
}

/// The XML of the disk with this target of a domain, with another source. `None` if the domain has
/// no such disk. Only the type of the disk, its source, and an encryption or a login beside the
/// source are replaced: addresses, options of the driver and elements that this crate does not know
/// stay.
///
/// # Errors
/// [`SpliceError`].
pub fn with_source(
    domain: &str,
    target: &str,
    source: &Source,
) -> Result<Option<String>, SpliceError> {
    let xml = Xml::parse(domain.as_bytes()).map_err(ReadError::from)?;
    let devices = root(&xml, "domain")?.child("devices").into_iter();
    let mut disks = devices.flat_map(|devices| devices.children("disk"));
    let disk = disks.find(|disk| {
        let target_element = disk.child("target");
        target_element.and_then(|one| one.attribute("dev")) == Some(target)
    });
    let Some(disk) = disk else {
        return Ok(None);
    };
    let kind = disk.range_of("type").ok_or_else(|| missing(disk, "type"))?;
    let old = disk
        .child("source")
        .ok_or_else(|| missing(disk, "source"))?;
    let beside = ["encryption", "auth"].into_iter();
    let beside = beside.filter_map(|name| disk.child(name));
    let mut parts: Vec<(Range<usize>, String)> = beside
        .map(|element| (element.range(), String::new()))
        .collect();
    parts.push((kind, source.store.kind().to_owned()));
    parts.push((old.range(), source.to_xml()?));
    parts.sort_by_key(|(range, _)| range.start);

    let whole = disk.range();
    let mut text = String::new();
    let mut at = whole.start;
    for (range, part) in parts {
        text.push_str(&domain[at..range.start]);
        text.push_str(&part);
        at = range.end;
    }
    text.push_str(&domain[at..whole.end]);
    Ok(Some(text))
}
