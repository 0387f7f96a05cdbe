//! A disk and its client. There is one client at a time: two guests that write to one disk would
//! destroy its file system.

use std::io;
use std::os::unix::net::UnixListener;
use std::sync::Arc;

use super::client::{Arrived, Client};
use super::device::Device;
use super::disk::Disk;
use super::shared::Shared;

/// A disk and its client.
pub(super) struct Slot {
    pub(super) listener: UnixListener,
    device: Arc<Device>,
    client: Option<Client>,
    /// The client that is served once the present one, which has left, has ended.
    next: Option<Arrived>,
}

impl Slot {
    pub(super) fn new(disk: Disk) -> io::Result<Self> {
        // A client that gives up between `poll` and `accept` must not block the thread.
        disk.listener.set_nonblocking(true)?;
        Ok(Self {
            listener: disk.listener,
            device: disk.device,
            client: None,
            next: None,
        })
    }

    /// Whether another client can be accepted.
    pub(super) fn has_room(&self) -> bool {
        self.next.is_none()
    }

    /// Whether there is no client.
    pub(super) fn is_idle(&self) -> bool {
        self.client.is_none() && self.next.is_none()
    }

    /// Forgets a client that has ended, and serves the next one.
    pub(super) fn next_client(&mut self, shared: &Arc<Shared>) {
        self.client.take_if(|client| client.has_ended());
        if self.client.is_some() {
            return;
        }
        if let Some(next) = self.next.take() {
            match next.serve(shared, &self.device) {
                Ok(client) => self.client = Some(client),
                Err(error) => {
                    (shared.refusals).warn(format_args!("cannot serve a client: {error}"))
                }
            }
        }
    }

    /// Accepts a client. It is served, waits for the end of one that has left, or is refused.
    pub(super) fn accept(&mut self, shared: &Arc<Shared>) -> io::Result<()> {
        let arrived = match self.listener.accept() {
            Ok((stream, _)) => {
                stream.set_nonblocking(false)?;
                Arrived::new(stream)?
            }
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
        let allowed = &shared.options.allow_uids;
        if allowed
            .as_ref()
            .is_some_and(|allowed| !allowed.contains(&arrived.uid()))
        {
            let why = "refused a client that is not one of the allowed users";
            shared.refusals.warn(format_args!("{why}: {arrived}"));
            return Ok(());
        }
        if self
            .client
            .as_ref()
            .is_some_and(|client| !client.has_left())
        {
            let why = "refused a client: the disk has one, and two guests would destroy it";
            shared.refusals.warn(format_args!("{why}: {arrived}"));
            return Ok(());
        }
        self.next = Some(arrived);
        Ok(())
    }

    /// Closes the socket and returns the client.
    pub(super) fn close(self) -> Option<Client> {
        self.client
    }
}
