//! The thread of a connection.

use std::sync::Arc;
use std::time::Instant;

use super::shared::Shared;
use super::{handshake, transmission};
use crate::channel::Socket;

/// Starts the thread of a connection.
pub(super) fn start(shared: &Arc<Shared>, socket: Socket) -> std::io::Result<()> {
    let deadline = Instant::now() + shared.options.handshake_time;
    let number = shared.connections.enter(socket.try_clone()?, deadline);
    let entered = Entered {
        shared: shared.clone(),
        number,
    };
    let thread = std::thread::Builder::new()
        .name("nbd-client".to_owned())
        .spawn(move || entered.serve(socket))?;
    shared.connections.runs(number, thread);
    Ok(())
}

/// A connection in [`Connections`](super::connections::Connections); it is removed when this is
/// dropped.
struct Entered {
    shared: Arc<Shared>,
    number: u64,
}

impl Entered {
    fn serve(self, socket: Socket) {
        let number = self.number;
        let session = match handshake::negotiate(socket, &self.shared) {
            Ok(Some(session)) => Arc::new(session),
            Ok(None) => return,
            Err(error) => {
                tracing::debug!(%error, number, "a handshake ended");
                return;
            }
        };
        self.shared.connections.has_export(number);
        tracing::debug!(
            number,
            export = session.export.name(),
            "a client has an export"
        );
        if let Err(error) = transmission::serve(session.clone(), &self.shared) {
            tracing::debug!(%error, number, "a connection ended");
        }
        session.channel.shutdown();
    }
}

impl Drop for Entered {
    fn drop(&mut self) {
        self.shared.connections.leave(self.number);
        self.shared.wake.up();
    }
}
