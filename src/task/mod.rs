//! Whole pieces of work, for any front end: a command line, a daemon, a binding to another
//! language.
//!
//! A task asks no questions and prints nothing. What it has to say goes to a [`Watch`] while it
//! runs; why it failed is an [`Error`], whose [`Kind`] a program maps to its own exit codes or
//! exceptions, and whose [`Advice`] says what may help. A task that would destroy something returns
//! what would be lost before it touches anything: the caller decides.

mod advice;
#[cfg(feature = "vet")]
pub mod audit;
pub mod copy;
pub mod cost;
#[cfg(feature = "libvirt")]
pub mod emulator;
mod error;
mod kinds;
#[cfg(feature = "libvirt")]
pub mod libvirt;
#[cfg(feature = "nbd")]
pub mod listen;
pub mod measure;
pub mod new_file;
pub mod new_volume;
mod note;
pub mod open;
pub mod plain;
mod printable;
pub mod size;
pub mod storage;
mod watch;

pub use advice::{Advice, key_sizes};
pub use error::{Error, Kind, chain};
pub use note::Note;
pub use printable::printable;
pub use watch::{Silent, Unit, Watch, Work, Working};
