//! The bytes that the verification digest of a reencryption covers.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use super::{FINAL, PREVIOUS};
use crate::error::FormatError;
use crate::json::Value;
use crate::luks2::keyslot::Keyslot;
use crate::luks2::metadata::Metadata;

impl Metadata {
    /// What the verification digest covers, without its version and without keys: the keyslot of
    /// the reencryption and the backup segments. The text of the JSON counts, as cryptsetup
    /// serialises it.
    ///
    /// # Errors
    /// Returns [`FormatError`] if there is no reencryption, or if a member is missing.
    pub fn reencryption_covered(&self) -> Result<Vec<u8>, FormatError> {
        let section = |name: &str| {
            let members = self.value().get(name).and_then(Value::as_object);
            members.into_iter().flat_map(|members| members.iter())
        };
        let missing = |path: &str| FormatError::malformed(path, 0, "is missing");
        let kind = |value: &Value| value.get("type").and_then(Value::as_str).map(String::from);
        let (id, keyslot) = section("keyslots")
            .find(|(_, keyslot)| kind(keyslot).as_deref() == Some(Keyslot::REENCRYPT))
            .ok_or_else(|| missing("keyslots"))?;
        let path = format!("keyslots.{id}");
        let mut bytes = Vec::new();
        let mut covered = Covered(&mut bytes);
        covered.text(keyslot, &path, "mode")?;
        covered.text(keyslot, &path, "direction")?;
        let path = format!("{path}.area");
        let area = keyslot.get("area").ok_or_else(|| missing(&path))?;
        let resilience = kind(area).ok_or_else(|| missing(&path))?;
        covered.text(area, &path, "type")?;
        covered.u64(area, &path, "offset")?;
        covered.u64(area, &path, "size")?;
        if matches!(&*resilience, "checksum" | "datashift-checksum") {
            covered.text(area, &path, "hash")?;
            covered.u32(area, &path, "sector_size")?;
        }
        if resilience.starts_with("datashift") {
            covered.u64(area, &path, "shift_size")?;
        }
        for flag in [PREVIOUS, FINAL, "backup-moved-segment"] {
            let flagged = |segment: &Value| {
                let flags = segment.get("flags").and_then(Value::as_array);
                flags.is_some_and(|flags| flags.iter().any(|name| name.as_str() == Some(flag)))
            };
            let found = section("segments").find(|(_, segment)| flagged(segment));
            let (id, segment) = match found {
                Some(found) => found,
                None if flag == PREVIOUS || flag == FINAL => return Err(missing("segments")),
                None => continue,
            };
            let path = format!("segments.{id}");
            covered.text(segment, &path, "type")?;
            covered.u64(segment, &path, "offset")?;
            covered.size(segment, &path)?;
            if kind(segment).as_deref() == Some("crypt") {
                covered.u64(segment, &path, "iv_tweak")?;
                covered.text(segment, &path, "encryption")?;
                covered.u32(segment, &path, "sector_size")?;
            }
        }
        Ok(bytes)
    }
}

/// The bytes that a digest covers.
struct Covered<'a>(&'a mut Vec<u8>);

impl Covered<'_> {
    fn member<'v>(object: &'v Value, path: &str, key: &str) -> Result<&'v Value, FormatError> {
        let missing = || FormatError::malformed(format!("{path}.{key}"), 0, "is missing");
        object.get(key).ok_or_else(missing)
    }

    fn string<'v>(object: &'v Value, path: &str, key: &str) -> Result<&'v str, FormatError> {
        let wrong = || FormatError::malformed(format!("{path}.{key}"), 0, "is not a string");
        Self::member(object, path, key)?.as_str().ok_or_else(wrong)
    }

    fn text(&mut self, object: &Value, path: &str, key: &str) -> Result<(), FormatError> {
        let text = Self::string(object, path, key)?;
        self.0.extend_from_slice(text.as_bytes());
        Ok(())
    }

    fn u64(&mut self, object: &Value, path: &str, key: &str) -> Result<(), FormatError> {
        let wrong = || FormatError::malformed(format!("{path}.{key}"), 0, "is not a number");
        let text = Self::string(object, path, key)?;
        let number: u64 = text.parse().map_err(|_| wrong())?;
        self.0.extend_from_slice(&number.to_be_bytes());
        Ok(())
    }

    fn u32(&mut self, object: &Value, path: &str, key: &str) -> Result<(), FormatError> {
        let wrong = || FormatError::malformed(format!("{path}.{key}"), 0, "is not a number");
        let number = Self::member(object, path, key)?.as_u64();
        let number = number.and_then(|number| u32::try_from(number).ok());
        self.0
            .extend_from_slice(&number.ok_or_else(wrong)?.to_be_bytes());
        Ok(())
    }

    fn size(&mut self, segment: &Value, path: &str) -> Result<(), FormatError> {
        if Self::string(segment, path, "size")? == "dynamic" {
            return self.text(segment, path, "size");
        }
        self.u64(segment, path, "size")
    }
}
