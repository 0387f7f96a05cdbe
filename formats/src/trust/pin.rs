//! The pin of a volume: what its header says, without what every write changes, and the
//! fingerprints of its volume key.
//!
//! The file is JSON in one line, and then a line with its SHA-256:
//!
//! ```text
//! {"pin":1,"place":…,"header":…,"keys":[[DIGEST,FINGERPRINT],…],"current":FACTS,"next":FACTS}
//! sha256 …
//! ```
//!
//! While our own change of the header is under way, `next` is what the header says after it. Then
//! both are accepted. Else `next` is `null`.

mod difference;
mod facts;
mod hash;

use alloc::string::{String, ToString};
use alloc::vec::Vec;
use alloc::{format, vec};
use core::fmt;

use sha2::{Digest as _, Sha256};

pub use difference::{Difference, differences};
pub use facts::{Facts, Material, Part, PartKind};
pub use hash::Hash256;
use hash::{hex, unhex};

use crate::json::{Object, Value};

/// The number of the format.
const FORMAT: u64 = 1;
/// The largest pin in bytes.
pub const LARGEST: u64 = 1 << 20;

/// The place of a volume, as its user names it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Place {
    /// Where the volume is stored.
    pub image: String,
    /// Where its header is stored, if that is detached.
    pub header: Option<String>,
}

impl Place {
    /// A volume that is stored here.
    #[must_use]
    pub fn new(image: impl Into<String>, header: Option<String>) -> Self {
        let image = image.into();
        Self { image, header }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.image)?;
        match &self.header {
            Some(header) => write!(f, " with its header in {header}"),
            None => Ok(()),
        }
    }
}

/// The fingerprint of a volume key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct KeyPrint {
    /// The number of the digest that checks the key. 0 in LUKS1.
    pub digest: u32,
    /// HKDF of the key.
    pub fingerprint: Hash256,
}

impl KeyPrint {
    /// The fingerprint of the key that this digest checks.
    #[must_use]
    pub fn new(digest: u32, fingerprint: Hash256) -> Self {
        Self {
            digest,
            fingerprint,
        }
    }
}

/// What is pinned of a volume.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Pin {
    /// Where the volume is.
    pub place: Place,
    /// Its volume key; two during a reencryption.
    pub keys: Vec<KeyPrint>,
    /// What its header says.
    pub current: Facts,
    /// What it says after the change that is under way.
    pub next: Option<Facts>,
}

impl Pin {
    /// A volume with this header and volume key, and no change under way.
    #[must_use]
    pub fn new(place: Place, keys: Vec<KeyPrint>, current: Facts) -> Self {
        Self {
            place,
            keys,
            current,
            next: None,
        }
    }

    /// Whether a header is as it is pinned. While a change is under way, it may be the one before
    /// or the one after it. A header of LUKS1 is written sector by sector, so each of its parts may
    /// be of either.
    #[must_use]
    pub fn accepts(&self, found: &Facts) -> bool {
        let follows = |next: &Facts| next == found || found.is_between(&self.current, next);
        self.current == *found || self.next.as_ref().is_some_and(follows)
    }

    /// How a header differs from what is pinned; from the next one if it differs less from that.
    #[must_use]
    pub fn differences(&self, found: &Facts) -> Vec<Difference> {
        let from_current = differences(&self.current, found);
        let from_next = self.next.as_ref().map(|next| differences(next, found));
        let nearer = from_next.filter(|next| next.len() < from_current.len());
        nearer.unwrap_or(from_current)
    }

    /// The bytes of the file.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let keys: Vec<Value> = (self.keys.iter())
            .map(|key| Value::from(vec![Value::from(key.digest), hex(&key.fingerprint).into()]))
            .collect();
        let mut members = Object::new();
        members.insert("pin", FORMAT);
        members.insert("place", self.place.image.as_str());
        members.insert("header", self.place.header.as_deref());
        members.insert("keys", keys);
        members.insert("current", self.current.to_json());
        members.insert("next", self.next.as_ref().map(Facts::to_json));
        let line = Value::from(members).to_string();
        let check = hex(&Sha256::digest(line.as_bytes()));
        format!("{line}\nsha256 {check}\n").into_bytes()
    }

    /// Reads the bytes of the file.
    ///
    /// # Errors
    /// What is wrong with it, in words.
    pub fn parse(bytes: &[u8]) -> Result<Self, &'static str> {
        const MALFORMED: &str = "it is malformed";
        let text = core::str::from_utf8(bytes).map_err(|_| MALFORMED)?;
        let mut lines = text.split('\n');
        let (Some(line), Some(check), Some(""), None) =
            (lines.next(), lines.next(), lines.next(), lines.next())
        else {
            return Err("it is not complete");
        };
        let stated = check.strip_prefix("sha256 ").unwrap_or_default();
        if stated != hex(&Sha256::digest(line.as_bytes())) {
            return Err("its checksum does not match");
        }
        let value = Value::parse(line.as_bytes()).map_err(|_| MALFORMED)?;
        if value.get("pin").and_then(Value::as_u64) != Some(FORMAT) {
            return Err("it has a format that is not known");
        }
        Self::read(&value).ok_or(MALFORMED)
    }

    fn read(value: &Value) -> Option<Self> {
        let header = value.get("header")?;
        let header = match header.is_null() {
            true => None,
            false => Some(header.as_str()?.to_string()),
        };
        let keys = value.get("keys")?.as_array()?.iter().map(|key| {
            let [digest, fingerprint] = key.as_array()?.as_slice() else {
                return None;
            };
            Some(KeyPrint {
                digest: u32::try_from(digest.as_u64()?).ok()?,
                fingerprint: unhex(fingerprint.as_str()?)?,
            })
        });
        let next = value.get("next")?;
        let next = match next.is_null() {
            true => None,
            false => Some(Facts::read(next)?),
        };
        Some(Self {
            place: Place::new(value.get("place")?.as_str()?, header),
            keys: keys.collect::<Option<_>>()?,
            current: Facts::read(value.get("current")?)?,
            next,
        })
    }
}

#[cfg(test)]
mod tests;
