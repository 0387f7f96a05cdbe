//! The state of an audit that the rules share: the policy, the report, and what is known from other
//! documents.

use std::collections::BTreeMap;

use super::disk::{Layer, Source};
use super::host::mounts::Mount;
use super::host::settings::Settings;
use super::inventory::{Document, Image, Inventory, Wanted};
use super::policy::Policy;
use super::report::Report;
use super::rule::{Place, Rule};

pub(super) struct Context<'a> {
    pub(super) policy: &'a Policy,
    pub(super) inventory: &'a Inventory,
    pub(super) report: Report,
    pub(super) pools: BTreeMap<String, Pool>,
    /// The path of each volume, by the names of its pool and of the volume.
    pub(super) volumes: BTreeMap<(String, String), String>,
    /// `qemu.conf`.
    pub(super) qemu: Option<Settings>,
    /// The mounts of the host.
    pub(super) mounts: Vec<Mount>,
    /// The users of each secret, by its UUID or the name of its usage.
    pub(super) secrets: BTreeMap<String, Vec<Place>>,
    /// The paths of disks and volumes, with the places that name them.
    pub(super) paths: Vec<(String, Place)>,
}

/// A storage pool.
pub(super) struct Pool {
    /// `dir`, `netfs`, `rbd`, …
    pub(super) kind: String,
    /// The folder of its volumes.
    pub(super) target: Option<String>,
    pub(super) capacity: Option<u64>,
    pub(super) available: Option<u64>,
}

impl Pool {
    /// Whether its storage is on another machine.
    pub(super) fn is_remote(&self) -> bool {
        let remote = [
            "netfs",
            "iscsi",
            "iscsi-direct",
            "rbd",
            "sheepdog",
            "gluster",
            "vstorage",
        ];
        remote.contains(&self.kind.as_str())
    }
}

impl<'a> Context<'a> {
    pub(super) fn new(inventory: &'a Inventory, policy: &'a Policy) -> Self {
        Self {
            policy,
            inventory,
            report: Report::default(),
            pools: BTreeMap::new(),
            volumes: BTreeMap::new(),
            qemu: None,
            mounts: Vec::new(),
            secrets: BTreeMap::new(),
            paths: Vec::new(),
        }
    }

    pub(super) fn add(&mut self, rule: &'static Rule, place: Place, detail: impl Into<String>) {
        self.report.add(self.policy, rule, place, detail);
    }

    /// Adds a finding if `broken` is not `None`. It says what is wrong.
    pub(super) fn add_if(&mut self, rule: &'static Rule, place: &Place, broken: Option<String>) {
        if let Some(detail) = broken {
            self.add(rule, place.clone(), detail);
        }
    }

    /// The path of a storage, if it is a file or device on the host.
    pub(super) fn path(&self, layer: &Layer<'_>) -> Option<String> {
        match &layer.source {
            Source::File(path) => Some(path.clone().into_owned()),
            Source::Block(path) => Some((*path).to_owned()),
            Source::Volume { pool, volume } => {
                let volume = ((*pool).to_owned(), (*volume).to_owned());
                self.volumes.get(&volume).cloned()
            }
            Source::None | Source::Network(_) | Source::Socket(_) | Source::Other => None,
        }
    }

    /// What is known of an image.
    pub(super) fn image(&self, path: &str, format: Option<&str>) -> Option<&'a Image> {
        let wanted = Wanted {
            path: path.to_owned(),
            format: format.unwrap_or("raw").to_owned(),
        };
        self.inventory.images.get(&wanted)
    }
}

/// The place of a document as a whole.
pub(super) fn place_of(document: &Document) -> Place {
    Place {
        origin: super::rule::shown(&document.origin),
        path_bytes: document.path_bytes.clone(),
        is_file: document.is_file,
        line: None,
        object: Vec::new(),
    }
}
