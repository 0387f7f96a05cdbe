//! Bulk copies between plain data and a volume, and from one volume to another.
//!
//! One thread reads or writes the plain data (the plain end). One or more threads read or write the
//! volume. A few buffers are between them. Bytes are read into the buffer in which they are
//! encrypted or decrypted. If each call to the storage waits for a server, several chunks are in
//! flight, one for each thread at the volume. These threads get the chunks in turn, so that the
//! plain end handles them in order. Between two volumes, one thread passes on the chunks in order.

mod decrypt;
mod encrypt;
mod fill;
mod lanes;
mod same;
mod target;
mod transfer;
mod volume_end;

pub use decrypt::decrypt;
pub use encrypt::encrypt;
pub use fill::Fill;
pub use same::{plan_encrypt, plan_transfer};
pub use target::PlainTarget;
pub use transfer::transfer;

pub use super::part::open_beside;
