//! SHA-256 of two messages at the same time with the SHA extensions, and iterations of
//! PBKDF2-HMAC-SHA-256 (RFC 8018, section 5.2).
//!
//! Each round of SHA-256 needs the result of the round before it, so one message leaves the SHA
//! unit idle half of the time. The rounds of two messages are interleaved here. The blocks of a
//! derived key are such messages.

use std::arch::x86_64::*;

use sha2::block_api::compress256;

use super::by_words::{self, Kernel, Keyed};

/// Proof that this CPU has the instructions. Only [`detect`](Kernel::detect) makes one.
#[derive(Clone, Copy)]
pub(in crate::kdf) struct Sha256(());

impl Kernel for Sha256 {
    type Word = u32;
    type Block = [u8; 64];
    type Hash = sha2::Sha256;

    const ZEROS: Self::Block = [0; 64];
    const START: Words = START;
    const AT_ONCE: usize = 2;

    fn detect() -> Option<Self> {
        let has = is_x86_feature_detected!("sha")
            && is_x86_feature_detected!("sse4.1")
            && is_x86_feature_detected!("ssse3");
        has.then_some(Self(()))
    }

    fn compress(state: &mut Words, block: &Self::Block) {
        compress256(state, &[*block]);
    }

    fn iterate<const BLOCKS: usize>(
        self,
        keyed: &Keyed<Self>,
        us: &mut [Words; BLOCKS],
        sums: &mut [Words; BLOCKS],
        iterations: u32,
    ) {
        // SAFETY: the value proves that this CPU has the instructions.
        unsafe { run(keyed, us, sums, iterations) }
    }
}

impl Sha256 {
    /// The hashes of two messages of the same length.
    pub(in crate::kdf) fn hash_two(self, messages: [&[u8]; 2]) -> [[u8; 32]; 2] {
        // SAFETY: the value proves that this CPU has the instructions.
        let words = unsafe { hash_two(messages) };
        words.map(|words| {
            let mut bytes = [0; 32];
            let (places, _) = bytes.as_chunks_mut();
            for (place, word) in places.iter_mut().zip(words) {
                *place = word.to_be_bytes();
            }
            bytes
        })
    }
}

type Words = by_words::Words<Sha256>;

#[target_feature(enable = "sha,sse4.1,ssse3")]
fn hash_two(messages: [&[u8]; 2]) -> [Words; 2] {
    let mut state = [State::load(&START); 2];
    let [(one, end), (other, other_end)] = messages.map(<[u8]>::as_chunks::<64>);
    for (one, other) in one.iter().zip(other) {
        state = compressed(state, [loaded(one), loaded(other)]);
    }
    let length = messages[0].len();
    let ends = [end, other_end].map(|end| padded(end, length));
    let count = if end.len() < 56 { 1 } else { 2 };
    for (one, other) in ends[0].iter().zip(&ends[1]).take(count) {
        state = compressed(state, [loaded(one), loaded(other)]);
    }
    state.map(|state| state.digest().words())
}

/// The last bytes of a message of `length` bytes, as one or two padded blocks (FIPS 180-4, section
/// 5.1.1).
fn padded(end: &[u8], length: usize) -> [[u8; 64]; 2] {
    let mut blocks = [[0; 64]; 2];
    let last = if end.len() < 56 { 0 } else { 1 };
    blocks[0][..end.len()].copy_from_slice(end);
    blocks[0][end.len()] = 0x80;
    blocks[last][56..].copy_from_slice(&(length as u64 * 8).to_be_bytes());
    blocks
}

/// The sixteen words of a block.
#[inline]
#[target_feature(enable = "ssse3")]
fn loaded(block: &[u8; 64]) -> [__m128i; 4] {
    let order = _mm_set_epi64x(0x0c0d_0e0f_0809_0a0b, 0x0405_0607_0001_0203);
    let (quarters, _) = block.as_chunks::<16>();
    std::array::from_fn(|at| {
        // SAFETY: a quarter has the 16 bytes that are read.
        let words = unsafe { _mm_loadu_si128(quarters[at].as_ptr().cast()) };
        _mm_shuffle_epi8(words, order)
    })
}

/// Runs the iterations. Not inlined, so that its copies of secrets are on the part of the stack
/// that is scrubbed later.
#[inline(never)]
#[target_feature(enable = "sha,sse4.1,ssse3")]
fn run<const BLOCKS: usize>(
    keyed: &Keyed<Sha256>,
    us: &mut [Words; BLOCKS],
    sums: &mut [Words; BLOCKS],
    iterations: u32,
) {
    let (inner, outer) = (State::load(&keyed.inner), State::load(&keyed.outer));
    let mut u = us.map(|words| Digest::load(&words));
    let mut sum = sums.map(|words| Digest::load(&words));
    for _ in 0..iterations {
        u = hashed(inner, u);
        u = hashed(outer, u);
        for (sum, u) in sum.iter_mut().zip(u) {
            sum.low = _mm_xor_si128(sum.low, u.low);
            sum.high = _mm_xor_si128(sum.high, u.high);
        }
    }
    for at in 0..BLOCKS {
        us[at] = u[at].words();
        sums[at] = sum[at].words();
    }
}

/// A state in the order of words that the round instruction needs.
#[derive(Clone, Copy)]
struct State {
    abef: __m128i,
    cdgh: __m128i,
}

/// Eight words in their normal order, which the message schedule needs.
#[derive(Clone, Copy)]
struct Digest {
    low: __m128i,
    high: __m128i,
}

impl State {
    #[inline]
    #[target_feature(enable = "sse4.1")]
    fn load(words: &Words) -> Self {
        let [a, b, c, d, e, f, g, h] = words.map(u32::cast_signed);
        Self {
            abef: _mm_set_epi32(a, b, e, f),
            cdgh: _mm_set_epi32(c, d, g, h),
        }
    }

    #[inline]
    #[target_feature(enable = "sse4.1")]
    fn plus(self, other: Self) -> Self {
        Self {
            abef: _mm_add_epi32(self.abef, other.abef),
            cdgh: _mm_add_epi32(self.cdgh, other.cdgh),
        }
    }

    #[inline]
    #[target_feature(enable = "sse4.1")]
    fn digest(self) -> Digest {
        let badc = _mm_unpackhi_epi64(self.abef, self.cdgh);
        let fehg = _mm_unpacklo_epi64(self.abef, self.cdgh);
        Digest {
            low: _mm_shuffle_epi32::<0b10_11_00_01>(badc),
            high: _mm_shuffle_epi32::<0b10_11_00_01>(fehg),
        }
    }
}

impl Digest {
    #[inline]
    #[target_feature(enable = "sse4.1")]
    fn load(words: &Words) -> Self {
        let [a, b, c, d, e, f, g, h] = words.map(u32::cast_signed);
        Self {
            low: _mm_set_epi32(d, c, b, a),
            high: _mm_set_epi32(h, g, f, e),
        }
    }

    #[inline]
    #[target_feature(enable = "sse4.1")]
    fn words(self) -> Words {
        let (low, high) = (self.low, self.high);
        [
            _mm_extract_epi32::<0>(low),
            _mm_extract_epi32::<1>(low),
            _mm_extract_epi32::<2>(low),
            _mm_extract_epi32::<3>(low),
            _mm_extract_epi32::<0>(high),
            _mm_extract_epi32::<1>(high),
            _mm_extract_epi32::<2>(high),
            _mm_extract_epi32::<3>(high),
        ]
        .map(i32::cast_unsigned)
    }
}

/// Repeats the body for each number. With a loop, the compiler would keep the message in memory.
macro_rules! unrolled {
    ($n:ident in $($value:literal)* $body:block) => {
        $({
            let $n: usize = $value;
            $body
        })*
    };
}
pub(super) use unrolled;

/// Hashes each digest, padded, as the second and last block after the 64 bytes of `start`'s first
/// block (FIPS 180-4, sections 5.1.1 and 6.2.2).
#[inline]
#[target_feature(enable = "sha,sse4.1,ssse3")]
fn hashed<const BLOCKS: usize>(start: State, digests: [Digest; BLOCKS]) -> [Digest; BLOCKS] {
    let bit = _mm_set_epi32(0, 0, 0, i32::MIN);
    let length = _mm_set_epi32((64 + 32) * 8, 0, 0, 0);
    let message = digests.map(|digest| [digest.low, digest.high, bit, length]);
    compressed([start; BLOCKS], message).map(|state| state.digest())
}

/// Each state after the block of its message (FIPS 180-4, section 6.2.2).
#[inline]
#[target_feature(enable = "sha,sse4.1,ssse3")]
fn compressed<const BLOCKS: usize>(
    start: [State; BLOCKS],
    mut message: [[__m128i; 4]; BLOCKS],
) -> [State; BLOCKS] {
    let mut state = start;
    unrolled!(n in 0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 {
        for (state, w) in state.iter_mut().zip(&mut message) {
            if n >= 4 {
                w[n % 4] = scheduled(w[n % 4], w[(n + 1) % 4], w[(n + 2) % 4], w[(n + 3) % 4]);
            }
            let [k0, k1, k2, k3] = K[n].map(u32::cast_signed);
            let wk = _mm_add_epi32(w[n % 4], _mm_set_epi32(k3, k2, k1, k0));
            state.cdgh = _mm_sha256rnds2_epu32(state.cdgh, state.abef, wk);
            let wk = _mm_shuffle_epi32::<0b11_10>(wk);
            state.abef = _mm_sha256rnds2_epu32(state.abef, state.cdgh, wk);
        }
    });
    for (state, start) in state.iter_mut().zip(start) {
        *state = state.plus(start);
    }
    state
}

/// The next four words of the message schedule, from the last sixteen.
#[inline]
#[target_feature(enable = "sha,sse4.1,ssse3")]
fn scheduled(w0: __m128i, w4: __m128i, w8: __m128i, w12: __m128i) -> __m128i {
    let sums = _mm_add_epi32(_mm_sha256msg1_epu32(w0, w4), _mm_alignr_epi8::<4>(w12, w8));
    _mm_sha256msg2_epu32(sums, w12)
}

/// The initial state (FIPS 180-4, section 5.3.3).
#[rustfmt::skip]
pub(super) const START: Words = [
    0x6a09_e667, 0xbb67_ae85, 0x3c6e_f372, 0xa54f_f53a, 0x510e_527f, 0x9b05_688c, 0x1f83_d9ab, 0x5be0_cd19,
];

/// The constants of the rounds (FIPS 180-4, section 4.2.2).
#[rustfmt::skip]
pub(super) const K: [[u32; 4]; 16] = [
    [0x428a_2f98, 0x7137_4491, 0xb5c0_fbcf, 0xe9b5_dba5], [0x3956_c25b, 0x59f1_11f1, 0x923f_82a4, 0xab1c_5ed5],
    [0xd807_aa98, 0x1283_5b01, 0x2431_85be, 0x550c_7dc3], [0x72be_5d74, 0x80de_b1fe, 0x9bdc_06a7, 0xc19b_f174],
    [0xe49b_69c1, 0xefbe_4786, 0x0fc1_9dc6, 0x240c_a1cc], [0x2de9_2c6f, 0x4a74_84aa, 0x5cb0_a9dc, 0x76f9_88da],
    [0x983e_5152, 0xa831_c66d, 0xb003_27c8, 0xbf59_7fc7], [0xc6e0_0bf3, 0xd5a7_9147, 0x06ca_6351, 0x1429_2967],
    [0x27b7_0a85, 0x2e1b_2138, 0x4d2c_6dfc, 0x5338_0d13], [0x650a_7354, 0x766a_0abb, 0x81c2_c92e, 0x9272_2c85],
    [0xa2bf_e8a1, 0xa81a_664b, 0xc24b_8b70, 0xc76c_51a3], [0xd192_e819, 0xd699_0624, 0xf40e_3585, 0x106a_a070],
    [0x19a4_c116, 0x1e37_6c08, 0x2748_774c, 0x34b0_bcb5], [0x391c_0cb3, 0x4ed8_aa4a, 0x5b9c_ca4f, 0x682e_6ff3],
    [0x748f_82ee, 0x78a5_636f, 0x84c8_7814, 0x8cc7_0208], [0x90be_fffa, 0xa450_6ceb, 0xbef9_a3f7, 0xc671_78f2],
];
