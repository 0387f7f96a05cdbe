//! What a command changed in an image, or wrote of it.

use std::fmt;
use std::path::PathBuf;

use luksmith_formats::json::Object;
use luksmith_formats::luks2::Priority;

use super::Outcome;
use super::copied::Copied;
use super::names;
use crate::container::Version;
use crate::location::Location;
use crate::task::key_rotate::Rotated;
use crate::task::reencrypt::Reencrypted;
use crate::task::size;

/// An image, and what was changed in it or written of it.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Changed {
    /// The image.
    pub image: Location,
    /// What was changed or written.
    pub change: Change,
}

impl Changed {
    /// This was changed in this image.
    #[must_use]
    pub fn new(image: &Location, change: Change) -> Self {
        let image = image.clone();
        Self { image, change }
    }
}

/// What was changed in an image, or written of it.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum Change {
    /// The plaintext was written to a file, a device or stdout.
    Decrypted {
        /// The destination; `-` is stdout.
        file: PathBuf,
        /// How much, and how fast.
        copied: Copied,
    },
    /// A backup of the header was written.
    HeaderBackedUp {
        /// The backup; `-` is stdout.
        file: PathBuf,
        /// The UUID of the volume.
        uuid: String,
        /// Its version of LUKS.
        version: Version,
        /// The size of the backup in bytes.
        bytes: u64,
    },
    /// The header was replaced by a backup.
    HeaderRestored {
        /// The backup.
        file: PathBuf,
        /// The UUID of the volume now.
        uuid: String,
        /// Its version of LUKS now.
        version: Version,
        /// The number of keyslots that open the volume now.
        remaining: usize,
        /// The copy of the header before, if the data has another key than that of the backup.
        kept: Option<String>,
    },
    /// The header was repaired, or there was nothing to repair.
    HeaderRepaired {
        /// What was repaired, in words.
        repaired: Vec<String>,
    },
    /// All keyslots were destroyed.
    HeaderErased {
        /// Their numbers.
        removed: Vec<u32>,
    },
    /// A keyslot was added.
    KeyslotAdded {
        /// Its number.
        keyslot: u32,
        /// Whether it opens the volume. False for an unbound keyslot.
        bound: bool,
        /// The token that was added with it and says where its passphrase is, if there is one.
        token: Option<u32>,
    },
    /// A passphrase was replaced.
    KeyslotChanged {
        /// The keyslot of the new passphrase.
        keyslot: u32,
        /// The keyslot of the old one.
        old_keyslot: Option<u32>,
    },
    /// The passphrase that a key store has was replaced.
    PassphraseRotated {
        /// The key store and the reference: `helper:NAME:REFERENCE`.
        key_store: String,
        /// The keyslots.
        rotated: Rotated,
    },
    /// A keyslot was removed.
    KeyslotRemoved {
        /// Its number.
        keyslot: u32,
        /// The number of keyslots that open the volume now.
        remaining: usize,
    },
    /// The priority of a keyslot was set.
    KeyslotPriority {
        /// Its number.
        keyslot: u32,
        /// Its priority now.
        priority: Priority,
    },
    /// A passphrase was tested, and opens a keyslot.
    KeyslotOpens {
        /// The keyslot.
        keyslot: u32,
        /// Whether it opens the volume. False for an unbound keyslot.
        bound: bool,
        /// The token that gave the passphrase, if one did.
        token: Option<u32>,
    },
    /// The volume key was written.
    VolumeKeyWritten {
        /// The file; `-` is stdout.
        file: PathBuf,
        /// The size of the key in bits.
        key_bits: usize,
    },
    /// The header was converted.
    Converted {
        /// The version of LUKS now.
        version: Version,
        /// The version before.
        old_version: Version,
    },
    /// The label, the subsystem or the UUID was set.
    Configured {
        /// The UUID now.
        uuid: String,
        /// The label now. `None` in LUKS1.
        label: Option<String>,
        /// The subsystem now. `None` in LUKS1.
        subsystem: Option<String>,
    },
    /// The size of the volume was changed.
    Resized {
        /// The size of the plaintext now, in bytes.
        size: u64,
        /// The size before.
        old_size: u64,
    },
    /// A reencryption came to its end, or was prepared.
    Reencrypted(Reencrypted),
    /// A token was stored.
    TokenImported {
        /// Its number.
        token: u32,
    },
    /// A token was made for keyslots.
    TokenAdded {
        /// Its number.
        token: u32,
        /// The keyslots.
        keyslots: Vec<u32>,
    },
    /// A token was written to a file.
    TokenExported {
        /// Its number.
        token: u32,
        /// The file.
        file: PathBuf,
    },
    /// A token was removed.
    TokenRemoved {
        /// Its number.
        token: u32,
    },
    /// A keyslot was removed from the list of a token.
    TokenUnassigned {
        /// The token.
        token: u32,
        /// The keyslot.
        keyslot: u32,
    },
}

/// Numbers of keyslots, for people.
fn slots(slots: &[u32]) -> String {
    match slots {
        [] => "none".to_owned(),
        _ => {
            let slots: Vec<_> = slots.iter().map(u32::to_string).collect();
            slots.join(", ")
        }
    }
}

/// The number of a token, if there is one.
fn by_token(f: &mut fmt::Formatter<'_>, words: &str, token: Option<u32>) -> fmt::Result {
    token.map_or(Ok(()), |token| write!(f, "{words} {token}"))
}

/// Adds the members `file` and `file_bytes`.
fn file(members: &mut Object, file: &std::path::Path) {
    members.insert("file", file.display().to_string());
    members.insert("file_bytes", names::bytes_of(file));
}

impl Outcome for Changed {
    fn members(&self) -> Object {
        let mut members = Object::new();
        names::image(&mut members, &self.image);
        self.change.add_to(&mut members);
        members
    }
}

impl Change {
    fn add_to(&self, members: &mut Object) {
        match self {
            Self::Decrypted { file: to, copied } => {
                file(members, to);
                members.insert("size", copied.bytes);
                members.insert("copied", copied.json());
            }
            Self::HeaderBackedUp {
                file: to,
                uuid,
                version,
                bytes,
            } => {
                file(members, to);
                members.insert("type", names::type_name(*version));
                members.insert("uuid", uuid.as_str());
                members.insert("bytes", *bytes);
            }
            Self::HeaderRestored {
                file: from,
                uuid,
                version,
                remaining,
                kept,
            } => {
                file(members, from);
                members.insert("type", names::type_name(*version));
                members.insert("uuid", uuid.as_str());
                members.insert("remaining", *remaining);
                members.insert("kept", kept.as_deref());
            }
            Self::HeaderRepaired { repaired } => members.insert("repaired", repaired.as_slice()),
            Self::HeaderErased { removed } => members.insert("removed", removed.as_slice()),
            Self::KeyslotAdded {
                keyslot,
                bound,
                token,
            }
            | Self::KeyslotOpens {
                keyslot,
                bound,
                token,
            } => {
                members.insert("keyslot", *keyslot);
                members.insert("bound", *bound);
                members.insert("token", *token);
            }
            Self::KeyslotChanged {
                keyslot,
                old_keyslot,
            } => {
                members.insert("keyslot", *keyslot);
                members.insert("old_keyslot", *old_keyslot);
            }
            Self::PassphraseRotated { key_store, rotated } => {
                members.insert("key_store", key_store.as_str());
                members.insert("keyslot", rotated.keyslot);
                members.insert("removed", rotated.removed.as_slice());
            }
            Self::KeyslotRemoved { keyslot, remaining } => {
                members.insert("keyslot", *keyslot);
                members.insert("remaining", *remaining);
            }
            Self::KeyslotPriority { keyslot, priority } => {
                members.insert("keyslot", *keyslot);
                members.insert("priority", names::priority(*priority));
            }
            Self::VolumeKeyWritten { file: to, key_bits } => {
                file(members, to);
                members.insert("key_bits", *key_bits);
            }
            Self::Converted {
                version,
                old_version,
            } => {
                members.insert("type", names::type_name(*version));
                members.insert("old_type", names::type_name(*old_version));
            }
            Self::Configured {
                uuid,
                label,
                subsystem,
            } => {
                members.insert("uuid", uuid.as_str());
                members.insert("label", label.as_deref());
                members.insert("subsystem", subsystem.as_deref());
            }
            Self::Resized { size, old_size } => {
                members.insert("size", *size);
                members.insert("old_size", *old_size);
            }
            Self::Reencrypted(done) => {
                members.insert("finished", done.finished);
                members.insert("converted", done.converted);
                members.insert("size", done.size);
                members.insert("keyslots", done.keyslots.as_slice());
                members.insert("dropped", done.dropped.as_slice());
            }
            Self::TokenImported { token } | Self::TokenRemoved { token } => {
                members.insert("token", *token);
            }
            Self::TokenAdded { token, keyslots } => {
                members.insert("token", *token);
                members.insert("keyslots", keyslots.as_slice());
            }
            Self::TokenExported { token, file: to } => {
                members.insert("token", *token);
                file(members, to);
            }
            Self::TokenUnassigned { token, keyslot } => {
                members.insert("token", *token);
                members.insert("keyslot", *keyslot);
            }
        }
    }
}

impl fmt::Display for Changed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let image = &self.image;
        match &self.change {
            Change::Decrypted { file, copied } if file.as_os_str() == "-" => {
                write!(f, "{image}: decrypted {copied}")
            }
            Change::Decrypted { file, copied } => {
                write!(f, "{}: {image} decrypted, {copied}", file.display())
            }
            Change::HeaderBackedUp {
                file, uuid, bytes, ..
            } => write!(
                f,
                "{}: header of {image}, volume {uuid}, {}",
                file.display(),
                size::human(*bytes)
            ),
            Change::HeaderRestored {
                file,
                uuid,
                remaining,
                ..
            } => write!(
                f,
                "{image}: header restored from {}, volume {uuid}; keyslots that open the volume: \
                 {remaining}",
                file.display()
            ),
            Change::HeaderRepaired { repaired } if repaired.is_empty() => {
                f.write_str("nothing to repair")
            }
            Change::HeaderRepaired { repaired } => f.write_str(&repaired.join("; ")),
            Change::HeaderErased { removed } => {
                write!(f, "keyslots destroyed: {}", removed.len())
            }
            Change::KeyslotAdded { keyslot, token, .. } => {
                write!(f, "keyslot {keyslot} added")?;
                by_token(f, ", with token", *token)
            }
            Change::KeyslotChanged {
                keyslot,
                old_keyslot,
            } => match old_keyslot.filter(|old| old != keyslot) {
                None => write!(f, "keyslot {keyslot} changed"),
                Some(old) => write!(
                    f,
                    "keyslot {keyslot} holds the new passphrase; keyslot {old} is now free"
                ),
            },
            Change::PassphraseRotated { key_store, rotated } => write!(
                f,
                "{image}: {key_store} has a new passphrase, in keyslot {}; keyslots removed: {}",
                rotated.keyslot,
                slots(&rotated.removed)
            ),
            Change::KeyslotRemoved { keyslot, remaining } => write!(
                f,
                "keyslot {keyslot} removed; keyslots that open the volume: {remaining}"
            ),
            Change::KeyslotPriority { keyslot, priority } => write!(
                f,
                "{image}: keyslot {keyslot} has priority {}",
                names::priority(*priority)
            ),
            Change::KeyslotOpens {
                keyslot,
                bound,
                token,
            } => {
                write!(f, "keyslot {keyslot} opens")?;
                f.write_str(match bound {
                    true => " the volume",
                    false => "; it is unbound and does not open the volume",
                })?;
                by_token(f, ", by token", *token)
            }
            Change::VolumeKeyWritten { file, key_bits } => write!(
                f,
                "{}: volume key of {image}, {key_bits} bits",
                file.display()
            ),
            Change::Converted { version, .. } => write!(f, "{image} is now {version}"),
            Change::Configured {
                uuid,
                label,
                subsystem,
            } => {
                write!(f, "{image}: UUID {uuid}")?;
                for (name, text) in [("label", label), ("subsystem", subsystem)] {
                    match text.as_deref() {
                        Some("") => write!(f, ", no {name}")?,
                        Some(text) => write!(f, ", {name} {text}")?,
                        None => {}
                    }
                }
                Ok(())
            }
            Change::Resized { size, .. } => {
                write!(f, "{image} has {} for the guest now", size::both(*size))
            }
            Change::Reencrypted(done) => {
                let new = slots(&done.keyslots);
                match done.finished {
                    true if done.was_plain => write!(
                        f,
                        "{image} is encrypted; keyslots: {new}; old blocks of the disk may still hold \
                         plaintext"
                    )?,
                    false if done.was_plain => write!(
                        f,
                        "{image}: ready to be encrypted, and still plaintext; keyslots: {new}"
                    )?,
                    true => write!(
                        f,
                        "{image} has a new encryption; keyslots: {new}; header backups from before \
                         no longer open the data"
                    )?,
                    false => write!(f, "{image}: ready to be reencrypted; new keyslots: {new}")?,
                }
                if !done.dropped.is_empty() {
                    write!(f, "; dropped: {}", slots(&done.dropped))?;
                }
                Ok(())
            }
            Change::TokenImported { token } => write!(f, "token {token} imported"),
            Change::TokenAdded { token, keyslots } => {
                write!(f, "token {token} added; keyslots: {}", slots(keyslots))
            }
            Change::TokenExported { token, file } => {
                write!(f, "{}: token {token} of {image}", file.display())
            }
            Change::TokenRemoved { token } => write!(f, "token {token} removed"),
            Change::TokenUnassigned { token, keyslot } => {
                write!(f, "token {token} no longer lists keyslot {keyslot}")
            }
        }
    }
}
