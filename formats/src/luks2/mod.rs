//! LUKS2: two copies of a binary header with JSON metadata (*LUKS2 On-Disk Format Specification* 1.1).
//!
//! [`Header`] is one copy. Its [`Metadata`] holds the JSON as it is, so that members and tokens that are not
//! known survive a rewrite, and beside it a typed view that was derived from that JSON and validated. An edit
//! changes the JSON, derives and validates again, and only then takes effect.
//!
//! A keyslot, its area and a digest have exactly the members that the specification gives them, so
//! their structs can be written as literals. The structs that may get more members are
//! `#[non_exhaustive]`.

mod config;
mod digest;
mod edit;
mod header;
mod kdf;
mod keyslot;
mod metadata;
mod node;
mod reencrypt;
mod segment;
mod text;
mod token;
mod validate;
mod view;

pub use config::{Config, Requirements};
pub use digest::Digest;
pub use edit::Draft;
pub use header::{HEADER_SIZES, Header, MAGIC_SECONDARY, Position};
pub use kdf::{Argon2Variant, Kdf};
pub use keyslot::{Af, Area, Keyslot, Luks2Keyslot, OtherKeyslot, Priority};
pub use metadata::{Metadata, NewConfig};
pub use reencrypt::{Direction, ReencryptKeyslot, ReencryptMode, Resilience};
pub use segment::{CryptSegment, LinearSegment, OtherSegment, Segment, SegmentSize};
pub use token::Token;

/// The most keyslots, tokens or segments.
pub const MAX_OBJECTS: u32 = 32;
/// The most digests.
pub const MAX_DIGESTS: u32 = 8;
/// The alignment of keyslot areas, and the length of the binary header.
pub const ALIGNMENT: u64 = 4096;
/// The largest keyslots area.
pub const MAX_KEYSLOTS_SIZE: u64 = 128 << 20;
/// The length of every salt.
pub const SALT_SIZE: usize = 32;
/// The anti-forensic stripes of every keyslot.
pub const STRIPES: u32 = 4000;
