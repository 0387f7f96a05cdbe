//! Serpent, Twofish, Camellia and CAST5.

use luksmith_formats::{BlockCipher, CipherSpec, Mode};

use super::modes::{Keyed, cbc, ecb, xts};

/// A cipher with its key. `None` for AES, or if the cipher has no keys of this length.
pub(super) fn keyed(spec: CipherSpec, key: &[u8]) -> Keyed {
    use BlockCipher::{Aes, Camellia, Cast5, Serpent, Twofish};
    use camellia::{Camellia128, Camellia192, Camellia256};
    let iv = spec.iv;
    match (spec.mode, spec.cipher, key.len()) {
        (_, Aes, _) | (Mode::Xts, Cast5, _) => None,
        (Mode::Xts, Serpent, _) => xts::<serpent::Serpent, serpent::Serpent>(key, iv),
        (Mode::Xts, Twofish, _) => xts::<twofish::Twofish, twofish::Twofish>(key, iv),
        (Mode::Xts, Camellia, 32) => xts::<Camellia128, Camellia256>(key, iv),
        (Mode::Xts, Camellia, 48) => xts::<Camellia192, Camellia256>(key, iv),
        (Mode::Xts, Camellia, _) => xts::<Camellia256, Camellia256>(key, iv),
        (Mode::Cbc, Serpent, _) => cbc::<serpent::Serpent, serpent::Serpent>(key, iv),
        (Mode::Cbc, Twofish, _) => cbc::<twofish::Twofish, twofish::Twofish>(key, iv),
        (Mode::Cbc, Camellia, 16) => cbc::<Camellia128, Camellia256>(key, iv),
        (Mode::Cbc, Camellia, 24) => cbc::<Camellia192, Camellia256>(key, iv),
        (Mode::Cbc, Camellia, _) => cbc::<Camellia256, Camellia256>(key, iv),
        (Mode::Cbc, Cast5, _) => cbc::<cast5::Cast5, cast5::Cast5>(key, iv),
        (Mode::Ecb, Serpent, _) => ecb::<serpent::Serpent>(key),
        (Mode::Ecb, Twofish, _) => ecb::<twofish::Twofish>(key),
        (Mode::Ecb, Camellia, 16) => ecb::<Camellia128>(key),
        (Mode::Ecb, Camellia, 24) => ecb::<Camellia192>(key),
        (Mode::Ecb, Camellia, _) => ecb::<Camellia256>(key),
        (Mode::Ecb, Cast5, _) => ecb::<cast5::Cast5>(key),
    }
}
