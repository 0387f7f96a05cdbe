//! Serpent, Twofish, Camellia, CAST5 and adiantum.

use chacha20::{XChaCha12, XChaCha20};
use luksmith_formats::{BlockCipher, CipherSpec, Mode};

use super::adiantum::adiantum;
use super::cbc::{Several, cbc};
use super::modes::{Keyed, ecb, xts};

#[cfg(target_arch = "x86_64")]
mod fastest {
    use super::super::wide::{self, Fastest};

    pub(super) type Serpent = Fastest<wide::Serpent>;
    pub(super) type Twofish = Fastest<wide::Twofish>;
    pub(super) type Camellia128 = Fastest<wide::Camellia<camellia::Camellia128>>;
    pub(super) type Camellia192 = Fastest<wide::Camellia<camellia::Camellia192>>;
    pub(super) type Camellia256 = Fastest<wide::Camellia<camellia::Camellia256>>;
}

#[cfg(not(target_arch = "x86_64"))]
mod fastest {
    pub(super) use super::super::twofish::Twofish;
    pub(super) use camellia::{Camellia128, Camellia192, Camellia256};
    pub(super) use serpent::Serpent;
}

/// A cipher with its key. `None` for AES, for a mode that the cipher does not have, or if the
/// cipher has no keys of this length.
pub(super) fn keyed(spec: CipherSpec, key: &[u8]) -> Keyed {
    use BlockCipher::{Aes, Camellia, Cast5, Serpent, Twofish, XChaCha12Aes, XChaCha20Aes};
    use fastest::{Camellia128, Camellia192, Camellia256};
    let iv = spec.iv;
    match (spec.mode, spec.cipher, key.len()) {
        (_, Aes, _) | (Mode::Xts, Cast5, _) => None,
        (Mode::Xts, Serpent, _) => xts::<fastest::Serpent, fastest::Serpent>(key, iv),
        (Mode::Xts, Twofish, _) => xts::<fastest::Twofish, fastest::Twofish>(key, iv),
        (Mode::Xts, Camellia, 32) => xts::<Camellia128, Camellia256>(key, iv),
        (Mode::Xts, Camellia, 48) => xts::<Camellia192, Camellia256>(key, iv),
        (Mode::Xts, Camellia, _) => xts::<Camellia256, Camellia256>(key, iv),
        (Mode::Cbc, Serpent, _) => {
            cbc::<fastest::Serpent, fastest::Serpent>(key, iv, Several::Batch)
        }
        (Mode::Cbc, Twofish, _) => {
            cbc::<fastest::Twofish, fastest::Twofish>(key, iv, Several::Batch)
        }
        (Mode::Cbc, Camellia, 16) => cbc::<Camellia128, Camellia256>(key, iv, Several::Batch),
        (Mode::Cbc, Camellia, 24) => cbc::<Camellia192, Camellia256>(key, iv, Several::Batch),
        (Mode::Cbc, Camellia, _) => cbc::<Camellia256, Camellia256>(key, iv, Several::Batch),
        (Mode::Cbc, Cast5, _) => cbc::<cast5::Cast5, cast5::Cast5>(key, iv, Several::Batch),
        (Mode::Ecb, Serpent, _) => ecb::<fastest::Serpent>(key),
        (Mode::Ecb, Twofish, _) => ecb::<fastest::Twofish>(key),
        (Mode::Ecb, Camellia, 16) => ecb::<Camellia128>(key),
        (Mode::Ecb, Camellia, 24) => ecb::<Camellia192>(key),
        (Mode::Ecb, Camellia, _) => ecb::<Camellia256>(key),
        (Mode::Ecb, Cast5, _) => ecb::<cast5::Cast5>(key),
        (Mode::Adiantum, XChaCha12Aes, _) => adiantum::<XChaCha12>(key, iv),
        (Mode::Adiantum, XChaCha20Aes, _) => adiantum::<XChaCha20>(key, iv),
        (Mode::Adiantum, _, _) | (_, XChaCha12Aes | XChaCha20Aes, _) => None,
    }
}
