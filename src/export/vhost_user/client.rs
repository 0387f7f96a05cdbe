//! The connection of one client, and its thread.

use std::fmt;
use std::io;
use std::net::Shutdown;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use vhost::vhost_user::{BackendReqHandler, Error};

use super::device::Device;
use super::ring::Common;
use super::session::{Session, reason};
use super::shared::Shared;
use crate::sys::peer;

/// A client that has connected and is not served yet. Its `Display` says who it is.
pub(super) struct Arrived {
    stream: UnixStream,
    uid: u32,
    pid: i32,
}

impl Arrived {
    pub(super) fn new(stream: UnixStream) -> io::Result<Self> {
        let peer = peer::credentials(stream.as_fd())?;
        Ok(Self {
            stream,
            uid: peer.uid,
            pid: peer.pid,
        })
    }

    /// The user that connected.
    pub(super) fn uid(&self) -> u32 {
        self.uid
    }

    /// Starts to serve the client.
    pub(super) fn serve(self, shared: &Arc<Shared>, device: &Arc<Device>) -> io::Result<Client> {
        let name = self.to_string();
        let socket = self.stream.try_clone()?;
        let ending = self.stream.try_clone()?;
        let ended = Arc::new(AtomicBool::new(false));
        let for_rings = shared.clone();
        let who = name.clone();
        let end_client = Box::new(move |why: &dyn fmt::Display| {
            let what = format_args!("dropped a client: {why}: {who}");
            for_rings.refusals.warn(what);
            // The thread of the client notices this, and stops all rings before it closes the
            // socket: the client must not see a request return after that.
            let _ = ending.shutdown(Shutdown::Read);
        });
        let common = Arc::new(Common::new(device.clone(), shared.clone(), end_client));
        let thread = Thread {
            shared: shared.clone(),
            name,
            ended: ended.clone(),
        };
        let session = Arc::new(Mutex::new(Session::new(common)));
        let stream = self.stream;
        let builder = std::thread::Builder::new().name("vhost-user".to_owned());
        let thread = builder.spawn(move || thread.run(stream, &session))?;
        Ok(Client {
            socket,
            ended,
            thread: Some(thread),
        })
    }
}

impl fmt::Display for Arrived {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "user {}, process {}", self.uid, self.pid)
    }
}

/// A client that is served. Dropping it waits for its end.
pub(super) struct Client {
    socket: UnixStream,
    ended: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Client {
    /// Asks for the end: what was begun for the guest is ended, then the connection is closed.
    pub(super) fn stop(&self) {
        let _ = self.socket.shutdown(Shutdown::Read);
    }

    /// Whether its thread has ended.
    pub(super) fn has_ended(&self) -> bool {
        self.ended.load(Ordering::Acquire)
    }

    /// Whether the client has closed its end of the connection, or this server has.
    pub(super) fn has_left(&self) -> bool {
        let flags = PollFlags::RDHUP | PollFlags::HUP;
        let mut fds = [PollFd::from_borrowed_fd(self.socket.as_fd(), flags)];
        let polled = poll(&mut fds, Some(&Timespec::default()));
        polled.is_ok_and(|ready| ready > 0)
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        self.stop();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

struct Thread {
    shared: Arc<Shared>,
    name: String,
    ended: Arc<AtomicBool>,
}

impl Thread {
    fn run(self, stream: UnixStream, session: &Arc<Mutex<Session>>) {
        let whole = stream.try_clone();
        let served = catch_unwind(AssertUnwindSafe(|| {
            let mut handler = BackendReqHandler::from_stream(stream, session.clone());
            loop {
                if let Err(error) = handler.handle_request() {
                    // The handler has the socket: it stays open until the rings have stopped.
                    break (error, handler);
                }
            }
        }));
        let mut session = session.lock().unwrap_or_else(PoisonError::into_inner);
        session.end();
        if let Ok(whole) = whole {
            let _ = whole.shutdown(Shutdown::Both);
        }
        let name = &self.name;
        match served {
            Ok((Error::Disconnected | Error::SocketBroken(_), _)) => {
                tracing::debug!("a client has left: {name}");
            }
            Ok((error, _)) => {
                let why = reason(&error);
                let what = format_args!("dropped a client: {why}: {name}");
                self.shared.refusals.warn(what);
            }
            Err(_) => {
                let why = "dropped a client: the server failed";
                self.shared.refusals.warn(format_args!("{why}: {name}"));
            }
        }
    }
}

impl Drop for Thread {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::Release);
        self.shared.wake.up();
    }
}
