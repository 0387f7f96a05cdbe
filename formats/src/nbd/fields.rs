//! Writes messages of a fixed length field by field.

/// An array that is filled from its beginning. Fields that do not fit are left out, and bytes that
/// are not filled are zero.
pub(super) struct Fields<const N: usize> {
    bytes: [u8; N],
    at: usize,
}

impl<const N: usize> Fields<N> {
    pub(super) fn new() -> Self {
        Self {
            bytes: [0; N],
            at: 0,
        }
    }

    pub(super) fn put(mut self, field: impl AsRef<[u8]>) -> Self {
        let field = field.as_ref();
        let end = self.at.saturating_add(field.len());
        debug_assert!(end <= N, "a message is as long as its fields");
        if let Some(place) = self.bytes.get_mut(self.at..end) {
            place.copy_from_slice(field);
            self.at = end;
        }
        self
    }

    pub(super) fn u16(self, value: impl Into<u16>) -> Self {
        self.put(value.into().to_be_bytes())
    }

    pub(super) fn u32(self, value: impl Into<u32>) -> Self {
        self.put(value.into().to_be_bytes())
    }

    pub(super) fn u64(self, value: u64) -> Self {
        self.put(value.to_be_bytes())
    }

    pub(super) fn finish(self) -> [u8; N] {
        debug_assert_eq!(self.at, N, "a message is as long as its fields");
        self.bytes
    }
}
