//! What a command did or found: structs with a line for people (`Display`) and members for programs
//! (JSON). A front end prints one of the two.
//!
//! Each member has one name wherever it occurs, and is `null` where it does not apply.
//! `docs/programs.md` explains the names, and `docs/schema/` has the JSON Schema of every document.

#[cfg(feature = "vet")]
mod audited;
mod change;
mod copied;
mod created;
mod describe;
mod described;
#[cfg(feature = "vet")]
mod inspected;
#[cfg(feature = "libvirt")]
mod libvirt;
mod names;
#[cfg(feature = "s3")]
mod objects;
#[cfg(feature = "libvirt")]
mod rekeyed;
#[cfg(feature = "libvirt")]
mod rotated;
#[cfg(feature = "vet")]
mod searched;
mod trusted;

#[cfg(feature = "vet")]
pub use audited::audited;
pub use change::{Change, Changed};
pub use copied::Copied;
pub use created::Created;
pub use describe::{Described, keyslots, tokens};
pub use described::keyslot_cells;
#[cfg(feature = "vet")]
pub use inspected::inspected;
#[cfg(feature = "libvirt")]
pub use libvirt::{AmendedKeyslots, DiskChange, SecretChange};
pub use names::{bytes_of, hex, image, priority, qcow2, type_name};
#[cfg(feature = "s3")]
pub use objects::{Kept, Upkeep, objects_rows, objects_snapshots, objects_state, snapshot_line};
#[cfg(feature = "libvirt")]
pub use rekeyed::{checked_to_rekey, rekeyed};
#[cfg(feature = "libvirt")]
pub use rotated::{checked, rotated};
#[cfg(feature = "vet")]
pub use searched::{searched, searched_lines};
pub use trusted::{Done, Trusted, kept, kept_cells};

use luksmith_formats::json::Object;

/// The version of the vocabulary: the member `schema` of every document and event.
pub const SCHEMA: &str = "luksmith/1";

/// What a command did or found. Its `Display` is a line for people.
pub trait Outcome: std::fmt::Display {
    /// The members of its JSON object.
    fn members(&self) -> Object;
}
