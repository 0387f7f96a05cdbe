//! Errors of Ceph, and which [`IoError`] each of them becomes.

use std::io;
use std::sync::Arc;

use luksmith_formats::rbd::Uri;

use crate::backend::{IoError, Operation};
use crate::secret::SecretError;
use crate::sys::LoadError;

/// A problem with an image in Ceph.
#[derive(Debug, thiserror::Error)]
#[error("{image}")]
#[non_exhaustive]
pub struct RbdError {
    /// The URI of the image.
    pub image: Arc<str>,
    /// The problem.
    pub source: Problem,
}

/// The problem with an image in Ceph.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Problem {
    /// The client libraries of Ceph cannot be used.
    #[error("the client libraries of ceph cannot be used")]
    Library(#[from] LoadError),
    /// The configuration file cannot be read.
    #[error("the configuration of ceph, {path}, cannot be read")]
    Configuration {
        /// The path of the file.
        path: String,
        /// The error of the library.
        source: io::Error,
    },
    /// The library takes no such value of an option.
    #[error("ceph's option {0} cannot be set")]
    Option(&'static str, #[source] io::Error),
    /// There is no locked memory for the key.
    #[error("the key of the user cannot be given to ceph's library")]
    Key(#[source] SecretError),
    /// The user has no key, or the cluster does not accept it.
    #[error("the cluster does not let the user client.{user} in")]
    Denied {
        /// The user, without `client.`.
        user: String,
        /// The error of the library.
        source: io::Error,
    },
    /// The cluster cannot be reached.
    #[error("the cluster cannot be reached")]
    Unreachable(#[source] io::Error),
    /// There is no such pool.
    #[error("there is no pool of that name")]
    NoPool,
    /// There is no such image.
    #[error("there is no image of that name")]
    NoImage,
    /// There is no such snapshot.
    #[error("there is no snapshot of that name")]
    NoSnapshot,
    /// An image of that name was made meanwhile.
    #[error("there is an image of that name by now")]
    Exists,
    /// A snapshot was opened for writing.
    #[error("a snapshot is read-only")]
    Snapshot,
    /// The image was opened for writing, and has no exclusive lock.
    #[error("the image has not the feature exclusive-lock, without which nothing is written to it")]
    NoLock,
    /// Another client has the image open for writing.
    #[error("another client has it open{}", held(.0))]
    Busy(Vec<String>),
    /// A call of the library failed.
    #[error("{0} failed")]
    Failed(&'static str, #[source] io::Error),
}

impl RbdError {
    pub(super) fn new(uri: &Uri, source: Problem) -> Self {
        let image = uri.to_string().into();
        Self { image, source }
    }
}

impl Problem {
    /// The error of a call that returned this negative number.
    pub(super) fn failed(what: &'static str, answer: i32) -> Self {
        Self::Failed(what, os_error(answer))
    }
}

/// The error that a negative return value means.
pub(super) fn os_error(answer: i32) -> io::Error {
    io::Error::from_raw_os_error(answer.saturating_neg())
}

/// The error of `operation` at byte `offset`, whose call returned this negative number.
pub(super) fn io_error(answer: i32, operation: Operation, offset: u64) -> IoError {
    IoError::from_os(operation, offset, os_error(answer))
}

fn held(holders: &[String]) -> String {
    match holders {
        [] => String::new(),
        holders => format!(": {}", holders.join(", ")),
    }
}
