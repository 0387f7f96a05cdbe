//! The JWE of a token and its pins: parsed wholly, before anything of it is used.

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, Tag, UnboundKey};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use luksmith_formats::json::{Value, json};
use sha2::{Digest as _, Sha256};

use super::error::ClevisError;
use super::point::Point;
use super::shares::Field;
use crate::secret::{self, LockedBytes, Passphrase, SecretError, scrub_stack};

/// The longest protected header in base64, in bytes. It has the headers of all shares.
const LONGEST_HEADER: usize = 64 << 10;
/// The longest ciphertext, in bytes.
const LONGEST: usize = 8 << 10;
/// The most keys of an advertisement, and the most shares of a pin.
pub(super) const MOST: usize = 32;
/// How deep pins are nested at most.
const DEPTH: usize = 3;
/// The encryption of the content.
const ENC: &str = "A256GCM";
const TAG: usize = 16;
/// The bytes of its key.
const KEY: usize = 32;

/// Encrypted bytes, and how their key is found.
pub(super) struct Sealed {
    pub(super) pin: Pin,
    /// The protected header in base64, which is authenticated.
    protected: String,
    iv: [u8; NONCE_LEN],
    /// The ciphertext, then the tag.
    ciphertext: Vec<u8>,
}

/// How the key is found.
pub(super) enum Pin {
    /// By a server.
    Tang(Box<Tang>),
    /// By some of several shares.
    Shares {
        field: Field,
        needed: usize,
        shares: Vec<Sealed>,
    },
    /// In a way that is not supported.
    Other(String),
}

/// The part of a server in finding a key.
pub(super) struct Tang {
    /// Its URL, as the header states it.
    pub(super) url: String,
    /// The name of its key.
    pub(super) kid: String,
    /// Its public key.
    pub(super) server: Point,
    /// The public key that was made for this JWE.
    pub(super) epk: Point,
}

fn text<'a>(value: &'a Value, member: &'static str) -> Result<&'a str, ClevisError> {
    let text = value.get(member).and_then(Value::as_str);
    text.ok_or(ClevisError::malformed(member, "is no text"))
}

fn decoded(text: &str, member: &'static str) -> Result<Vec<u8>, ClevisError> {
    let bytes = URL_SAFE_NO_PAD.decode(text);
    bytes.map_err(|_| ClevisError::malformed(member, "is no base64url"))
}

fn has_members(value: &Value, members: &[&'static str]) -> Result<(), ClevisError> {
    for member in members {
        if value.get(member).is_some() {
            return Err(ClevisError::malformed(member, "is not supported"));
        }
    }
    Ok(())
}

impl Sealed {
    /// The JWE of a token, in its JSON form.
    pub(super) fn of_json(jwe: &Value) -> Result<Self, ClevisError> {
        has_members(jwe, &["header", "unprotected", "recipients", "aad"])?;
        Self::new(
            [
                text(jwe, "protected")?,
                text(jwe, "encrypted_key")?,
                text(jwe, "iv")?,
                text(jwe, "ciphertext")?,
                text(jwe, "tag")?,
            ],
            DEPTH,
        )
    }

    /// A JWE in one line.
    fn of_line(line: &str, depth: usize) -> Result<Self, ClevisError> {
        let parts: Vec<_> = line.split('.').collect();
        let parts = parts.try_into();
        let parts = parts.map_err(|_| ClevisError::malformed("jwe", "has not five parts"))?;
        Self::new(parts, depth)
    }

    fn new(parts: [&str; 5], depth: usize) -> Result<Self, ClevisError> {
        let [protected, encrypted_key, iv, ciphertext, tag] = parts;
        if protected.len() > LONGEST_HEADER || ciphertext.len() > LONGEST {
            return Err(ClevisError::malformed("jwe", "is too long"));
        }
        if !encrypted_key.is_empty() {
            return Err(ClevisError::malformed("encrypted_key", "is not empty"));
        }
        let iv = decoded(iv, "iv")?.try_into();
        let iv = iv.map_err(|_| ClevisError::malformed("iv", "has not 12 bytes"))?;
        let tag = decoded(tag, "tag")?;
        if tag.len() != TAG {
            return Err(ClevisError::malformed("tag", "has not 16 bytes"));
        }
        let mut ciphertext = decoded(ciphertext, "ciphertext")?;
        ciphertext.extend(tag);
        let header = Value::parse(&decoded(protected, "protected")?)
            .map_err(|_| ClevisError::malformed("protected", "is no JSON"))?;
        Ok(Self {
            pin: pin(&header, depth)?,
            protected: protected.to_owned(),
            iv,
            ciphertext,
        })
    }

    /// Decrypts with the key of the content.
    pub(super) fn decrypt(&self, key: &[u8]) -> Result<LockedBytes, ClevisError> {
        let opened = self.open(key);
        scrub_stack();
        opened
    }

    // Not inlined, as the functions below, so that copies of keys are on the part of the stack that
    // the caller scrubs.
    #[inline(never)]
    fn open(&self, key: &[u8]) -> Result<LockedBytes, ClevisError> {
        let mut bytes = LockedBytes::copy_from(&self.ciphertext).map_err(SecretError::from)?;
        let nonce = Nonce::assume_unique_for_key(self.iv);
        let key = UnboundKey::new(&AES_256_GCM, key).map_err(|_| ClevisError::NotDecrypted)?;
        let plain = LessSafeKey::new(key)
            .open_in_place(nonce, Aad::from(self.protected.as_bytes()), &mut bytes)
            .map_err(|_| ClevisError::NotDecrypted)?
            .len();
        let plain = bytes.get(..plain).unwrap_or_default();
        Ok(LockedBytes::copy_from(plain).map_err(SecretError::from)?)
    }
}

fn pin(header: &Value, depth: usize) -> Result<Pin, ClevisError> {
    has_members(header, &["crit", "zip", "apu", "apv"])?;
    if text(header, "enc")? != ENC {
        return Err(ClevisError::malformed("enc", "is not A256GCM"));
    }
    let clevis = header.get("clevis");
    let clevis = clevis.ok_or(ClevisError::malformed("clevis", "is missing"))?;
    let (alg, name) = (text(header, "alg")?, text(clevis, "pin")?);
    let settings = || {
        clevis
            .get(name)
            .ok_or(ClevisError::malformed("pin", "has no settings"))
    };
    match (name, alg) {
        ("tang", "ECDH-ES") => Ok(Pin::Tang(Box::new(tang(header, settings()?)?))),
        ("sss", "dir") => shares(settings()?, depth),
        ("tang" | "sss", _) => Err(ClevisError::malformed("alg", "is not that of the pin")),
        (other, _) => Ok(Pin::Other(other.to_owned())),
    }
}

fn tang(header: &Value, settings: &Value) -> Result<Tang, ClevisError> {
    let kid = text(header, "kid")?;
    let is_name = |byte: u8| byte.is_ascii_alphanumeric() || b"-_".contains(&byte);
    if kid.is_empty() || kid.len() > 128 || !kid.bytes().all(is_name) {
        return Err(ClevisError::malformed("kid", "is no thumbprint"));
    }
    let epk = header.get("epk").map(Point::of_jwk).transpose()?.flatten();
    let epk = epk.ok_or(ClevisError::malformed("epk", "is no point of its curve"))?;
    let keys = settings.get("adv").and_then(|adv| adv.get("keys"));
    let keys = keys.and_then(Value::as_array);
    let keys = keys.ok_or(ClevisError::malformed("adv", "has no keys"))?;
    let server = named(keys, kid)?.filter(|server| server.curve() == epk.curve());
    let server = server.ok_or(ClevisError::malformed("adv", "has not the key of kid"))?;
    Ok(Tang {
        url: text(settings, "url")?.to_owned(),
        kid: kid.to_owned(),
        server,
        epk,
    })
}

/// The first key with this thumbprint.
fn named(keys: &[Value], kid: &str) -> Result<Option<Point>, SecretError> {
    for key in keys.iter().take(MOST) {
        match Point::of_jwk(key)? {
            Some(key) if key.thumbprints().iter().any(|name| name == kid) => return Ok(Some(key)),
            _ => {}
        }
    }
    Ok(None)
}

fn shares(settings: &Value, depth: usize) -> Result<Pin, ClevisError> {
    let depth = depth.checked_sub(1);
    let depth = depth.ok_or(ClevisError::malformed("sss", "is nested too deep"))?;
    let prime = decoded(text(settings, "p")?, "p")?;
    let field = Field::new(&prime).ok_or(ClevisError::malformed("p", "is no prime of 256 bits"))?;
    let lines = settings.get("jwe").and_then(Value::as_array);
    let lines = lines.filter(|lines| lines.len() <= MOST);
    let lines = lines.ok_or(ClevisError::malformed("jwe", "is no list of at most 32"))?;
    let needed = settings.get("t").and_then(Value::as_u64);
    let needed = needed.and_then(|needed| usize::try_from(needed).ok());
    let needed = needed.filter(|needed| (1..=lines.len()).contains(needed));
    let needed = needed.ok_or(ClevisError::malformed("t", "is no number of shares"))?;
    let share = |line: &Value| {
        let line = line.as_str();
        let line = line.ok_or(ClevisError::malformed("jwe", "is no text"))?;
        Sealed::of_line(line, depth)
    };
    let shares = lines.iter().map(share).collect::<Result<_, _>>()?;
    Ok(Pin::Shares {
        field,
        needed,
        shares,
    })
}

/// The key of the content that two sides agree on (RFC 7518, section 4.6.2).
pub(super) fn agreed(shared: &Point) -> Result<LockedBytes, SecretError> {
    let mut key = LockedBytes::new(KEY)?;
    derive(&mut key, shared);
    scrub_stack();
    Ok(key)
}

#[inline(never)]
fn derive(key: &mut [u8], shared: &Point) {
    let mut hash = Sha256::new();
    hash.update(1_u32.to_be_bytes());
    hash.update(shared.x());
    let name = ENC.as_bytes();
    hash.update(u32::try_from(name.len()).unwrap_or_default().to_be_bytes());
    hash.update(name);
    // Neither side has a name.
    hash.update([0; 8]);
    hash.update(256_u32.to_be_bytes());
    key.copy_from_slice(&hash.finalize());
}

/// A JWE of a passphrase for this key of a server, as a token without keyslots. `keys` are all
/// that the server has advertised.
pub(super) fn seal(
    passphrase: &Passphrase,
    (url, kid, server): (&str, &str, &Point),
    keys: &Value,
) -> Result<Value, ClevisError> {
    let curve = server.curve();
    let scalar = curve.random()?;
    let infinity = || ClevisError::malformed("adv", "has a key of low order");
    let epk = curve.times(&scalar)?.ok_or_else(infinity)?;
    let shared = server.times(&scalar)?.ok_or_else(infinity)?;
    let header = json!({
        "alg": "ECDH-ES",
        "clevis": {"pin": "tang", "tang": {"adv": {"keys": (keys)}, "url": url}},
        "enc": ENC,
        "epk": (epk.jwk()),
        "kid": kid,
    });
    let protected = URL_SAFE_NO_PAD.encode(header.to_string());
    let mut iv = [0; NONCE_LEN];
    secret::random(&mut iv)?;
    let mut bytes = LockedBytes::copy_from(passphrase.as_bytes()).map_err(SecretError::from)?;
    let tag = encrypt(&agreed(&shared)?, iv, &protected, &mut bytes);
    scrub_stack();
    let tag = tag.ok_or(ClevisError::NotDecrypted)?;
    Ok(json!({
        "type": "clevis",
        "keyslots": [],
        "jwe": {
            "ciphertext": (URL_SAFE_NO_PAD.encode(&bytes[..])),
            "encrypted_key": "",
            "iv": (URL_SAFE_NO_PAD.encode(iv)),
            "protected": protected,
            "tag": (URL_SAFE_NO_PAD.encode(tag.as_ref())),
        },
    }))
}

/// Encrypts in place, and returns the tag.
#[inline(never)]
fn encrypt(key: &[u8], iv: [u8; NONCE_LEN], protected: &str, bytes: &mut [u8]) -> Option<Tag> {
    let key = LessSafeKey::new(UnboundKey::new(&AES_256_GCM, key).ok()?);
    let (iv, protected) = (Nonce::assume_unique_for_key(iv), Aad::from(protected));
    key.seal_in_place_separate_tag(iv, protected, bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::super::point::Curve;
    use super::*;
    use crate::secret::stack_tests;

    #[test]
    fn nothing_of_the_keys_of_a_new_token_stays_on_the_stack() {
        let server = Curve::P521.random().unwrap();
        let public = Curve::P521.times(&server).unwrap().unwrap();
        let keys = json!([(public.jwk())]);
        let [kid, _] = public.thumbprints();
        let passphrase = Passphrase::generate().unwrap();
        let mut made = None;
        let left = stack_tests::after(|| {
            let (url, to) = ("http://tang", &public);
            made = seal(&passphrase, (url, &kid, to), &keys).ok();
        });
        let sealed = Sealed::of_json(made.unwrap().get("jwe").unwrap()).unwrap();
        let Pin::Tang(tang) = &sealed.pin else {
            panic!("not the pin of the token");
        };
        let shared = tang.epk.times(&server).unwrap().unwrap();
        let key = agreed(&shared).unwrap();
        let mut plain = None;
        let left_by_open = stack_tests::after(|| plain = sealed.decrypt(&key).ok());
        assert_eq!(plain.unwrap()[..], *passphrase.as_bytes());
        for (secret, what) in [
            (shared.x(), "the shared point"),
            (&key, "the key of the content"),
            (passphrase.as_bytes(), "the passphrase"),
        ] {
            let piece = &secret[8..24];
            for left in [&left, &left_by_open] {
                let found = left.windows(piece.len()).any(|bytes| bytes == piece);
                assert!(!found, "{what}");
            }
        }
    }
}
