//! Do bytes look as if they were drawn evenly and independently? Pearson's chi-square test of the 256 byte values, for
//! sectors of 512 bytes and for blocks of 4096.
//!
//! A sector shows a short piece of plaintext that a block would drown; a block shows a bias that is too weak to be seen
//! in a sector. Both tails count: bytes that are spread too evenly (a counter) are no ciphertext either.
//!
//! # How often true ciphertext is taken for something else
//!
//! The bounds are so far out that they need no correction for the number of sectors: for evenly drawn bytes each of the
//! four (a sector or a block, above or below) is crossed with a probability of less than 2⁻⁷⁰. That is no approximation
//! by the chi-square distribution, whose far tail is thinner than that of counts: it is Chernoff's bound for the sum of
//! squares of 256 Poisson counts, cut off where one count alone is rarer than 2⁻⁷², over the probability that the counts sum up
//! to the number of bytes. The tests of this file calculate it. The union over all sectors of a volume is
//! [`false_alarm_bound`].
//!
//! # Sectors that are zero in part
//!
//! Where a part of a sector was written that never had been, the rest of it is zero still: a cipher leaves whole blocks of 16 bytes
//! as they are. In ciphertext such a [`GRAIN`] is zero once in 2¹²⁸. So zero grains are left out, and what remains has bounds of its own,
//! by its length. Plaintext among zeroes seldom ends at the border of a grain: zero bytes on the other side of such borders are
//! counted, too.

/// The smallest unit that is judged, in bytes.
pub const SECTOR: usize = 512;

/// The larger unit that is judged, in bytes.
pub const BLOCK: usize = 4096;

/// What is left out where it is zero, in bytes: the block of every cipher here.
pub const GRAIN: usize = 16;

/// Sums of the squared counts of a sector that are taken for random: chi-square from 90 to 700, where 255 is expected.
const SECTOR_SQUARES: std::ops::RangeInclusive<u32> = squares(90, SECTOR)..=squares(700, SECTOR);

/// The largest sums that are taken for random of a sector of which this many grains are left, from one on. There is no smallest one: few
/// bytes may all differ.
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

/// What bytes look like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Look {
    /// As ciphertext does.
    Random,
    /// All bytes are zero.
    Zero,
    /// Some byte values come far too often.
    LowEntropy,
    /// All byte values come far too evenly.
    TooEven,
}

/// How often each byte value occurs.
pub struct Counts {
    counts: [u16; 256],
    /// Not all bytes that were looked at are counted.
    partly: bool,
}

/// Which grains of a sector are zero, the first one being the lowest bit.
#[must_use]
pub fn zero_grains(sector: &[u8; SECTOR]) -> u32 {
    let (grains, _) = sector.as_chunks::<GRAIN>();
    let zero = |grain: &[u8; GRAIN]| u32::from(u128::from_ne_bytes(*grain) == 0);
    (0..)
        .zip(grains)
        .fold(0, |all, (index, grain)| all | zero(grain) << index)
}

impl Counts {
    /// None.
    #[must_use]
    pub fn new() -> Self {
        Self {
            counts: [0; 256],
            partly: false,
        }
    }

    /// Judges a sector with these zero grains, and adds its bytes to these counts.
    #[must_use]
    pub fn sector(&mut self, sector: &[u8; SECTOR], zero: u32) -> Look {
        if zero != 0 {
            self.partly = true;
            return part(sector, zero);
        }
        // Four tables, so that equal bytes in a row do not wait for each other; 128 bytes each fit a u8.
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

    /// Judges the eight sectors that were added, and starts again. None where some of them are zero in part: what they are was
    /// judged one by one.
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

/// Judges a sector of which these grains are zero.
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
    // None is left where all is zero.
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

/// So many zero bytes beside this many borders to zero grains are no chance.
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

/// The probability that a run over `bytes` of evenly drawn bytes raises any alarm is less than this: 2⁻⁵⁹ for each
/// sector, in which the signatures of [`signature`](super::signature) have the most part.
#[must_use]
pub fn false_alarm_bound(bytes: u64) -> f64 {
    (bytes.div_ceil(SECTOR as u64) as f64 * (-59_f64).exp2()).min(1.0)
}

#[cfg(test)]
mod tests {
    use rand::rngs::StdRng;
    use rand::{RngExt, SeedableRng};

    use super::*;

    /// ln of the probability of `k` in a Poisson distribution of mean `mean`.
    fn ln_poisson(k: usize, mean: f64) -> f64 {
        let ln_factorial: f64 = (1..=k).map(|i| (i as f64).ln()).sum();
        k as f64 * mean.ln() - mean - ln_factorial
    }

    /// log2 of a bound on the probability that one of 256 values comes more than `most` times in `len` bytes.
    fn too_often(len: usize, most: usize) -> f64 {
        // The binomial tail from `most + 1` on, by its first term and the ratio of the following.
        let n = len as f64;
        let k = (most + 1) as f64;
        let ln_choose: f64 = (1..=most + 1)
            .map(|i| ((n - i as f64 + 1.0) / i as f64).ln())
            .sum();
        let first = ln_choose + k * (1.0 / 256_f64).ln() + (n - k) * (255.0 / 256_f64).ln();
        let ratio = (n - k) / (k + 1.0) / 255.0;
        (256_f64.ln() + first - (1.0 - ratio).ln()) / 2_f64.ln()
    }

    /// The most times that a value may come in `len` bytes, but for a chance of 2⁻⁷².
    fn most_times(len: usize) -> usize {
        (1..len).find(|most| too_often(len, *most) < -72.0).unwrap()
    }

    /// log2 of Chernoff's bound on the probability that the sum of squares reaches `limit` (or stays below it), while no value comes
    /// more than `most` times. Any `tilt` and `shift` give a bound; those given here are near the best.
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
        // Convex in the shift: halve the interval that holds the minimum.
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
    fn the_bounds_are_crossed_as_rarely_as_is_said() {
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
        // Four bounds, a block being eight sectors, and sixteen signatures of at least 64 bits.
        let sector = 2.25 * (-70_f64).exp2() + 16.0 * (-64_f64).exp2();
        assert!(sector < false_alarm_bound(512));
        assert!(false_alarm_bound(256 << 40) < 1e-6);
    }

    #[test]
    fn the_bounds_of_parts_are_crossed_as_rarely() {
        for (left, limit) in (1..).zip(PART_SQUARES) {
            let len = left * GRAIN;
            let most = most_times(len);
            let bound = |tilt| chernoff(len, f64::from(limit), most, tilt);
            // Convex in the tilt, too.
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
        // Zero bytes beside b borders are a sum of b geometric numbers: k or more come with less than C(k+b−1, k)·2⁻⁸ᵏ.
        for borders in 1..=SECTOR / GRAIN {
            let zeroes = most_zeroes(borders);
            let ln_choose: f64 = (1..=zeroes)
                .map(|i| ((borders - 1 + i) as f64 / i as f64).ln())
                .sum();
            let bound = ln_choose / 2_f64.ln() - 8.0 * zeroes as f64;
            assert!(bound <= -72.0, "{borders} borders: 2^{bound}");
        }
        // Both together are no more than the two bounds and a share of the block's that whole sectors have.
        assert!((-70.4_f64).exp2() + (-72_f64).exp2() < 2.25 * (-70_f64).exp2());
    }

    /// Where the bound can be tried by sampling it must hold too: at bounds that are crossed now and then.
    #[test]
    fn nearer_bounds_are_crossed_no_more_often_than_calculated() {
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

        // Six bits in each byte, as in base64: a sector shows it.
        let mut rng = StdRng::seed_from_u64(3);
        let six_bits: Vec<u8> = (0..BLOCK).map(|_| rng.random::<u8>() & 63).collect();
        assert_eq!(look_of(&six_bits), low);

        // A bias that no sector shows: each byte is below 176 or, half as often, anything.
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
                // From somewhere to somewhere, as one write leaves it, or anywhere.
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
