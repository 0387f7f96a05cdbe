//! What the rules share while an audit runs: the policy, what is known beside the document at hand, and the report.

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
    /// Where each volume lies, by the names of its pool and itself.
    pub(super) volumes: BTreeMap<(String, String), String>,
    /// `qemu.conf`.
    pub(super) qemu: Option<Settings>,
    /// What the host has mounted.
    pub(super) mounts: Vec<Mount>,
    /// Who uses each secret, by its UUID or the name of its usage.
    pub(super) secrets: BTreeMap<String, Vec<Place>>,
    /// The images and devices of disks and volumes, with who has them.
    pub(super) paths: Vec<(String, Place)>,
}

/// A storage pool.
pub(super) struct Pool {
    /// `dir`, `netfs`, `rbd`, …
    pub(super) kind: String,
    /// The folder in which its volumes lie.
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

    /// Adds a finding where `broken` says what is there.
    pub(super) fn add_if(&mut self, rule: &'static Rule, place: &Place, broken: Option<String>) {
        if let Some(detail) = broken {
            self.add(rule, place.clone(), detail);
        }
    }

    /// The path of a storage on this host, if it is one.
    pub(super) fn path(&self, layer: &Layer<'_>) -> Option<String> {
        match layer.source {
            Source::File(path) | Source::Block(path) => Some(path.to_owned()),
            Source::Volume { pool, volume } => {
                let volume = (pool.to_owned(), volume.to_owned());
                self.volumes.get(&volume).cloned()
            }
            Source::None | Source::Network(_) | Source::Other => None,
        }
    }

    /// What was seen of an image.
    pub(super) fn image(&self, path: &str, format: Option<&str>) -> Option<&'a Image> {
        let wanted = Wanted {
            path: path.to_owned(),
            format: format.unwrap_or("raw").to_owned(),
        };
        self.inventory.images.get(&wanted)
    }
}

/// The document as a place, before anything in it.
pub(super) fn place_of(document: &Document) -> Place {
    Place {
        origin: super::rule::shown(&document.origin),
        is_file: document.is_file,
        line: None,
        object: Vec::new(),
    }
}
