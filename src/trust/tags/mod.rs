//! Tags: one for each 4 KiB of a volume's ciphertext, kept on this host, so that data which the
//! storage has changed, moved or rolled back are errors.
//!
//! # What holds
//!
//! A read returns what was written last, or fails. After the host or the storage has failed, each
//! block has what was flushed last, or something that was written to it since, as with an honest
//! disk. If it has something else, it is an error until it is written again.
//!
//! # How
//!
//! A write first puts its tag into a log on this host (`store`), and waits until that is durable;
//! writes that come together share the wait. Then the storage gets the data. A flush flushes the
//! storage, and then makes a record durable which says that every change before it is. When a log
//! is long, its tags move to their places in the file of tags (`pages`), once the storage has them
//! durably.
//!
//! After a crash the logs say which contents each block can have (`recover`): the newest one that
//! was durable, or a later one. The block is read, and the content that it has is the only one from
//! then on, so that a storage cannot show one content now and another one later.
//!
//! The tag is a function of the volume key, the place and the content (`key`). So a volume has the
//! tags of every version of a block that counts, and there are no nonces to lose.

mod alarm;
mod blocks;
mod error;
mod file;
mod key;
mod open;
mod options;
mod pages;
mod recover;
mod state;
mod store;
mod tagged;
#[cfg(target_arch = "x86_64")]
mod x86_64;

pub use blocks::Covered;
pub use error::TagsError;
pub use file::{Access, StoreFile, StoreFiles};
pub use key::TagKey;
pub use open::{has_tags, make};
pub use options::TagsOptions;
pub use recover::Recovery;
pub use tagged::Tagged;
