//! The limits of a server, and its rules for clients.

use std::time::Duration;

use crate::channel::ServerTls;

/// Limits of a server and rules for its clients.
#[derive(Clone)]
#[non_exhaustive]
pub struct Options {
    /// The most clients that are served at once. Further ones wait until one leaves. Default: 128.
    ///
    /// Each can occupy about 1.5 MiB of memory, whatever it asks for, besides the buffers of its
    /// socket in the kernel.
    pub max_connections: usize,
    /// The most clients of one peer that are served at once. Further ones wait. `None`, the
    /// default, is for half of [`max_connections`](Self::max_connections).
    ///
    /// A peer is a process on a Unix socket; over TCP it is the owner of a certificate, or else an
    /// address.
    pub clients_per_peer: Option<usize>,
    /// The most connections whose clients have not chosen an export yet, or wait. If more clients
    /// connect, the connection that was silent longest is closed. One peer has at most half of
    /// them. Default: 64.
    pub max_handshakes: usize,
    /// The most bytes of requests in memory at once, for all clients together, beyond those
    /// 1.5 MiB for each. Default: 64 MiB.
    pub max_in_flight: usize,
    /// The most threads that wait for slow storage. Default: 128.
    pub max_waiting: usize,
    /// The time within which a client has to choose its export. Default: 10 s.
    pub handshake_time: Duration,
    /// The time that clients have to receive their last replies when the server stops. Default:
    /// 5 s.
    pub stop_time: Duration,
    /// The numbers of the users that can connect. `None` is for every user whom the permissions of
    /// the socket admit. If it is set, no client can connect over TCP, where its user is not known.
    pub allow_uids: Option<Vec<u32>>,
    /// If it is set, clients learn and get nothing before they have started TLS.
    pub tls: Option<ServerTls>,
    /// Stop when the last client has left, once any client has had an export.
    pub exit_when_idle: bool,
    /// How long no client may be connected before [`exit_when_idle`](Self::exit_when_idle) stops
    /// the server. Default: 0 s.
    pub idle_time: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            max_connections: 128,
            clients_per_peer: None,
            max_handshakes: 64,
            max_in_flight: 64 << 20,
            max_waiting: 128,
            handshake_time: Duration::from_secs(10),
            stop_time: Duration::from_secs(5),
            allow_uids: None,
            tls: None,
            exit_when_idle: false,
            idle_time: Duration::ZERO,
        }
    }
}
