//! Sets of PCRs, and their banks.

use core::fmt;
use core::str::FromStr;

/// How many PCRs a TPM has.
const COUNT: u32 = 24;

/// A set of platform configuration registers (PCRs), by their numbers 0 to 23.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pcrs(u32);

impl Pcrs {
    /// The set with another PCR. `None` if the number is larger than 23.
    #[must_use]
    pub fn with(self, number: u64) -> Option<Self> {
        let number = u32::try_from(number).ok().filter(|&n| n < COUNT)?;
        Some(Self(self.0 | 1 << number))
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// The numbers, in ascending order.
    pub fn numbers(self) -> impl Iterator<Item = u32> {
        (0..COUNT).filter(move |n| self.0 >> n & 1 == 1)
    }

    /// Those that are not in the other set.
    pub(super) fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    /// A `TPML_PCR_SELECTION` of this set in one bank.
    pub(super) fn selection(self, bank: Bank) -> Vec<u8> {
        let [low, middle, high, _] = self.0.to_le_bytes();
        let [first, second] = bank.code().to_be_bytes();
        vec![0, 0, 0, 1, first, second, 3, low, middle, high]
    }

    /// The set of a `TPMS_PCR_SELECTION`.
    pub(super) fn of_selection(select: &[u8]) -> Self {
        let bytes = select.iter().take(3).zip([0, 8, 16]);
        Self(bytes.fold(0, |set, (&byte, shift)| set | u32::from(byte) << shift))
    }
}

impl fmt::Display for Pcrs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut numbers = self.numbers();
        match numbers.next() {
            None => f.write_str("no PCR"),
            Some(first) => {
                write!(f, "PCR {first}")?;
                numbers.try_for_each(|number| write!(f, "+{number}"))
            }
        }
    }
}

/// Why text is no set of PCRs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("PCRs are numbers from 0 to 23 with + between them, such as 0+7")]
pub struct ParsePcrsError;

impl FromStr for Pcrs {
    type Err = ParsePcrsError;

    /// Numbers with `+` or `,` between them. Empty text is the empty set.
    fn from_str(text: &str) -> Result<Self, ParsePcrsError> {
        if text.is_empty() {
            return Ok(Self::default());
        }
        let numbers = text.split(['+', ',']);
        let numbers = numbers.map(|number| number.parse::<u8>().ok().map(u64::from));
        numbers
            .into_iter()
            .try_fold(Self::default(), |set, number| set.with(number?))
            .ok_or(ParsePcrsError)
    }
}

/// The hash algorithm of a bank of PCRs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Bank {
    /// SHA-1.
    Sha1,
    /// SHA-256.
    Sha256,
    /// SHA-384.
    Sha384,
    /// SHA-512.
    Sha512,
}

impl Bank {
    const ALL: [Self; 4] = [Self::Sha1, Self::Sha256, Self::Sha384, Self::Sha512];

    /// Its name in a token.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Sha1 => "sha1",
            Self::Sha256 => "sha256",
            Self::Sha384 => "sha384",
            Self::Sha512 => "sha512",
        }
    }

    pub(super) fn of_name(name: &str) -> Option<Self> {
        let mut all = Self::ALL.into_iter();
        all.find(|bank| bank.name().eq_ignore_ascii_case(name))
    }

    /// Its `TPM_ALG_ID`.
    pub(super) fn code(self) -> u16 {
        match self {
            Self::Sha1 => 0x0004,
            Self::Sha256 => 0x000b,
            Self::Sha384 => 0x000c,
            Self::Sha512 => 0x000d,
        }
    }
}

impl fmt::Display for Bank {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sets_of_pcrs_are_read_and_shown() {
        let set: Pcrs = "7+0,23".parse().unwrap();
        assert_eq!(set.to_string(), "PCR 0+7+23");
        assert_eq!(
            set.selection(Bank::Sha256),
            [0, 0, 0, 1, 0, 11, 3, 0x81, 0, 0x80]
        );
        assert_eq!(Pcrs::of_selection(&[0x81, 0, 0x80]), set);
        assert_eq!("".parse(), Ok(Pcrs::default()));
        for bad in ["24", "-1", "0+", "+", "7 ", "x", "0-7", "99999999999"] {
            assert_eq!(bad.parse::<Pcrs>(), Err(ParsePcrsError), "{bad}");
        }
    }
}
