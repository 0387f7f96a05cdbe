//! Sector numbers, and their forms as the 16 bytes that the tweak key encrypts.

/// The size of a cipher block in bytes.
pub const BLOCK: usize = 16;

/// How the number of a sector is written as 16 bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum TweakForm {
    /// `plain` of dm-crypt: the low 32 bits, little-endian. It repeats every 2 TiB.
    Plain,
    /// `plain64` of dm-crypt: the low 64 bits, little-endian.
    Plain64,
    /// `plain64be` of dm-crypt: the low 64 bits, big-endian, in the last 8 bytes.
    Plain64Be,
    /// All 128 bits, little-endian, as in IEEE Std 1619-2007.
    Whole,
}

/// The tweaks of consecutive sectors. Their numbers are `step` apart, and wrap around.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tweaks {
    next: u128,
    step: u128,
    form: TweakForm,
}

impl Tweaks {
    /// The tweaks of the sectors `first`, `first + step`, and so on.
    pub fn new(first: u128, step: u128, form: TweakForm) -> Self {
        Self {
            next: first,
            step,
            form,
        }
    }

    /// Takes the next 1 to `most` tweaks, as long as their numbers differ only in the low half.
    pub(super) fn take(&mut self, most: usize) -> Numbers {
        let halves = |number: u128| (low_half(number), low_half(number >> 64));
        let ((low, high), (step, far)) = (halves(self.next), halves(self.step));
        let count = if self.form != TweakForm::Whole {
            most
        } else if far > 0 {
            1
        } else {
            let until_carry = (u64::MAX - low).checked_div(step).unwrap_or(u64::MAX);
            usize::try_from(until_carry).map_or(most, |more| most.min(more.saturating_add(1)))
        };
        self.skip(count);
        let (high, mask, reversed) = match self.form {
            TweakForm::Plain => (0, u32::MAX.into(), false),
            TweakForm::Plain64 => (0, u64::MAX, false),
            TweakForm::Plain64Be => (0, u64::MAX, true),
            TweakForm::Whole => (high, u64::MAX, false),
        };
        Numbers {
            low,
            step,
            high,
            mask,
            reversed,
            count,
        }
    }

    /// Omits the next `count` tweaks.
    pub fn skip(&mut self, count: usize) {
        let skipped = self.step.wrapping_mul(count as u128);
        self.next = self.next.wrapping_add(skipped);
    }

    /// Takes the next tweak, which is not yet encrypted.
    pub fn next_tweak(&mut self) -> [u8; BLOCK] {
        let number = self.next;
        self.next = number.wrapping_add(self.step);
        match self.form {
            TweakForm::Plain => (number & u128::from(u32::MAX)).to_le_bytes(),
            TweakForm::Plain64 => (number & u128::from(u64::MAX)).to_le_bytes(),
            TweakForm::Plain64Be => (number & u128::from(u64::MAX)).to_be_bytes(),
            TweakForm::Whole => number.to_le_bytes(),
        }
    }
}

/// The numbers of some consecutive sectors, in the form in which the kernels count them in
/// registers. The high half is the same in all of them.
#[derive(Clone, Copy, Debug)]
pub(super) struct Numbers {
    low: u64,
    step: u64,
    high: u64,
    mask: u64,
    reversed: bool,
    count: usize,
}

impl Numbers {
    /// How many numbers there are.
    pub(super) fn count(&self) -> usize {
        self.count
    }

    /// The low half of number `n`, not yet masked. `n` may be past the last number.
    pub(super) fn low(&self, n: usize) -> i64 {
        let n = u64::try_from(n).unwrap_or(u64::MAX);
        self.low
            .wrapping_add(self.step.wrapping_mul(n))
            .cast_signed()
    }

    /// The first number as a tweak, in two halves: bytes 0 to 7, then bytes 8 to 15.
    pub(super) fn first(&self) -> [i64; 2] {
        let low = self.low & self.mask;
        if self.reversed {
            [
                self.high.swap_bytes().cast_signed(),
                low.swap_bytes().cast_signed(),
            ]
        } else {
            [low.cast_signed(), self.high.cast_signed()]
        }
    }

    /// The bits of a low half that belong to the tweak.
    pub(super) fn low_mask(&self) -> i64 {
        self.mask.cast_signed()
    }

    /// The high half of every number.
    pub(super) fn high(&self) -> i64 {
        self.high.cast_signed()
    }

    /// Whether the 16 bytes of a tweak are in reverse order.
    pub(super) fn reversed(&self) -> bool {
        self.reversed
    }
}

fn low_half(number: u128) -> u64 {
    let [a, b, c, d, e, f, g, h, ..] = number.to_le_bytes();
    u64::from_le_bytes([a, b, c, d, e, f, g, h])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn two(first: u128, step: u128, form: TweakForm) -> [u128; 2] {
        let mut tweaks = Tweaks::new(first, step, form);
        [(); 2].map(|()| u128::from_le_bytes(tweaks.next_tweak()))
    }

    #[test]
    fn each_form_wraps_at_its_width() {
        let (end32, end64) = (u128::from(u32::MAX), u128::from(u64::MAX));
        assert_eq!(two(end32, 1, TweakForm::Plain), [end32, 0]);
        assert_eq!(two(end32 - 7, 8, TweakForm::Plain), [end32 - 7, 0]);
        assert_eq!(two(end32, 1, TweakForm::Plain64), [end32, end32 + 1]);
        assert_eq!(two(end64, 8, TweakForm::Plain64), [end64, 7]);
        assert_eq!(two(u128::MAX, 1, TweakForm::Whole), [u128::MAX, 0]);
    }

    #[test]
    fn big_endian_numbers_are_in_the_last_bytes() {
        let mut tweaks = Tweaks::new(0x0102, 1, TweakForm::Plain64Be);
        assert_eq!(
            tweaks.next_tweak(),
            [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 2]
        );
        let mut tweaks = Tweaks::new(u128::from(u64::MAX), 1, TweakForm::Plain64Be);
        assert_eq!(tweaks.next_tweak()[8..], [0xff; 8]);
        assert_eq!(tweaks.next_tweak(), [0; 16]);
    }

    /// Makes a tweak from halves, as the kernels do.
    fn from_halves(numbers: &Numbers, n: usize) -> [u8; BLOCK] {
        let low = numbers.low(n) & numbers.low_mask();
        let mut bytes = [low, numbers.high()].map(i64::to_le_bytes).concat();
        if numbers.reversed() {
            bytes.reverse();
        }
        bytes.try_into().unwrap()
    }

    #[test]
    fn runs_of_numbers_equal_single_numbers() {
        use TweakForm::{Plain, Plain64, Plain64Be, Whole};
        let (end32, end64) = (1 << 32, 1 << 64);
        for form in [Plain, Plain64, Plain64Be, Whole] {
            for first in [
                0,
                end32 - 5,
                end64 - 5,
                end64 - 1,
                77 * end64 + 3,
                u128::MAX - 5,
            ] {
                for step in [0, 1, 2, 8, end64 - 1, end64, u128::MAX] {
                    let mut runs = Tweaks::new(first, step, form);
                    let mut single = runs;
                    let mut left = 40;
                    while left > 0 {
                        let numbers = runs.take(left);
                        assert!((1..=left).contains(&numbers.count()));
                        let [a, b] = numbers.first().map(i64::to_le_bytes);
                        assert_eq!([a, b].concat(), from_halves(&numbers, 0));
                        for n in 0..numbers.count() {
                            assert_eq!(from_halves(&numbers, n), single.next_tweak());
                        }
                        left -= numbers.count();
                    }
                    assert_eq!(runs, single);
                }
            }
        }
    }
}
