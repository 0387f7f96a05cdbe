//! Connects a socket to the server of a URI. No step waits for longer than the deadline allows.

use std::io;
use std::net::{IpAddr, SocketAddr, TcpStream, ToSocketAddrs};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::sync::mpsc::{self, RecvTimeoutError};

use luksmith_formats::nbd::uri::{Transport, Uri};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, SocketAddrUnix, SocketFlags, SocketType, connect, socket_with, sockopt,
};

use super::error::Problem;
use super::patience::Deadline;
use crate::channel::Socket;

/// Connects, or fails at the deadline.
pub(super) fn dial(uri: &Uri, deadline: &Deadline) -> Result<Socket, Problem> {
    match &uri.transport {
        Transport::Tcp { host, port } => tcp(host, *port, deadline).map(Socket::from),
        Transport::Unix(name) => unix(name, deadline).map(Socket::from),
    }
}

/// Tries the addresses of a host, one after the other.
fn tcp(host: &str, port: u16, deadline: &Deadline) -> Result<TcpStream, Problem> {
    let mut failed = None;
    for address in addresses(host, port, deadline)? {
        match tcp_to(address, deadline) {
            Ok(stream) => return Ok(stream),
            Err(problem @ Problem::Unreachable(_)) => failed = Some(problem),
            Err(problem) => return Err(problem),
        }
    }
    Err(failed.unwrap_or_else(|| unreached(io::ErrorKind::NotFound)))
}

/// The addresses of a host. Another thread waits for the resolver, whose calls cannot be ended.
fn addresses(host: &str, port: u16, deadline: &Deadline) -> Result<Vec<SocketAddr>, Problem> {
    if let Ok(address) = host.parse::<IpAddr>() {
        return Ok(vec![(address, port).into()]);
    }
    let (send, resolved) = mpsc::channel();
    let host = host.to_owned();
    let resolve = move || {
        let addresses = (host.as_str(), port).to_socket_addrs();
        // It fails if the addresses are not wanted any more.
        let _ = send.send(addresses.map(|addresses| addresses.collect::<Vec<_>>()));
    };
    std::thread::Builder::new()
        .name("nbd resolver".to_owned())
        .spawn(resolve)
        .map_err(Problem::Thread)?;
    loop {
        go_on(deadline)?;
        match resolved.recv_timeout(deadline.step()) {
            Ok(addresses) => return addresses.map_err(Problem::Unreachable),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => {
                return Err(unreached(io::ErrorKind::NotFound));
            }
        }
    }
}

fn tcp_to(address: SocketAddr, deadline: &Deadline) -> Result<TcpStream, Problem> {
    let failed = |error: Errno| Problem::Unreachable(error.into());
    let family = match address {
        SocketAddr::V4(_) => AddressFamily::INET,
        SocketAddr::V6(_) => AddressFamily::INET6,
    };
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = socket_with(family, SocketType::STREAM, flags, None).map_err(failed)?;
    match connect(&socket, &address) {
        Ok(()) => {}
        Err(Errno::INPROGRESS | Errno::INTR) => wait_for_tcp(&socket, deadline)?,
        Err(error) => return Err(failed(error)),
    }
    rustix::io::ioctl_fionbio(&socket, false).map_err(failed)?;
    Ok(TcpStream::from(socket))
}

fn wait_for_tcp(socket: &OwnedFd, deadline: &Deadline) -> Result<(), Problem> {
    let failed = |error: Errno| Problem::Unreachable(error.into());
    loop {
        go_on(deadline)?;
        let step = Timespec::try_from(deadline.step()).ok();
        match poll(&mut [PollFd::new(socket, PollFlags::OUT)], step.as_ref()) {
            Ok(0) | Err(Errno::INTR) => {}
            Ok(_) => break,
            Err(error) => return Err(failed(error)),
        }
    }
    sockopt::socket_error(socket)
        .map_err(failed)?
        .map_err(failed)
}

/// A server that accepts no client makes `connect` wait. The timeout for sending limits that wait.
fn unix(name: &[u8], deadline: &Deadline) -> Result<UnixStream, Problem> {
    let failed = |error: Errno| Problem::Unreachable(error.into());
    let address = match name.strip_prefix(b"\0") {
        Some(name) => SocketAddrUnix::new_abstract_name(name),
        None => SocketAddrUnix::new(name),
    }
    .map_err(failed)?;
    let family = AddressFamily::UNIX;
    let socket =
        socket_with(family, SocketType::STREAM, SocketFlags::CLOEXEC, None).map_err(failed)?;
    loop {
        go_on(deadline)?;
        let timeout = sockopt::Timeout::Send;
        sockopt::set_socket_timeout(&socket, timeout, Some(deadline.step())).map_err(failed)?;
        match connect(&socket, &address) {
            Ok(()) => return Ok(UnixStream::from(socket)),
            Err(Errno::AGAIN | Errno::INTR) => {}
            Err(error) => return Err(failed(error)),
        }
    }
}

fn go_on(deadline: &Deadline) -> Result<(), Problem> {
    deadline.check().map_err(|problem| match problem {
        Problem::Silent(_) => unreached(io::ErrorKind::TimedOut),
        problem => problem,
    })
}

fn unreached(kind: io::ErrorKind) -> Problem {
    Problem::Unreachable(kind.into())
}
