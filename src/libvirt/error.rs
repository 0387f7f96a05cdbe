//! Errors of calls to libvirt.

use crate::secret::LockError;
use crate::sys::library::LoadError;

/// libvirt's own report of a failure (`virGetLastError`).
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
#[non_exhaustive]
pub struct Reply {
    /// The kind of failure (`virErrorNumber`); 0 if libvirt reported none.
    pub code: i32,
    /// The part of libvirt that reports it (`virErrorDomain`).
    pub domain: i32,
    /// The message, in libvirt's words.
    pub message: String,
}

/// Why a call of libvirt failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LibvirtError {
    /// libvirt's library cannot be loaded.
    #[error(transparent)]
    Library(#[from] LoadError),
    /// The connection could not be opened, or broke.
    #[error("no connection to libvirt")]
    Connection(#[source] Reply),
    /// The caller may not do this: the login failed, or a policy or the read-only connection
    /// forbids it.
    #[error("libvirt denies access")]
    Denied(#[source] Reply),
    /// This driver or this version of the server does not support the call.
    #[error("this libvirt does not support it")]
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
    /// The secret was never given a value, or is ephemeral and lost it when the daemon ended.
    #[error("the secret has no value")]
    NoValue(#[source] Reply),
    /// libvirt does not return the value of a private secret to any client.
    #[error("the secret is private: libvirt does not return its value")]
    Private(#[source] Reply),
    /// Another secret has the same usage.
    #[error("another secret has this usage already")]
    DuplicateUsage(#[source] Reply),
    /// A secret, volume or domain of that name or UUID exists.
    #[error("it exists already")]
    Exists(#[source] Reply),
    /// The object is in use, or another operation on it is under way.
    #[error("it is busy")]
    Busy(#[source] Reply),
    /// The object is in a state in which this cannot be done: a domain does not run, a pool is not
    /// started.
    #[error("not possible in its present state")]
    State(#[source] Reply),
    /// libvirt refuses the XML or an argument.
    #[error("libvirt refuses the request as invalid")]
    Invalid(#[source] Reply),
    /// libvirt did not answer in time.
    #[error("libvirt timed out")]
    TimedOut(#[source] Reply),
    /// Anything else.
    #[error("libvirt failed")]
    Failed(#[source] Reply),
    /// A string holds a NUL byte, which libvirt's strings cannot.
    #[error("{0} holds a NUL byte")]
    Nul(&'static str),
    /// The value of a secret is longer than libvirt takes.
    #[error("the value of {len} bytes is longer than the {limit} bytes that libvirt takes")]
    TooLong {
        /// The length of the value, in bytes.
        len: usize,
        /// The longest value that libvirt takes, in bytes.
        limit: usize,
    },
    /// No locked memory could be allocated for the value.
    #[error("the value of the secret cannot be held safely")]
    Lock(#[from] LockError),
    /// No thread could be started for the call that carries a value.
    #[error("no thread can be started for the value of the secret")]
    Thread(#[source] std::io::Error),
    /// The caller's end of a transfer from or to a storage volume failed.
    #[error("the data of the storage volume could not be read or written here")]
    Local(#[source] std::io::Error),
}

impl LibvirtError {
    /// The variant for libvirt's error code (`virErrorNumber`).
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

    /// libvirt's own report, if the failure came from libvirt.
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

/// The part of libvirt that communicates with its daemon (`VIR_FROM_RPC`).
const RPC: i32 = 7;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_socket_without_permission_is_denied_and_others_are_no_connection() {
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
