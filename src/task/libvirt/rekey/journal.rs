//! The journal of a disk that gets a new volume: the names of the two volumes and secrets, and the
//! stage that was reached.

use std::fmt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use luksmith_formats::nbd::uri::Uri;

use crate::libvirt::Connection;
use crate::location::Location;
use crate::task::libvirt::identity::{Identity, path_in_pool};
use crate::task::open::ImageFormat;
use crate::task::{Error, Kind};

/// The stage that was reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Stage {
    /// The new volume and its secret are being made. No disk is the new volume.
    Making,
    /// The new volume exists, and its secret opens it. The disk is the old volume until the copy is
    /// complete, and the new one from then on.
    Copying,
    /// The disk is the new volume, in the running domain and in its definition.
    Switched,
    /// Nothing names the old volume. Its header is being erased, and its secret removed.
    Erasing,
}

/// The content of a journal.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Journal {
    pub(super) stage: Stage,
    pub(super) old: Side,
    pub(super) new: Side,
    /// Whether the images are qcow2.
    pub(super) qcow2: bool,
    /// The size of the plaintext, in bytes.
    pub(super) size: u64,
    /// Whether libvirt does not return the value of the new secret.
    pub(super) private: bool,
    /// Whether the domain ran when the copy began.
    pub(super) online: bool,
}

/// A volume and its secret.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Side {
    pub(super) at: At,
    /// Its LUKS UUID.
    pub(super) uuid: String,
    /// The secret that opens it.
    pub(super) secret: Uuid,
}

/// Where a volume is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum At {
    /// A file or a device of this host.
    Path(PathBuf),
    /// A volume of a pool.
    Pool { pool: String, name: String },
    /// An export of an NBD server, by its URI.
    Export(String),
}

impl At {
    /// The place of a volume that this process opens.
    pub(super) fn of(location: &Location) -> Option<Self> {
        match location {
            Location::Path(path) => Some(Self::Path(path.clone())),
            Location::Nbd(uri) => Some(Self::Export(uri.to_string())),
            _ => None,
        }
    }

    /// Where this process opens it.
    pub(super) fn location(&self, connection: &Connection) -> Result<Location, Error> {
        match self {
            Self::Path(path) => Ok(Location::Path(path.clone())),
            Self::Pool { pool, name } => {
                let path = path_in_pool(connection, pool, name);
                let missing = || Error::new(Kind::Storage, format!("{self} is not there"));
                path.map(|path| Location::Path(path.into()))
                    .ok_or_else(missing)
            }
            Self::Export(uri) => match Uri::parse(uri) {
                Ok(uri) => Ok(Location::Nbd(Box::new(uri))),
                Err(error) => Err(Error::new(Kind::Damaged, error).about(uri)),
            },
        }
    }

    /// Whether the path of a volume has its name.
    pub(super) fn is_named(&self, path: &str) -> bool {
        let last = Path::new(path).file_name();
        match self {
            Self::Path(own) => own.file_name() == last,
            Self::Pool { name, .. } => last.is_some_and(|last| last == name.as_str()),
            Self::Export(_) => false,
        }
    }

    /// Which storage it is.
    pub(super) fn identity(&self, connection: &Connection) -> Result<Identity, Error> {
        let location = match self {
            Self::Pool { pool, name } => Location::Pool {
                pool: pool.clone(),
                volume: name.clone(),
            },
            other => other.location(connection)?,
        };
        Ok(Identity::of_location(&location, Some(connection)))
    }
}

impl fmt::Display for At {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Path(path) => path.display().fmt(f),
            Self::Pool { pool, name } => write!(f, "{name} in the pool {pool}"),
            Self::Export(uri) => f.write_str(uri),
        }
    }
}

impl Journal {
    pub(super) fn format(&self) -> ImageFormat {
        match self.qcow2 {
            true => ImageFormat::Qcow2,
            false => ImageFormat::Raw,
        }
    }
}

/// The name of the journal of a disk.
pub(super) fn name(domain: &Uuid, target: &str) -> Result<String, Error> {
    if target.is_empty() || !target.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
        let message = format!("{target} cannot be the name of a disk");
        return Err(Error::parameters(message));
    }
    Ok(format!("rekey-{domain}-{target}"))
}

/// A name beside `old` that no volume has: that of the old one, without the mark of an earlier run,
/// and with a new mark before its ending.
pub(super) fn new_name(old: &Path, mark: u32) -> String {
    let part =
        |part: Option<&std::ffi::OsStr>| part.map(|part| part.to_string_lossy().into_owned());
    let stem = part(old.file_stem()).unwrap_or_else(|| "volume".to_owned());
    let stem = match stem.rsplit_once("-k") {
        Some((before, earlier)) if is_mark(earlier) && !before.is_empty() => before,
        _ => &stem,
    };
    let ending = part(old.extension()).map_or_else(String::new, |ending| format!(".{ending}"));
    format!("{stem}-k{mark:08x}{ending}")
}

fn is_mark(text: &str) -> bool {
    text.len() == 8
        && text
            .bytes()
            .all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_name_does_not_grow_from_run_to_run() {
        for (old, new) in [
            ("/pool/vm1.luks", "vm1-k0000beef.luks"),
            ("/pool/vm1-k12345678.luks", "vm1-k0000beef.luks"),
            ("/pool/vm1-k1234567.luks", "vm1-k1234567-k0000beef.luks"),
            ("/pool/-k12345678", "-k12345678-k0000beef"),
            ("/pool/disk", "disk-k0000beef"),
            ("/pool/.img", ".img-k0000beef"),
            ("/", "volume-k0000beef"),
        ] {
            assert_eq!(new_name(Path::new(old), 0xbeef), new);
        }
    }

    #[test]
    fn the_name_of_a_journal_is_a_name_in_its_folder() {
        let uuid = Uuid::nil();
        assert_eq!(name(&uuid, "vda").unwrap(), format!("rekey-{uuid}-vda"));
        for bad in ["", "../x", "a/b", "a b"] {
            assert!(name(&uuid, bad).is_err(), "{bad}");
        }
    }
}
