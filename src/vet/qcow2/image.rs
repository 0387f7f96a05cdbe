//! The parts of the header that all checks need.

use luksmith_formats::image::qcow2::{Bitmaps, Header};

/// The header of an image, and what its extensions contain.
pub(super) struct Image {
    pub(super) header: Header,
    /// The size of a cluster in bytes.
    pub(super) cluster: u64,
    /// The offset and the length of the LUKS header.
    pub(super) crypto: Option<(u64, u64)>,
    pub(super) bitmaps: Option<Bitmaps>,
}
