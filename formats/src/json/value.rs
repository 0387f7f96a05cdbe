//! The tree: a value, and the members of an object, which are values again.

use alloc::string::String;
use alloc::vec::Vec;
use core::ops::{Index, IndexMut};

use super::number::Number;

/// A JSON value. Two values are equal if their texts are.
///
/// Its `Display` is the text without white space; with `{:#}` the text is indented by two spaces.
/// Its `Default` is `null`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Value {
    /// `null`.
    #[default]
    Null,
    /// `true` or `false`.
    Bool(bool),
    /// A number.
    Number(Number),
    /// A string.
    String(String),
    /// An array.
    Array(Vec<Self>),
    /// An object.
    Object(Object),
}

/// The members of a JSON object in their order.
///
/// A look-up goes through the members one by one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Object {
    /// No two have the same name.
    members: Vec<(String, Value)>,
}

impl Object {
    /// An object without members.
    pub fn new() -> Self {
        Self::default()
    }

    /// An object with these members. Of those with the same name the last value is taken, in the
    /// place of the first one.
    pub(super) fn of(members: Vec<(String, Value)>) -> Self {
        if members.len() < 2 {
            return Self { members };
        }
        let mut placed: Vec<_> = members.into_iter().enumerate().collect();
        // A stable sort: members with the same name stay in their order.
        placed.sort_by(|(_, (a, _)), (_, (b, _))| a.cmp(b));
        placed.dedup_by(|(_, later), (_, earlier)| {
            let same = later.0 == earlier.0;
            if same {
                core::mem::swap(&mut later.1, &mut earlier.1);
            }
            same
        });
        placed.sort_unstable_by_key(|(place, _)| *place);
        Self {
            members: placed.into_iter().map(|(_, member)| member).collect(),
        }
    }

    /// How many members there are.
    pub fn len(&self) -> usize {
        self.members.len()
    }

    /// Whether there is no member.
    pub fn is_empty(&self) -> bool {
        self.members.is_empty()
    }

    /// Whether there is a member with this name.
    pub fn contains(&self, name: &str) -> bool {
        self.get(name).is_some()
    }

    /// The member with this name.
    pub fn get(&self, name: &str) -> Option<&Value> {
        self.iter()
            .find_map(|(other, value)| (other == name).then_some(value))
    }

    /// As [`get`](Self::get), to change it.
    pub fn get_mut(&mut self, name: &str) -> Option<&mut Value> {
        self.iter_mut()
            .find_map(|(other, value)| (other == name).then_some(value))
    }

    /// The member with this name. If there is none, it is added at the end as `null`.
    pub fn entry(&mut self, name: &str) -> &mut Value {
        let place = self.members.iter().position(|(other, _)| other == name);
        let place = place.unwrap_or_else(|| {
            self.members.push((name.into(), Value::Null));
            self.members.len().saturating_sub(1)
        });
        #[allow(clippy::indexing_slicing)] // a member was found there, or has been added there
        &mut self.members[place].1
    }

    /// Sets a member in its place, or at the end if it is new.
    pub fn insert(&mut self, name: &str, value: impl Into<Value>) {
        *self.entry(name) = value.into();
    }

    /// Removes a member and returns it. The others keep their order.
    pub fn remove(&mut self, name: &str) -> Option<Value> {
        let place = self.members.iter().position(|(other, _)| other == name)?;
        Some(self.members.remove(place).1)
    }

    /// Removes all members.
    pub fn clear(&mut self) {
        self.members.clear();
    }

    /// The members in their order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&str, &Value)> + DoubleEndedIterator {
        self.members
            .iter()
            .map(|(name, value)| (name.as_str(), value))
    }

    /// As [`iter`](Self::iter), to change the values.
    pub fn iter_mut(
        &mut self,
    ) -> impl ExactSizeIterator<Item = (&str, &mut Value)> + DoubleEndedIterator {
        self.members
            .iter_mut()
            .map(|(name, value)| (name.as_str(), value))
    }
}

impl FromIterator<(String, Value)> for Object {
    fn from_iter<I: IntoIterator<Item = (String, Value)>>(members: I) -> Self {
        Self::of(members.into_iter().collect())
    }
}

static NULL: Value = Value::Null;

impl Value {
    /// The member of an object with this name.
    pub fn get(&self, name: &str) -> Option<&Self> {
        self.as_object()?.get(name)
    }

    /// As [`get`](Self::get), to change it.
    pub fn get_mut(&mut self, name: &str) -> Option<&mut Self> {
        self.as_object_mut()?.get_mut(name)
    }

    /// The value at a JSON pointer (RFC 6901), such as `/keyslots/0/area`.
    pub fn pointer(&self, pointer: &str) -> Option<&Self> {
        steps(pointer)?.try_fold(self, |value, step| match value {
            Self::Object(object) => object.get(&step),
            Self::Array(elements) => elements.get(number(&step)?),
            Self::Null | Self::Bool(_) | Self::Number(_) | Self::String(_) => None,
        })
    }

    /// As [`pointer`](Self::pointer), to change it.
    pub fn pointer_mut(&mut self, pointer: &str) -> Option<&mut Self> {
        steps(pointer)?.try_fold(self, |value, step| match value {
            Self::Object(object) => object.get_mut(&step),
            Self::Array(elements) => elements.get_mut(number(&step)?),
            Self::Null | Self::Bool(_) | Self::Number(_) | Self::String(_) => None,
        })
    }

    /// Whether it is `null`.
    pub fn is_null(&self) -> bool {
        *self == Self::Null
    }

    /// The value of `true` or `false`.
    pub fn as_bool(&self) -> Option<bool> {
        if let Self::Bool(value) = self {
            Some(*value)
        } else {
            None
        }
    }

    /// The value of a number that is written as an integer from 0 to 2⁶⁴ − 1.
    pub fn as_u64(&self) -> Option<u64> {
        if let Self::Number(number) = self {
            number.as_u64()
        } else {
            None
        }
    }

    /// The text of a string.
    pub fn as_str(&self) -> Option<&str> {
        if let Self::String(text) = self {
            Some(text)
        } else {
            None
        }
    }

    /// The elements of an array.
    pub fn as_array(&self) -> Option<&Vec<Self>> {
        if let Self::Array(elements) = self {
            Some(elements)
        } else {
            None
        }
    }

    /// As [`as_array`](Self::as_array), to change them.
    pub fn as_array_mut(&mut self) -> Option<&mut Vec<Self>> {
        if let Self::Array(elements) = self {
            Some(elements)
        } else {
            None
        }
    }

    /// The members of an object.
    pub fn as_object(&self) -> Option<&Object> {
        if let Self::Object(object) = self {
            Some(object)
        } else {
            None
        }
    }

    /// As [`as_object`](Self::as_object), to change them.
    pub fn as_object_mut(&mut self) -> Option<&mut Object> {
        if let Self::Object(object) = self {
            Some(object)
        } else {
            None
        }
    }
}

/// The member with this name; `null` if there is none, or if the value is not an object.
impl Index<&str> for Value {
    type Output = Self;

    fn index(&self, name: &str) -> &Self {
        self.get(name).unwrap_or(&NULL)
    }
}

/// The member with this name, `null` at first if it is new. A value that is not an object becomes
/// one.
impl IndexMut<&str> for Value {
    fn index_mut(&mut self, name: &str) -> &mut Self {
        if let Self::Object(object) = self {
            return object.entry(name);
        }
        *self = Self::Object(Object::new());
        self.index_mut(name)
    }
}

/// The element with this number; `null` if there is none, or if the value is not an array.
impl Index<usize> for Value {
    type Output = Self;

    fn index(&self, number: usize) -> &Self {
        self.as_array()
            .and_then(|elements| elements.get(number))
            .unwrap_or(&NULL)
    }
}

impl PartialEq<str> for Value {
    fn eq(&self, other: &str) -> bool {
        self.as_str() == Some(other)
    }
}

impl PartialEq<&str> for Value {
    fn eq(&self, other: &&str) -> bool {
        self == *other
    }
}

impl PartialEq<String> for Value {
    fn eq(&self, other: &String) -> bool {
        self == other.as_str()
    }
}

impl PartialEq<bool> for Value {
    fn eq(&self, other: &bool) -> bool {
        self.as_bool() == Some(*other)
    }
}

/// The unescaped steps of a JSON pointer.
fn steps(pointer: &str) -> Option<impl Iterator<Item = String>> {
    let steps = if pointer.is_empty() {
        None
    } else {
        Some(pointer.strip_prefix('/')?.split('/'))
    };
    let unescaped = |step: &str| step.replace("~1", "/").replace("~0", "~");
    Some(steps.into_iter().flatten().map(unescaped))
}

/// The number of an element, which is written without leading zeros.
fn number(step: &str) -> Option<usize> {
    let digits = step.bytes().all(|byte| byte.is_ascii_digit());
    let canonical = digits && (step == "0" || !step.starts_with('0'));
    step.parse().ok().filter(|_| canonical)
}
