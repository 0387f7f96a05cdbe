//! What can go wrong between us and libvirt.

use crate::secret::LockError;

/// What libvirt says of a failure: the error of the last call on this thread (`virGetLastError`).
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Reply {
    /// Which failure (`virErrorNumber`); 0 where libvirt left none.
    pub code: i32,
    /// Which part of libvirt reports it (`virErrorDomain`).
    pub domain: i32,
    /// Its own words.
    pub message: String,
}

/// Why a call of libvirt failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LibvirtError {
    /// The library is not there.
    #[error("libvirt is not installed: {library} cannot be loaded")]
    NotInstalled {
        /// The file that was looked for.
        library: &'static str,
        /// What the loader says.
        source: libloading::Error,
    },
    /// The library is there, and is damaged or lacks something that it needs itself.
    #[error("the installed {library} cannot be loaded")]
    Broken {
        /// The library's file.
        library: &'static str,
        /// What the loader says.
        source: libloading::Error,
    },
    /// The library is older than what is needed.
    #[error("the installed {library} is too old: it has no {function}")]
    TooOld {
        /// The library's file.
        library: &'static str,
        /// What it lacks.
        function: &'static str,
    },
    /// No connection could be made, or it broke.
    #[error("no connection to libvirt")]
    Connection(#[source] Reply),
    /// Whoever asks may not do this: logging in failed, or policy or a read-only connection forbids it.
    #[error("libvirt denies it")]
    Denied(#[source] Reply),
    /// Neither this driver nor this version of the server can do it.
    #[error("this libvirt cannot do it")]
    Unsupported(#[source] Reply),
    /// There is no such domain.
    #[error("no such domain")]
    NoDomain(#[source] Reply),
    /// There is no such storage pool.
    #[error("no such storage pool")]
    NoPool(#[source] Reply),
    /// There is no such storage volume.
    #[error("no such storage volume")]
    NoVolume(#[source] Reply),
    /// There is no such secret.
    #[error("no such secret")]
    NoSecret(#[source] Reply),
    /// The secret was defined, and never given a value, or an ephemeral one lost it with the daemon.
    #[error("the secret has no value")]
    NoValue(#[source] Reply),
    /// The value of a private secret is given to nobody.
    #[error("the secret is private: libvirt gives its value to nobody")]
    Private(#[source] Reply),
    /// Another secret is for the same use already.
    #[error("there is a secret for this use already")]
    DuplicateUsage(#[source] Reply),
    /// A secret, volume or domain of that name or UUID is there already.
    #[error("it exists already")]
    Exists(#[source] Reply),
    /// It is in use, or another operation on it is under way.
    #[error("it is busy")]
    Busy(#[source] Reply),
    /// The object is not in a state in which this can be done (a domain that does not run, a pool that is not started).
    #[error("not in its present state")]
    State(#[source] Reply),
    /// libvirt does not like the XML, or an argument.
    #[error("libvirt refuses what it was given")]
    Invalid(#[source] Reply),
    /// It did not answer in time.
    #[error("libvirt timed out")]
    TimedOut(#[source] Reply),
    /// Anything else.
    #[error("libvirt failed")]
    Failed(#[source] Reply),
    /// A text holds a NUL byte, which none of libvirt's may.
    #[error("{0} holds a NUL byte")]
    Nul(&'static str),
    /// More bytes than libvirt takes for the value of a secret.
    #[error("the value of {len} bytes is more than the {limit} that libvirt takes")]
    TooLong {
        /// Bytes that were to be set.
        len: usize,
        /// The most it takes.
        limit: usize,
    },
    /// The value could not be held in locked memory.
    #[error("the value of the secret cannot be held safely")]
    Lock(#[from] LockError),
    /// The call that carries the value has no thread of its own to run on.
    #[error("no thread can be started for the value of the secret")]
    Thread(#[source] std::io::Error),
    /// A stream from or to a storage volume ended on our side.
    #[error("the data of the storage volume could not be read or written here")]
    Local(#[source] std::io::Error),
}

impl LibvirtError {
    /// Sorts what libvirt says by its code (`virErrorNumber`).
    pub(super) fn of(reply: Reply) -> Self {
        match reply.code {
            38 if reply.domain == RPC && reply.message.ends_with("Permission denied") => {
                Self::Denied(reply)
            }
            1 | 38..=40 if reply.domain == RPC => Self::Connection(reply),
            4 | 5 | 85 | 95 | 98 => Self::Connection(reply),
            29 | 45 | 79 | 88 | 94 => Self::Denied(reply),
            3 | 67 | 74 | 84 => Self::Unsupported(reply),
            42 => Self::NoDomain(reply),
            49 => Self::NoPool(reply),
            50 => Self::NoVolume(reply),
            66 => Self::NoSecret(reply),
            28 | 90 => Self::Exists(reply),
            87 => Self::Busy(reply),
            55 => Self::State(reply),
            8 | 27 | 35 | 92 => Self::Invalid(reply),
            68 | 86 => Self::TimedOut(reply),
            _ => Self::Failed(reply),
        }
    }

    /// What libvirt itself said, if it was asked.
    #[must_use]
    pub fn reply(&self) -> Option<&Reply> {
        match self {
            Self::Connection(reply)
            | Self::Denied(reply)
            | Self::Unsupported(reply)
            | Self::NoDomain(reply)
            | Self::NoPool(reply)
            | Self::NoVolume(reply)
            | Self::NoSecret(reply)
            | Self::NoValue(reply)
            | Self::Private(reply)
            | Self::DuplicateUsage(reply)
            | Self::Exists(reply)
            | Self::Busy(reply)
            | Self::State(reply)
            | Self::Invalid(reply)
            | Self::TimedOut(reply)
            | Self::Failed(reply) => Some(reply),
            _ => None,
        }
    }
}

impl LibvirtError {
    /// Why the loader did not load the library.
    pub(super) fn unloaded(library: &'static str, source: libloading::Error) -> Self {
        let says = std::error::Error::source(&source)
            .map_or_else(|| source.to_string(), |inner| inner.to_string());
        // Something that it needs may be missing too; that is named first then.
        let missing = says.starts_with(library) && says.contains("No such file");
        if missing {
            Self::NotInstalled { library, source }
        } else {
            Self::Broken { library, source }
        }
    }
}

/// The part of libvirt that talks to its daemon (`VIR_FROM_RPC`).
const RPC: i32 = 7;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_socket_that_does_not_let_one_in_denies() {
        let reply = |message: &str| Reply {
            code: 38,
            domain: RPC,
            message: message.to_owned(),
        };
        let socket = "Failed to connect socket to '/run/libvirt/libvirt-sock'";
        let denied = LibvirtError::of(reply(&format!("{socket}: Permission denied")));
        assert!(matches!(denied, LibvirtError::Denied(_)));
        for other in [
            &format!("{socket}: No such file or directory"),
            "Cannot recv data: me@host: Permission denied (publickey).: Connection reset by peer",
        ] {
            let failed = LibvirtError::of(reply(other));
            assert!(matches!(failed, LibvirtError::Connection(_)), "{other}");
        }
    }
}
