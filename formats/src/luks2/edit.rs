//! Edits: changes of metadata that take effect together.
//!
//! A draft consists only of the JSON. It is validated when it is complete, so objects that refer to
//! each other, such as a keyslot and its digest, can be added in any order.

use alloc::format;
use alloc::string::{String, ToString};

use crate::json::{Object, Value, json};

use super::digest::Digest;
use super::keyslot::{Keyslot, Priority};
use super::node::within;
use super::segment::Segment;
use crate::error::FormatError;

/// A draft of metadata; see [`Metadata::edit`](super::Metadata::edit). Each change keeps the
/// unknown members of an object, unless the object is replaced by one of another type.
#[derive(Debug)]
pub struct Draft {
    value: Value,
}

impl Draft {
    pub(super) fn new(value: Value) -> Self {
        Self { value }
    }

    pub(super) fn finish(self) -> Value {
        self.value
    }

    /// Adds or changes a keyslot.
    ///
    /// # Errors
    /// Returns [`FormatError`] for a keyslot of unknown type. Conflicts with other objects are
    /// found at the end of the edit.
    pub fn set_keyslot(&mut self, id: u32, keyslot: &Keyslot) -> Result<(), FormatError> {
        if matches!(keyslot, Keyslot::Other(_)) {
            let path = format!("keyslots.{id}.type");
            return refuse(path, "keyslots of this type cannot be written");
        }
        let kind = keyslot.kind();
        self.change("keyslots", id, kind, |object| keyslot.write(object))
    }

    /// Gives a keyslot another number, also in digests and tokens. All of its members are kept.
    ///
    /// # Errors
    /// Returns [`FormatError`] if the keyslot does not exist, or if the new number is in use.
    pub fn renumber_keyslot(&mut self, old: u32, new: u32) -> Result<(), FormatError> {
        let (old_name, new_name) = (old.to_string(), new.to_string());
        let keyslots = self.section("keyslots")?;
        if keyslots.contains(&new_name) {
            return refuse(format!("keyslots.{new}"), "there is one already");
        }
        let Some(keyslot) = keyslots.remove(&old_name) else {
            return refuse(format!("keyslots.{old}"), "there is none");
        };
        keyslots.insert(&new_name, keyslot);
        for section in ["digests", "tokens"] {
            for object in self
                .section(section)?
                .iter_mut()
                .filter_map(|(_, value)| value.as_object_mut())
            {
                let names = object.get_mut("keyslots").and_then(Value::as_array_mut);
                let named = names.into_iter().flatten();
                for name in named.filter(|name| name.as_str() == Some(&old_name)) {
                    *name = json!(new_name);
                }
            }
        }
        Ok(())
    }

    /// Removes a keyslot, also from digests and tokens.
    ///
    /// # Errors
    /// Returns [`FormatError`] if the object does not exist, or if the metadata lacks the section.
    pub fn remove_keyslot(&mut self, id: u32) -> Result<(), FormatError> {
        self.remove("keyslots", id)?;
        let name = id.to_string();
        for section in ["digests", "tokens"] {
            for object in self
                .section(section)?
                .iter_mut()
                .filter_map(|(_, value)| value.as_object_mut())
            {
                refer(object, "keyslots", &name, false);
            }
        }
        Ok(())
    }

    /// Adds or changes a segment.
    ///
    /// # Errors
    /// Returns [`FormatError`] if the metadata lacks the section. Conflicts with other objects are
    /// found at the end of the edit.
    pub fn set_segment(&mut self, id: u32, segment: &Segment) -> Result<(), FormatError> {
        self.change("segments", id, segment.kind(), |object| {
            segment.write(object);
        })
    }

    /// Removes a segment, also from digests.
    ///
    /// # Errors
    /// Returns [`FormatError`] if the object does not exist, or if the metadata lacks the section.
    pub fn remove_segment(&mut self, id: u32) -> Result<(), FormatError> {
        self.remove("segments", id)?;
        let name = id.to_string();
        for object in self
            .section("digests")?
            .iter_mut()
            .filter_map(|(_, value)| value.as_object_mut())
        {
            refer(object, "segments", &name, false);
        }
        Ok(())
    }

    /// Adds or changes a digest.
    ///
    /// # Errors
    /// Returns [`FormatError`] if the metadata lacks the section. Conflicts with other objects are
    /// found at the end of the edit.
    pub fn set_digest(&mut self, id: u32, digest: &Digest) -> Result<(), FormatError> {
        self.change("digests", id, "pbkdf2", |object| digest.write(object))
    }

    /// Removes a digest.
    ///
    /// # Errors
    /// Returns [`FormatError`] if the object does not exist, or if the metadata lacks the section.
    pub fn remove_digest(&mut self, id: u32) -> Result<(), FormatError> {
        self.remove("digests", id)
    }

    /// Moves a keyslot to a digest, or removes it from all digests.
    ///
    /// # Errors
    /// Returns [`FormatError`] if the digest does not exist.
    pub fn assign_keyslot_to_digest(
        &mut self,
        keyslot: u32,
        digest: Option<u32>,
    ) -> Result<(), FormatError> {
        let name = keyslot.to_string();
        let wanted = digest.map(|digest| digest.to_string());
        let digests = self.section("digests")?;
        if let Some(wanted) = &wanted
            && !digests.contains(wanted)
        {
            return refuse(format!("digests.{wanted}"), "there is no such digest");
        }
        for (id, object) in digests.iter_mut() {
            if let Some(object) = object.as_object_mut() {
                refer(object, "keyslots", &name, wanted.as_deref() == Some(id));
            }
        }
        Ok(())
    }

    /// Adds a token, or replaces all of it.
    ///
    /// # Errors
    /// Returns [`FormatError`] if the metadata lacks the section. Conflicts with other objects are
    /// found at the end of the edit.
    pub fn set_token(&mut self, id: u32, token: Value) -> Result<(), FormatError> {
        self.section("tokens")?.insert(&id.to_string(), token);
        Ok(())
    }

    /// Removes a token.
    ///
    /// # Errors
    /// Returns [`FormatError`] if the object does not exist, or if the metadata lacks the section.
    pub fn remove_token(&mut self, id: u32) -> Result<(), FormatError> {
        self.remove("tokens", id)
    }

    /// Sets whether a token is for a keyslot.
    ///
    /// # Errors
    /// Returns [`FormatError`] if the token does not exist.
    pub fn assign_token(
        &mut self,
        id: u32,
        keyslot: u32,
        assigned: bool,
    ) -> Result<(), FormatError> {
        let token = self.object("tokens", id)?;
        refer(token, "keyslots", &keyslot.to_string(), assigned);
        Ok(())
    }

    /// Sets the priority of a keyslot.
    ///
    /// # Errors
    /// Returns [`FormatError`] if the keyslot does not exist.
    pub fn set_priority(&mut self, keyslot: u32, priority: Priority) -> Result<(), FormatError> {
        priority.write(self.object("keyslots", keyslot)?);
        Ok(())
    }

    /// Sets the flags of the config.
    ///
    /// # Errors
    /// Returns [`FormatError`] if the metadata lacks the section. Conflicts with other objects are
    /// found at the end of the edit.
    pub fn set_flags(&mut self, flags: &[String]) -> Result<(), FormatError> {
        set_list(self.section("config")?, "flags", flags);
        Ok(())
    }

    /// Sets the mandatory requirements.
    ///
    /// # Errors
    /// Returns [`FormatError`] if the metadata lacks the section. Conflicts with other objects are
    /// found at the end of the edit.
    pub fn set_requirements(&mut self, requirements: &[String]) -> Result<(), FormatError> {
        let config = self.section("config")?;
        within(config, "requirements", |object| {
            set_list(object, "mandatory", requirements)
        });
        let empty = config
            .get("requirements")
            .and_then(Value::as_object)
            .is_some_and(Object::is_empty);
        if empty {
            config.remove("requirements");
        }
        Ok(())
    }

    /// Sets the size of the keyslots area.
    ///
    /// # Errors
    /// Returns [`FormatError`] if the metadata lacks the section. Conflicts with other objects are
    /// found at the end of the edit.
    pub fn set_keyslots_size(&mut self, size: u64) -> Result<(), FormatError> {
        self.section("config")?
            .insert("keyslots_size", size.to_string());
        Ok(())
    }

    pub(super) fn section(&mut self, name: &str) -> Result<&mut Object, FormatError> {
        self.value
            .get_mut(name)
            .and_then(Value::as_object_mut)
            .ok_or_else(|| FormatError::malformed(name, 0, "is missing"))
    }

    fn object(&mut self, section: &str, id: u32) -> Result<&mut Object, FormatError> {
        self.section(section)?
            .get_mut(&id.to_string())
            .and_then(Value::as_object_mut)
            .ok_or_else(|| FormatError::malformed(format!("{section}.{id}"), 0, "there is none"))
    }

    /// Changes an object, or adds it. An object of another type is replaced completely, since its
    /// members have no meaning for the new type.
    fn change(
        &mut self,
        section: &str,
        id: u32,
        kind: &str,
        write: impl FnOnce(&mut Object),
    ) -> Result<(), FormatError> {
        within(self.section(section)?, &id.to_string(), |object| {
            if object.get("type").and_then(Value::as_str) != Some(kind) {
                object.clear();
            }
            write(object);
        });
        Ok(())
    }

    fn remove(&mut self, section: &str, id: u32) -> Result<(), FormatError> {
        match self.section(section)?.remove(&id.to_string()) {
            Some(_) => Ok(()),
            None => refuse(format!("{section}.{id}"), "there is none"),
        }
    }
}

/// Adds a name to a list of references, or removes it. A missing or malformed list is ignored here;
/// the validation refuses it.
pub(super) fn refer(object: &mut Object, list: &str, name: &str, wanted: bool) {
    let Some(names) = object.get_mut(list).and_then(Value::as_array_mut) else {
        return;
    };
    let there = names.iter().any(|value| value.as_str() == Some(name));
    match (there, wanted) {
        (true, false) => names.retain(|value| value.as_str() != Some(name)),
        (false, true) => names.push(json!(name)),
        (true, true) | (false, false) => {}
    }
}

/// Sets a list of strings. An empty list is removed.
fn set_list(object: &mut Object, key: &str, list: &[String]) {
    if list.is_empty() {
        object.remove(key);
    } else {
        object.insert(key, list);
    }
}

fn refuse(path: String, cause: &str) -> Result<(), FormatError> {
    Err(FormatError::malformed(path, 0, cause))
}
