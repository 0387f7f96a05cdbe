//! A server of volumes for all kinds of clients: those of NBD, and emulators that use a volume as
//! the disk of a virtual machine (vhost-user). They share the exports.

use std::path::Path;
use std::sync::Arc;

use super::disk_sockets::{self, DiskSocket, OpenDisk};
use super::listen::{Listen, Listening};
use super::{Advice, Error, Watch};
use crate::export::{Export, nbd, vhost_user};

/// Where the clients of a service connect. Nothing is open yet.
#[derive(Debug, Default)]
pub struct Places {
    nbd: Option<Listen>,
    disks: Vec<Option<DiskSocket>>,
}

impl Places {
    /// Clients of NBD connect to `nbd`, and there is a socket for each export that is the disk of a
    /// virtual machine, in the order of the exports.
    ///
    /// # Errors
    /// [`Kind::Parameters`](super::Kind::Parameters) if there is neither, or if an export would be
    /// served nowhere.
    pub fn new(nbd: Option<Listen>, disks: Vec<Option<DiskSocket>>) -> Result<Self, Error> {
        if nbd.is_none() && disks.iter().any(Option::is_none) {
            let message = "an export has no socket where a client could connect";
            return Err(Error::parameters(message).advise(Advice::SocketOfEach));
        }
        Ok(Self { nbd, disks })
    }

    /// Fails if [`start`](Service::start) would, as far as that is known before.
    ///
    /// # Errors
    /// As [`Service::start`].
    pub fn check(&self) -> Result<(), Error> {
        self.nbd.iter().try_for_each(Listen::check)?;
        self.disks.iter().flatten().try_for_each(DiskSocket::check)
    }
}

/// The limits of both kinds of servers, and their rules for clients.
#[derive(Clone, Default)]
#[non_exhaustive]
pub struct Options {
    /// Those for clients of NBD.
    pub nbd: nbd::Options,
    /// Those for emulators.
    pub vhost_user: vhost_user::Options,
}

/// A server of exports.
pub struct Service {
    exports: Vec<Arc<Export>>,
    places: Places,
    nbd: nbd::Server,
    vhost_user: vhost_user::Server,
}

impl Service {
    /// A server of these exports at these places.
    ///
    /// # Errors
    /// Those of [`nbd::Server::new`] and [`vhost_user::Server::new`].
    pub fn new(exports: Vec<Export>, places: Places, options: Options) -> Result<Self, Error> {
        let exports: Vec<_> = exports.into_iter().map(Arc::new).collect();
        Ok(Self {
            nbd: nbd::Server::new(exports.clone(), options.nbd)?,
            vhost_user: vhost_user::Server::new(options.vhost_user)?,
            exports,
            places,
        })
    }

    /// A function that stops the server, from any thread.
    pub fn stopper(&self) -> impl Fn() + Clone + Send + Sync + 'static {
        let (nbd, vhost_user) = (self.nbd.stopper(), self.vhost_user.stopper());
        move || {
            nbd.stop();
            vhost_user.stop();
        }
    }

    /// Creates the sockets. From now on clients can connect; they wait until [`Running::serve`].
    ///
    /// # Errors
    /// Those of [`Listen::start`] and [`DiskSocket::start`].
    pub fn start(self, watch: &dyn Watch) -> Result<Running<'_>, Error> {
        let nbd = self.places.nbd.map(|nbd| nbd.start(watch)).transpose()?;
        let start = |socket: Option<DiskSocket>| socket.map(|it| it.start(watch)).transpose();
        let disks = self.places.disks.into_iter().map(start);
        Ok(Running {
            disks: disks.collect::<Result<_, _>>()?,
            exports: self.exports,
            nbd,
            nbd_server: self.nbd,
            vhost_user: self.vhost_user,
        })
    }
}

/// A server whose sockets listen.
pub struct Running<'a> {
    exports: Vec<Arc<Export>>,
    nbd: Option<Listening<'a>>,
    disks: Vec<Option<OpenDisk<'a>>>,
    nbd_server: nbd::Server,
    vhost_user: vhost_user::Server,
}

impl Running<'_> {
    /// Where clients of NBD connect.
    #[must_use]
    pub fn nbd(&self) -> Option<&Listening<'_>> {
        self.nbd.as_ref()
    }

    /// The exports, and for a disk of a virtual machine its socket.
    pub fn exports(&self) -> impl Iterator<Item = (&Export, Option<&Path>)> {
        let disks = self.disks.iter().map(Option::as_ref);
        let sockets = disks.map(|disk| disk.map(OpenDisk::path));
        self.exports.iter().map(Arc::as_ref).zip(sockets)
    }

    /// Serves all clients until the server is stopped. If one kind of server ends, the other one is
    /// stopped too.
    ///
    /// # Errors
    /// Those of [`Listening::serve`] and [`disk_sockets::serve`].
    pub fn serve(self) -> Result<(), Error> {
        let (nbd_server, vhost_user) = (&self.nbd_server, &self.vhost_user);
        let with_exports = self.disks.into_iter().zip(&self.exports);
        let disks = with_exports.filter_map(|(disk, export)| Some(disk?.disk(export.clone())));
        let disks = disks.collect::<Result<Vec<_>, _>>()?;
        let Some(nbd) = self.nbd else {
            return disk_sockets::serve(vhost_user, disks);
        };
        if disks.is_empty() {
            return nbd.serve(nbd_server);
        }
        std::thread::scope(|scope| {
            let builder = std::thread::Builder::new().name("vhost-user-listen".to_owned());
            let serve_disks = move || {
                let served = disk_sockets::serve(vhost_user, disks);
                nbd_server.stopper().stop();
                served
            };
            let others = builder.spawn_scoped(scope, serve_disks);
            let others = others.map_err(Error::thread)?;
            let served = nbd.serve(nbd_server);
            vhost_user.stopper().stop();
            let panicked = |_| Err(Error::thread(std::io::Error::other("a thread failed")));
            others.join().unwrap_or_else(panicked).and(served)
        })
    }
}
