//! Fetches what an audit judges: XML from files and from a libvirt, the settings and the state of a
//! host, and the headers of images.
//!
//! [`audit`](crate::audit) has the rules, which open nothing.
//!
//! ```no_run
//! use std::path::Path;
//!
//! use luksmith::audit::{Inventory, Policy, audit};
//! use luksmith::task::Silent;
//! use luksmith::task::audit::{add_host, add_images, read_document};
//!
//! # fn main() -> Result<(), luksmith::task::Error> {
//! let mut inventory = Inventory::default();
//! inventory.documents.push(read_document(Path::new("vm1.xml"))?);
//! add_host(Path::new("/"), &mut inventory)?;
//! add_images(&mut inventory, &Silent::default())?;
//! let report = audit(&inventory, &Policy::default());
//! # Ok(())
//! # }
//! ```

#[cfg(feature = "libvirt")]
mod connection;
mod file;
mod host;
mod images;

#[cfg(feature = "libvirt")]
pub use connection::add_objects;
pub use file::{LARGEST_DOCUMENT, read_document, read_policy};
pub use host::add_host;
pub use images::add_images;
