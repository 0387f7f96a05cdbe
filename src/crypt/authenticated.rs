//! Ciphers whose sectors have tags, as dm-crypt makes them over dm-integrity. They only decrypt.
//!
//! What is authenticated is the number of a sector, its IV and its ciphertext. A number counts
//! units of 512 bytes, whatever the sector size is. A tag is the code, and then the IV where that
//! is random. Codes are compared in constant time.

#[cfg(feature = "integrity")]
pub(super) mod aead;
#[cfg(feature = "integrity")]
pub(super) mod aegis128;
pub(super) mod hmac_xts;
pub(super) mod opener;
