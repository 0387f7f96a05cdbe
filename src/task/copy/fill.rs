//! How a volume is filled.

/// How [`encrypt`](fn@super::encrypt) and [`transfer`](fn@super::transfer) fill a volume.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct Fill {
    /// Chunks in flight at the storage at once, at least 1.
    pub depth: usize,
    /// Fill the last sector with zeroes if the source ends within it.
    pub pad: bool,
    /// Grow the volume while the source is read, and truncate it at the end.
    pub grows: bool,
    /// Do not write runs of zeroes of this many bytes: the volume is new, and unwritten parts read
    /// as zeroes.
    pub hole: Option<usize>,
    /// Fill the volume with zeroes from the end of the source to this byte.
    pub size: Option<u64>,
    /// The volume is as large as its storage; a larger one cannot be made there.
    pub fixed: bool,
}

impl Fill {
    /// Writes every byte of the source, with `depth` chunks in flight at once.
    #[must_use]
    pub fn new(depth: usize) -> Self {
        Self {
            depth: depth.max(1),
            pad: false,
            grows: false,
            hole: None,
            size: None,
            fixed: false,
        }
    }
}
