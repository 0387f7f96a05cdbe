//! POLYVAL (RFC 8452) of a whole block with a single reduction, for CPUs with VPCLMULQDQ.
//!
//! The hash of X₁ … Xₙ is the sum of Xᵢ·Hⁿ⁻ⁱ⁺¹. With all powers of the key in a table, the products
//! do not depend on each other, four of them are computed at a time, and only their sum is reduced.
//! The product a·b is that of the field, divided by x¹²⁸.

#![allow(unsafe_code)] // loads of vectors, and calls of functions for detected instructions

use std::arch::x86_64::{
    __m128i, __m512i, _mm_clmulepi64_si128, _mm_loadu_si128, _mm_set_epi64x, _mm_setzero_si128,
    _mm_shuffle_epi32, _mm_slli_si128, _mm_srli_si128, _mm_storeu_si128, _mm_xor_si128,
    _mm512_clmulepi64_epi128, _mm512_extracti32x4_epi32, _mm512_loadu_si512, _mm512_setzero_si512,
    _mm512_xor_si512,
};

use luksmith_formats::trust::tags::TAG;

/// The parts of a block, and the one with its number.
const MOST: usize = 4096 / TAG + 1;

/// The parts that are multiplied at a time.
const WIDE: usize = 64;

type Part = [u8; TAG];

/// The powers of a key, the highest one first. Only [`new`](Self::new) makes one, on a CPU that has
/// the instructions.
#[repr(align(64))]
pub(super) struct Powers([Part; MOST]);

impl Powers {
    /// The powers of this key, if this CPU has the instructions.
    #[inline(never)]
    pub(super) fn new(key: &Part) -> Option<Self> {
        let has = is_x86_feature_detected!("vpclmulqdq")
            && is_x86_feature_detected!("avx512f")
            && is_x86_feature_detected!("pclmulqdq");
        // SAFETY: the instructions were detected.
        has.then(|| unsafe { powers(key) })
    }

    /// The hash of a part and of content in whole parts, at most a block.
    pub(super) fn hash(&self, head: &Part, content: &[u8]) -> Part {
        // SAFETY: `new` has detected the instructions.
        unsafe { hash(&self.0, head, content) }
    }
}

#[target_feature(enable = "avx512f,vpclmulqdq,pclmulqdq")]
fn powers(key: &Part) -> Powers {
    let first = load(key);
    let mut power = first;
    let mut powers = [[0; TAG]; MOST];
    for place in powers.iter_mut().rev() {
        *place = store(power);
        let zero = _mm_setzero_si128();
        let product = add((zero, zero, zero), power, first);
        power = reduced(product);
    }
    Powers(powers)
}

#[target_feature(enable = "avx512f,vpclmulqdq,pclmulqdq")]
fn hash(powers: &[Part; MOST], head: &Part, content: &[u8]) -> Part {
    let (parts, rest) = content.as_chunks::<TAG>();
    debug_assert!(rest.is_empty() && parts.len() < MOST);
    let powers = &powers[MOST - 1 - parts.len()..];
    let zero = _mm_setzero_si128();
    let mut sum = add((zero, zero, zero), load(head), load(&powers[0]));
    let (wide, narrow) = parts.as_flattened().as_chunks::<WIDE>();
    let (wide_powers, narrow_powers) = powers[1..].as_flattened().as_chunks::<WIDE>();
    let (mut low, mut high) = (_mm512_setzero_si512(), _mm512_setzero_si512());
    let (mut one, mut other) = (low, low);
    for (content, powers) in wide.iter().zip(wide_powers) {
        let (content, powers) = (load_wide(content), load_wide(powers));
        low = _mm512_xor_si512(low, _mm512_clmulepi64_epi128::<0x00>(content, powers));
        high = _mm512_xor_si512(high, _mm512_clmulepi64_epi128::<0x11>(content, powers));
        one = _mm512_xor_si512(one, _mm512_clmulepi64_epi128::<0x01>(content, powers));
        other = _mm512_xor_si512(other, _mm512_clmulepi64_epi128::<0x10>(content, powers));
    }
    let middle = _mm512_xor_si512(one, other);
    sum.0 = _mm_xor_si128(sum.0, folded(low));
    sum.1 = _mm_xor_si128(sum.1, folded(middle));
    sum.2 = _mm_xor_si128(sum.2, folded(high));
    let (narrow, _) = narrow.as_chunks::<TAG>();
    let (narrow_powers, _) = narrow_powers.as_chunks::<TAG>();
    for (part, power) in narrow.iter().zip(narrow_powers) {
        sum = add(sum, load(part), load(power));
    }
    store(reduced(sum))
}

/// A product of 256 bits, not reduced: its low half, what is added to its middle, its high half.
type Product = (__m128i, __m128i, __m128i);

/// Adds the product of two elements.
#[target_feature(enable = "avx512f,vpclmulqdq,pclmulqdq")]
fn add(sum: Product, a: __m128i, b: __m128i) -> Product {
    let one = _mm_clmulepi64_si128::<0x01>(a, b);
    let other = _mm_clmulepi64_si128::<0x10>(a, b);
    (
        _mm_xor_si128(sum.0, _mm_clmulepi64_si128::<0x00>(a, b)),
        _mm_xor_si128(sum.1, _mm_xor_si128(one, other)),
        _mm_xor_si128(sum.2, _mm_clmulepi64_si128::<0x11>(a, b)),
    )
}

/// Divides by x¹²⁸ modulo x¹²⁸ + x¹²⁷ + x¹²⁶ + x¹²¹ + 1: twice by x⁶⁴.
#[target_feature(enable = "avx512f,vpclmulqdq,pclmulqdq")]
fn reduced((low, middle, high): Product) -> __m128i {
    let polynomial = _mm_set_epi64x(0xc200_0000_0000_0000_u64.cast_signed(), 1);
    let mut low = _mm_xor_si128(low, _mm_slli_si128::<8>(middle));
    let high = _mm_xor_si128(high, _mm_srli_si128::<8>(middle));
    for _ in 0..2 {
        let product = _mm_clmulepi64_si128::<0x10>(low, polynomial);
        low = _mm_xor_si128(_mm_shuffle_epi32::<0x4e>(low), product);
    }
    _mm_xor_si128(low, high)
}

/// The sum of the four elements of a vector.
#[target_feature(enable = "avx512f,vpclmulqdq,pclmulqdq")]
fn folded(vector: __m512i) -> __m128i {
    let one = _mm_xor_si128(
        _mm512_extracti32x4_epi32::<0>(vector),
        _mm512_extracti32x4_epi32::<1>(vector),
    );
    let other = _mm_xor_si128(
        _mm512_extracti32x4_epi32::<2>(vector),
        _mm512_extracti32x4_epi32::<3>(vector),
    );
    _mm_xor_si128(one, other)
}

#[target_feature(enable = "avx512f,vpclmulqdq,pclmulqdq")]
fn load_wide(bytes: &[u8; WIDE]) -> __m512i {
    // SAFETY: there are 64 bytes, and the load needs no alignment.
    unsafe { _mm512_loadu_si512(bytes.as_ptr().cast()) }
}

#[target_feature(enable = "avx512f,vpclmulqdq,pclmulqdq")]
fn load(part: &Part) -> __m128i {
    // SAFETY: there are 16 bytes, and the load needs no alignment.
    unsafe { _mm_loadu_si128(part.as_ptr().cast()) }
}

#[target_feature(enable = "avx512f,vpclmulqdq,pclmulqdq")]
fn store(element: __m128i) -> Part {
    let mut part = [0; TAG];
    // SAFETY: there is room for 16 bytes, and the store needs no alignment.
    unsafe { _mm_storeu_si128(part.as_mut_ptr().cast(), element) };
    part
}
