//! Serpent, Twofish and Camellia.

use luksmith_formats::{BlockCipher, EssivHash, Mode};

use super::modes::{Keyed, cbc, xts};

/// A cipher with its key. `None` for AES, or if the cipher has no keys of this length.
pub(super) fn keyed(
    cipher: BlockCipher,
    mode: Mode,
    essiv: Option<EssivHash>,
    key: &[u8],
) -> Keyed {
    use BlockCipher::{Aes, Camellia, Serpent, Twofish};
    use camellia::{Camellia128, Camellia192, Camellia256};
    match (mode, cipher, key.len()) {
        (_, Aes, _) => None,
        (Mode::Xts, Serpent, _) => xts::<serpent::Serpent, serpent::Serpent>(key, essiv),
        (Mode::Xts, Twofish, _) => xts::<twofish::Twofish, twofish::Twofish>(key, essiv),
        (Mode::Xts, Camellia, 32) => xts::<Camellia128, Camellia256>(key, essiv),
        (Mode::Xts, Camellia, 48) => xts::<Camellia192, Camellia256>(key, essiv),
        (Mode::Xts, Camellia, _) => xts::<Camellia256, Camellia256>(key, essiv),
        (Mode::Cbc, Serpent, _) => cbc::<serpent::Serpent, serpent::Serpent>(key, essiv),
        (Mode::Cbc, Twofish, _) => cbc::<twofish::Twofish, twofish::Twofish>(key, essiv),
        (Mode::Cbc, Camellia, 16) => cbc::<Camellia128, Camellia256>(key, essiv),
        (Mode::Cbc, Camellia, 24) => cbc::<Camellia192, Camellia256>(key, essiv),
        (Mode::Cbc, Camellia, _) => cbc::<Camellia256, Camellia256>(key, essiv),
    }
}
