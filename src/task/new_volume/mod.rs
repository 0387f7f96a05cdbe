//! A new volume in a new file, on a device or on an export.
//!
//! [`Plan::look`] checks the options against each other and against what is there, and changes
//! nothing. [`Plan::losses`] is what making the volume would destroy: the caller decides whether
//! that may be. [`Plan::make`] makes the files and writes the header. What comes of it, [`Made`],
//! can be filled; the files get their names with [`Made::keep`], and are removed without it.

mod header_alone;
mod made;
mod options;
mod plan;
mod there;

pub use header_alone::HeaderAlone;
pub use made::Made;
pub use options::{Extent, NewVolume};
pub use plan::Plan;
pub use there::{FoundVolume, Loss};
