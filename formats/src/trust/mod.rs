//! The files of the folder DIR of `--trust DIR`, which the host of a volume keeps.

pub mod pin;
pub mod tags;
