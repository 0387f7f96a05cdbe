//! The limits of a server, and its rules for clients.

use std::time::Duration;

/// Limits of a server and rules for its clients.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Options {
    /// The numbers of the users that can connect. `None` is for every user whom the permissions of
    /// the socket admit.
    pub allow_uids: Option<Vec<u32>>,
    /// The most threads that wait for slow storage. Default: 128.
    pub max_waiting: usize,
    /// Stop when the last client has left, once any client has connected.
    pub exit_when_idle: bool,
    /// How long no client may be connected before [`exit_when_idle`](Self::exit_when_idle) stops
    /// the server. Default: 0 s.
    pub idle_time: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            allow_uids: None,
            max_waiting: 128,
            exit_when_idle: false,
            idle_time: Duration::ZERO,
        }
    }
}
