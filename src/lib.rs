//! luksmith creates, opens and keeps LUKS1 and LUKS2 volumes entirely in user space.

pub mod backend;
pub mod container;
pub mod crypt;
mod interrupt;
pub mod kdf;
pub mod secret;
pub mod sectors;
pub mod sys;
pub mod volume;
pub mod xts;

pub use interrupt::Interrupt;
