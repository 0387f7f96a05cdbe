//! Replaces the passphrases of libvirt's secrets, in the volumes and in the secrets.
//!
//! [`Rotation::select`] reads which volumes and secrets a libvirt has. [`Rotation::run`] rotates
//! the secrets of the selected volumes, one after the other; [`Rotation::check`] only looks for
//! faults.
//!
//! - `rotation`: the selection. `steps`: the order in which one secret is rotated.
//! - `volume`: the keyslots of one volume. `live`: the same while a domain has it open.
//! - `journal`: what another run needs to complete an interrupted rotation. `mark`: what proves
//!   that a keyslot is still the same. `kept`: the secret that keeps a passphrase until then.
//! - `check`: faults, without changing anything.

mod check;
mod error;
mod journal;
mod kept;
mod live;
mod mark;
mod options;
mod rotation;
mod steps;
mod volume;

pub use check::{Fault, Finding};
pub use error::RotateError;
pub(super) use journal::is_unfinished;
pub use options::{RotateOptions, Selection};
pub use rotation::Rotation;
pub use steps::Rotated;
