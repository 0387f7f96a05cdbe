//! The thread of a connection.

use std::sync::Arc;
use std::time::Instant;

use super::connections::Entered;
use super::peer::Client;
use super::shared::Shared;
use super::{handshake, transmission};
use crate::channel::{Socket, TlsError};

/// Starts the thread of a connection, if there is a place for it.
pub(super) fn start(shared: &Arc<Shared>, socket: Socket, client: Client) -> std::io::Result<()> {
    let deadline = Instant::now() + shared.options.handshake_time;
    let second = socket.try_clone()?;
    let number = match shared.connections.enter(second, client.clone(), deadline) {
        Entered::Placed(number) => number,
        Entered::InPlaceOf(number, silent) => {
            let why =
                "closed the connection that was silent longest in its handshake, to make room";
            shared.refusals.warn(format_args!("{why}: {silent}"));
            number
        }
        Entered::Refused => {
            let why = "refused a client: too many clients of the same peer wait already";
            shared.refusals.warn(format_args!("{why}: {client}"));
            return Ok(());
        }
    };
    let connection = Connection {
        shared: shared.clone(),
        client,
        number,
    };
    let thread = std::thread::Builder::new()
        .name("nbd-client".to_owned())
        .spawn(move || connection.serve(socket))?;
    shared.connections.runs(number, thread);
    Ok(())
}

/// A connection in [`Connections`](super::connections::Connections); it is removed when this is
/// dropped.
struct Connection {
    shared: Arc<Shared>,
    client: Client,
    number: u64,
}

impl Connection {
    fn serve(self, socket: Socket) {
        let number = self.number;
        let session = match handshake::negotiate(socket, &self.shared, number, &self.client) {
            Ok(Some(session)) => Arc::new(session),
            Ok(None) => return,
            Err(error) => {
                let tls = (error.get_ref()).and_then(|error| error.downcast_ref::<TlsError>());
                match tls.filter(|error| error.is_refusal()) {
                    Some(tls) => {
                        let (why, client) = (crate::backend::chain(tls), &self.client);
                        let refusals = &self.shared.refusals;
                        refusals.warn(format_args!("a client has no access: {why}: {client}"));
                    }
                    None => tracing::debug!(%error, number, "a handshake ended"),
                }
                return;
            }
        };
        let peer = self.client.peer_of(&session.channel);
        if !self.shared.connections.take_place(number, peer) {
            session.channel.shutdown();
            return;
        }
        // This connection does not wait any more, so another client may be accepted.
        self.shared.wake.up();
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

impl Drop for Connection {
    fn drop(&mut self) {
        self.shared.connections.leave(self.number);
        self.shared.wake.up();
    }
}
