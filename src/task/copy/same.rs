//! Refuses to copy a volume onto itself.

use crate::container::Container;
use crate::location::Location;
use crate::task::destination::Destination;
use crate::task::new_volume::{Extent, Loss, NewVolume, Plan};
use crate::task::open::Image;
use crate::task::{Error, Kind};

/// Refuses a destination that is a part of the source: its data or its detached header. Files are
/// compared by device and inode, block devices by their numbers.
///
/// # Errors
/// [`Kind::Parameters`] for the same file or device, and failed system calls.
pub fn refuse_same(source: &Image, destination: &Destination) -> Result<(), Error> {
    let parts = [
        (source.location.path(), "volume"),
        (source.header_location().path(), "header"),
    ];
    for (part, what) in parts {
        let Some(part) = part else { continue };
        if destination.is_also(part)? {
            let message = format!("{} is the {what} itself", destination.path().display());
            return Err(Error::parameters(message));
        }
    }
    Ok(())
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
        if let Some(path) = place.path() {
            refuse_same(source, &Destination::look(path)?)?;
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
