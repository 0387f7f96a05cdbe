//! The numbers of sectors as the 16 bytes that the tweak key encrypts.

use super::BLOCK;

/// How a sector's number becomes 16 bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum TweakForm {
    /// dm-crypt's `plain`: the low 32 bits, little-endian, so that it repeats every 2 TiB.
    Plain,
    /// dm-crypt's `plain64`: the low 64 bits, little-endian.
    Plain64,
    /// dm-crypt's `plain64be`: the low 64 bits, big-endian, in the last 8 bytes.
    Plain64Be,
    /// All 128 bits, little-endian, as IEEE Std 1619-2007 has them.
    Whole,
}

/// The tweaks of consecutive sectors: number after number, `step` apart, wrapping.
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

    /// The next tweak, not yet encrypted.
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
}
