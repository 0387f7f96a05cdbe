//! The algorithms of keys and signatures, in DER: the AlgorithmIdentifier of RFC 5280, private keys
//! of PKCS #8 (RFC 5208), PKCS #1 (RFC 8017) and SEC 1 (RFC 5915).
//!
//! Only what names a key is read, for messages. The TLS library parses keys and certificates.

use std::fmt::Write as _;

/// Object identifiers, by the bytes of their values.
const NAMES: &[(&[u8], &str)] = &[
    (&[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x01], RSA),
    (
        &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x04],
        "RSA and MD5",
    ),
    (
        &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x05],
        "RSA and SHA-1",
    ),
    (
        &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x0a],
        "RSA-PSS",
    ),
    (
        &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x0b],
        "RSA and SHA-256",
    ),
    (
        &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x0c],
        "RSA and SHA-384",
    ),
    (
        &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x0d],
        "RSA and SHA-512",
    ),
    (
        &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x0e],
        "RSA and SHA-224",
    ),
    (&[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01], EC),
    (
        &[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x01],
        "ECDSA and SHA-1",
    ),
    (
        &[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x03, 0x01],
        "ECDSA and SHA-224",
    ),
    (
        &[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x03, 0x02],
        "ECDSA and SHA-256",
    ),
    (
        &[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x03, 0x03],
        "ECDSA and SHA-384",
    ),
    (
        &[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x03, 0x04],
        "ECDSA and SHA-512",
    ),
    (&[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x01], "P-192"),
    (&[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07], "P-256"),
    (&[0x2b, 0x81, 0x04, 0x00, 0x21], "P-224"),
    (&[0x2b, 0x81, 0x04, 0x00, 0x22], "P-384"),
    (&[0x2b, 0x81, 0x04, 0x00, 0x23], "P-521"),
    (&[0x2b, 0x81, 0x04, 0x00, 0x0a], "secp256k1"),
    (
        &[0x2b, 0x24, 0x03, 0x03, 0x02, 0x08, 0x01, 0x01, 0x07],
        "brainpoolP256r1",
    ),
    (
        &[0x2b, 0x24, 0x03, 0x03, 0x02, 0x08, 0x01, 0x01, 0x0b],
        "brainpoolP384r1",
    ),
    (
        &[0x2b, 0x24, 0x03, 0x03, 0x02, 0x08, 0x01, 0x01, 0x0d],
        "brainpoolP512r1",
    ),
    (&[0x2b, 0x65, 0x6e], "X25519"),
    (&[0x2b, 0x65, 0x6f], "X448"),
    (&[0x2b, 0x65, 0x70], ED25519),
    (&[0x2b, 0x65, 0x71], "Ed448"),
    (&[0x2a, 0x86, 0x48, 0xce, 0x38, 0x04, 0x01], "DSA"),
    (
        &[0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x03, 0x02],
        "DSA and SHA-256",
    ),
];

const RSA: &str = "RSA";
const EC: &str = "ECDSA";
const ED25519: &str = "Ed25519";
/// The curves that the TLS library supports.
const CURVES: [&str; 3] = ["P-256", "P-384", "P-521"];

const INTEGER: u8 = 0x02;
const OCTETS: u8 = 0x04;
const OID: u8 = 0x06;
const SEQUENCE: u8 = 0x30;
const FIRST: u8 = 0xa0;

/// The name of an algorithm, from the content of its AlgorithmIdentifier. An elliptic curve is
/// named too. An algorithm without a name here is shown as its object identifier.
pub(super) fn name(identifier: &[u8]) -> String {
    let Some((oid, parameters)) = value(identifier, OID) else {
        return "an unknown algorithm".to_owned();
    };
    let name = known(oid).map_or_else(|| dotted(oid), str::to_owned);
    match value(parameters, OID) {
        Some((curve, _)) if name == EC => {
            let curve = known(curve).map_or_else(|| dotted(curve), str::to_owned);
            format!("{EC} on {curve}")
        }
        _ => name,
    }
}

/// Whether keys of this algorithm are supported.
pub(super) fn is_supported(identifier: &[u8]) -> bool {
    let name = name(identifier);
    let curve = name.strip_prefix("ECDSA on ");
    name == RSA || name == ED25519 || curve.is_some_and(|curve| CURVES.contains(&curve))
}

/// Whether a private key of this kind, as [`of_key`] tells it, is supported.
pub(super) fn is_usable(kind: &str) -> bool {
    let bits = kind
        .strip_prefix("RSA of ")
        .and_then(|rest| rest.strip_suffix(" bits"));
    let bits = bits.and_then(|bits| bits.parse().ok());
    let curve = kind.strip_prefix("ECDSA on ");
    bits.is_some_and(|bits: usize| (2048..=8192).contains(&bits))
        || curve.is_some_and(|curve| CURVES.contains(&curve))
        || kind == ED25519
}

/// What kind of key a private key is, such as `RSA of 1024 bits`. `None` if it is no such key.
pub(super) fn of_key(der: &[u8]) -> Option<String> {
    let (key, _) = value(der, SEQUENCE)?;
    let (version, rest) = value(key, INTEGER)?;
    if let Some((identifier, rest)) = value(rest, SEQUENCE) {
        let name = name(identifier);
        // PKCS #8: the key of RSA is one of PKCS #1.
        let inner = value(rest, OCTETS).filter(|_| name == RSA);
        return Some(inner.and_then(|(inner, _)| of_key(inner)).unwrap_or(name));
    }
    if version == [1] {
        // SEC 1: the curve is after the number.
        let (_, rest) = value(rest, OCTETS)?;
        let (parameters, _) = value(rest, FIRST)?;
        let (curve, _) = value(parameters, OID)?;
        let curve = known(curve).map_or_else(|| dotted(curve), str::to_owned);
        return Some(format!("{EC} on {curve}"));
    }
    let (modulus, _) = value(rest, INTEGER)?;
    let digits: Vec<_> = modulus
        .iter()
        .copied()
        .skip_while(|byte| *byte == 0)
        .collect();
    let unused = digits.first()?.leading_zeros() as usize;
    Some(format!("{RSA} of {} bits", digits.len() * 8 - unused))
}

/// Whether a certificate is that of an authority: its basic constraints (RFC 5280, 4.2.1.9) say so.
pub(super) fn is_authority(certificate: &[u8]) -> bool {
    const CONSTRAINTS: [u8; 5] = [OID, 3, 0x55, 0x1d, 0x13];
    let found = certificate.windows(CONSTRAINTS.len());
    let mut found = found
        .zip(0_usize..)
        .filter(|(bytes, _)| *bytes == CONSTRAINTS);
    found.any(|(_, at)| {
        let rest = certificate
            .get(at + CONSTRAINTS.len()..)
            .unwrap_or_default();
        // Whether the extension is critical.
        let rest = rest.strip_prefix(&[1, 1, 0xff]).unwrap_or(rest);
        let constraints = value(rest, OCTETS).and_then(|(octets, _)| value(octets, SEQUENCE));
        constraints.is_some_and(|(content, _)| content.starts_with(&[1, 1, 0xff]))
    })
}

fn known(oid: &[u8]) -> Option<&'static str> {
    let found = NAMES.iter().find(|(bytes, _)| *bytes == oid);
    found.map(|(_, name)| *name)
}

/// An object identifier as `OID 1.2.840`.
fn dotted(oid: &[u8]) -> String {
    let mut text = "OID ".to_owned();
    let mut number = 0_u64;
    let mut is_first = true;
    for byte in oid {
        number = number
            .saturating_mul(128)
            .saturating_add(u64::from(byte & 0x7f));
        if byte & 0x80 != 0 {
            continue;
        }
        // Writing to a string does not fail.
        let _ = match is_first {
            true => {
                let top = (number / 40).min(2);
                write!(text, "{top}.{}", number - top * 40)
            }
            false => write!(text, ".{number}"),
        };
        (number, is_first) = (0, false);
    }
    text
}

/// The content of the value at the start of `der`, and what follows it.
fn value(der: &[u8], tag: u8) -> Option<(&[u8], &[u8])> {
    let (first, rest) = der.split_first()?;
    let (length, rest) = rest.split_first()?;
    let (length, rest) = match *length {
        short @ 0..=0x7f => (usize::from(short), rest),
        0x81 => (usize::from(*rest.first()?), rest.get(1..)?),
        0x82 => {
            let bytes = rest.first_chunk()?;
            (usize::from(u16::from_be_bytes(*bytes)), rest.get(2..)?)
        }
        _ => return None,
    };
    (*first == tag).then_some(rest.split_at_checked(length)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn algorithms_and_keys_have_names() {
        let p521 = [
            6, 7, 0x2a, 0x86, 0x48, 0xce, 0x3d, 2, 1, 6, 5, 0x2b, 0x81, 4, 0, 0x23,
        ];
        assert_eq!(name(&p521), "ECDSA on P-521");
        assert!(is_supported(&p521));
        assert_eq!(name(&[6, 3, 0x2a, 0x86, 0x48]), "OID 1.2.840");
        assert_eq!(name(&[6, 1, 0xff]), "OID ");
        assert_eq!(name(b"\x30\0"), "an unknown algorithm");
        let ed448 = [0x30, 0x0c, 2, 1, 0, 0x30, 5, 6, 3, 0x2b, 0x65, 0x71, 4, 0];
        assert_eq!(of_key(&ed448).unwrap(), "Ed448");
        let pkcs1 = [0x30, 8, 2, 1, 0, 2, 3, 0, 0x7f, 1];
        assert_eq!(of_key(&pkcs1).unwrap(), "RSA of 15 bits");
        let sec1 = [0x30, 13, 2, 1, 1, 4, 1, 7, 0xa0, 5, 6, 3, 0x2b, 0x81, 4];
        assert_eq!(of_key(&sec1).unwrap(), "ECDSA on OID 1.3.132");
        for short in 0..sec1.len() {
            assert_eq!(of_key(&sec1[..short]), None);
        }
    }

    #[test]
    fn basic_constraints_show_an_authority() {
        let of = |constraints: &[u8]| {
            let length = u8::try_from(constraints.len()).unwrap();
            let head = [
                6,
                3,
                0x55,
                0x1d,
                0x13,
                1,
                1,
                0xff,
                4,
                length + 2,
                0x30,
                length,
            ];
            is_authority(&[&[0x30, 6, 3][..], &head, constraints, &[5, 0]].concat())
        };
        assert!(of(&[1, 1, 0xff]) && of(&[1, 1, 0xff, 2, 1, 0]));
        assert!(!of(&[]) && !is_authority(&[6, 3, 0x55, 0x1d, 0x13]));
    }
}
