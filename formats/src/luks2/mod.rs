//! LUKS2: two copies of a binary header with JSON metadata (*LUKS2 On-Disk Format Specification*
//! 1.1).
//!
//! [`Header`] is one copy. Its [`Metadata`] keeps the JSON as it is, so that unknown members and
//! tokens survive a rewrite. A typed view is derived from the JSON and validated. An edit changes
//! the JSON, derives and validates the view again, and takes effect only then.
//!
//! A name of a cipher, a hash or a KDF that is not known does not make a header invalid, nor do
//! other members that only matter where a key is used: the object is kept, and refused where it is
//! used.
//!
//! A keyslot, its area and a digest have exactly the members that the specification gives them, so
//! their structs can be written as literals. The structs that may get more members are
//! `#[non_exhaustive]`.

mod authenticated;
mod config;
mod digest;
mod edit;
mod header;
mod kdf;
mod keyslot;
mod metadata;
mod node;
mod reencrypt;
mod reencryption;
mod segment;
mod text;
mod token;
mod validate;
mod view;

pub use authenticated::AuthenticatedSegment;
pub use config::{Config, Requirements};
pub use digest::{Digest, OtherDigest};
pub use edit::Draft;
pub use header::{HEADER_SIZES, Header, MAGIC_SECONDARY, Position};
pub use kdf::{Argon2Variant, Kdf};
pub use keyslot::{Af, Area, Keyslot, Luks2Keyslot, OtherKeyslot, Priority};
pub use metadata::{Metadata, NewConfig};
pub use reencrypt::{Direction, ReencryptKeyslot, ReencryptMode, Resilience};
pub use reencryption::{
    NewReencryption, Previous, Progress, REENCRYPT_REQUIREMENT, REENCRYPT_VERSION, Reencryption,
};
pub use segment::{CryptSegment, LinearSegment, OtherSegment, Segment, SegmentSize};
pub use token::Token;

/// The maximum number of keyslots, of tokens, and of segments.
pub const MAX_OBJECTS: u32 = 32;
/// The maximum number of digests.
pub const MAX_DIGESTS: u32 = 8;
/// The alignment of keyslot areas, and the length of the binary header, in bytes.
pub const ALIGNMENT: u64 = 4096;
/// The maximum size of the keyslots area, in bytes.
pub const MAX_KEYSLOTS_SIZE: u64 = 128 << 20;
/// The length of every salt, in bytes.
pub const SALT_SIZE: usize = 32;
/// The anti-forensic stripes of every keyslot.
pub const STRIPES: u32 = 4000;
