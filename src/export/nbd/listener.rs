//! The listening sockets, and the thread that accepts clients and waits for them when the server
//! stops.

use std::io;
use std::net::TcpListener;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixListener;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;

use super::connection;
use super::peer::Client;
use super::serve_error::ServeError;
use super::shared::Shared;
use crate::channel::Socket;

/// How long to wait before the next client is accepted if the system has run out of descriptors or
/// threads.
const ACCEPT_BACKOFF: Duration = Duration::from_millis(50);

/// The shortest time between two warnings that clients are not accepted.
const WARNING_INTERVAL: Duration = Duration::from_secs(60);

/// A listening socket to which clients connect.
#[derive(Debug)]
pub enum Listener {
    /// A Unix socket.
    Unix(UnixListener),
    /// A TCP socket.
    Tcp(TcpListener),
}

impl From<UnixListener> for Listener {
    fn from(listener: UnixListener) -> Self {
        Self::Unix(listener)
    }
}

impl From<TcpListener> for Listener {
    fn from(listener: TcpListener) -> Self {
        Self::Tcp(listener)
    }
}

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Unix(listener) => listener.as_fd(),
            Self::Tcp(listener) => listener.as_fd(),
        }
    }
}

/// Accepts clients until the server stops.
pub(super) fn listen(shared: &Arc<Shared>, listeners: &[Listener]) -> Result<(), ServeError> {
    let system = |doing| move |source| ServeError::System { doing, source };
    for listener in listeners {
        // A client that gives up between `poll` and `accept` must not block the thread.
        rustix::io::ioctl_fionbio(listener, true)
            .map_err(|error| system("prepare a socket")(error.into()))?;
    }
    let mut warned: Option<Instant> = None;
    let mut idle_since: Option<Instant> = None;
    while !shared.stopping.is_asked() {
        shared.connections.reap();
        let all_have_left = shared.options.exit_when_idle && shared.connections.all_have_left();
        let since = all_have_left.then(|| idle_since.unwrap_or_else(Instant::now));
        idle_since = since;
        let idle_end = since.map(|since| since + shared.options.idle_time);
        if idle_end.is_some_and(|end| end <= Instant::now()) {
            return Ok(());
        }
        let late = shared.connections.end_late();
        let until = late.into_iter().chain(idle_end).min();
        let has_room = shared.connections.has_room();
        let open = if has_room { listeners } else { &[][..] };
        let ready = wait(shared, open, until).map_err(system("wait for clients"))?;
        for (listener, _) in open.iter().zip(ready).filter(|(_, ready)| *ready) {
            if let Err(error) = accept(shared, listener) {
                if warned.is_none_or(|warned| warned.elapsed() >= WARNING_INTERVAL) {
                    warned = Some(Instant::now());
                    tracing::warn!(%error, "cannot accept clients; they wait");
                }
                std::thread::sleep(ACCEPT_BACKOFF);
            }
        }
    }
    Ok(())
}

/// Waits until every client has received its replies and is gone. Closes the connections of those
/// that take longer than [`Options::stop_time`](super::Options::stop_time).
pub(super) fn wait_for_all(shared: &Arc<Shared>) {
    shared.connections.end_requests();
    let end = Instant::now() + shared.options.stop_time;
    while shared.connections.count() > 0 {
        let now = Instant::now();
        let until = if now < end {
            end
        } else {
            shared.stopping.give_up();
            shared.connections.end_all();
            now + Duration::from_millis(100)
        };
        // The loop tests its condition again, however the wait ended.
        let _ = wait(shared, &[], Some(until));
        // A client may have got its export since the last call.
        shared.connections.end_requests();
    }
    shared.connections.reap();
}

/// Waits until a client connects, [`Wake::up`] is called, or `until`. Tells for each listener
/// whether a client has connected to it.
fn wait(shared: &Shared, listeners: &[Listener], until: Option<Instant>) -> io::Result<Vec<bool>> {
    let limit = until.map(|until| {
        let left = until.saturating_duration_since(Instant::now());
        // Rounded up, so that `until` has passed when the wait ends.
        Timespec::try_from(left + Duration::from_millis(1)).unwrap_or(Timespec {
            tv_sec: 1,
            tv_nsec: 0,
        })
    });
    let listening = listeners.iter().map(AsFd::as_fd);
    let mut fds: Vec<PollFd<'_>> = listening
        .chain([shared.wake.as_fd()])
        .map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN))
        .collect();
    match poll(&mut fds, limit.as_ref()) {
        Ok(_) | Err(Errno::INTR) => {}
        Err(error) => return Err(error.into()),
    }
    shared.wake.reset();
    Ok(fds.iter().map(|fd| !fd.revents().is_empty()).collect())
}

fn accept(shared: &Arc<Shared>, listener: &Listener) -> io::Result<()> {
    let accepted = match listener {
        Listener::Unix(listener) => listener.accept().map(|(stream, _)| Socket::from(stream)),
        Listener::Tcp(listener) => listener.accept().map(|(stream, _)| Socket::from(stream)),
    };
    let socket = match accepted {
        Ok(socket) => socket,
        // The client has left already.
        Err(error)
            if matches!(
                error.kind(),
                io::ErrorKind::WouldBlock
                    | io::ErrorKind::ConnectionAborted
                    | io::ErrorKind::Interrupted
            ) =>
        {
            return Ok(());
        }
        Err(error) => return Err(error),
    };
    let client = Client::of(&socket);
    if let Some(allowed) = &shared.options.allow_uids {
        let peer = socket.peer_credentials();
        if !peer.is_some_and(|peer| allowed.contains(&peer.uid)) {
            let why = "refused a client that is not one of the allowed users";
            shared.refusals.warn(format_args!("{why}: {client}"));
            return Ok(());
        }
    }
    connection::start(shared, socket, client)
}
