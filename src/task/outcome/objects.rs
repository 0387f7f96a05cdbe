//! The state of a volume in an object store, and what its upkeep did.

use std::fmt;

use luksmith_formats::json::{Object, Value, json};
use luksmith_formats::objects::checkpoint::KeptSnapshot;

use super::Outcome;
use super::names::image;
use crate::location::Location;
use crate::objects::{Requests, Status, Writer};
use crate::task::measure::time_text;
use crate::task::objects::{Checked, Collected, SnapshotChange, State};
use crate::task::size;

/// The members of the document of a state.
#[must_use]
pub fn objects_state(location: &Location, state: &State) -> Object {
    let mut members = of_status(location, &state.status);
    members.insert("journal", state.status.journal);
    members.insert("unfenced", state.status.unfenced);
    members.insert("writer", of_writer(state.writer.as_ref()));
    members.insert("requests", of_requests(state.requests));
    members
}

/// The rows of a state.
#[must_use]
pub fn objects_rows(state: &State) -> Vec<(&'static str, String)> {
    let status = &state.status;
    let position = status.position;
    let mut rows = vec![
        ("UUID", uuid(status)),
        ("size", size::both(status.size)),
        (
            "log",
            format!("epoch {}, segment {}", position.epoch, position.sequence),
        ),
        (
            "checkpoint",
            status.checkpoint.map_or("none".to_owned(), |id| {
                format!("{} of epoch {}", id.number, id.epoch)
            }),
        ),
        ("segments", status.segments.to_string()),
        ("stored", size::both(status.stored)),
        ("live", size::both(status.live)),
        (
            "flush",
            match status.journal {
                true => "done when the journal on the writer's host has the data",
                false => "done when the store has the data",
            }
            .to_owned(),
        ),
        (
            "a GiB",
            format!(
                "{} creations to write it at once, as many reads to read it",
                (1 << 30) / u64::from(status.object_size.max(1))
            ),
        ),
        (
            "writer",
            match &state.writer {
                None => "none: it was closed".to_owned(),
                Some(writer) => {
                    format!(
                        "on host '{}', since {}",
                        writer.host,
                        time_text(writer.time)
                    )
                }
            },
        ),
    ];
    if status.unfenced {
        let text = "may be in a store that overwrites: nothing enforces one writer at a time";
        rows.push(("unfenced", text.to_owned()));
    }
    rows.extend(
        status
            .snapshots
            .iter()
            .map(|kept| ("snapshot", snapshot_line(kept))),
    );
    rows
}

/// A snapshot in words.
#[must_use]
pub fn snapshot_line(kept: &KeptSnapshot) -> String {
    format!("{} of {}", kept.name, time_text(kept.time))
}

/// The members of the document of the snapshots.
#[must_use]
pub fn objects_snapshots(location: &Location, status: &Status) -> Object {
    let mut members = Object::new();
    image(&mut members, location);
    members.insert("snapshots", of_snapshots(status));
    members
}

/// What was done with a volume in an object store.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Kept {
    /// The volume.
    pub volume: Location,
    /// What was done.
    pub work: Upkeep,
}

/// What is done to keep a volume in an object store.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Upkeep {
    /// Garbage was collected.
    Collected(Collected),
    /// All checksums were compared.
    Checked(Checked),
    /// A snapshot was made or deleted, or the volume is as it.
    Snapshot(SnapshotChange, String),
    /// A writer that had not closed the volume cannot go on. `None` if there was no such writer.
    TakenOver(Option<Writer>),
}

impl Kept {
    /// This was done with this volume.
    #[must_use]
    pub fn new(volume: &Location, work: Upkeep) -> Self {
        let volume = volume.clone();
        Self { volume, work }
    }
}

impl Outcome for Kept {
    fn members(&self) -> Object {
        let mut members = Object::new();
        match &self.work {
            Upkeep::Collected(collected) => {
                members = of_status(&self.volume, &collected.status);
                members.insert("stored_before", collected.stored_before);
                let swept = collected.swept;
                members.insert(
                    "swept",
                    json!({ "objects": swept.objects, "bytes": swept.bytes }),
                );
                members.insert("requests", of_requests(collected.requests));
            }
            Upkeep::Checked(Checked {
                verified, requests, ..
            }) => {
                image(&mut members, &self.volume);
                members.insert("segments", verified.segments);
                members.insert("bytes", verified.bytes);
                members.insert("leaves", verified.leaves);
                members.insert("requests", of_requests(*requests));
            }
            Upkeep::Snapshot(_, name) => {
                image(&mut members, &self.volume);
                members.insert("snapshot", name.as_str());
            }
            Upkeep::TakenOver(writer) => {
                image(&mut members, &self.volume);
                members.insert("writer", of_writer(writer.as_ref()));
            }
        }
        members
    }
}

impl fmt::Display for Kept {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let volume = &self.volume;
        match &self.work {
            Upkeep::Collected(collected) => write!(
                f,
                "{volume} has {} stored, {} before; deleted {} more objects of {} that nothing \
                 needs; {}",
                size::human(collected.status.stored),
                size::human(collected.stored_before),
                collected.swept.objects,
                size::human(collected.swept.bytes),
                requests_text(collected.requests),
            ),
            Upkeep::Checked(Checked {
                verified, requests, ..
            }) => write!(
                f,
                "{volume} is whole: {} segments with {}, and {} leaves of the map; {}",
                verified.segments,
                size::human(verified.bytes),
                verified.leaves,
                requests_text(*requests),
            ),
            Upkeep::Snapshot(SnapshotChange::Make, name) => {
                write!(f, "made the snapshot {name} of {volume}")
            }
            Upkeep::Snapshot(SnapshotChange::Delete, name) => {
                write!(f, "deleted the snapshot {name} of {volume}")
            }
            Upkeep::Snapshot(SnapshotChange::RollBack, name) => {
                write!(f, "{volume} is as in its snapshot {name}")
            }
            Upkeep::TakenOver(None) => write!(f, "{volume} was closed: there is nothing to do"),
            Upkeep::TakenOver(Some(writer)) => {
                write!(
                    f,
                    "closed {volume}: its writer was on host '{}'",
                    writer.host
                )
            }
        }
    }
}

fn of_status(location: &Location, status: &Status) -> Object {
    let mut members = Object::new();
    image(&mut members, location);
    let checkpoint = status.checkpoint;
    members.insert("uuid", uuid(status));
    members.insert("size", status.size);
    members.insert("object_size", status.object_size);
    members.insert("epoch", status.position.epoch);
    members.insert("segment", status.position.sequence);
    members.insert(
        "checkpoint",
        checkpoint.map(|id| json!({ "epoch": id.epoch, "number": id.number })),
    );
    members.insert("segments", status.segments);
    members.insert("stored", status.stored);
    members.insert("live", status.live);
    members.insert("snapshots", of_snapshots(status));
    members
}

fn of_snapshots(status: &Status) -> Value {
    let snapshot = |kept: &KeptSnapshot| json!({ "name": kept.name.as_str(), "time": kept.time });
    status.snapshots.iter().map(snapshot).collect()
}

fn of_writer(writer: Option<&Writer>) -> Option<Value> {
    writer.map(|it| json!({ "host": it.host.as_str(), "time": it.time }))
}

fn uuid(status: &Status) -> String {
    uuid::Uuid::from_bytes(status.uuid).to_string()
}

fn of_requests(requests: Requests) -> Value {
    json!({
        "creations": requests.creations,
        "reads": requests.reads,
        "deletions": requests.deletions,
        "lists": requests.lists,
    })
}

fn requests_text(requests: Requests) -> String {
    format!(
        "{} creations, {} reads, {} deletions and {} lists were sent",
        requests.creations, requests.reads, requests.deletions, requests.lists
    )
}
