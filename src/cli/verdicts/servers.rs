//! Hints after a failure of storage on a server.

use std::error::Error;
use std::io::ErrorKind;

use luksmith::backend::http::{self, HttpError};
use luksmith::backend::rbd::{self, RbdError};
use luksmith::objects::s3::S3Error;
use luksmith::objects::{JournalError, ObjectsError, StoreError};
use luksmith::sys::LoadError;

use super::row::{Hint, Row};

hints! {
    else super::tokens::hint;

    RbdError {
        RbdError { source: rbd::Problem::Library(LoadError::NotInstalled { .. }), .. } =>
            "install Ceph's client library: librbd1 on Debian, Ubuntu and Fedora",
        RbdError { source: rbd::Problem::Library(_), .. } =>
            "reinstall Ceph's client library with its dependencies: librbd1 on Debian, Ubuntu and \
             Fedora",
        RbdError { source: rbd::Problem::Configuration { .. }, .. } =>
            "rbd://POOL/IMAGE?conf=PATH names the configuration file of the cluster, and mon=HOST a \
             monitor",
        RbdError { source: rbd::Problem::Denied { .. }, .. } =>
            "rbd://POOL/IMAGE?id=USER names another user; its key is in the keyring that the \
             configuration names, or in the libvirt secret of secret=UUID",
        RbdError { source: rbd::Problem::Unreachable(_), .. } =>
            "--timeout SECONDS waits longer; `ceph -s` shows the state of the cluster",
        RbdError { source: rbd::Problem::Failed(_, error), .. }
            if error.kind() == ErrorKind::TimedOut =>
            "--timeout SECONDS waits longer; `ceph -s` shows the state of the cluster",
        RbdError { source: rbd::Problem::NoLock, .. } =>
            "`rbd feature enable POOL/IMAGE exclusive-lock` gives it one",
        RbdError { source: rbd::Problem::NoImage, .. } =>
            "`rbd ls -l POOL` shows the images; `luksmith create` and `encrypt` make one",
        RbdError { source: rbd::Problem::Busy(_), .. } =>
            "stop what has it open; a client that was killed or cut off loses the image after 30 \
             seconds",
        RbdError { source: rbd::Problem::Snapshot, .. } =>
            "name the image without @SNAPSHOT, or clone the snapshot",
    }

    ObjectsError {
        ObjectsError::Store { source: StoreError::Denied(_), .. } =>
            "check the access key, its rights (get, put, delete and list), and the clock of this \
             host",
        ObjectsError::Store { source: StoreError::NoBucket, .. } =>
            "name a bucket that exists: luksmith makes none; ?endpoint=URL names the service",
        ObjectsError::Store { source: StoreError::NoService(error), .. }
            if error.kind() == ErrorKind::InvalidData =>
            "?ca=PATH names a file with the certificates of the authorities to trust",
        ObjectsError::Store { source: StoreError::Unreachable(_) | StoreError::NoService(_), .. } =>
            "--timeout SECONDS waits longer; ?endpoint=URL names the service",
        ObjectsError::Absent => "`luksmith create` and `encrypt` make a volume",
        ObjectsError::Occupied { .. } => "name another prefix, or delete the objects",
        ObjectsError::Overwrites =>
            "use a service that creates objects conditionally (If-None-Match); reading works. \
             `create`, `encrypt` and `copy` make a volume for this one with --force unfenced",
        ObjectsError::Journal(JournalError::Damaged { .. }) =>
            "`luksmith objects take-over VOLUME --force journal-lost` uses what is before the damage",
        ObjectsError::JournalMode { wanted: true } =>
            "?journal=PATH names the file; reading needs none",
        ObjectsError::JournalMode { wanted: false } =>
            "leave journal= out: `create` decides whether a volume has a journal",
        ObjectsError::JournalLost { .. } =>
            "open it on that host with its journal=PATH, or give it up: `luksmith objects take-over \
             VOLUME --force journal-lost`",
        ObjectsError::Busy { .. } =>
            "stop that writer; if it was killed: `luksmith objects take-over VOLUME`",
        ObjectsError::ReadOnly => "name the volume without @SNAPSHOT",
    }

    S3Error {
        S3Error::NoKey =>
            "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or name a profile of ~/.aws with \
             ?profile=NAME",
        S3Error::TokenInClear =>
            "?endpoint=https://… names the service with TLS; an access key without a session token \
             sends no secret",
        S3Error::NoProfile { .. } => "profiles are in ~/.aws/credentials and ~/.aws/config",
        S3Error::Authorities(_) =>
            "?ca=PATH names a file with the certificates of the authorities to trust",
    }

    HttpError {
        HttpError { source: http::Problem::Unreachable(error), .. }
            if error.kind() == ErrorKind::InvalidData =>
            "https://…#tls-certificates=DIR names a folder with the ca-cert.pem to trust",
        HttpError { source: http::Problem::Unreachable(error), .. }
            if error.kind() == ErrorKind::InvalidInput =>
            "`curl -v URL` shows what the server answers",
        HttpError { source: http::Problem::Unreachable(_), .. } =>
            "--timeout SECONDS waits longer for a slow server",
        HttpError { source: http::Problem::Authorities(_), .. } =>
            "https://…#tls-certificates=DIR names a folder with ca-cert.pem",
        HttpError { source: http::Problem::NoRanges | http::Problem::NoVersion, .. } =>
            "download the file, or serve it with a server that has ranges and versions",
        HttpError { source: http::Problem::Changed, .. } =>
            "run this again to read the new file; what was written until now is not whole",
        HttpError { source: http::Problem::ReadOnly, .. } =>
            "`luksmith copy` makes a copy that can be changed; `serve` takes --read-only",
    }
}
