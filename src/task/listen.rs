//! The sockets of an NBD server: a Unix socket that is created, a TCP port, or listening sockets
//! that the caller passes.
//!
//! A place where strangers would get the plaintext is refused. A Unix socket is never open to more
//! users than it is meant for, not even for a moment: see `unix_socket.rs`.
//!
//! Nothing here reads the environment. A program that systemd starts passes the sockets that it got
//! from there as [`Place::Open`].

use std::net::{SocketAddr, TcpListener, ToSocketAddrs};
use std::path::PathBuf;

use luksmith_formats::nbd::uri::{Transport, Uri};

pub use super::open_sockets::OpenSockets;
use super::open_sockets::{tcp_address, transport};
use super::unix_socket::{self, SocketFile};
use super::{Advice, Error, Kind, Watch};
use crate::export::nbd::{Listener, Options, Server};

pub use super::unix_socket::UnixSocket;

/// Where clients connect.
#[derive(Debug)]
#[non_exhaustive]
pub enum Place {
    /// A Unix socket, which is created.
    Unix(UnixSocket),
    /// TCP, on the first of these addresses that can be bound.
    Tcp(Vec<SocketAddr>),
    /// Listening sockets of the caller.
    Open(OpenSockets),
}

impl Place {
    /// A Unix socket for the user of this process only, in a directory that is closed to other
    /// users.
    #[must_use]
    pub fn unix(path: impl Into<PathBuf>) -> Self {
        Self::Unix(UnixSocket::new(path))
    }

    /// A TCP port. Port 0 stands for a free one; [`Listening::uri`] tells which.
    ///
    /// # Errors
    /// [`Kind::Parameters`] where the text is no address and port, or the name cannot be resolved.
    pub fn tcp(address: impl ToSocketAddrs) -> Result<Self, Error> {
        match address.to_socket_addrs() {
            Ok(addresses) => Ok(Self::Tcp(addresses.collect())),
            Err(error) => Err(Error::new(Kind::Parameters, error).advise(Advice::AddressAndPort)),
        }
    }

    /// The TCP addresses.
    fn addresses(&self) -> Result<Vec<SocketAddr>, Error> {
        match self {
            Self::Unix(_) => Ok(Vec::new()),
            Self::Tcp(addresses) => Ok(addresses.clone()),
            Self::Open(sockets) => {
                let tcp = sockets
                    .listeners
                    .iter()
                    .filter_map(|listener| match listener {
                        Listener::Tcp(listener) => Some(tcp_address(listener)),
                        Listener::Unix(_) => None,
                    });
                tcp.collect()
            }
        }
    }
}

/// A place that was checked against the options of a server.
#[derive(Debug)]
pub struct Listen {
    place: Place,
    tls: bool,
}

impl Listen {
    /// Checks `place` against the options of the server. Over TCP, clients have to show
    /// certificates ([`ServerTls`](crate::channel::ServerTls)). Nothing is opened yet.
    ///
    /// # Errors
    /// [`Kind::Parameters`] if clients other than the intended ones would get the plaintext. The
    /// advice says what prevents this.
    pub fn new(place: Place, options: &Options) -> Result<Self, Error> {
        Self::checked(place, options, false)
    }

    /// As [`new`](Self::new), but allows TCP without TLS on a loopback address, and TLS for clients
    /// without a certificate.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub fn new_insecure(place: Place, options: &Options) -> Result<Self, Error> {
        Self::checked(place, options, true)
    }

    fn checked(place: Place, options: &Options, insecure: bool) -> Result<Self, Error> {
        for address in place.addresses()? {
            may_listen(address, options, insecure)?;
        }
        if let Place::Open(sockets) = &place {
            sockets.check(options, insecure)?;
        }
        let tls = options.tls.is_some();
        Ok(Self { place, tls })
    }

    /// Fails if [`start`](Self::start) would, as far as that is known before: for a caller that
    /// asks for passphrases first. The folder of a Unix socket is made if it does not exist.
    ///
    /// # Errors
    /// As [`start`](Self::start).
    pub fn check(&self) -> Result<(), Error> {
        match &self.place {
            Place::Unix(socket) => unix_socket::check(socket),
            Place::Tcp(addresses) => {
                TcpListener::bind(&addresses[..]).map_err(|error| {
                    Error::new(Kind::of_io(&error), error).about("cannot listen")
                })?;
                Ok(())
            }
            Place::Open(_) => Ok(()),
        }
    }

    /// Creates the sockets. From now on clients can connect; they wait until [`Listening::serve`].
    ///
    /// A Unix socket is reported to `watch` as an unfinished file, since it has to be removed even
    /// if the program stops immediately.
    ///
    /// # Errors
    /// [`Kind::Busy`] if another process listens there or something else has this name,
    /// [`Kind::Permission`] if other users can enter the directory or the system refuses access,
    /// and other errors of the system.
    pub fn start(self, watch: &dyn Watch) -> Result<Listening<'_>, Error> {
        let (listeners, file) = match self.place {
            Place::Unix(socket) => {
                let (listener, file) = unix_socket::create(&socket, watch)?;
                (vec![listener.into()], Some(file))
            }
            Place::Tcp(addresses) => {
                let listener = TcpListener::bind(&addresses[..]).map_err(|error| {
                    Error::new(Kind::of_io(&error), error).about("cannot listen")
                })?;
                (vec![listener.into()], None)
            }
            Place::Open(sockets) => (sockets.listeners, None),
        };
        let transports = match &file {
            // The socket was bound with another name.
            Some(file) => {
                let path = file.path().as_os_str().as_encoded_bytes();
                vec![Transport::Unix(path.to_vec())]
            }
            None => listeners.iter().map(transport).collect::<Result<_, _>>()?,
        };
        if transports.is_empty() {
            return Err(Error::parameters("there is no socket to listen on"));
        }
        Ok(Listening {
            transports,
            tls: self.tls,
            listeners,
            file,
        })
    }
}

/// Sockets that listen. The file of a Unix socket is removed when this is dropped.
pub struct Listening<'a> {
    /// One for each socket; never empty.
    transports: Vec<Transport>,
    tls: bool,
    listeners: Vec<Listener>,
    file: Option<SocketFile<'a>>,
}

impl Listening<'_> {
    /// The URI by which clients reach the export of this name on the first socket.
    #[must_use]
    pub fn uri(&self, export: &str) -> Uri {
        Uri::new(self.transports[0].clone(), self.tls, export)
    }

    /// The URIs by which clients reach the export of this name: one for each socket.
    pub fn uris(&self, export: &str) -> impl Iterator<Item = Uri> {
        (self.transports.iter()).map(move |transport| Uri::new(transport.clone(), self.tls, export))
    }

    /// The path of the first Unix socket.
    #[must_use]
    pub fn socket(&self) -> Option<&[u8]> {
        self.transports
            .iter()
            .find_map(|transport| match transport {
                Transport::Unix(path) => Some(path.as_slice()),
                _ => None,
            })
    }

    /// Serves the clients that connect, until the server is stopped; see [`Server::run`]. Then
    /// removes the file of the socket.
    ///
    /// # Errors
    /// As [`Server::run`].
    pub fn serve(self, server: &Server) -> Result<(), Error> {
        let served = server.run(self.listeners);
        drop(self.file);
        Ok(served?)
    }
}

/// Over a network, plaintext goes only to known clients and only under TLS.
fn may_listen(address: SocketAddr, options: &Options, insecure: bool) -> Result<(), Error> {
    if options.allow_uids.is_some() {
        let message = "over TCP the user of a client is not known";
        return Err(Error::parameters(message).advise(Advice::UsersOnUnixSocket));
    }
    let loopback = address.ip().is_loopback();
    match &options.tls {
        None if loopback && insecure => Ok(()),
        None => {
            let message = format!("clients of {address} would get the plaintext without TLS");
            Err(Error::parameters(message)
                .advise(Advice::TlsForKnownClients)
                .advise_if(loopback, Advice::EveryUser))
        }
        Some(tls) if tls.requires_certificates() || insecure => Ok(()),
        Some(_) => {
            let message = format!("every client that reaches {address} would get the plaintext");
            Err(Error::parameters(message)
                .advise(Advice::ClientAuthority)
                .advise(Advice::EveryClient))
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;
    use std::os::unix::net::UnixStream;
    use std::path::Path;

    use super::*;
    use crate::task::Silent;

    #[test]
    fn a_unix_socket_is_for_its_owner_and_goes_with_its_server() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("new folder/s.sock");
        let watch = Silent::default();
        let listen = Listen::new(Place::unix(&path), &Options::default()).unwrap();
        let listening = listen.start(&watch).unwrap();
        let mode = |path: &Path| path.metadata().unwrap().mode() & 0o7777;
        assert_eq!((mode(&path), mode(path.parent().unwrap())), (0o600, 0o700));
        let uri = listening.uri("a b").to_string();
        assert!(uri.starts_with("nbd+unix:///a%20b?socket=/"), "{uri}");
        UnixStream::connect(&path).unwrap();

        let again = Listen::new(Place::unix(&path), &Options::default()).unwrap();
        assert_eq!(again.start(&watch).err().unwrap().kind(), Kind::Busy);

        let server = Server::new(Vec::<crate::export::Export>::new(), Options::default()).unwrap();
        server.stopper().stop();
        listening.serve(&server).unwrap();
        assert!(!path.exists());
    }

    #[test]
    fn plaintext_over_tcp_has_to_be_allowed_and_stays_on_this_machine() {
        let options = Options::default();
        let advice = |place: &str| {
            let error = Listen::new(Place::tcp(place).unwrap(), &options).unwrap_err();
            assert_eq!(error.kind(), Kind::Parameters);
            error.advice().to_vec()
        };
        assert_eq!(
            advice("127.0.0.1:0"),
            [Advice::TlsForKnownClients, Advice::EveryUser]
        );
        assert_eq!(advice("192.0.2.1:0"), [Advice::TlsForKnownClients]);
        let anywhere = Place::tcp("[::]:0").unwrap();
        assert!(Listen::new_insecure(anywhere, &options).is_err());

        let local = Place::tcp("127.0.0.1:0").unwrap();
        let watch = Silent::default();
        let listen = Listen::new_insecure(local, &options).unwrap();
        let uri = listen.start(&watch).unwrap().uri("");
        assert!(matches!(uri.transport, Transport::Tcp { port, .. } if port != 0));

        // A socket that listens already is checked in the same way.
        let open = TcpListener::bind("127.0.0.1:0").unwrap();
        assert!(Listen::new(Place::Open(OpenSockets::new(vec![open.into()])), &options).is_err());
        assert!(Place::tcp("nonsense").is_err());
    }
}
