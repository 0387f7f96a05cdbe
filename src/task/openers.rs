//! The programs that open a volume, and why QEMU's own driver does not.

use std::fmt;

use luksmith_formats::cipher::{BlockCipher, CipherSpec, EssivHash, IvGenerator, Mode};
use luksmith_formats::hash::Hash;
use luksmith_formats::luks1;

use super::open::ImageFormat;
use crate::container::Version;

/// The size of an object of an RBD image, unless its creator chose another one.
const RBD_OBJECT: u64 = 4 << 20;

/// The stripes of key material of a LUKS1 keyslot.
const STRIPES: usize = luks1::STRIPES as usize;
/// The unit in which QEMU decrypts key material.
const SECTOR: usize = 512;

/// A program that opens LUKS volumes. Its `Display` is its name in lower case.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Opener {
    /// cryptsetup, with the kernel's dm-crypt.
    Cryptsetup,
    /// librbd, the client library of Ceph: for a volume in an image of Ceph, or for the same volume
    /// in an image with objects of the default size and without striping.
    Librbd,
    /// This library, which can also serve the volume.
    Luksmith,
    /// QEMU's own driver, which libvirt uses too.
    Qemu,
}

impl fmt::Display for Opener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Cryptsetup => "cryptsetup",
            Self::Librbd => "librbd",
            Self::Luksmith => "luksmith",
            Self::Qemu => "qemu",
        })
    }
}

/// Why QEMU's own driver does not open a volume.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum QemuObstacle {
    /// QEMU knows only LUKS1.
    Luks2,
    /// QEMU does not know the cipher.
    Cipher(CipherSpec),
    /// QEMU does not know the hash.
    Hash(Hash),
    /// QEMU crashes when it opens a volume with a key of this many bytes, since its key material is
    /// no whole number of sectors.
    KeySize(usize),
    /// QEMU before version 9 finds only a header at the start of the volume.
    DetachedHeader,
    /// QEMU takes only a passphrase that is UTF-8 without a NUL.
    Passphrase,
    /// The volume or its header is in a part of a file, a device, an export or an image in Ceph.
    Part,
    /// The volume or its header is in an object store.
    Objects,
}

impl fmt::Display for QemuObstacle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Luks2 => f.write_str("QEMU's own driver knows only LUKS1"),
            Self::Cipher(cipher) => write!(f, "QEMU's own driver does not know {cipher}"),
            Self::Hash(Hash::Sm3) => f.write_str("QEMU's own driver knows sm3 from version 9.2 on"),
            Self::Hash(hash) => write!(f, "QEMU's own driver does not know {hash}"),
            Self::KeySize(bytes) => {
                let bits = bytes * 8;
                write!(
                    f,
                    "QEMU's own driver crashes on a volume with a {bits}-bit key"
                )
            }
            Self::DetachedHeader => {
                f.write_str("QEMU's own driver opens a detached header from version 9 on")
            }
            Self::Passphrase => {
                f.write_str("QEMU takes only a passphrase that is UTF-8 without a NUL")
            }
            Self::Part => f.write_str("other programs open no part of a file as it is named here"),
            Self::Objects => {
                f.write_str("other programs do not know how a volume is kept in an object store")
            }
        }
    }
}

/// The properties of a volume on which it depends which programs open it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Properties {
    pub(super) format: ImageFormat,
    pub(super) version: Version,
    pub(super) cipher: CipherSpec,
    /// The size of the volume key in bytes.
    pub(super) key_size: usize,
    pub(super) hash: Hash,
    pub(super) data_offset: u64,
    pub(super) detached: bool,
    /// Whether the data or the header is in a part of another storage.
    pub(super) part: bool,
    /// Whether the passphrase is UTF-8 without a NUL.
    pub(super) text: bool,
    /// The stripe period of the image in Ceph that it is in, in bytes.
    pub(super) period: Option<u64>,
    /// Whether the data or the header is where only this library reaches it.
    pub(super) only_here: bool,
}

impl Properties {
    /// The programs that open the volume, in the order of their names.
    pub(super) fn openers(&self) -> Vec<Opener> {
        let raw = self.format == ImageFormat::Raw && !self.part && !self.only_here;
        let librbd = raw
            && !self.detached
            && self.cipher == CipherSpec::AES_XTS_PLAIN64
            && self
                .data_offset
                .is_multiple_of(self.period.unwrap_or(RBD_OBJECT));
        let opens = [
            (Opener::Cryptsetup, raw),
            (Opener::Librbd, librbd),
            (Opener::Luksmith, true),
            (Opener::Qemu, self.qemu_obstacle().is_none()),
        ];
        let opens = opens.into_iter().filter(|(_, opens)| *opens);
        opens.map(|(opener, _)| opener).collect()
    }

    /// Why QEMU's own driver does not open the volume, if it does not.
    pub(super) fn qemu_obstacle(&self) -> Option<QemuObstacle> {
        if self.part {
            return Some(QemuObstacle::Part);
        }
        if self.only_here {
            return Some(QemuObstacle::Objects);
        }
        // A cipher that QEMU does not know is named before the version, since LUKS1 does not help.
        let unknown = unknown_to_qemu(self.cipher, self.key_size, self.hash);
        if self.version != Version::Luks1 {
            return unknown.or(Some(QemuObstacle::Luks2));
        }
        let detached = self.detached.then_some(QemuObstacle::DetachedHeader);
        let passphrase = (!self.text).then_some(QemuObstacle::Passphrase);
        unknown.or(detached).or(passphrase)
    }
}

/// The cipher, size of the volume key, or hash that QEMU does not have.
pub(super) fn unknown_to_qemu(
    cipher: CipherSpec,
    key_size: usize,
    hash: Hash,
) -> Option<QemuObstacle> {
    let known = matches!(
        cipher.iv,
        IvGenerator::Plain | IvGenerator::Plain64 | IvGenerator::Essiv(EssivHash::Sha256)
    );
    let other = cipher.cipher == BlockCipher::Camellia || cipher.mode == Mode::Adiantum;
    if other || !known {
        Some(QemuObstacle::Cipher(cipher))
    } else if !(key_size * STRIPES).is_multiple_of(SECTOR) {
        Some(QemuObstacle::KeySize(key_size))
    } else if !qemu_has(hash) {
        Some(QemuObstacle::Hash(hash))
    } else {
        None
    }
}

/// Whether every version of QEMU since 7.2 has the hash. SM3 came with version 9.2.
fn qemu_has(hash: Hash) -> bool {
    matches!(
        hash,
        Hash::Sha1 | Hash::Sha224 | Hash::Sha256 | Hash::Sha384 | Hash::Sha512 | Hash::Ripemd160
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    const LUKS1: Properties = Properties {
        format: ImageFormat::Raw,
        version: Version::Luks1,
        cipher: CipherSpec::AES_XTS_PLAIN64,
        key_size: 64,
        hash: Hash::Sha256,
        data_offset: 2 << 20,
        detached: false,
        part: false,
        text: true,
        period: None,
        only_here: false,
    };

    fn named(properties: Properties) -> String {
        let openers = properties.openers();
        let names = openers.iter().map(ToString::to_string);
        names.collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn who_opens_depends_on_what_was_made() {
        let luks2 = Properties {
            version: Version::Luks2,
            data_offset: 16 << 20,
            ..LUKS1
        };
        let [camellia, cbc, essiv, sm3] = [
            "camellia-xts-plain64",
            "aes-cbc-plain64",
            "aes-xts-essiv:sha256",
            "aes-xts-essiv:sm3",
        ]
        .map(|name| CipherSpec::parse(name).unwrap());
        for (properties, opens, obstacle) in [
            (LUKS1, "cryptsetup luksmith qemu", None),
            (
                luks2,
                "cryptsetup librbd luksmith",
                Some(QemuObstacle::Luks2),
            ),
            (
                Properties {
                    data_offset: 4 << 20,
                    ..LUKS1
                },
                "cryptsetup librbd luksmith qemu",
                None,
            ),
            (
                Properties {
                    cipher: camellia,
                    ..LUKS1
                },
                "cryptsetup luksmith",
                Some(QemuObstacle::Cipher(camellia)),
            ),
            (
                Properties {
                    cipher: camellia,
                    ..luks2
                },
                "cryptsetup luksmith",
                Some(QemuObstacle::Cipher(camellia)),
            ),
            (
                Properties {
                    cipher: essiv,
                    key_size: 48,
                    ..LUKS1
                },
                "cryptsetup luksmith qemu",
                None,
            ),
            (
                Properties {
                    cipher: sm3,
                    ..LUKS1
                },
                "cryptsetup luksmith",
                Some(QemuObstacle::Cipher(sm3)),
            ),
            (
                Properties {
                    cipher: cbc,
                    key_size: 24,
                    ..LUKS1
                },
                "cryptsetup luksmith",
                Some(QemuObstacle::KeySize(24)),
            ),
            (
                Properties {
                    hash: Hash::Whirlpool,
                    ..LUKS1
                },
                "cryptsetup luksmith",
                Some(QemuObstacle::Hash(Hash::Whirlpool)),
            ),
            (
                Properties {
                    detached: true,
                    ..LUKS1
                },
                "cryptsetup luksmith",
                Some(QemuObstacle::DetachedHeader),
            ),
            (
                Properties {
                    part: true,
                    ..LUKS1
                },
                "luksmith",
                Some(QemuObstacle::Part),
            ),
            (
                Properties {
                    text: false,
                    ..LUKS1
                },
                "cryptsetup luksmith",
                Some(QemuObstacle::Passphrase),
            ),
            (
                Properties {
                    format: ImageFormat::Qcow2,
                    ..LUKS1
                },
                "luksmith qemu",
                None,
            ),
        ] {
            assert_eq!(named(properties), opens, "{properties:?}");
            assert_eq!(properties.qemu_obstacle(), obstacle);
        }
    }
}
