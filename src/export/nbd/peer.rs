//! Who a client is, for limits and for messages.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use crate::channel::{Channel, Socket};

/// What counts as one peer in the limits. Every QEMU of a host runs as the same user, so on a Unix
/// socket that is the process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Peer {
    Process {
        /// 0 for a process that this one cannot see, as in another container.
        pid: i32,
        uid: u32,
    },
    /// An address. Of IPv6 only the part that names a network counts, since a host can have any
    /// number of addresses in it.
    Address(IpAddr),
    /// A certificate, in DER.
    Certificate(Arc<[u8]>),
    Unknown,
}

/// A client. Its `Display` says who it is.
#[derive(Clone, Debug)]
pub(super) struct Client {
    pub(super) peer: Peer,
    name: Arc<str>,
}

impl Client {
    /// The client at the other end of a socket.
    pub(super) fn of(socket: &Socket) -> Self {
        if let Some(process) = socket.peer_credentials() {
            return Self::process(process.pid, process.uid);
        }
        match socket.peer_address() {
            Some(address) => Self {
                peer: Peer::Address(network(address)),
                name: format!("address {address}").into(),
            },
            None => Self {
                peer: Peer::Unknown,
                name: "its user is not known".into(),
            },
        }
    }

    pub(super) fn process(pid: i32, uid: u32) -> Self {
        Self {
            peer: Peer::Process { pid, uid },
            name: format!("user {uid}, process {pid}").into(),
        }
    }

    /// The peer after the handshake: the owner of the certificate, if there is one.
    pub(super) fn peer_of(&self, channel: &Channel) -> Peer {
        match channel.peer_certificate() {
            Some(certificate) => Peer::Certificate(certificate.into()),
            None => self.peer.clone(),
        }
    }
}

impl fmt::Display for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}

fn network(address: SocketAddr) -> IpAddr {
    match address.ip().to_canonical() {
        IpAddr::V6(address) => {
            let [a, b, c, d, ..] = address.segments();
            Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0).into()
        }
        address => address,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_one_network_are_one_peer() {
        let of = |text: &str| network(text.parse().unwrap());
        assert_eq!(of("[2001:db8:1:2:3::4]:5"), of("[2001:db8:1:2:9::9]:6"));
        assert_ne!(of("[2001:db8:1:2::4]:5"), of("[2001:db8:1:3::4]:5"));
        assert_eq!(of("[::ffff:10.0.0.1]:5"), of("10.0.0.1:6"));
        assert_ne!(of("10.0.0.1:5"), of("10.0.0.2:5"));
    }
}
