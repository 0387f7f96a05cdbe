//! New volume keys for the disks of domains, which QEMU encrypts itself: each disk is copied into a
//! new volume with a new secret, also while its domain runs, and the old header is erased.
//!
//! [`Rekey::select`] finds the encrypted disks of domains. [`Rekey::run`] gives each of them a new
//! volume, several at once if the caller wants that. [`Rekey::check`] only says which of them would
//! be refused.
//!
//! - `selection`: the disks, each a `unit`. `look`: one disk, its volume and its secret, and why it
//!   is refused.
//! - `steps`: the order in which one disk gets its new volume. `journal`: what another run needs to
//!   complete an interrupted one.
//! - `make`: the new volume and its secret. `copy`: the copy, by QEMU or by this process, and the
//!   change of the definition. `finish`: the proof, and the end of the old volume and its secret.
//! - `uses`: which disks are a volume. `at_once`: several disks at once, and their progress.

mod at_once;
mod copy;
mod error;
mod finish;
mod journal;
mod look;
mod make;
mod options;
mod selection;
mod steps;
mod unit;
mod uses;

pub use error::RekeyError;
pub use options::RekeyOptions;
pub use selection::{Obstacle, Rekey};
pub use steps::Rekeyed;
pub use unit::Unit;
