//! How hard a passphrase is to guess, as zxcvbn estimates it.

use luksmith::secret::{Passphrase, scrub_stack};

/// An estimate of a passphrase's strength. Holds nothing of the passphrase.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Strength {
    /// From 0 (too guessable) to 4 (very unguessable). 3 withstands an offline attack on a slow key
    /// derivation.
    pub(super) score: u8,
    /// Decimal logarithm of the number of guesses.
    pub(super) guesses_log10: f64,
    /// What makes it weak, as a sentence, if it is weak.
    pub(super) warning: Option<String>,
}

/// Estimates the strength of `passphrase`. There is no estimate for bytes that are not UTF-8: they
/// were not typed but come from a key file.
///
/// The estimate copies parts of the passphrase to the heap, where this program's
/// [`WipingAllocator`](luksmith::secret::WipingAllocator) wipes them.
#[must_use]
pub(super) fn strength(passphrase: &Passphrase) -> Option<Strength> {
    let text = core::str::from_utf8(passphrase.as_bytes()).ok()?;
    let strength = estimate(text);
    scrub_stack();
    Some(strength)
}

#[inline(never)]
fn estimate(text: &str) -> Strength {
    let entropy = zxcvbn::zxcvbn(text, &[]);
    Strength {
        score: entropy.score().into(),
        guesses_log10: entropy.guesses_log10(),
        warning: entropy
            .feedback()
            .and_then(|feedback| feedback.warning())
            .map(|warning| warning.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(text: &[u8]) -> Option<Strength> {
        strength(&Passphrase::copy_from(text).unwrap())
    }

    #[test]
    fn weak_is_warned_about_and_strong_is_not() {
        let weak = of(b"password").unwrap();
        assert_eq!(weak.score, 0);
        assert!(weak.warning.is_some());
        let strong = of(b"vB7#kq-plinth-otter-93-gelid").unwrap();
        assert_eq!(strong.score, 4);
        assert_eq!(strong.warning, None);
        assert!(strong.guesses_log10 > weak.guesses_log10);
    }

    #[test]
    fn no_estimate_of_bytes() {
        assert_eq!(of(&[0xff, 0xfe, 0x00]), None);
    }
}
