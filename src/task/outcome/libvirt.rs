//! What a command changed in libvirt, or in a running QEMU.

use std::fmt;
use std::path::PathBuf;

use luksmith_formats::json::Object;
use uuid::Uuid;

use super::Outcome;
use super::names;
use crate::libvirt::Affect;

/// What was done with a secret of libvirt.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum SecretChange {
    /// It was defined.
    Defined {
        /// Its UUID.
        secret: Uuid,
        /// Whether it got a value.
        has_value: bool,
    },
    /// Its value was set.
    Set {
        /// Its UUID.
        secret: Uuid,
    },
    /// Its value was written to a file or a descriptor.
    Written {
        /// Its UUID.
        secret: Uuid,
        /// The file; `-` is stdout, `/proc/self/fd/N` a descriptor.
        file: PathBuf,
    },
    /// It was removed.
    Removed {
        /// Its UUID.
        secret: Uuid,
    },
}

impl Outcome for SecretChange {
    fn members(&self) -> Object {
        let mut members = Object::new();
        match self {
            Self::Defined { secret, has_value } => {
                members.insert("secret", secret.to_string());
                members.insert("has_value", *has_value);
            }
            Self::Written { secret, file } => {
                members.insert("secret", secret.to_string());
                members.insert("file", file.display().to_string());
                members.insert("file_bytes", names::bytes_of(file));
            }
            Self::Set { secret } | Self::Removed { secret } => {
                members.insert("secret", secret.to_string());
            }
        }
        members
    }
}

impl fmt::Display for SecretChange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            // For scripts, which take the UUID from stdout.
            Self::Defined { secret, .. } => secret.fmt(f),
            Self::Set { secret } => write!(f, "secret {secret}: value set"),
            Self::Written { secret, file } => {
                write!(f, "{}: value of secret {secret}", file.display())
            }
            Self::Removed { secret } => write!(f, "secret {secret} removed"),
        }
    }
}

/// A disk that was attached to a domain or detached from it.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct DiskChange {
    /// The name of the domain.
    pub domain: String,
    /// The name of the disk in the guest, such as `vdb`.
    pub target: String,
    /// Whether the running domain, its definition or both changed.
    pub affect: Affect,
    /// The image and the XML of a disk that was attached. `None` if it was detached.
    pub attached: Option<(String, String)>,
}

impl DiskChange {
    /// A disk that was detached. Set [`attached`](Self::attached) for one that was attached.
    #[must_use]
    pub fn new(domain: String, target: String, affect: Affect) -> Self {
        Self {
            domain,
            target,
            affect,
            attached: None,
        }
    }
}

impl Outcome for DiskChange {
    fn members(&self) -> Object {
        let mut members = Object::new();
        members.insert("domain", self.domain.as_str());
        members.insert("target", self.target.as_str());
        members.insert("live", self.affect.live);
        members.insert("config", self.affect.config);
        if let Some((image, xml)) = &self.attached {
            members.insert("image", image.as_str());
            members.insert("xml", xml.as_str());
        }
        members
    }
}

impl fmt::Display for DiskChange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (domain, target) = (&self.domain, &self.target);
        match &self.attached {
            Some((image, _)) => write!(f, "{domain}: {image} is {target}, ")?,
            None => write!(f, "{domain}: {target} is detached, ")?,
        }
        f.write_str(match (self.affect.live, self.affect.config) {
            (true, true) => "at once and at the next start",
            (true, false) => "at once",
            _ => "at the next start",
        })
    }
}

/// Keyslots that a running QEMU changed.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct AmendedKeyslots {
    /// The block node of the volume.
    pub node: String,
    /// The keyslots in use before.
    pub before: Vec<u32>,
    /// The keyslots in use now.
    pub keyslots: Vec<u32>,
    /// How many there are in all.
    pub total: u32,
}

impl AmendedKeyslots {
    /// The keyslots in use of a node, before and now, of this many in all.
    #[must_use]
    pub fn new(node: &str, before: &[u32], now: &[u32], total: u32) -> Self {
        Self {
            node: node.to_owned(),
            before: before.to_vec(),
            keyslots: now.to_vec(),
            total,
        }
    }

    fn added(&self) -> Vec<u32> {
        without(&self.keyslots, &self.before)
    }

    fn removed(&self) -> Vec<u32> {
        without(&self.before, &self.keyslots)
    }
}

fn without(all: &[u32], others: &[u32]) -> Vec<u32> {
    let mut all = all.to_vec();
    all.retain(|slot| !others.contains(slot));
    all
}

impl Outcome for AmendedKeyslots {
    fn members(&self) -> Object {
        let mut members = Object::new();
        members.insert("node", self.node.as_str());
        members.insert("added", self.added());
        members.insert("removed", self.removed());
        members.insert("keyslots", self.keyslots.as_slice());
        members
    }
}

impl fmt::Display for AmendedKeyslots {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let list = |slots: &[u32]| {
            let slots: Vec<_> = slots.iter().map(u32::to_string).collect();
            slots.join(", ")
        };
        write!(f, "{}: ", self.node)?;
        for (slots, done) in [(self.added(), "added"), (self.removed(), "removed")] {
            if !slots.is_empty() {
                write!(f, "keyslots {done}: {}; ", list(&slots))?;
            }
        }
        write!(f, "in use: {} of {}", list(&self.keyslots), self.total)
    }
}
