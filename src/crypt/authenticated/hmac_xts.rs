//! AES-XTS, and HMAC-SHA-256 of the ciphertext.

use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;

use super::opener::{Opener, SectorOpener};
use crate::secret::LockedBox;
use crate::xts::{TweakForm, Tweaks, Xts};

/// The bytes of HMAC-SHA-256.
const CODE: usize = 32;

struct HmacXts {
    xts: Xts,
    mac: LockedBox<Hmac<Sha256>>,
}

/// Sectors of AES-XTS, with this key of their codes.
pub(in crate::crypt) fn hmac_xts(xts: Xts, code_key: &[u8]) -> Opener {
    // HMAC takes a key of any size.
    let mac = Hmac::new_from_slice(code_key).unwrap_or_else(|_| Hmac::new(&Default::default()));
    let mac = LockedBox::new(mac)?;
    Ok(Box::new(HmacXts { xts, mac }))
}

impl SectorOpener for HmacXts {
    fn open(&self, number: u64, tag: &[u8], data: &mut [u8]) -> bool {
        let Some((code, stored)) = tag.split_at_checked(CODE) else {
            return false;
        };
        // Without a stored IV it is the number of the sector.
        let numbered = u128::from(number).to_le_bytes();
        let iv = stored.first_chunk().copied().unwrap_or(numbered);
        let mut mac = (*self.mac).clone();
        mac.update(&number.to_le_bytes());
        mac.update(&iv);
        mac.update(data);
        if mac.verify_slice(code).is_err() {
            return false;
        }
        let tweaks = Tweaks::new(u128::from_le_bytes(iv), 1, TweakForm::Whole);
        self.xts.decrypt(tweaks, data.len(), data).is_ok()
    }
}
