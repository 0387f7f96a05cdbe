//! Serves an opened volume over NBD, in a thread of its own.

use std::sync::mpsc;
use std::thread::JoinHandle;

use super::OpenVolume;
use super::named::Named;
use crate::export::nbd::{Options, Server, Stopper};
use crate::export::{Discard, Export};
use crate::task::listen::{Listen, Place, UnixSocket};
use crate::task::{Error, Watch};

/// A server of one volume. It stops when it is dropped, and [`stop`](Self::stop) reports how it
/// ended.
pub struct VolumeServer {
    uri: String,
    stopper: Stopper,
    thread: Option<JoinHandle<Result<(), Error>>>,
}

impl VolumeServer {
    /// Makes the Unix socket `path`, and serves the volume there. Clients can connect when this
    /// returns. By default only the user of this process can.
    ///
    /// # Errors
    /// [`Kind::Parameters`](crate::task::Kind::Parameters) for a volume that is locked, and for
    /// options; those of [`Listen::start`].
    pub fn start(
        volume: &OpenVolume,
        path: impl Into<std::path::PathBuf>,
        named: &Named,
        watch: impl Watch + Send + 'static,
    ) -> Result<Self, Error> {
        let name = named.text("name").unwrap_or_default();
        let read_only = named.flag("read-only")? || volume.is_read_only();
        let export = Export::new(name, volume.volume()?)
            .with_description(named.text("description").unwrap_or_default())
            .with_read_only(read_only)
            .with_discard(discard(named)?);
        let mut options = Options::default();
        if let Some(clients) = named.number::<usize>("max-connections")? {
            options.max_connections = clients.max(1);
        }
        let listen = Listen::new(Place::Unix(socket(path, named)?), &options)?;
        let server = Server::new([export], options)?;
        let (stopper, name) = (server.stopper(), name.to_owned());
        let (told, started) = mpsc::sync_channel(1);
        let thread = std::thread::Builder::new()
            .name("luksmith-serve".to_owned())
            .spawn(move || {
                let listening = match listen.start(&watch) {
                    Ok(listening) => listening,
                    Err(error) => {
                        let _ = told.send(Err(error));
                        return Ok(());
                    }
                };
                let _ = told.send(Ok(listening.uri(&name).to_string()));
                listening.serve(&server)
            })
            .map_err(Error::thread)?;
        match started.recv() {
            Ok(Ok(uri)) => Ok(Self {
                uri,
                stopper,
                thread: Some(thread),
            }),
            Ok(Err(error)) => Err(error),
            Err(_) => Err(failed()),
        }
    }

    /// The URI by which clients reach it.
    #[must_use]
    pub fn uri(&self) -> &str {
        &self.uri
    }

    /// Stops it: clients get their last replies, everything is flushed, and the socket is removed.
    ///
    /// # Errors
    /// Those of [`Server::run`].
    pub fn stop(mut self) -> Result<(), Error> {
        self.end()
    }

    fn end(&mut self) -> Result<(), Error> {
        self.stopper.stop();
        match self.thread.take() {
            Some(thread) => thread.join().unwrap_or_else(|_| Err(failed())),
            None => Ok(()),
        }
    }
}

impl Drop for VolumeServer {
    fn drop(&mut self) {
        // Only `stop` reports a failure.
        let _ = self.end();
    }
}

fn failed() -> Error {
    Error::thread(std::io::Error::other("a thread failed"))
}

fn discard(named: &Named) -> Result<Discard, Error> {
    match named.text("discard") {
        None | Some("deny") => Ok(Discard::Deny),
        Some("pass") => Ok(Discard::Pass),
        Some("zeroes") => Ok(Discard::Zeroes),
        Some(_) => Err(Error::parameters("discard: it is deny, pass or zeroes")),
    }
}

fn socket(path: impl Into<std::path::PathBuf>, named: &Named) -> Result<UnixSocket, Error> {
    let mut socket = UnixSocket::new(path);
    socket.group = named.number("socket-group")?;
    let mode = match named.text("socket-mode") {
        None => None,
        Some(text) => match u32::from_str_radix(text, 8) {
            Ok(mode) if mode <= 0o777 => Some(mode),
            _ => {
                let message = "socket-mode: three octal digits, such as 660";
                return Err(Error::parameters(message));
            }
        },
    };
    socket.trust_directory = mode.is_some() || socket.group.is_some();
    let default = if socket.group.is_some() { 0o660 } else { 0o600 };
    socket.mode = mode.unwrap_or(default);
    Ok(socket)
}
