//! A new volume in a new file, on a device or on an export.
//!
//! [`Plan::look`] checks the options against each other and against what exists, and changes
//! nothing. [`Plan::losses`] is what making the volume would destroy: the caller decides whether to
//! continue. [`Plan::make`] makes the files, writes the header, and returns a [`Made`], which the
//! caller can fill with data. [`Made::keep`] gives the files their names. Without it they are
//! removed.

mod made;
mod new_header;
mod options;
mod plan;
mod there;

pub use made::Made;
pub use new_header::NewHeader;
pub use options::{Extent, NewVolume};
pub use plan::Plan;
pub use there::{FoundVolume, Loss};
