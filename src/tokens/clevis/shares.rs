//! Shamir's secret sharing, as clevis has it: the key is the value at 0 of a polynomial over a
//! prime field, and a share is a point of it.

use p521::elliptic_curve::bigint::modular::{FixedMontyForm, FixedMontyParams};
use p521::elliptic_curve::bigint::{Odd, U256};

use crate::secret::{LockedBytes, SecretError, scrub_stack};

/// The bytes of the prime, of the key, and of each coordinate of a share.
pub(super) const LEN: usize = 32;

type Element = FixedMontyForm<{ U256::LIMBS }>;

/// A prime field.
pub(super) struct Field {
    prime: U256,
    params: FixedMontyParams<{ U256::LIMBS }>,
}

impl Field {
    /// The field of this prime. Whether it is one is not checked: with another number the key is a
    /// wrong one. `None` if it is even or below 2^255.
    pub(super) fn new(prime: &[u8]) -> Option<Self> {
        let prime = Some(prime).filter(|bytes| bytes.len() == LEN && bytes[0] >= 0x80)?;
        let prime = U256::from_be_slice(prime);
        let odd: Option<Odd<U256>> = Odd::new(prime).into();
        let params = FixedMontyParams::new(odd?);
        Some(Self { prime, params })
    }

    fn element(&self, bytes: &[u8]) -> Option<Element> {
        let integer = U256::from_be_slice(Some(bytes).filter(|bytes| bytes.len() == LEN)?);
        (integer < self.prime).then(|| FixedMontyForm::new(&integer, &self.params))
    }

    /// The key, from as many shares as the polynomial has coefficients: the coordinate x of each
    /// one, then its y. `None` if two have the same x, or one is not in the field.
    pub(super) fn key(&self, shares: &[LockedBytes]) -> Result<Option<LockedBytes>, SecretError> {
        let mut key = LockedBytes::new(LEN)?;
        let found = self.interpolate(shares, &mut key);
        scrub_stack();
        Ok(found.map(|()| key))
    }

    // Not inlined, so that the elements are on the part of the stack that the caller scrubs.
    #[inline(never)]
    fn interpolate(&self, shares: &[LockedBytes], into: &mut [u8]) -> Option<()> {
        let mut key = FixedMontyForm::zero(&self.params);
        for (index, share) in shares.iter().enumerate() {
            let (x, mut term) = self.point(share)?;
            for (_, other) in shares.iter().enumerate().filter(|(at, _)| *at != index) {
                let (other, _) = self.point(other)?;
                let inverse: Option<Element> = (other - x).invert().into();
                term = term * other * inverse?;
            }
            key += term;
        }
        into.copy_from_slice(key.retrieve().to_be_bytes().as_ref());
        Some(())
    }

    /// The coordinates of a share.
    fn point(&self, share: &[u8]) -> Option<(Element, Element)> {
        let (x, y) = share.split_at_checked(LEN)?;
        Some((self.element(x)?, self.element(y)?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 2^255 + 95, a prime.
    fn prime() -> [u8; LEN] {
        let mut prime = [0; LEN];
        (prime[0], prime[LEN - 1]) = (0x80, 95);
        prime
    }

    fn share(x: u8, y: u8) -> LockedBytes {
        let mut share = [0; 2 * LEN];
        (share[LEN - 1], share[2 * LEN - 1]) = (x, y);
        LockedBytes::copy_from(&share).unwrap()
    }

    #[test]
    fn the_key_is_the_value_at_zero() {
        let field = Field::new(&prime()).unwrap();
        // 7 + 3x + 2x²
        let shares = [share(1, 12), share(2, 21), share(5, 72)];
        let key = field.key(&shares).unwrap().unwrap();
        assert_eq!(key[LEN - 1], 7);
        assert!(key[..LEN - 1].iter().all(|byte| *byte == 0));
        let one = field.key(&[share(9, 33)]).unwrap().unwrap();
        assert_eq!(one[LEN - 1], 33);
    }

    #[test]
    fn what_is_no_field_or_no_share_is_refused() {
        let even = [0x80; LEN];
        assert!(Field::new(&even).is_none());
        for len in [0, 31, 33] {
            assert!(Field::new(&vec![0xff; len]).is_none());
        }
        assert!(Field::new(&[1; LEN]).is_none(), "below 2^255");
        let field = Field::new(&prime()).unwrap();
        let none = |shares: &[LockedBytes]| field.key(shares).unwrap().is_none();
        assert!(none(&[share(1, 1), share(1, 2)]));
        let large = LockedBytes::copy_from(&[0xff; 2 * LEN]).unwrap();
        assert!(none(&[large]));
        let short = LockedBytes::copy_from(&[0; LEN]).unwrap();
        assert!(none(&[short]));
    }
}
