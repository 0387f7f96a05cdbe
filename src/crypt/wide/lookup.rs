//! Tables of bytes that are looked up 32 times at once. Each look-up reads the whole table, so the
//! addresses tell nothing of the indices.

use std::arch::x86_64::*;

use zeroize::Zeroize;

use super::registers::twice;

/// A table of 256 bytes, in rows of 16. Each row but those at 0 and 128 is the sum of itself and
/// the row before it.
#[derive(Clone, Copy)]
pub(super) struct Table([[u8; 16]; 16]);

impl Table {
    pub(super) const fn new(bytes: &[u8; 256]) -> Self {
        let mut rows = [[0; 16]; 16];
        let mut n = 0;
        while n < 256 {
            let before = if n % 128 < 16 { 0 } else { bytes[n - 16] };
            rows[n / 16][n % 16] = bytes[n] ^ before;
            n += 1;
        }
        Self(rows)
    }

    /// The entries for 32 indices.
    ///
    /// The shuffle selects by the low half of an index, and gives 0 if the index is negative. So if
    /// 16 is subtracted from the index for each row, the rows up to that of the index count, whose
    /// sum is the entry. A negative index stays negative, since the subtraction saturates. The
    /// second half of the table counts for the other half of the indices.
    #[inline]
    #[target_feature(enable = "avx2")]
    pub(super) fn look_up(&self, indices: __m256i) -> __m256i {
        let (first, second) = self.0.split_at(8);
        let other = _mm256_xor_si256(indices, _mm256_set1_epi8(-128));
        _mm256_xor_si256(half(first, indices), half(second, other))
    }
}

impl Zeroize for Table {
    fn zeroize(&mut self) {
        self.0.zeroize();
    }
}

#[inline]
#[target_feature(enable = "avx2")]
fn half(rows: &[[u8; 16]], mut indices: __m256i) -> __m256i {
    let mut sum = _mm256_setzero_si256();
    for row in rows {
        sum = _mm256_xor_si256(sum, _mm256_shuffle_epi8(twice(row), indices));
        indices = _mm256_subs_epi8(indices, _mm256_set1_epi8(16));
    }
    sum
}
