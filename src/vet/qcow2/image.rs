//! What the checks need of a header.

use luksmith_formats::image::qcow2::{Bitmaps, Header};

/// What the parts need of the header.
pub(super) struct Image {
    pub(super) header: Header,
    /// The size of a cluster in bytes.
    pub(super) cluster: u64,
    /// Where the LUKS header lies: offset and length.
    pub(super) crypto: Option<(u64, u64)>,
    pub(super) bitmaps: Option<Bitmaps>,
}
