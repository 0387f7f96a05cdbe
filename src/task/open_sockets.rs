//! Sockets that listen already, such as those that systemd passes: which users can connect to them,
//! and how clients reach them.
//!
//! The rules are those for sockets that are created. The file of a Unix socket says which users can
//! connect: on Linux that takes permission to write. The file is found by the path that the socket
//! had when it was bound, and the kernel is asked whether it still is that file, if it can say so.
//! In the abstract namespace a socket has no file, and every user can connect.

use std::io;
use std::net::TcpListener;
use std::os::fd::AsFd;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use luksmith_formats::nbd::uri::Transport;
use rustix::fs::{FileType, Mode, OFlags};
use rustix::net::sockopt;

use super::{Advice, Error, Kind};
use crate::export::nbd::{Listener, Options};
use crate::sys::{acl, bound};

/// The permissions to connect to a Unix socket that users other than its owner can have.
const OF_GROUP: u32 = 0o020;
const OF_OTHERS: u32 = 0o002;

/// Sockets that listen already, and the users who may connect to them.
#[derive(Debug)]
#[non_exhaustive]
pub struct OpenSockets {
    /// The sockets. Clients can connect to each.
    pub listeners: Vec<Listener>,
    /// The widest mode that the file of a Unix socket may have. Default: `0o600`. Only permissions
    /// to write count.
    pub mode: u32,
    /// The group that such a file may have, if its mode lets the group connect. Default: that of
    /// the process.
    pub group: Option<u32>,
}

impl OpenSockets {
    /// Sockets to which only the user of this process can connect, and root.
    #[must_use]
    pub fn new(listeners: Vec<Listener>) -> Self {
        Self {
            listeners,
            mode: 0o600,
            group: None,
        }
    }

    /// Refuses sockets that do not listen, and Unix sockets to which others can connect than is
    /// stated here or in `options`.
    ///
    /// # Errors
    /// [`Kind::Parameters`], and [`Kind::Permission`] for the file of a Unix socket.
    pub(super) fn check(&self, options: &Options, insecure: bool) -> Result<(), Error> {
        for listener in &self.listeners {
            refuse_deaf(listener)?;
            let Listener::Unix(listener) = listener else {
                continue;
            };
            // The server looks at the user of each client.
            if options.allow_uids.is_some() {
                continue;
            }
            match place(listener)? {
                UnixPlace::File(path) => self.check_file(listener, &path)?,
                UnixPlace::Abstract(name) => {
                    let known =
                        (options.tls.as_ref()).is_some_and(|tls| tls.requires_certificates());
                    if !known && !insecure {
                        let name = name.escape_ascii();
                        let message = format!(
                            "every user of this machine could connect to the abstract socket @{name}"
                        );
                        return Err(Error::parameters(message)
                            .advise(Advice::AllowUsers)
                            .advise(Advice::EveryUser));
                    }
                }
            }
        }
        Ok(())
    }

    fn check_file(&self, listener: &UnixListener, path: &Path) -> Result<(), Error> {
        let failed = |error: io::Error| Error::io("look at", path, error);
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = rustix::fs::open(path, flags, Mode::empty());
        let file = file.map_err(|error| failed(error.into()))?;
        let about = rustix::fs::fstat(&file).map_err(|error| failed(error.into()))?;
        let refused = |what: String, advice: Advice| {
            let message = format!("{what} connect to {}", path.display());
            Err(Error::new(Kind::Permission, message).advise(advice))
        };
        let socket = FileType::from_raw_mode(about.st_mode) == FileType::Socket;
        let bound = || bound::is_bound_to(listener.as_fd(), &file).map_err(failed);
        if !socket || bound()? == Some(false) {
            let message = format!("{} is not the socket any more", path.display());
            return Err(Error::new(Kind::Storage, message));
        }
        let owner = about.st_uid;
        if owner != 0 && owner != rustix::process::geteuid().as_raw() {
            return refused(
                format!("user {owner}, who owns the socket, could"),
                Advice::AllowUsers,
            );
        }
        let mode = about.st_mode & 0o777;
        let more = mode & !self.mode;
        if more & (OF_GROUP | OF_OTHERS) != 0 {
            let all = more & OF_OTHERS != 0;
            let others = if all { "every user" } else { "its group" };
            return refused(
                format!("its mode is {mode:04o}: {others} could"),
                Advice::StateMode(mode),
            );
        }
        let group = self
            .group
            .unwrap_or_else(|| rustix::process::getegid().as_raw());
        if mode & OF_GROUP != 0 && about.st_gid != group {
            let gid = about.st_gid;
            return refused(
                format!("the members of group {gid} could"),
                Advice::StateGroup(gid),
            );
        }
        // The permissions of the group are the mask of the list.
        if mode & OF_GROUP != 0 && acl::is_there(&file).map_err(failed)? {
            return refused(
                "the users of an access control list could".to_owned(),
                Advice::RemoveAccessList(path.to_owned()),
            );
        }
        Ok(())
    }
}

/// How clients reach a socket.
pub(super) fn transport(listener: &Listener) -> Result<Transport, Error> {
    Ok(match listener {
        Listener::Tcp(listener) => {
            let address = tcp_address(listener)?;
            Transport::Tcp {
                host: address.ip().to_string(),
                port: address.port(),
            }
        }
        Listener::Unix(listener) => Transport::Unix(match place(listener)? {
            UnixPlace::File(path) => path.as_os_str().as_bytes().to_vec(),
            UnixPlace::Abstract(name) => [b"\0", &*name].concat(),
        }),
    })
}

/// The address of a TCP socket.
pub(super) fn tcp_address(listener: &TcpListener) -> Result<std::net::SocketAddr, Error> {
    listener.local_addr().map_err(cannot_look)
}

/// Where a Unix socket is.
enum UnixPlace {
    File(PathBuf),
    /// The name in the abstract namespace, without the NUL before it.
    Abstract(Vec<u8>),
}

fn place(listener: &UnixListener) -> Result<UnixPlace, Error> {
    let address = listener.local_addr().map_err(cannot_look)?;
    if let Some(path) = address.as_pathname() {
        let path = std::path::absolute(path).map_err(cannot_look)?;
        return Ok(UnixPlace::File(path));
    }
    match address.as_abstract_name() {
        Some(name) => Ok(UnixPlace::Abstract(name.to_vec())),
        None => Err(Error::parameters("a socket that was passed has no name")),
    }
}

/// With `Accept=yes` systemd passes a connection of one client.
fn refuse_deaf(listener: &Listener) -> Result<(), Error> {
    let failed = |error: rustix::io::Errno| cannot_look(error.into());
    let socket = listener.as_fd();
    if sockopt::socket_acceptconn(socket).map_err(failed)? {
        return Ok(());
    }
    if rustix::net::getpeername(socket).is_ok() {
        let message = "the socket that was passed is a connection, and does not listen";
        return Err(Error::parameters(message).advise(Advice::OneServiceForAll));
    }
    Err(Error::parameters(
        "a socket that was passed does not listen",
    ))
}

fn cannot_look(error: io::Error) -> Error {
    Error::new(Kind::Storage, error).about("cannot look at the socket")
}

#[cfg(test)]
mod tests {
    use std::fs::{Permissions, set_permissions};
    use std::os::linux::net::SocketAddrExt;
    use std::os::unix::fs::PermissionsExt;
    use std::os::unix::net::{SocketAddr, UnixStream};

    use super::*;

    fn listening(mode: u32) -> (tempfile::TempDir, OpenSockets) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("socket");
        let listener = UnixListener::bind(&path).unwrap();
        set_permissions(&path, Permissions::from_mode(mode)).unwrap();
        (folder, OpenSockets::new(vec![listener.into()]))
    }

    #[test]
    fn a_wider_mode_has_to_be_stated() {
        let options = Options::default();
        for (mode, stated, refused) in [
            (0o600, 0o600, None),
            // Without permission to write, no other user can connect.
            (0o755, 0o600, None),
            (0o666, 0o600, Some(Advice::StateMode(0o666))),
            (0o666, 0o660, Some(Advice::StateMode(0o666))),
            (0o660, 0o600, Some(Advice::StateMode(0o660))),
            (0o602, 0o660, Some(Advice::StateMode(0o602))),
            (0o660, 0o660, None),
            (0o666, 0o666, None),
            (0o600, 0o660, None),
        ] {
            let (_folder, mut sockets) = listening(mode);
            sockets.mode = stated;
            let checked = sockets.check(&options, true);
            let advice = checked.err().map(|error| {
                assert_eq!(error.kind(), Kind::Permission);
                error.advice()[0].clone()
            });
            assert_eq!(advice, refused, "{mode:o} {stated:o}");
        }
        let (_folder, sockets) = listening(0o666);
        let known = Options {
            allow_uids: Some(vec![0]),
            ..Options::default()
        };
        sockets.check(&known, false).unwrap();
    }

    #[test]
    fn a_group_that_can_connect_has_to_be_stated() {
        let (_folder, mut sockets) = listening(0o660);
        sockets.mode = 0o660;
        let ours = rustix::process::getegid().as_raw();
        sockets.group = Some(ours + 1);
        let error = sockets.check(&Options::default(), false).unwrap_err();
        assert_eq!(error.advice(), [Advice::StateGroup(ours)]);
        sockets.group = Some(ours);
        sockets.check(&Options::default(), false).unwrap();
    }

    #[test]
    fn an_abstract_socket_is_for_every_user() {
        let name = format!("luksmith test {}", std::process::id());
        let address = SocketAddr::from_abstract_name(&name).unwrap();
        let listener = Listener::from(UnixListener::bind_addr(&address).unwrap());
        let expected = Transport::Unix(format!("\0{name}").into_bytes());
        assert_eq!(transport(&listener).unwrap(), expected);
        let sockets = OpenSockets::new(vec![listener]);
        let error = sockets.check(&Options::default(), false).unwrap_err();
        assert_eq!(error.kind(), Kind::Parameters);
        assert_eq!(error.advice(), [Advice::AllowUsers, Advice::EveryUser]);
        sockets.check(&Options::default(), true).unwrap();
        let known = Options {
            allow_uids: Some(vec![0]),
            ..Options::default()
        };
        sockets.check(&known, false).unwrap();
    }

    #[test]
    fn a_connection_is_no_socket_to_listen_on() {
        let (ours, _theirs) = UnixStream::pair().unwrap();
        let connected = UnixListener::from(std::os::fd::OwnedFd::from(ours));
        let sockets = OpenSockets::new(vec![connected.into()]);
        let error = sockets.check(&Options::default(), true).unwrap_err();
        assert_eq!(error.advice(), [Advice::OneServiceForAll]);
    }
}
