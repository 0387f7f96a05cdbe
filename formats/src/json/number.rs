//! Numbers, which are kept as the text in which they were written.

use alloc::boxed::Box;
use alloc::format;
use alloc::string::ToString;
use core::fmt;

/// A number, as it is written. Two numbers are equal if their texts are: `1`, `1.0` and `1e0`
/// differ.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Number(Box<str>);

impl Number {
    /// A text that follows the grammar of numbers, that of JSON or a wider one.
    pub(super) fn of_text(text: &str) -> Self {
        Self(text.into())
    }

    /// A floating-point number; `None` if it is infinite or not a number, which JSON cannot say.
    pub fn from_f64(number: f64) -> Option<Self> {
        // Debug writes 1.0 where Display writes 1.
        number
            .is_finite()
            .then(|| Self(format!("{number:?}").into()))
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The value, if it is written as an integer from 0 to 2⁶⁴ − 1.
    pub fn as_u64(&self) -> Option<u64> {
        self.0.parse().ok()
    }
}

impl fmt::Display for Number {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

macro_rules! integers {
    ($($integer:ty),*) => {$(
        impl From<$integer> for Number {
            fn from(number: $integer) -> Self {
                Self(number.to_string().into())
            }
        }
    )*};
}
integers!(
    u8, u16, u32, u64, u128, usize, i8, i16, i32, i64, i128, isize
);
