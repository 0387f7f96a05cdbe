//! Refuses to copy a volume onto itself.

use crate::backend::Backend;
use crate::container::Container;
use crate::location::{Location, Part};
use crate::sectors::{Cipher, Sectors};
use crate::task::destination::Destination;
use crate::task::new_volume::{Extent, Loss, NewVolume, Plan};
use crate::task::open::Image;
use crate::task::plain::PlainSource;
use crate::task::storage::{Nature, Storage};
use crate::task::{Error, Kind, ceph, objects};

/// Refuses a destination, or a part of it, that holds the source: its data or its detached header.
/// Files are compared by device and inode, block devices by their numbers.
///
/// # Errors
/// [`Kind::Parameters`] for the same file or device, and failed system calls.
pub(super) fn refuse_same(
    source: &Image,
    destination: &Destination,
    part: Option<Part>,
) -> Result<(), Error> {
    let places = [
        (&source.location, "volume"),
        (source.header_location(), "header"),
    ];
    for (place, what) in places {
        let Some(path) = place.path_of_whole() else {
            continue;
        };
        if !destination.is_also(path)? || are_apart(part, place.part()) {
            continue;
        }
        let name = destination.path().display();
        return Err(Error::parameters(match place.part() {
            None => format!("{name} is the {what} itself"),
            Some(_) => format!("the {what} is in {name}"),
        }));
    }
    Ok(())
}

/// Whether two parts of one file are named so that they could be apart. Parts that overlap are
/// refused when they are opened.
fn are_apart(one: Option<Part>, other: Option<Part>) -> bool {
    matches!((one, other), (Some(one), Some(other)) if one != other)
}

/// Plans the new volume at `location` to which an opened volume of `size` bytes is copied. A device
/// or an export may be larger.
///
/// What is overwritten in place must not have the UUID of the source: it may be the source by
/// another way, such as a server of the same file.
///
/// # Errors
/// As [`Plan::look`]; [`Kind::Parameters`] if the destination is the source.
pub fn plan_transfer(
    source: &Image,
    container: &Container,
    size: u64,
    new: NewVolume,
    location: &Location,
) -> Result<Plan, Error> {
    for place in [Some(location), new.header.as_ref()].into_iter().flatten() {
        if let Some(path) = place.path_of_whole() {
            refuse_same(source, &Destination::look(path)?, place.part())?;
        }
    }
    for place in [&source.location, source.header_location()] {
        let same = ceph::is_same(place, location, new.remote).unwrap_or(false);
        if same || objects::is_same(place, location) {
            return Err(Error::parameters(format!("the source is in {location}")));
        }
    }
    let plan = Plan::look(new, location, Extent::AtLeast(size))?;
    for loss in plan.losses() {
        if let Loss::Storage {
            location,
            volume: Some(volume),
        } = loss
            && volume.uuid == container.uuid()
        {
            let message = format!(
                "{location} holds a volume with the UUID of the source, and may be the source \
                 itself"
            );
            return Err(Error::new(Kind::Parameters, message));
        }
    }
    Ok(plan)
}

/// Plans the new volume into which a plain source is encrypted.
///
/// An export that has the size and the beginning of a source on an export is refused: it may be the
/// source.
///
/// # Errors
/// As [`Plan::look`]; [`Kind::Parameters`] if the destination is the source.
pub fn plan_encrypt(
    source: &PlainSource,
    new: NewVolume,
    location: &Location,
    extent: Extent,
) -> Result<Plan, Error> {
    let plan = Plan::look(new, location, extent)?;
    if let (Some(target), Some((begin, size))) = (plan.in_place(), source.begin_of_export()?)
        && target.nature == Nature::Export
    {
        refuse_same_bytes(target, &begin, size, location)?;
    }
    Ok(plan)
}

/// Refuses a storage and an export that have the same size and the same beginning. `location` is
/// the one that would be overwritten.
pub(super) fn refuse_same_bytes(
    storage: &Storage,
    begin: &[u8],
    size: u64,
    location: &Location,
) -> Result<(), Error> {
    let geometry = storage.backend.geometry();
    let zeroes = begin.iter().all(|byte| *byte == 0);
    if geometry.size != size || zeroes {
        return Ok(());
    }
    let unit = geometry.block_size.max(1) as usize;
    let mut own = Sectors::<Cipher>::with_len(begin.len() / unit * unit);
    storage.backend.read_at(0, &mut own)?;
    if !begin.starts_with(own.as_slice()) || own.is_empty() {
        return Ok(());
    }
    let message =
        format!("{location} has the size and the beginning of the source, and may be the source");
    Err(Error::new(Kind::Parameters, message))
}
