//! Iterations of PBKDF2-HMAC-SHA-512 (RFC 8018, section 5.2) with the rotations of BMI2.
//!
//! A derived key of 64 bytes, as most keyslots have, is one block: every iteration needs the one
//! before, and the rounds of SHA-512 run on the scalar units. They take one instruction for a
//! rotation with BMI2, and the vector units compute the message schedule meanwhile, where AVX-512
//! rotates with one instruction too.

use std::arch::x86_64::*;

use sha2::block_api::compress512;

use super::by_words::{self, Kernel, Keyed};

/// Proof that this CPU has the instructions. Only [`detect`](Kernel::detect) makes one.
#[derive(Clone, Copy)]
pub(in crate::kdf) struct Sha512 {
    has_avx512: bool,
}

impl Kernel for Sha512 {
    type Word = u64;
    type Block = [u8; 128];
    type Hash = sha2::Sha512;

    const ZEROS: Self::Block = [0; 128];
    const START: Words = START;
    const AT_ONCE: usize = 1;

    fn detect() -> Option<Self> {
        let has = is_x86_feature_detected!("avx2")
            && is_x86_feature_detected!("bmi1")
            && is_x86_feature_detected!("bmi2");
        let has_avx512 =
            is_x86_feature_detected!("avx512f") && is_x86_feature_detected!("avx512vl");
        has.then_some(Self { has_avx512 })
    }

    fn compress(state: &mut Words, block: &Self::Block) {
        compress512(state, &[*block]);
    }

    fn iterate<const BLOCKS: usize>(
        self,
        keyed: &Keyed<Self>,
        us: &mut [Words; BLOCKS],
        sums: &mut [Words; BLOCKS],
        iterations: u32,
    ) {
        for (u, sum) in us.iter_mut().zip(sums) {
            if self.has_avx512 {
                // SAFETY: the value proves that this CPU has the instructions.
                unsafe { avx512::run(keyed, u, sum, iterations) }
            } else {
                // SAFETY: the value proves that this CPU has the instructions.
                unsafe { avx2::run(keyed, u, sum, iterations) }
            }
        }
    }
}

#[cfg(test)]
impl Sha512 {
    /// Every way of this CPU.
    fn all() -> Vec<Self> {
        let narrow = Self::detect().map(|_| Self { has_avx512: false });
        Self::detect().into_iter().chain(narrow).collect()
    }
}

type Words = by_words::Words<Sha512>;

/// Sixteen words of the message schedule with their constants added. Vectors are written, and
/// [`round!`] reads single words.
#[repr(align(16))]
struct Queue([u64; 16]);

impl Queue {
    /// Writes a pair of words.
    #[inline(always)]
    fn put(&mut self, at: usize, words: __m128i) {
        let place: *mut [u64; 2] = &raw mut self.0.as_chunks_mut().0[at];
        // SAFETY: the place has 16 bytes and is aligned to them.
        unsafe { place.cast::<__m128i>().write(words) }
    }
}

/// One round (FIPS 180-4, section 6.4.2) with word `$n`. The caller renames the variables instead
/// of moving them. `$bc` is `b ^ c`, and becomes that of the next round.
///
/// This is assembly, since its speed depends on the order of the instructions and on sums that are
/// computed in two steps. Compilers change both: their code took up to a quarter longer.
macro_rules! round {
    ($words:ident, $n:expr, $bc:ident, $a:ident $b:ident $d:ident $e:ident $f:ident $g:ident $h:ident) => {
        let ab: u64;
        // SAFETY: reads one word of the queue, and computes in registers. The function has BMI2.
        unsafe {
            std::arch::asm!(
                "add {h}, [{words} + {at}]",
                "rorx {s}, {e}, 41",
                "rorx {t}, {e}, 18",
                "mov {choice}, {f}",
                "xor {choice}, {g}",
                "xor {s}, {t}",
                "rorx {t}, {e}, 14",
                "and {choice}, {e}",
                "xor {s}, {t}",
                "xor {choice}, {g}",
                "add {h}, {choice}",
                "mov {ab}, {a}",
                "rorx {t}, {a}, 39",
                "rorx {choice}, {a}, 34",
                "add {h}, {s}",
                "xor {ab}, {b}",
                "xor {t}, {choice}",
                "add {d}, {h}",
                "rorx {choice}, {a}, 28",
                "and {bc}, {ab}",
                "xor {t}, {choice}",
                "xor {bc}, {b}",
                "add {t}, {bc}",
                "add {h}, {t}",
                words = in(reg) $words.0.as_ptr(),
                at = const 8 * $n,
                a = in(reg) $a,
                b = in(reg) $b,
                d = inout(reg) $d,
                e = in(reg) $e,
                f = in(reg) $f,
                g = in(reg) $g,
                h = inout(reg) $h,
                bc = inout(reg) $bc => _,
                ab = out(reg) ab,
                s = out(reg) _,
                t = out(reg) _,
                choice = out(reg) _,
                options(pure, readonly, nostack),
            );
        }
        $bc = ab;
    };
}

/// Sixteen rounds. With `$k`, the constants of the next sixteen, also computes their words.
macro_rules! sixteen {
    ($words:ident, $message:ident, $k:expr, $bc:ident, $a:ident $b:ident $c:ident $d:ident $e:ident $f:ident $g:ident $h:ident) => {
        two!($words, $message, $k, $bc, 0 1 4 5 7, $a $b $c $d $e $f $g $h);
        two!($words, $message, $k, $bc, 1 2 5 6 0, $g $h $a $b $c $d $e $f);
        two!($words, $message, $k, $bc, 2 3 6 7 1, $e $f $g $h $a $b $c $d);
        two!($words, $message, $k, $bc, 3 4 7 0 2, $c $d $e $f $g $h $a $b);
        two!($words, $message, $k, $bc, 4 5 0 1 3, $a $b $c $d $e $f $g $h);
        two!($words, $message, $k, $bc, 5 6 1 2 4, $g $h $a $b $c $d $e $f);
        two!($words, $message, $k, $bc, 6 7 2 3 5, $e $f $g $h $a $b $c $d);
        two!($words, $message, $k, $bc, 7 0 3 4 6, $c $d $e $f $g $h $a $b);
    };
}

/// Two rounds with the words of the pair `$n0`, which is then replaced. The other numbers are those
/// of the pairs 1, 4, 5 and 7 later.
macro_rules! two {
    ($words:ident, $message:ident, $k:expr, $bc:ident, $n0:tt $n1:tt $n4:tt $n5:tt $n7:tt,
     $a:ident $b:ident $c:ident $d:ident $e:ident $f:ident $g:ident $h:ident) => {
        let next = $k.map(|k: &[u64; 16]| {
            let pairs = [$message[$n0], $message[$n1], $message[$n4], $message[$n5], $message[$n7]];
            $message[$n0] = schedule(pairs);
            _mm_add_epi64($message[$n0], pair([k[2 * $n0], k[2 * $n0 + 1]]))
        });
        round!($words, 2 * $n0, $bc, $a $b $d $e $f $g $h);
        round!($words, 2 * $n0 + 1, $bc, $h $a $c $d $e $f $g);
        if let Some(next) = next {
            $words.put($n0, next);
        }
    };
}

/// The iterations for CPUs with `$features`, and their `$rotate` and `$xor` of three vectors.
macro_rules! iterations {
    ($name:ident, $features:literal, $rotate:item, $xor:item) => {
        mod $name {
            use super::*;

            #[inline]
            #[target_feature(enable = $features)]
            $rotate

            #[inline]
            #[target_feature(enable = $features)]
            $xor

            /// The pair of words that is 16 words after the first one. The others are 1, 4, 5 and 7
            /// pairs after it.
            #[inline]
            #[target_feature(enable = $features)]
            fn schedule([w0, w2, w8, w10, w14]: [__m128i; 5]) -> __m128i {
                let w1 = _mm_alignr_epi8::<8>(w2, w0);
                let w9 = _mm_alignr_epi8::<8>(w10, w8);
                let sigma0 = xor(rotate::<1, 63>(w1), rotate::<8, 56>(w1), _mm_srli_epi64::<7>(w1));
                let sigma1 =
                    xor(rotate::<19, 45>(w14), rotate::<61, 3>(w14), _mm_srli_epi64::<6>(w14));
                _mm_add_epi64(_mm_add_epi64(w0, w9), _mm_add_epi64(sigma0, sigma1))
            }

            #[inline]
            #[target_feature(enable = $features)]
            fn pair([low, high]: [u64; 2]) -> __m128i {
                _mm_set_epi64x(high.cast_signed(), low.cast_signed())
            }

            /// Hashes a digest, padded, as the second and last block after the 128 bytes of
            /// `start`'s first block (FIPS 180-4, sections 5.1.2 and 6.4.2).
            #[inline]
            #[target_feature(enable = $features)]
            fn hashed(start: &Words, digest: &Words) -> Words {
                let mut message = [pair([0; 2]); 8];
                for (at, words) in digest.as_chunks().0.iter().chain(PADDING.as_chunks().0).enumerate() {
                    message[at] = pair(*words);
                }
                let mut words = Queue([0; 16]);
                for (at, k) in K[0].as_chunks().0.iter().enumerate() {
                    words.put(at, _mm_add_epi64(message[at], pair(*k)));
                }
                let [mut a, mut b, mut c, mut d, mut e, mut f, mut g, mut h] = *start;
                let mut bc = b ^ c;
                for k in &K[1..] {
                    sixteen!(words, message, Some(k), bc, a b c d e f g h);
                }
                sixteen!(words, message, None, bc, a b c d e f g h);
                let _ = bc;
                let mut hashed = [a, b, c, d, e, f, g, h];
                for (word, start) in hashed.iter_mut().zip(start) {
                    *word = word.wrapping_add(*start);
                }
                hashed
            }

            /// Runs the iterations. Not inlined, so that its copies of secrets are on the part of
            /// the stack that is scrubbed later.
            #[inline(never)]
            #[target_feature(enable = $features)]
            pub(super) fn run(keyed: &Keyed<Sha512>, u: &mut Words, sum: &mut Words, iterations: u32) {
                for _ in 0..iterations {
                    // One call, so that it is inlined and U stays in registers.
                    for start in [&keyed.inner, &keyed.outer] {
                        *u = hashed(start, u);
                    }
                    for (sum, u) in sum.iter_mut().zip(&*u) {
                        *sum ^= u;
                    }
                }
            }
        }
    };
}

iterations!(
    avx512,
    "avx512f,avx512vl,avx2,bmi1,bmi2",
    fn rotate<const RIGHT: i32, const LEFT: i32>(words: __m128i) -> __m128i {
        _mm_ror_epi64::<RIGHT>(words)
    },
    fn xor(a: __m128i, b: __m128i, c: __m128i) -> __m128i {
        _mm_ternarylogic_epi64::<0b1001_0110>(a, b, c)
    }
);
iterations!(
    avx2,
    "avx2,bmi1,bmi2",
    fn rotate<const RIGHT: i32, const LEFT: i32>(words: __m128i) -> __m128i {
        _mm_xor_si128(
            _mm_srli_epi64::<RIGHT>(words),
            _mm_slli_epi64::<LEFT>(words),
        )
    },
    fn xor(a: __m128i, b: __m128i, c: __m128i) -> __m128i {
        _mm_xor_si128(_mm_xor_si128(a, b), c)
    }
);

/// What follows a digest in its block: the bit 1, zeros, and the length of both blocks in bits.
const PADDING: Words = [1 << 63, 0, 0, 0, 0, 0, 0, (128 + 64) * 8];

/// The initial hash value (FIPS 180-4, section 5.3.5).
const START: Words = [
    0x6a09_e667_f3bc_c908,
    0xbb67_ae85_84ca_a73b,
    0x3c6e_f372_fe94_f82b,
    0xa54f_f53a_5f1d_36f1,
    0x510e_527f_ade6_82d1,
    0x9b05_688c_2b3e_6c1f,
    0x1f83_d9ab_fb41_bd6b,
    0x5be0_cd19_137e_2179,
];

/// The constants of the rounds (FIPS 180-4, section 4.2.3).
#[rustfmt::skip]
static K: [[u64; 16]; 5] = [
    [
        0x428a_2f98_d728_ae22, 0x7137_4491_23ef_65cd, 0xb5c0_fbcf_ec4d_3b2f, 0xe9b5_dba5_8189_dbbc,
        0x3956_c25b_f348_b538, 0x59f1_11f1_b605_d019, 0x923f_82a4_af19_4f9b, 0xab1c_5ed5_da6d_8118,
        0xd807_aa98_a303_0242, 0x1283_5b01_4570_6fbe, 0x2431_85be_4ee4_b28c, 0x550c_7dc3_d5ff_b4e2,
        0x72be_5d74_f27b_896f, 0x80de_b1fe_3b16_96b1, 0x9bdc_06a7_25c7_1235, 0xc19b_f174_cf69_2694,
    ],
    [
        0xe49b_69c1_9ef1_4ad2, 0xefbe_4786_384f_25e3, 0x0fc1_9dc6_8b8c_d5b5, 0x240c_a1cc_77ac_9c65,
        0x2de9_2c6f_592b_0275, 0x4a74_84aa_6ea6_e483, 0x5cb0_a9dc_bd41_fbd4, 0x76f9_88da_8311_53b5,
        0x983e_5152_ee66_dfab, 0xa831_c66d_2db4_3210, 0xb003_27c8_98fb_213f, 0xbf59_7fc7_beef_0ee4,
        0xc6e0_0bf3_3da8_8fc2, 0xd5a7_9147_930a_a725, 0x06ca_6351_e003_826f, 0x1429_2967_0a0e_6e70,
    ],
    [
        0x27b7_0a85_46d2_2ffc, 0x2e1b_2138_5c26_c926, 0x4d2c_6dfc_5ac4_2aed, 0x5338_0d13_9d95_b3df,
        0x650a_7354_8baf_63de, 0x766a_0abb_3c77_b2a8, 0x81c2_c92e_47ed_aee6, 0x9272_2c85_1482_353b,
        0xa2bf_e8a1_4cf1_0364, 0xa81a_664b_bc42_3001, 0xc24b_8b70_d0f8_9791, 0xc76c_51a3_0654_be30,
        0xd192_e819_d6ef_5218, 0xd699_0624_5565_a910, 0xf40e_3585_5771_202a, 0x106a_a070_32bb_d1b8,
    ],
    [
        0x19a4_c116_b8d2_d0c8, 0x1e37_6c08_5141_ab53, 0x2748_774c_df8e_eb99, 0x34b0_bcb5_e19b_48a8,
        0x391c_0cb3_c5c9_5a63, 0x4ed8_aa4a_e341_8acb, 0x5b9c_ca4f_7763_e373, 0x682e_6ff3_d6b2_b8a3,
        0x748f_82ee_5def_b2fc, 0x78a5_636f_4317_2f60, 0x84c8_7814_a1f0_ab72, 0x8cc7_0208_1a64_39ec,
        0x90be_fffa_2363_1e28, 0xa450_6ceb_de82_bde9, 0xbef9_a3f7_b2c6_7915, 0xc671_78f2_e372_532b,
    ],
    [
        0xca27_3ece_ea26_619c, 0xd186_b8c7_21c0_c207, 0xeada_7dd6_cde0_eb1e, 0xf57d_4f7f_ee6e_d178,
        0x06f0_67aa_7217_6fba, 0x0a63_7dc5_a2c8_98a6, 0x113f_9804_bef9_0dae, 0x1b71_0b35_131c_471b,
        0x28db_77f5_2304_7d84, 0x32ca_ab7b_40c7_2493, 0x3c9e_be0a_15c9_bebc, 0x431d_67c4_9c10_0d4c,
        0x4cc5_d4be_cb3e_42b6, 0x597f_299c_fc65_7e2a, 0x5fcb_6fab_3ad6_faec, 0x6c44_198c_4a47_5817,
    ],
];

#[cfg(test)]
mod tests {
    use sha2::Digest as _;

    use super::*;

    #[test]
    fn every_way_iterates_as_the_crate_does() {
        let keyed = Keyed::<Sha512>::new(b"a passphrase");
        let first = by_words::words::<Sha512>(&sha2::Sha512::digest(b"a salt"));
        let (mut expected_u, mut expected_sum) = (first, first);
        for _ in 0..7 {
            for start in [keyed.inner, keyed.outer] {
                let mut block = [0; 128];
                let filled = expected_u.iter().chain(&PADDING);
                for (bytes, word) in block.as_chunks_mut().0.iter_mut().zip(filled) {
                    *bytes = word.to_be_bytes();
                }
                expected_u = start;
                compress512(&mut expected_u, &[block]);
            }
            for (sum, u) in expected_sum.iter_mut().zip(expected_u) {
                *sum ^= u;
            }
        }
        for kernel in Sha512::all() {
            let (mut us, mut sums) = ([first], [first]);
            kernel.iterate(&keyed, &mut us, &mut sums, 3);
            kernel.iterate(&keyed, &mut us, &mut sums, 4);
            assert_eq!((us, sums), ([expected_u], [expected_sum]));
        }
    }
}
