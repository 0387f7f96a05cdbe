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

/// The smallest unit that is judged, in bytes.
pub const SECTOR: usize = 512;

/// The larger unit that is judged, in bytes.
pub const BLOCK: usize = 4096;

/// Sums of the squared counts of a sector that are taken for random: chi-square from 90 to 700, where 255 is expected.
const SECTOR_SQUARES: std::ops::RangeInclusive<u32> = squares(90, SECTOR)..=squares(700, SECTOR);

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
pub struct Counts([u16; 256]);

impl Counts {
    /// None.
    #[must_use]
    pub fn new() -> Self {
        Self([0; 256])
    }

    /// Judges a sector, and adds its bytes to these counts.
    #[must_use]
    pub fn sector(&mut self, sector: &[u8; SECTOR]) -> Look {
        if is_zero(sector) {
            self.0[0] += 512;
            return Look::Zero;
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
        for (value, sum) in self.0.iter_mut().enumerate() {
            let count = u16::from(a[value])
                + u16::from(b[value])
                + u16::from(c[value])
                + u16::from(d[value]);
            *sum += count;
            squares += u32::from(count) * u32::from(count);
        }
        look(squares, &SECTOR_SQUARES)
    }

    /// Judges the eight sectors that were added, and starts again.
    #[must_use]
    pub fn block(&mut self) -> Look {
        let squares = self.0.iter().map(|&n| u32::from(n) * u32::from(n)).sum();
        self.0 = [0; 256];
        look(squares, &BLOCK_SQUARES)
    }
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

/// Whether every byte is zero.
#[must_use]
pub fn is_zero(bytes: &[u8]) -> bool {
    bytes.iter().fold(0, |all, &byte| all | byte) == 0
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
        let looks = sectors.iter().map(|sector| counts.sector(sector)).collect();
        (looks, counts.block())
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
        assert_eq!(Counts::new().sector(&bytes), Look::LowEntropy);
    }
}
