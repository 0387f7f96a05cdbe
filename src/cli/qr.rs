//! A QR code of a recovery key, for the terminal.
//!
//! Reference: ISO/IEC 18004. There is one shape: version 4 with level L, which holds 78 bytes in
//! one block, and mask 0. The modules are as secret as the text, and are in locked memory.

use luksmith::secret::{LockError, LockedBytes};

/// The modules in a row.
const SIDE: usize = 33;
/// The codewords of data, and those of error correction.
const DATA: usize = 80;
const CORRECTION: usize = 20;
/// The longest text in bytes.
const LONGEST: usize = DATA - 2;
/// Level L and mask 0 with their error correction.
const FORMAT: u16 = 0b111_0111_1100_0100;
/// The light modules around it.
const QUIET: isize = 4;

/// A module that is dark.
const DARK: u8 = 1;
/// A module that is no data.
const FIXED: u8 = 2;

/// The modules of a QR code.
pub(super) struct Code(LockedBytes);

impl Code {
    /// The code of a text. `None` if the text is longer than 78 bytes.
    pub(super) fn new(text: &[u8]) -> Option<Result<Self, LockError>> {
        (text.len() <= LONGEST).then(|| Self::of(text))
    }

    fn of(text: &[u8]) -> Result<Self, LockError> {
        let words = codewords(text)?;
        let mut code = Self(LockedBytes::new(SIDE * SIDE)?);
        code.patterns();
        code.data(&words);
        Ok(code)
    }

    fn set(&mut self, x: usize, y: usize, dark: bool) {
        self.0[y * SIDE + x] = FIXED | (u8::from(dark) * DARK);
    }

    /// What is the same in each code.
    fn patterns(&mut self) {
        for at in 0..SIDE {
            self.set(6, at, at % 2 == 0);
            self.set(at, 6, at % 2 == 0);
        }
        let corners = [(3, 3), (SIDE - 4, 3), (3, SIDE - 4)];
        for (x, y) in corners {
            self.squares((x, y), 4, |ring| ring != 2 && ring != 4);
        }
        self.squares((26, 26), 2, |ring| ring != 1);
        for bit in 0..15 {
            let dark = FORMAT >> bit & 1 == 1;
            let (x, y) = match bit {
                0..=5 => (8, bit),
                6 | 7 => (8, bit + 1),
                8 => (7, 8),
                _ => (14 - bit, 8),
            };
            self.set(x, y, dark);
            let (x, y) = match bit {
                0..=7 => (SIDE - 1 - bit, 8),
                _ => (8, SIDE - 15 + bit),
            };
            self.set(x, y, dark);
        }
        self.set(8, SIDE - 8, true);
    }

    /// Squares around a module. `dark` says which distances from it are dark.
    fn squares(&mut self, (x, y): (usize, usize), reach: usize, dark: impl Fn(usize) -> bool) {
        for row in y.saturating_sub(reach)..=(y + reach).min(SIDE - 1) {
            for column in x.saturating_sub(reach)..=(x + reach).min(SIDE - 1) {
                let ring = row.abs_diff(y).max(column.abs_diff(x));
                self.set(column, row, dark(ring));
            }
        }
    }

    /// The bits of the codewords, in columns of two modules from the right, up and down in turn.
    fn data(&mut self, words: &[u8]) {
        let bits = |word: u8| (0..8).rev().map(move |bit| word >> bit & 1);
        let mut bits = words.iter().copied().flat_map(bits);
        let columns = (7..SIDE).rev().step_by(2).chain([5, 3, 1]);
        for (turn, right) in columns.enumerate() {
            for step in 0..SIDE {
                let y = if turn % 2 == 0 { SIDE - 1 - step } else { step };
                for x in [right, right - 1] {
                    let module = &mut self.0[y * SIDE + x];
                    if *module & FIXED == 0 {
                        let mask = u8::from((x + y).is_multiple_of(2));
                        *module = bits.next().unwrap_or(0) ^ mask;
                    }
                }
            }
        }
    }

    fn is_light(&self, x: isize, y: isize) -> bool {
        let place = usize::try_from(x).ok().zip(usize::try_from(y).ok());
        let inside = place.filter(|(x, y)| *x < SIDE && *y < SIDE);
        inside.is_none_or(|(x, y)| self.0[y * SIDE + x] & DARK == 0)
    }

    /// Writes two rows of modules in each line, light on black whatever the colours of the terminal
    /// are.
    pub(super) fn write(&self, to: &mut impl std::io::Write) -> std::io::Result<()> {
        let end = SIDE.cast_signed() + QUIET;
        for y in (-QUIET..end).step_by(2) {
            to.write_all(b"    \x1b[40;97m")?;
            for x in -QUIET..end {
                let two = match (self.is_light(x, y), self.is_light(x, y + 1)) {
                    (true, true) => "█",
                    (true, false) => "▀",
                    (false, true) => "▄",
                    (false, false) => " ",
                };
                to.write_all(two.as_bytes())?;
            }
            to.write_all(b"\x1b[0m\n")?;
        }
        Ok(())
    }
}

/// The data of the text as bytes, padded, then its error correction.
fn codewords(text: &[u8]) -> Result<LockedBytes, LockError> {
    let mut words = LockedBytes::new(DATA + CORRECTION)?;
    // Four bits say that bytes follow, eight how many.
    let len = u8::try_from(text.len()).unwrap_or(u8::MAX);
    let mut before = 4;
    for (word, byte) in words.iter_mut().zip([len].iter().chain(text).chain([&0])) {
        *word = before << 4 | byte >> 4;
        before = byte & 15;
    }
    for (index, word) in words[..DATA].iter_mut().skip(text.len() + 2).enumerate() {
        *word = if index % 2 == 0 { 0xec } else { 0x11 };
    }
    let (data, correction) = words.split_at_mut(DATA);
    let generator = generator();
    for word in data {
        let factor = *word ^ correction[0];
        correction.rotate_left(1);
        correction[CORRECTION - 1] = 0;
        for (place, coefficient) in correction.iter_mut().zip(generator) {
            *place ^= times(coefficient, factor);
        }
    }
    Ok(words)
}

/// The coefficients of the product of `x - 2^i`, without the first one, which is 1.
fn generator() -> [u8; CORRECTION] {
    let mut product = [0; CORRECTION];
    product[CORRECTION - 1] = 1;
    let mut root = 1;
    for _ in 0..CORRECTION {
        for at in 0..CORRECTION {
            let next = product.get(at + 1).copied().unwrap_or(0);
            product[at] = times(product[at], root) ^ next;
        }
        root = times(root, 2);
    }
    product
}

/// The product in the field of 256 elements with the polynomial 0x11d.
fn times(a: u8, b: u8) -> u8 {
    (0..8).rev().fold(0, |product: u8, bit| {
        let doubled = (product << 1) ^ ((product >> 7) * 0x1d);
        doubled ^ (((b >> bit) & 1) * a)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &[u8] = b"rkcrkjbv-cfkgeteg-venutnkc-tbffbrbl-genhikgi-lbkdgide-rfrfjnec-cuircbbj";

    #[test]
    fn a_code_is_as_another_program_makes_it() {
        let code = Code::new(KEY).unwrap().unwrap();
        let dark: String = code
            .0
            .iter()
            .map(|module| char::from(b'0' + (module & DARK)))
            .collect();
        assert_eq!(dark, include_str!("qr_of_a_key.txt").replace('\n', ""));
    }

    #[test]
    fn a_code_has_a_quiet_zone_and_no_longer_text() {
        let mut shown = Vec::new();
        Code::new(KEY).unwrap().unwrap().write(&mut shown).unwrap();
        let shown = String::from_utf8(shown).unwrap();
        assert_eq!(shown.lines().count(), 21);
        let first = shown.lines().next().unwrap();
        assert_eq!(first.matches('█').count(), 41);
        assert!(Code::new(&[b'c'; 78]).unwrap().is_ok());
        assert!(Code::new(&[b'c'; 79]).is_none());
    }
}
