//! Errors of object stores.

use super::kinds;
use crate::http::AuthoritiesError;
use crate::objects::s3::S3Error;
use crate::objects::{CacheError, JournalError, ObjectsError, StoreError};
use crate::task::Kind;

kinds! {
    ObjectsError => objects,
    S3Error => s3,
}

fn objects(error: &ObjectsError) -> Kind {
    match error {
        ObjectsError::Store { source, .. } => store(source),
        ObjectsError::Format { source, .. } => super::format(source),
        ObjectsError::Damaged { .. } => Kind::Damaged,
        ObjectsError::Exists | ObjectsError::SnapshotExists => Kind::Exists,
        ObjectsError::Busy { .. } | ObjectsError::Fenced => Kind::Busy,
        ObjectsError::Overwrites => Kind::Unsupported,
        ObjectsError::JournalMode { .. } => Kind::Parameters,
        ObjectsError::JournalLost { .. } => Kind::Busy,
        ObjectsError::Journal(JournalError::File { source, .. }) => Kind::of_io(source),
        ObjectsError::Journal(JournalError::Damaged { .. }) => Kind::Damaged,
        ObjectsError::Journal(_) => Kind::Parameters,
        ObjectsError::Cache(CacheError::File { source, .. }) => Kind::of_io(source),
        ObjectsError::Cache(_) => Kind::Parameters,
        ObjectsError::ReadOnly => Kind::Permission,
        ObjectsError::SnapshotName => Kind::Parameters,
        ObjectsError::Absent
        | ObjectsError::Occupied { .. }
        | ObjectsError::NoSnapshot
        | ObjectsError::Abandoned
        | ObjectsError::Failed(_) => Kind::Storage,
    }
}

fn store(error: &StoreError) -> Kind {
    match error {
        StoreError::Denied(_) => Kind::Permission,
        _ => Kind::Storage,
    }
}

fn s3(error: &S3Error) -> Kind {
    match error {
        S3Error::Authorities(AuthoritiesError::File { source, .. })
        | S3Error::Profiles { source, .. } => Kind::of_io(source),
        S3Error::NoKey | S3Error::NoProfile { .. } => Kind::Permission,
        S3Error::TokenInClear => Kind::Parameters,
        _ => Kind::Storage,
    }
}
