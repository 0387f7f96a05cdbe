//! What a disk needs besides its XML.

use std::fmt;

use crate::libvirt::xml::SecretRef;
use crate::task::emulator::User;
use crate::task::open::ImageFormat;

/// How luksmith serves a volume to the emulator.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum ServedBy {
    /// Over NBD.
    #[default]
    Nbd,
    /// By memory that the guest shares (vhost-user).
    VhostUser,
}

/// What a disk needs besides its XML.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Need {
    /// luksmith has to serve the volume before the domain starts.
    Serving {
        /// The path or URI of the volume.
        image: String,
        /// The path or URI of its header, if that is detached.
        header: Option<String>,
        /// The format of the image.
        format: ImageFormat,
        /// How it is served.
        by: ServedBy,
        /// The Unix socket.
        socket: String,
        /// The name of the export over NBD.
        export: String,
        /// The emulator's user, which the server has to admit.
        user: Option<User>,
        /// The secret that opens the volume, if the options name it.
        secret: Option<SecretRef>,
    },
    /// The emulator's user is not known on this host, and the socket has to admit it.
    EmulatorUser,
    /// The domain has to share its memory.
    SharedMemory,
    /// Several secrets need libvirt 9.3 or newer.
    Layers,
    /// libvirt takes the certificates for TLS from `qemu.conf`, not from the URI.
    Certificates,
}

impl fmt::Display for Need {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Serving { image, socket, .. } => write!(
                f,
                "luksmith has to serve {image} on {socket} before the domain starts"
            ),
            Self::EmulatorUser => f.write_str(
                "the socket has to admit the emulator's user, which is not known on this host",
            ),
            Self::SharedMemory => f.write_str(
                "the domain has to share its memory: <memoryBacking><source type='memfd'/>\
                 <access mode='shared'/></memoryBacking>",
            ),
            Self::Layers => f.write_str("several secrets need libvirt 9.3 or newer"),
            Self::Certificates => f.write_str(
                "libvirt takes its certificates from nbd_tls_x509_cert_dir of qemu.conf, not from \
                 the URI",
            ),
        }
    }
}
