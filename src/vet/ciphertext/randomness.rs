//! Tests whether bytes look random: Pearson's chi-square test of the 256 byte values, for sectors
//! of 512 bytes and for blocks of 4096 bytes.
//!
//! In a sector, a short piece of plaintext shows that would not show in a block. In a block, a bias
//! shows that is too weak to show in a sector. The test has two tails: bytes that are distributed
//! too evenly (a counter) are not ciphertext either.
//!
//! # False alarms
//!
//! The limits are so far out that they need no correction for the number of sectors. Random bytes
//! cross each of the four limits (of a sector or a block, upper or lower) with a probability of
//! less than 2⁻⁷⁰. The chi-square distribution would not be a valid approximation here, since its
//! far tail is thinner than that of the counts. The probability is Chernoff's bound for the sum of
//! squares of 256 Poisson counts, cut off where a single count is rarer than 2⁻⁷², divided by the
//! probability that the sum of the counts is the number of bytes. The tests of this file compute
//! it. [`false_alarm_bound`] is the union bound over all sectors of a volume.
//!
//! # Sectors that are partly zero
//!
//! If only a part of a sector was ever written, the rest of it is still zero, in whole cipher
//! blocks of 16 bytes. In ciphertext, the probability of such a zero [`GRAIN`] is 2⁻¹²⁸. So zero
//! grains are left out, and the remaining bytes have limits that depend on their number. Plaintext
//! among zeroes rarely ends at the boundary of a grain, so zero bytes beside such boundaries are
//! counted too.

/// The smaller unit that is tested, in bytes.
pub const SECTOR: usize = 512;

/// The larger unit that is tested, in bytes.
pub const BLOCK: usize = 4096;

/// The unit that is left out if it is zero, in bytes: the block size of all supported ciphers.
pub const GRAIN: usize = 16;

/// The sums of squared counts with which a sector counts as random: chi-square from 90 to 700. The
/// expected value is 255.
const SECTOR_SQUARES: std::ops::RangeInclusive<u32> = squares(90, SECTOR)..=squares(700, SECTOR);

/// The largest sums with which a partly zero sector counts as random, by the number of its other
/// grains, from one on. There is no lower limit, since a few bytes may all be different.
const PART_SQUARES: [u32; SECTOR / GRAIN - 1] = [
    135, 207, 264, 331, 388, 435, 495, 556, 607, 671, 738, 794, 864, 924, 998, 1061, 1139, 1206,
    1275, 1359, 1432, 1519, 1596, 1675, 1769, 1852, 1937, 2036, 2125, 2216, 2321,
];

/// The same for a block: chi-square from 85 to 600.
const BLOCK_SQUARES: std::ops::RangeInclusive<u32> = squares(85, BLOCK)..=squares(600, BLOCK);

/// The sum of squared counts for a value of chi-square: Σ(n−e)²/e with e = len/256 is Σn²/e − len.
#[allow(clippy::cast_possible_truncation)] // of the two lengths above
const fn squares(chi_square: u32, len: usize) -> u32 {
    (chi_square + len as u32) * (len as u32 / 256)
}

/// The result of the test.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Look {
    /// The bytes look like ciphertext.
    Random,
    /// All bytes are zero.
    Zero,
    /// Some byte values occur much too often.
    LowEntropy,
    /// All byte values occur much too evenly.
    TooEven,
}

/// How often each byte value occurs.
pub struct Counts {
    counts: [u16; 256],
    /// Whether a sector was left out because it is partly zero.
    partly: bool,
}

/// The mask of the zero grains of a sector. The lowest bit is the first grain.
#[must_use]
pub fn zero_grains(sector: &[u8; SECTOR]) -> u32 {
    let (grains, _) = sector.as_chunks::<GRAIN>();
    let zero = |grain: &[u8; GRAIN]| u32::from(u128::from_ne_bytes(*grain) == 0);
    (0..)
        .zip(grains)
        .fold(0, |all, (index, grain)| all | zero(grain) << index)
}

impl Counts {
    /// Counts of no bytes.
    #[must_use]
    pub fn new() -> Self {
        Self {
            counts: [0; 256],
            partly: false,
        }
    }

    /// Tests a sector, and adds its bytes to the counts. `zero` is the mask of its zero grains.
    #[must_use]
    pub fn sector(&mut self, sector: &[u8; SECTOR], zero: u32) -> Look {
        if zero != 0 {
            self.partly = true;
            return part(sector, zero);
        }
        // With four tables, equal bytes in a row do not wait for each other. 128 counts fit into a
        // u8.
        let mut tables = [[0_u8; 256]; 4];
        for bytes in sector.chunks_exact(4) {
            for (table, &byte) in tables.iter_mut().zip(bytes) {
                table[usize::from(byte)] += 1;
            }
        }
        let [a, b, c, d] = &tables;
        let mut squares = 0;
        for (value, sum) in self.counts.iter_mut().enumerate() {
            let count = u16::from(a[value])
                + u16::from(b[value])
                + u16::from(c[value])
                + u16::from(d[value]);
            *sum += count;
            squares += u32::from(count) * u32::from(count);
        }
        look(squares, &SECTOR_SQUARES)
    }

    /// Tests the block of the eight sectors that were added, and resets the counts. Returns `None`
    /// if some of the sectors are partly zero: then only the results of the sectors count.
    #[must_use]
    pub fn block(&mut self) -> Option<Look> {
        let counts = std::mem::take(self);
        if counts.partly {
            return None;
        }
        let squares = counts.counts.iter().map(|&n| u32::from(n) * u32::from(n));
        Some(look(squares.sum(), &BLOCK_SQUARES))
    }
}

/// Tests a sector with zero grains.
fn part(sector: &[u8; SECTOR], zero: u32) -> Look {
    let (grains, _) = sector.as_chunks::<GRAIN>();
    let is_zero = |index: usize| zero & (1 << index) != 0;
    let mut counts = [0_u32; 256];
    let mut left = 0_usize;
    let (mut borders, mut beside_borders) = (0, 0);
    for (index, grain) in grains
        .iter()
        .enumerate()
        .filter(|(index, _)| !is_zero(*index))
    {
        left += 1;
        for &byte in grain {
            counts[usize::from(byte)] += 1;
        }
        let zeroes =
            |bytes: &mut dyn Iterator<Item = &u8>| bytes.take_while(|byte| **byte == 0).count();
        if index > 0 && is_zero(index - 1) {
            borders += 1;
            beside_borders += zeroes(&mut grain.iter());
        }
        if index + 1 < grains.len() && is_zero(index + 1) {
            borders += 1;
            beside_borders += zeroes(&mut grain.iter().rev());
        }
    }
    // If all grains are zero, none is left.
    let Some(most) = left
        .checked_sub(1)
        .and_then(|index| PART_SQUARES.get(index))
    else {
        return Look::Zero;
    };
    let squares: u32 = counts.iter().map(|n| n * n).sum();
    if squares > *most || beside_borders >= most_zeroes(borders) {
        Look::LowEntropy
    } else {
        Look::Random
    }
}

/// The number of zero bytes beside this number of boundaries of zero grains from which they are not
/// by chance.
const fn most_zeroes(borders: usize) -> usize {
    9 + borders / 2
}

impl Default for Counts {
    fn default() -> Self {
        Self::new()
    }
}

fn look(squares: u32, random: &std::ops::RangeInclusive<u32>) -> Look {
    if squares > *random.end() {
        Look::LowEntropy
    } else if squares < *random.start() {
        Look::TooEven
    } else {
        Look::Random
    }
}

/// An upper bound of the probability of any false alarm in a run over `bytes` random bytes: 2⁻⁵⁹
/// for each sector. The signatures of [`signature`](super::signature) contribute most to it.
#[must_use]
pub fn false_alarm_bound(bytes: u64) -> f64 {
    (bytes.div_ceil(SECTOR as u64) as f64 * (-59_f64).exp2()).min(1.0)
}

#[cfg(test)]
mod tests {
    use rand::rngs::StdRng;
    use rand::{RngExt, SeedableRng};

    use super::*;

    /// The logarithm of the probability of `k` in a Poisson distribution with mean `mean`.
    fn ln_poisson(k: usize, mean: f64) -> f64 {
        let ln_factorial: f64 = (1..=k).map(|i| (i as f64).ln()).sum();
        k as f64 * mean.ln() - mean - ln_factorial
    }

    /// The binary logarithm of a bound of the probability that one of 256 values occurs more than
    /// `most` times in `len` bytes.
    fn too_often(len: usize, most: usize) -> f64 {
        // The binomial tail from `most + 1` on, by its first term and the ratio of the next terms.
        let n = len as f64;
        let k = (most + 1) as f64;
        let ln_choose: f64 = (1..=most + 1)
            .map(|i| ((n - i as f64 + 1.0) / i as f64).ln())
            .sum();
        let first = ln_choose + k * (1.0 / 256_f64).ln() + (n - k) * (255.0 / 256_f64).ln();
        let ratio = (n - k) / (k + 1.0) / 255.0;
        (256_f64.ln() + first - (1.0 - ratio).ln()) / 2_f64.ln()
    }

    /// The number of times that a value may occur in `len` bytes, except with a probability of
    /// 2⁻⁷².
    fn most_times(len: usize) -> usize {
        (1..len).find(|most| too_often(len, *most) < -72.0).unwrap()
    }

    /// The binary logarithm of Chernoff's bound of the probability that the sum of squares reaches
    /// `limit` (or stays below it), while no value occurs more than `most` times. Any `tilt` and
    /// `shift` give a bound. Those in these tests are close to the best ones.
    fn chernoff(len: usize, limit: f64, most: usize, tilt: f64) -> f64 {
        let mean = len as f64 / 256.0;
        let poisson: Vec<f64> = (0..=most).map(|k| ln_poisson(k, mean)).collect();
        let at = |shift: f64| {
            let terms = poisson.iter().enumerate();
            let sum: f64 = terms
                .map(|(k, ln)| (ln + tilt * (k * k) as f64 + shift * k as f64).exp())
                .sum();
            256.0 * sum.ln() - tilt * limit - shift * len as f64
        };
        // The function is convex in the shift: narrow the interval with the minimum.
        let (mut low, mut high) = (-8.0, 8.0);
        for _ in 0..100 {
            let third = (high - low) / 3.0;
            if at(low + third) < at(high - third) {
                high -= third;
            } else {
                low += third;
            }
        }
        let of_the_sum = ln_poisson(len, len as f64);
        (at((low + high) / 2.0) - of_the_sum) / 2_f64.ln()
    }

    #[test]
    fn the_limits_are_crossed_as_rarely_as_documented() {
        let limit = |squares: &u32| f64::from(*squares);
        let cases = [
            (SECTOR, limit(SECTOR_SQUARES.end()), 29, 0.0705),
            (BLOCK, limit(BLOCK_SQUARES.end()), 71, 0.0158),
        ];
        for (len, limit, most, tilt) in cases {
            let bound = chernoff(len, limit, most, tilt);
            assert!(bound < -70.5, "above, {len} bytes: 2^{bound}");
            let rare = too_often(len, most);
            assert!(rare < -72.0, "one value, {len} bytes: 2^{rare}");
        }
        let cases = [
            (SECTOR, limit(SECTOR_SQUARES.start()), -0.489),
            (BLOCK, limit(BLOCK_SQUARES.start()), -0.0634),
        ];
        for (len, limit, tilt) in cases {
            let bound = chernoff(len, limit, 200, tilt);
            assert!(bound < -70.0, "below, {len} bytes: 2^{bound}");
        }
        // Four limits, where a block is eight sectors, and 16 signatures of at least 64 bits.
        let sector = 2.25 * (-70_f64).exp2() + 16.0 * (-64_f64).exp2();
        assert!(sector < false_alarm_bound(512));
        assert!(false_alarm_bound(256 << 40) < 1e-6);
    }

    #[test]
    fn the_limits_of_partly_zero_sectors_are_crossed_as_rarely() {
        for (left, limit) in (1..).zip(PART_SQUARES) {
            let len = left * GRAIN;
            let most = most_times(len);
            let bound = |tilt| chernoff(len, f64::from(limit), most, tilt);
            // The function is convex in the tilt too.
            let (mut low, mut high) = (0.01, 0.7);
            for _ in 0..24 {
                let third = (high - low) / 3.0;
                if bound(low + third) < bound(high - third) {
                    high -= third;
                } else {
                    low += third;
                }
            }
            let bound = bound((low + high) / 2.0);
            assert!(bound < -70.4, "{len} bytes: 2^{bound}");
        }
        // The number of zero bytes beside b boundaries is a sum of b geometric random numbers. The
        // probability of k or more is less than C(k+b−1, k)·2⁻⁸ᵏ.
        for borders in 1..=SECTOR / GRAIN {
            let zeroes = most_zeroes(borders);
            let ln_choose: f64 = (1..=zeroes)
                .map(|i| ((borders - 1 + i) as f64 / i as f64).ln())
                .sum();
            let bound = ln_choose / 2_f64.ln() - 8.0 * zeroes as f64;
            assert!(bound <= -72.0, "{borders} borders: 2^{bound}");
        }
        // Both together are at most the two limits of a sector and its share of those of a block.
        assert!((-70.4_f64).exp2() + (-72_f64).exp2() < 2.25 * (-70_f64).exp2());
    }

    /// The bound also has to hold at limits that are crossed often enough for sampling.
    #[test]
    fn nearer_limits_are_crossed_at_most_as_often_as_computed() {
        let mut rng = StdRng::seed_from_u64(1);
        let runs = 20_000_u32;
        let mut crossed = 0;
        for _ in 0..runs {
            let mut counts = [0_u32; 256];
            let sector: [u8; SECTOR] = rng.random();
            for byte in sector {
                counts[usize::from(byte)] += 1;
            }
            let sum: u32 = counts.iter().map(|n| n * n).sum();
            crossed += u32::from(sum > squares(340, SECTOR));
        }
        let rate = f64::from(crossed) / f64::from(runs);
        let bound = chernoff(SECTOR, f64::from(squares(340, SECTOR)), 29, 0.055).exp2();
        assert!(rate > 1e-4 && rate < bound, "{rate} {bound}");
    }

    fn look_of(bytes: &[u8]) -> (Vec<Look>, Look) {
        let mut counts = Counts::new();
        let (sectors, rest) = bytes.as_chunks::<SECTOR>();
        assert!(rest.is_empty());
        let looks = sectors
            .iter()
            .map(|sector| counts.sector(sector, zero_grains(sector)))
            .collect();
        (looks, counts.block().unwrap_or(Look::Zero))
    }

    #[test]
    fn random_bytes_are_random() {
        let mut rng = StdRng::seed_from_u64(2);
        for _ in 0..4000 {
            let bytes: [u8; BLOCK] = rng.random();
            assert_eq!(look_of(&bytes), (vec![Look::Random; 8], Look::Random));
        }
    }

    #[test]
    fn other_bytes_are_not() {
        let counter: Vec<u8> = (0..=255).cycle().take(BLOCK).collect();
        assert_eq!(look_of(&counter), (vec![Look::TooEven; 8], Look::TooEven));
        let low = (vec![Look::LowEntropy; 8], Look::LowEntropy);
        assert_eq!(look_of(&[0xff; BLOCK]), low);
        assert_eq!(look_of(&[0; BLOCK]).0, vec![Look::Zero; 8]);
        let text = "All work and no play makes a dull boy. ".repeat(BLOCK);
        assert_eq!(look_of(&text.as_bytes()[..BLOCK]), low);

        // Six bits in each byte, as in base64, show in a sector.
        let mut rng = StdRng::seed_from_u64(3);
        let six_bits: Vec<u8> = (0..BLOCK).map(|_| rng.random::<u8>() & 63).collect();
        assert_eq!(look_of(&six_bits), low);

        // A bias that does not show in a sector: each byte is below 176 or, half as often, any
        // byte.
        let biased: Vec<u8> = (0..BLOCK)
            .map(|_| match rng.random::<u8>() {
                byte if byte >= 176 => rng.random(),
                byte => byte,
            })
            .collect();
        assert_eq!(look_of(&biased), (vec![Look::Random; 8], Look::LowEntropy));
    }

    #[test]
    fn a_piece_of_zeroes_in_a_sector_shows() {
        let mut rng = StdRng::seed_from_u64(4);
        let mut bytes: [u8; SECTOR] = rng.random();
        bytes[100..140].fill(0);
        assert_eq!(look_of_sector(&bytes), Look::LowEntropy);
    }

    fn look_of_sector(sector: &[u8; SECTOR]) -> Look {
        Counts::new().sector(sector, zero_grains(sector))
    }

    #[test]
    fn ciphertext_among_zero_grains_is_random() {
        let mut rng = StdRng::seed_from_u64(5);
        for round in 0..4000_u32 {
            let bytes: [u8; SECTOR] = rng.random();
            let mut sector = [0; SECTOR];
            let written = match round % 3 {
                // One range of grains, as after one write, or any set of grains.
                0 => !0 << rng.random_range(0..32),
                1 => !0 >> rng.random_range(0..32),
                _ => rng.random::<u32>() | 1,
            };
            for grain in (0..32).filter(|grain| written & (1_u32 << grain) != 0) {
                let at = grain * GRAIN..(grain + 1) * GRAIN;
                sector[at.clone()].copy_from_slice(&bytes[at]);
            }
            assert_eq!(zero_grains(&sector), !written);
            assert_eq!(look_of_sector(&sector), Look::Random, "{written:032b}");
        }
    }

    #[test]
    fn plaintext_among_zeroes_shows() {
        let poem = b"Tyger Tyger, burning bright, In the forests of the night; What immortal hand or eye, Could frame thy fearful symmetry?";
        for (at, plain) in [
            (0, &b"hello\n"[..]),
            (0, b"\x7fELF\x02\x01\x01"),
            (40, b"four bytes here: \x01\x02\x03\x04"),
            (505, b"the end"),
            (64, &poem[..80]),
            (100, &poem[..]),
        ] {
            let mut sector = [0; SECTOR];
            sector[at..at + plain.len()].copy_from_slice(plain);
            assert_eq!(look_of_sector(&sector), Look::LowEntropy, "{at} {plain:?}");
        }
    }
}
