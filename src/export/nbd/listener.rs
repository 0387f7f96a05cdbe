//! The thread that lets clients in, and waits for them in the end.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
use rustix::io::Errno;

use super::{Listener, ServeError, Shared, connections};
use crate::channel::Socket;

/// How long nobody is let in after the system had no descriptor or thread left.
const OUT_OF_BREATH: Duration = Duration::from_millis(50);

/// After how long it is said again that clients are not let in.
const QUIET: Duration = Duration::from_secs(60);

/// What wakes the listening thread.
pub(super) struct Wake(OwnedFd);

impl Wake {
    pub(super) fn new() -> Result<Self, ServeError> {
        match eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK) {
            Ok(fd) => Ok(Self(fd)),
            Err(error) => Err(ServeError::System {
                doing: "make an event",
                source: error.into(),
            }),
        }
    }

    pub(super) fn up(&self) {
        // It fails where it has been written 2⁶⁴ times unread, and it wakes then too.
        let _ = rustix::io::write(&self.0, &1u64.to_ne_bytes());
    }

    fn heard(&self) {
        let _ = rustix::io::read(&self.0, &mut [0; 8]);
    }
}

/// Lets clients in until the server stops.
pub(super) fn listen(shared: &Arc<Shared>, listeners: &[Listener]) -> Result<(), ServeError> {
    let system = |doing| move |source| ServeError::System { doing, source };
    for listener in listeners {
        // Who has given up between poll and accept must not be waited for.
        rustix::io::ioctl_fionbio(listener, true)
            .map_err(|error| system("prepare a socket")(error.into()))?;
    }
    let stopped = || shared.stopping.load(Ordering::Acquire);
    let mut told: Option<Instant> = None;
    while !stopped() {
        shared.connections.reap();
        if shared.options.exit_when_idle && shared.connections.all_have_left() {
            return Ok(());
        }
        let late = shared.connections.end_late();
        let full = shared.connections.count() >= shared.options.max_connections;
        let open = if full { &[][..] } else { listeners };
        let ready = wait(shared, open, late).map_err(system("wait for clients"))?;
        for (listener, _) in open.iter().zip(ready).filter(|(_, ready)| *ready) {
            if let Err(error) = let_in(shared, listener) {
                if told.is_none_or(|told| told.elapsed() >= QUIET) {
                    told = Some(Instant::now());
                    tracing::warn!(%error, "clients are not let in now; they wait");
                }
                std::thread::sleep(OUT_OF_BREATH);
            }
        }
    }
    Ok(())
}

/// Lets those who are connected have their answers, and waits until nobody is left.
pub(super) fn wait_for_all(shared: &Arc<Shared>) {
    shared.connections.end_requests();
    let end = Instant::now() + shared.options.stop_time;
    while shared.connections.count() > 0 {
        let now = Instant::now();
        let until = if now < end {
            end
        } else {
            shared.connections.end_all();
            now + Duration::from_millis(100)
        };
        // However the wait ends, it is looked at again.
        let _ = wait(shared, &[], Some(until));
        // Whoever came to an export since then is told now.
        shared.connections.end_requests();
    }
    shared.connections.reap();
}

/// Waits until somebody connects (says where), somebody wakes us, or for so long.
fn wait(shared: &Shared, listeners: &[Listener], until: Option<Instant>) -> io::Result<Vec<bool>> {
    let limit = until.map(|until| {
        let left = until.saturating_duration_since(Instant::now());
        // Rounded up, so that it has passed then.
        Timespec::try_from(left + Duration::from_millis(1)).unwrap_or(Timespec {
            tv_sec: 1,
            tv_nsec: 0,
        })
    });
    let listening = listeners.iter().map(AsFd::as_fd);
    let mut fds: Vec<PollFd<'_>> = listening
        .chain([shared.wake.0.as_fd()])
        .map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN))
        .collect();
    match poll(&mut fds, limit.as_ref()) {
        Ok(_) | Err(Errno::INTR) => {}
        Err(error) => return Err(error.into()),
    }
    shared.wake.heard();
    Ok(fds.iter().map(|fd| !fd.revents().is_empty()).collect())
}

fn let_in(shared: &Arc<Shared>, listener: &Listener) -> io::Result<()> {
    let accepted = match listener {
        Listener::Unix(listener) => listener.accept().map(|(stream, _)| Socket::from(stream)),
        Listener::Tcp(listener) => listener.accept().map(|(stream, _)| Socket::from(stream)),
    };
    let socket = match accepted {
        Ok(socket) => socket,
        // Who came has left again.
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
    if let Some(allowed) = &shared.options.allow_uids {
        let peer = socket.peer_credentials();
        if !peer.is_some_and(|peer| allowed.contains(&peer.uid)) {
            let who = match peer {
                Some(peer) => format!("user {}, process {}", peer.uid, peer.pid),
                None => "nobody knows who".to_owned(),
            };
            tracing::warn!("a client was turned away, which is none of the users allowed: {who}");
            return Ok(());
        }
    }
    connections::start(shared, socket)
}
