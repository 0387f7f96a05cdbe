//! Connects a socket to the server of a URI.

use std::io;
use std::net::{TcpStream, ToSocketAddrs};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use luksmith_formats::nbd::uri::{Transport, Uri};
use rustix::net::{
    AddressFamily, SocketAddrUnix, SocketFlags, SocketType, connect, socket_with, sockopt,
};

use super::error::Problem;
use crate::channel::Socket;

/// Connects, or fails after the time `within`.
pub(super) fn dial(uri: &Uri, within: Duration) -> Result<Socket, Problem> {
    match &uri.transport {
        Transport::Tcp { host, port } => tcp(host, *port, within).map(Socket::from),
        Transport::Unix(name) => unix(name, within).map(Socket::from),
    }
    .map_err(Problem::Unreachable)
}

/// Tries the addresses of a host, one after the other.
fn tcp(host: &str, port: u16, within: Duration) -> io::Result<TcpStream> {
    let until = Instant::now() + within;
    let mut failed = None;
    for address in (host, port).to_socket_addrs()? {
        let left = until.saturating_duration_since(Instant::now());
        let left = left.max(Duration::from_millis(1));
        match TcpStream::connect_timeout(&address, left) {
            Ok(stream) => return Ok(stream),
            Err(error) => failed = Some(error),
        }
    }
    Err(failed.unwrap_or_else(|| io::ErrorKind::NotFound.into()))
}

/// A server that accepts no client makes `connect` wait. The timeout for sending limits that wait.
fn unix(name: &[u8], within: Duration) -> io::Result<UnixStream> {
    let address = match name.strip_prefix(b"\0") {
        Some(name) => SocketAddrUnix::new_abstract_name(name)?,
        None => SocketAddrUnix::new(name)?,
    };
    let family = AddressFamily::UNIX;
    let socket = socket_with(family, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
    sockopt::set_socket_timeout(&socket, sockopt::Timeout::Send, Some(within))?;
    connect(&socket, &address)?;
    Ok(UnixStream::from(socket))
}
