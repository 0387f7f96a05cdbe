//! What is made on a server for a new volume: an image in Ceph, or a volume in an object store.

use super::storage::{Remote, Storage};
use super::{Error, ceph, objects};
use crate::location::Location;

/// What does not exist yet, and can be made.
pub(super) enum Absent {
    Ceph(Box<ceph::Absent>),
    Objects(Box<objects::Absent>),
}

/// What was made. It is removed unless it is kept.
pub(super) enum Made {
    Ceph(ceph::Made),
    Objects(Box<objects::Made>),
}

/// What can be made at a location. `None` if it exists, and for other sorts of storage.
pub(super) fn absent(location: &Location, remote: Remote) -> Result<Option<Absent>, Error> {
    Ok(match location {
        Location::Rbd(uri) => {
            let absent = ceph::absent(uri, remote)?;
            absent.map(|absent| Absent::Ceph(Box::new(absent)))
        }
        Location::Objects(uri) => {
            let absent = objects::absent(uri, remote)?;
            absent.map(|absent| Absent::Objects(Box::new(absent)))
        }
        _ => None,
    })
}

/// Makes it with this size.
pub(super) fn make(absent: Absent, size: u64) -> Result<(Storage, Made), Error> {
    Ok(match absent {
        Absent::Ceph(absent) => {
            let (storage, made) = ceph::make(*absent, size)?;
            (storage, Made::Ceph(made))
        }
        Absent::Objects(absent) => {
            let (storage, made) = objects::make(*absent, size)?;
            (storage, Made::Objects(Box::new(made)))
        }
    })
}

impl Absent {
    /// What it is, for messages.
    pub(super) fn what(&self) -> &'static str {
        match self {
            Self::Ceph(_) => "image in ceph",
            Self::Objects(_) => "volume in an object store",
        }
    }

    pub(super) fn is_objects(&self) -> bool {
        matches!(self, Self::Objects(_))
    }

    /// The stripe period of the image in bytes, if it is one in Ceph.
    pub(super) fn period(&self) -> Option<u64> {
        match self {
            Self::Ceph(absent) => Some(absent.period()),
            Self::Objects(_) => None,
        }
    }
}

impl Made {
    pub(super) fn keep(self) {
        match self {
            Self::Ceph(made) => made.keep(),
            Self::Objects(made) => made.keep(),
        }
    }
}
