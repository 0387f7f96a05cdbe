//! Reads and sets members of the JSON metadata. Each value carries its path, so that every error
//! names the path of the member.
//!
//! 64-bit numbers are strings of decimal digits, and 32-bit numbers are JSON integers. A sign, a
//! fraction or an exponent is refused.

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::ops::Range;

use crate::json::{Object, Value};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::SALT_SIZE;
use crate::cipher::CipherSpec;
use crate::error::FormatError;
use crate::hash::Hash;

/// A value and its path. Errors contain the path. The caller that has the text adds the offset.
pub(super) struct Node<'a> {
    value: &'a Value,
    path: String,
}

impl<'a> Node<'a> {
    pub(super) fn root(value: &'a Value) -> Self {
        Self {
            value,
            path: String::new(),
        }
    }

    pub(super) fn malformed(&self, cause: impl Into<String>) -> FormatError {
        FormatError::malformed(self.path.clone(), 0, cause)
    }

    pub(super) fn unsupported(&self, cause: impl Into<String>) -> FormatError {
        FormatError::unsupported(self.path.clone(), 0, cause)
    }

    fn below(&self, key: &str, value: &'a Value) -> Self {
        let path = if self.path.is_empty() {
            key.to_string()
        } else {
            format!("{}.{key}", self.path)
        };
        Self { value, path }
    }

    pub(super) fn object(&self) -> Result<&'a Object, FormatError> {
        self.value
            .as_object()
            .ok_or_else(|| self.malformed("is not an object"))
    }

    /// A required member.
    pub(super) fn member(&self, key: &str) -> Result<Self, FormatError> {
        match self.object()?.get(key) {
            Some(value) => Ok(self.below(key, value)),
            None => {
                let path = self.below(key, self.value).path;
                Err(FormatError::malformed(path, 0, "is missing"))
            }
        }
    }

    /// An optional member.
    pub(super) fn optional(&self, key: &str) -> Result<Option<Self>, FormatError> {
        Ok(self.object()?.get(key).map(|value| self.below(key, value)))
    }

    /// The members of a section: objects whose names are decimal numbers below `most`.
    pub(super) fn numbered(&self, most: u32) -> Result<Vec<(u32, Self)>, FormatError> {
        let object = self.object()?;
        if object.len() as u64 > u64::from(most) {
            return Err(
                self.malformed(format!("has {} objects; there can be {most}", object.len()))
            );
        }
        let mut members = Vec::with_capacity(object.len());
        for (key, value) in object.iter() {
            let id = decimal(key)
                .and_then(|id| u32::try_from(id).ok())
                .filter(|id| *id < most);
            let Some(id) = id else {
                let name = excerpt(key);
                return Err(self.malformed(format!(
                    "{name} is not a number from 0 to {}",
                    most.saturating_sub(1)
                )));
            };
            let node = self.below(key, value);
            node.object()?;
            members.push((id, node));
        }
        Ok(members)
    }

    /// As [`numbered`](Self::numbered), without the members whose name is another number: there may
    /// be any number of those.
    pub(super) fn numbered_among(&self, most: u32) -> Result<Vec<(u32, Self)>, FormatError> {
        let mut members = Vec::new();
        for (key, value) in self.object()?.iter() {
            let node = self.below(key, value);
            node.object()?;
            if key.is_empty() || !key.bytes().all(|byte| byte.is_ascii_digit()) {
                return Err(self.malformed(format!("{} is not a number", excerpt(key))));
            }
            let id = decimal(key).and_then(|id| u32::try_from(id).ok());
            members.extend(id.filter(|id| *id < most).map(|id| (id, node)));
        }
        Ok(members)
    }

    pub(super) fn elements(&self) -> Result<Vec<Self>, FormatError> {
        let array = self
            .value
            .as_array()
            .ok_or_else(|| self.malformed("is not an array"))?;
        let below = |(index, value): (usize, &'a Value)| self.below(&index.to_string(), value);
        Ok(array.iter().enumerate().map(below).collect())
    }

    pub(super) fn strings(&self) -> Result<Vec<String>, FormatError> {
        self.elements()?
            .iter()
            .map(|element| element.string().map(String::from))
            .collect()
    }

    /// An array of object numbers as strings. A repeated number is ignored.
    pub(super) fn references(&self) -> Result<Vec<u32>, FormatError> {
        let mut ids = Vec::new();
        for element in self.elements()? {
            let text = element.string()?;
            let id = decimal(text).and_then(|id| u32::try_from(id).ok());
            let id =
                id.ok_or_else(|| element.malformed(format!("{} is not a number", excerpt(text))))?;
            if !ids.contains(&id) {
                ids.push(id);
            }
        }
        Ok(ids)
    }

    pub(super) fn string(&self) -> Result<&'a str, FormatError> {
        self.value
            .as_str()
            .ok_or_else(|| self.malformed("is not a string"))
    }

    pub(super) fn u32(&self) -> Result<u32, FormatError> {
        self.value
            .as_u64()
            .and_then(|number| u32::try_from(number).ok())
            .ok_or_else(|| self.malformed("is not an integer from 0 to 4294967295"))
    }

    pub(super) fn positive(&self) -> Result<u32, FormatError> {
        match self.u32()? {
            0 => Err(self.malformed("is 0")),
            number => Ok(number),
        }
    }

    /// The size of a sector in bytes.
    pub(super) fn sector_size(&self) -> Result<u32, FormatError> {
        match self.u32()? {
            bytes @ (512 | 1024 | 2048 | 4096) => Ok(bytes),
            bytes => Err(self.malformed(format!(
                "{bytes} is not a sector size; 512, 1024, 2048 and 4096 are"
            ))),
        }
    }

    pub(super) fn u64(&self) -> Result<u64, FormatError> {
        let text = self.string()?;
        let digits = match text.trim_start_matches('0') {
            "" if !text.is_empty() => "0",
            digits => digits,
        };
        decimal(digits).ok_or_else(|| {
            self.malformed(format!(
                "{} is not a decimal number of at most 64 bits",
                excerpt(text)
            ))
        })
    }

    pub(super) fn hash(&self) -> Result<Hash, FormatError> {
        Hash::parse(self.string()?).map_err(|unknown| self.unsupported(unknown.to_string()))
    }

    pub(super) fn cipher(&self) -> Result<CipherSpec, FormatError> {
        CipherSpec::parse(self.string()?).map_err(|refusal| self.unsupported(refusal.to_string()))
    }

    pub(super) fn base64(&self) -> Result<Vec<u8>, FormatError> {
        STANDARD
            .decode(self.string()?)
            .map_err(|_| self.malformed("is not base64"))
    }

    /// The `offset` and `size` of an area as a range of bytes, which may not be empty.
    pub(super) fn range(&self) -> Result<Range<u64>, FormatError> {
        let offset = self.member("offset")?;
        let size = self.member("size")?;
        let (start, length) = (offset.u64()?, size.u64()?);
        if length == 0 {
            return Err(size.malformed("the area is empty"));
        }
        match start.checked_add(length) {
            Some(end) => Ok(start..end),
            None => Err(size.malformed("offset and size together are over 64 bits")),
        }
    }

    pub(super) fn salt(&self) -> Result<Vec<u8>, FormatError> {
        let salt = self.base64()?;
        if salt.len() == SALT_SIZE {
            return Ok(salt);
        }
        Err(self.malformed(format!(
            "the salt has {} bytes instead of {SALT_SIZE}",
            salt.len()
        )))
    }
}

/// Parses a canonical decimal number.
pub(super) fn decimal(text: &str) -> Option<u64> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let canonical = text == "0" || !text.starts_with('0');
    if digits && canonical {
        text.parse().ok()
    } else {
        None
    }
}

/// Text of the header, quoted and shortened for a message.
pub(super) fn excerpt(text: &str) -> String {
    let short: String = text.chars().take(40).collect();
    Value::from(short).shown().to_string()
}

pub(super) fn encode(bytes: &[u8]) -> String {
    STANDARD.encode(bytes)
}

/// Sets a cipher. If the present text means the same cipher, it is kept.
pub(super) fn put_cipher(object: &mut Object, key: &str, cipher: CipherSpec) {
    let old = object
        .get(key)
        .and_then(Value::as_str)
        .map(CipherSpec::parse);
    if old != Some(Ok(cipher)) {
        object.insert(key, cipher.to_string());
    }
}

/// Sets a hash. If the present text means the same hash, it is kept.
pub(super) fn put_hash(object: &mut Object, key: &str, hash: Hash) {
    let old = object.get(key).and_then(Value::as_str).map(Hash::parse);
    if old != Some(Ok(hash)) {
        object.insert(key, hash.name());
    }
}

/// Changes the object `key`, and makes it if it does not exist.
pub(super) fn within(object: &mut Object, key: &str, change: impl FnOnce(&mut Object)) {
    let old = object.get_mut(key).and_then(Value::as_object_mut);
    let mut inner = old.map(core::mem::take).unwrap_or_default();
    change(&mut inner);
    object.insert(key, Value::Object(inner));
}
