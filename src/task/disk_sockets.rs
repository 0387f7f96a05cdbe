//! The sockets where the emulators of virtual machines reach their disks (vhost-user). The rules
//! are those for the Unix socket of an NBD server: see `unix_socket.rs`.

use std::os::unix::net::UnixListener;
use std::path::Path;
use std::sync::Arc;

use super::unix_socket::{self, SocketFile};
use super::{Error, Watch};
use crate::export::Export;
use crate::export::vhost_user::{Disk, Server};

pub use super::unix_socket::UnixSocket;

/// The socket of a disk, which is created, and what its guest sees.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct DiskSocket {
    /// The socket.
    pub socket: UnixSocket,
    /// The size of the blocks of the disk, in bytes. Default: 512.
    pub block_size: u32,
}

impl DiskSocket {
    /// A disk with blocks of 512 bytes at this socket.
    #[must_use]
    pub fn new(socket: UnixSocket) -> Self {
        Self {
            socket,
            block_size: 512,
        }
    }

    /// Fails if [`start`](Self::start) would, as far as that is known before: for a caller that
    /// asks for passphrases first. The folder of the socket is made if it does not exist.
    ///
    /// # Errors
    /// As [`start`](Self::start).
    pub fn check(&self) -> Result<(), Error> {
        unix_socket::check(&self.socket)
    }

    /// Creates the socket. From now on an emulator can connect; it waits until
    /// [`OpenDisk::disk`] is served.
    ///
    /// # Errors
    /// [`Kind::Busy`](super::Kind::Busy) if another process listens there or something else has
    /// this name, [`Kind::Permission`](super::Kind::Permission) if other users can enter the
    /// directory or the system refuses access, and other errors of the system.
    pub fn start(self, watch: &dyn Watch) -> Result<OpenDisk<'_>, Error> {
        let (listener, file) = unix_socket::create(&self.socket, watch)?;
        Ok(OpenDisk {
            listener,
            file,
            block_size: self.block_size,
        })
    }
}

/// The socket of a disk that listens. Its file is removed when this or what
/// [`disk`](Self::disk) returns is dropped.
pub struct OpenDisk<'a> {
    listener: UnixListener,
    file: SocketFile<'a>,
    block_size: u32,
}

/// The file of a socket, which is removed when this is dropped.
pub struct DiskFile<'a>(#[expect(dead_code, reason = "it is dropped")] SocketFile<'a>);

impl<'a> OpenDisk<'a> {
    /// Where emulators find the socket.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.file.path()
    }

    /// The disk, for [`Server::run`], and the file of its socket.
    ///
    /// # Errors
    /// [`Kind::Parameters`](super::Kind::Parameters) for a block size that no disk has.
    pub fn disk(self, export: Arc<Export>) -> Result<(Disk, DiskFile<'a>), Error> {
        let disk = Disk::new(export, self.listener).with_block_size(self.block_size)?;
        Ok((disk, DiskFile(self.file)))
    }
}

/// Serves disks until the server is stopped; see [`Server::run`]. Then removes the files of the
/// sockets.
///
/// # Errors
/// As [`Server::run`].
pub fn serve(server: &Server, disks: Vec<(Disk, DiskFile<'_>)>) -> Result<(), Error> {
    let (disks, files): (Vec<_>, Vec<_>) = disks.into_iter().unzip();
    let served = server.run(disks);
    drop(files);
    Ok(served?)
}
