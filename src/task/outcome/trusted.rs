//! Pins of volumes.

use std::fmt;

use luksmith_formats::json::{Object, Value};
use luksmith_formats::trust::pin::{Difference, Pin};

use super::Outcome;
use super::names;
use crate::location::Location;
use crate::task::printable;
use crate::task::size;
use crate::task::trust::Entry;
use crate::task::trust::tagging::Verified;

/// A volume that was pinned, or compared with its pin.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Trusted {
    /// The volume.
    pub image: Location,
    /// What was done.
    pub done: Done,
    /// Its pin now.
    pub pin: Pin,
    /// How it differed from the pin before.
    pub differences: Vec<Difference>,
    /// The tags of its data, if they were made or compared.
    pub tags: Option<Verified>,
}

/// What was done with a pin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Done {
    /// It was made.
    Pinned,
    /// It was changed to what the header says.
    Accepted,
    /// The volume was compared with it.
    Compared,
}

impl Trusted {
    /// A volume whose pin is this one now.
    #[must_use]
    pub fn new(image: &Location, done: Done, pin: Pin, differences: Vec<Difference>) -> Self {
        let image = image.clone();
        Self {
            image,
            done,
            pin,
            differences,
            tags: None,
        }
    }

    /// The same, with the tags that were made, or with which the data was compared.
    #[must_use]
    pub fn tags(self, tags: Option<Verified>) -> Self {
        Self { tags, ..self }
    }
}

impl Outcome for Trusted {
    fn members(&self) -> Object {
        let mut members = Object::new();
        names::image(&mut members, &self.image);
        add(&mut members, &self.pin);
        let words: Vec<_> = self.differences.iter().map(ToString::to_string).collect();
        members.insert("differences", words);
        members.insert("tags", self.tags.as_ref().map(tags));
        members
    }
}

impl fmt::Display for Trusted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (image, now) = (&self.image, &self.pin.current);
        match self.done {
            Done::Pinned => write!(f, "{image}: volume {} is pinned", now.uuid),
            Done::Accepted if self.differences.is_empty() => {
                write!(f, "{image} is as it is pinned: nothing to accept")
            }
            Done::Accepted => write!(f, "{image}: volume {} is pinned as it is now", now.uuid),
            Done::Compared => write!(f, "{image}: the header is as it is pinned"),
        }?;
        if now.sequence > 0 {
            write!(f, ", sequence number {}", now.sequence)?;
        }
        let Some(tags) = &self.tags else {
            return Ok(());
        };
        let data = size::human(tags.size);
        match (self.done, tags.altered) {
            (Done::Pinned, _) => write!(f, "; {data} of data have tags"),
            (_, 0) => write!(f, "; {data} of data are as they were written"),
            (_, 1) => write!(f, "; a block of its {data} of data is not"),
            (_, altered) => write!(f, "; {altered} blocks of its {data} of data are not"),
        }
    }
}

fn tags(found: &Verified) -> Object {
    let mut members = Object::new();
    members.insert("size", found.size);
    members.insert("altered", found.altered);
    members.insert("altered_at", found.altered_at.clone());
    members
}

fn add(members: &mut Object, pin: &Pin) {
    members.insert("type", names::type_name(pin.current.version));
    members.insert("uuid", pin.current.uuid.as_str());
    members.insert("sequence", pin.current.sequence);
    members.insert("place", pin.place.image.as_str());
    members.insert("header", pin.place.header.as_deref());
    members.insert("changing", pin.next.is_some());
}

/// The members of `trust status`: all that is kept in a folder.
#[must_use]
pub fn kept(entries: &[Entry]) -> Object {
    let entry = |entry: &Entry| {
        let mut members = Object::new();
        match &entry.pin {
            Ok(Some(pin)) => add(&mut members, pin),
            Ok(None) | Err(_) => {
                for name in ["type", "uuid", "sequence", "place", "header", "changing"] {
                    members.insert(name, Value::Null);
                }
                members.insert("uuid", entry.uuid.as_str());
            }
        }
        let problem = entry.pin.as_ref().err();
        members.insert("problem", problem.map(|error| crate::task::chain(error)));
        Value::from(members)
    };
    let volumes: Vec<_> = entries.iter().map(entry).collect();
    let mut members = Object::new();
    members.insert("volumes", volumes);
    members
}

/// The cells of a row of `trust status`: the UUID, the version, the sequence number, and the place
/// or the problem.
#[must_use]
pub fn kept_cells(entry: &Entry) -> [String; 4] {
    let (kind, sequence, place) = match &entry.pin {
        Ok(Some(pin)) => {
            let mut place = pin.place.to_string();
            if pin.next.is_some() {
                place.push_str(" (a change is not settled)");
            }
            let now = &pin.current;
            (now.version.to_string(), now.sequence.to_string(), place)
        }
        Ok(None) => (String::new(), String::new(), "no pin".to_owned()),
        Err(error) => (String::new(), String::new(), crate::task::chain(error)),
    };
    [entry.uuid.clone(), kind, sequence, printable(&place)]
}
