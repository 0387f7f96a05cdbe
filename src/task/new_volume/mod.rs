//! A new volume in a new file, on a device or on an export.
//!
//! [`Plan::look`] checks the options against each other and against what exists, and changes
//! nothing. [`Plan::losses`] is what making the volume would destroy: the caller decides whether
//! that may be. [`Plan::make`] makes the files and writes the header. What comes of it, [`Made`],
//! can be filled; the files get their names with [`Made::keep`], and are removed without it.

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
