//! Where clients connect: a Unix socket that is made, a TCP port, or what systemd listens on for us.
//!
//! A socket file is never open to more than it shall be, not for a moment: it is bound, then given its mode and group,
//! and listens only then.

use std::fs::{self, File};
use std::io;
use std::net::{SocketAddr, TcpListener, ToSocketAddrs};
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use clap::Args;
use luksmith::export::nbd::Listener;
use rustix::fs::{FlockOperation, Gid};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};

use super::started::unix_uri;
use super::who::WhoArgs;
use crate::cli::Session;
use crate::cli::args::LocalFile;
use crate::cli::error::{CommandError, Kind};
use crate::cli::new_file::failed;
use crate::cli::output;
use crate::cli::signals::Signals;

/// How many clients the kernel keeps until they are let in.
const BACKLOG: i32 = 128;

/// Where clients connect.
#[derive(Debug, Args)]
#[command(next_help_heading = "Where clients connect")]
pub(super) struct SocketArgs {
    /// Listen on a Unix socket; its directory must be closed to others, and is made so if it is not there
    #[arg(long, value_name = "PATH", conflicts_with = "listen", value_parser = LocalFile)]
    socket: Option<PathBuf>,

    /// Listen on a TCP address and port; needs TLS
    #[arg(long, value_name = "ADDR:PORT")]
    listen: Option<String>,

    /// The socket's mode, in octal [default: 600]; the directory is taken as it is then
    #[arg(long, value_name = "MODE", value_parser = parse_mode, requires = "socket")]
    socket_mode: Option<u32>,

    /// The socket's group, a name or a number, who may connect if --socket-mode says nothing else; the directory is taken as it is then
    #[arg(long, value_name = "GROUP", value_parser = parse_group, requires = "socket")]
    socket_group: Option<u32>,
}

fn parse_mode(text: &str) -> Result<u32, String> {
    match u32::from_str_radix(text, 8) {
        Ok(mode) if mode <= 0o777 => Ok(mode),
        _ => Err("a mode is three octal digits, such as 660".to_owned()),
    }
}

fn parse_group(text: &str) -> Result<u32, String> {
    if let Ok(number) = text.parse() {
        return Ok(number);
    }
    let groups =
        fs::read_to_string("/etc/group").map_err(|error| format!("/etc/group: {error}"))?;
    let found = groups.lines().find_map(|line| {
        let mut fields = line.split(':');
        (fields.next() == Some(text)).then(|| fields.nth(1)?.parse().ok())?
    });
    found.ok_or_else(|| "no group of that name in /etc/group; its number is taken too".to_owned())
}

/// A place that the rules allow.
pub(super) enum Place {
    Unix {
        path: PathBuf,
        mode: u32,
        group: Option<u32>,
        /// The directory is as it shall be.
        trusted: bool,
        tls: bool,
    },
    Tcp {
        addresses: Vec<SocketAddr>,
        tls: bool,
    },
    Inherited {
        listeners: Vec<Listener>,
        tls: bool,
    },
}

impl SocketArgs {
    pub(super) fn place(&self, tls: bool, who: &WhoArgs) -> Result<Place, CommandError> {
        if let Some(path) = &self.socket {
            let group = self.socket_group;
            let default = if group.is_some() { 0o660 } else { 0o600 };
            return Ok(Place::Unix {
                path: path.clone(),
                mode: self.socket_mode.unwrap_or(default),
                group,
                trusted: self.socket_mode.is_some() || group.is_some(),
                tls,
            });
        }
        if let Some(text) = &self.listen {
            let addresses: Vec<SocketAddr> = text
                .to_socket_addrs()
                .map_err(|error| {
                    CommandError::new(Kind::Parameters, error)
                        .about(format!("--listen {text}"))
                        .hint("an address and a port, such as 127.0.0.1:10809 or [::1]:10809")
                })?
                .collect();
            for address in &addresses {
                may_listen(*address, tls, who)?;
            }
            return Ok(Place::Tcp { addresses, tls });
        }
        let listeners = inherited()?;
        if listeners.is_empty() {
            return Err(CommandError::parameters("nowhere for clients to connect")
                .hint("--socket PATH, --listen ADDR:PORT, or a systemd socket unit"));
        }
        for listener in &listeners {
            if let Listener::Tcp(listener) = listener {
                let address = listener
                    .local_addr()
                    .map_err(system("look at the socket of systemd"))?;
                may_listen(address, tls, who)?;
            }
        }
        Ok(Place::Inherited { listeners, tls })
    }
}

/// Plaintext goes over a network under TLS to known clients, or not at all.
fn may_listen(address: SocketAddr, tls: bool, who: &WhoArgs) -> Result<(), CommandError> {
    if who.allow_uids().is_some() {
        let message = "over TCP nobody can tell which user connects";
        return Err(CommandError::parameters(message)
            .hint("--allow-uid goes with --socket; certificates tell who connects over TCP"));
    }
    let certificates = "--tls-dir DIR, or --tls-cert, --tls-key and --tls-client-ca, let known clients in under TLS";
    let among_us = address.ip().is_loopback() && who.insecure;
    if !tls && !among_us {
        let error =
            CommandError::parameters(format!("{address} would get the plaintext without TLS"))
                .hint(certificates);
        return Err(if address.ip().is_loopback() {
            error.hint("--insecure gives it to every user of this machine")
        } else {
            error
        });
    }
    if tls && !who.knows_clients() && !who.insecure {
        let message = format!("whoever reaches {address} would get the plaintext");
        return Err(CommandError::parameters(message)
            .hint("--tls-client-ca FILE lets in whom that authority has certified")
            .hint("--insecure lets everybody in"));
    }
    Ok(())
}

/// What systemd listens on for this process (LISTEN_FDS, LISTEN_PID).
fn inherited() -> Result<Vec<Listener>, CommandError> {
    let mut passed = listenfd::ListenFd::from_env();
    let mut listeners = Vec::new();
    for n in 0..passed.len() {
        let listener = match passed.take_unix_listener(n) {
            Ok(Some(listener)) => Listener::from(listener),
            _ => match passed.take_tcp_listener(n) {
                Ok(Some(listener)) => Listener::from(listener),
                _ => {
                    let message = format!("descriptor {n} from systemd is no stream socket");
                    return Err(CommandError::parameters(message).hint("ListenStream= makes one"));
                }
            },
        };
        listeners.push(listener);
    }
    Ok(listeners)
}

/// Sockets that listen, and the file that goes with the program.
pub(super) struct Listening {
    pub(super) uri: String,
    listeners: Vec<Listener>,
    file: Option<SocketFile>,
}

impl Listening {
    /// The sockets, of which nobody listens any more once they are dropped.
    pub(super) fn take(&mut self) -> Vec<Listener> {
        std::mem::take(&mut self.listeners)
    }

    /// Removes the socket's file, if there is one and it is still ours.
    pub(super) fn end(self) {
        drop(self.file);
    }
}

impl Place {
    pub(super) fn listen(self, session: &Session) -> Result<Listening, CommandError> {
        match self {
            Self::Unix {
                path,
                mode,
                group,
                trusted,
                tls,
            } => {
                let path = absolute(&path)?;
                let directory = directory(&path, trusted)?;
                let (listener, file) = bind(&path, &directory, mode, group, &session.signals)?;
                Ok(Listening {
                    uri: unix_uri(tls, &path),
                    listeners: vec![listener.into()],
                    file: Some(file),
                })
            }
            Self::Tcp { addresses, tls } => {
                let listener = TcpListener::bind(&addresses[..]).map_err(|error| {
                    let kind = match error.kind() {
                        io::ErrorKind::AddrInUse => Kind::Busy,
                        io::ErrorKind::PermissionDenied => Kind::Permission,
                        _ => Kind::Storage,
                    };
                    CommandError::new(kind, error).about("cannot listen")
                })?;
                let uri = tcp_uri(tls, &listener)?;
                Ok(Listening {
                    uri,
                    listeners: vec![listener.into()],
                    file: None,
                })
            }
            Self::Inherited { listeners, tls } => Ok(Listening {
                uri: uri_of(tls, &listeners)?,
                listeners,
                file: None,
            }),
        }
    }
}

fn uri_of(tls: bool, listeners: &[Listener]) -> Result<String, CommandError> {
    match listeners.first() {
        Some(Listener::Tcp(listener)) => tcp_uri(tls, listener),
        Some(Listener::Unix(listener)) => {
            let address = listener
                .local_addr()
                .map_err(system("look at the socket of systemd"))?;
            Ok(unix_uri(
                tls,
                address.as_pathname().unwrap_or(Path::new("")),
            ))
        }
        None => Ok(String::new()),
    }
}

fn tcp_uri(tls: bool, listener: &TcpListener) -> Result<String, CommandError> {
    let address = listener
        .local_addr()
        .map_err(system("look at the socket"))?;
    let scheme = if tls { "nbds" } else { "nbd" };
    Ok(format!("{scheme}://{address}/"))
}

fn system(doing: &'static str) -> impl Fn(io::Error) -> CommandError {
    move |error| CommandError::new(Kind::Storage, error).about(format!("cannot {doing}"))
}

fn absolute(path: &Path) -> Result<PathBuf, CommandError> {
    std::path::absolute(path).map_err(|error| failed("look at", path, error))
}

/// The directory of the socket: made for this user alone where it is not there; it must be so where it is, unless
/// whoever started this has said otherwise.
fn directory(path: &Path, trusted: bool) -> Result<File, CommandError> {
    let parent = path.parent().unwrap_or(Path::new("/"));
    match fs::DirBuilder::new().mode(0o700).create(parent) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let hint = format!("`mkdir -p -m 700 {}` makes it", parent.display());
            return Err(failed("make", parent, error).hint(hint));
        }
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
            return Err(failed("make", parent, error));
        }
        _ => {}
    }
    let directory = File::open(parent).map_err(|error| failed("open", parent, error))?;
    let about = directory
        .metadata()
        .map_err(|error| failed("look at", parent, error))?;
    let ours = about.uid() == rustix::process::geteuid().as_raw();
    let closed = ours && about.mode() & 0o011 == 0;
    if !trusted && !closed {
        let message = format!(
            "others can enter {}, where the socket would be",
            parent.display()
        );
        return Err(CommandError::new(Kind::Permission, message)
            .hint("a directory of mode 700 is closed to others; one that is not there is made so")
            .hint("--socket-mode 600 says that the directory is as it shall be"));
    }
    if about.mode() & 0o002 != 0 {
        output::warning(format_args!(
            "everybody can write to {}: somebody else may put a socket of this name there before, and get what is meant for it",
            parent.display()
        ));
    }
    Ok(directory)
}

fn bind(
    path: &Path,
    directory: &File,
    mode: u32,
    group: Option<u32>,
    signals: &Signals,
) -> Result<(UnixListener, SocketFile), CommandError> {
    // Two who find a stale socket at the same time must not take each other's for it.
    rustix::fs::flock(directory, FlockOperation::LockExclusive)
        .map_err(|error| failed("lock the directory of", path, error.into()))?;
    remove_stale(path)?;
    let at =
        |doing: &'static str| move |error: rustix::io::Errno| failed(doing, path, error.into());
    let address = SocketAddrUnix::new(path)
        .map_err(|error| at("make")(error).hint("the path of a socket has at most 107 bytes"))?;
    let flags = SocketFlags::CLOEXEC;
    let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)
        .map_err(at("make"))?;
    rustix::net::bind(&socket, &address).map_err(at("make"))?;
    let file = SocketFile::new(path, signals)?;
    fs::set_permissions(path, fs::Permissions::from_mode(mode))
        .map_err(|error| failed("set the mode of", path, error))?;
    if let Some(group) = group {
        rustix::fs::chown(path, None, Some(Gid::from_raw(group)))
            .map_err(at("set the group of"))?;
    }
    rustix::net::listen(&socket, BACKLOG).map_err(at("listen on"))?;
    rustix::fs::flock(directory, FlockOperation::Unlock).map_err(at("unlock the directory of"))?;
    Ok((UnixListener::from(socket), file))
}

/// Removes a socket on which nobody listens any more. Anything else stays.
fn remove_stale(path: &Path) -> Result<(), CommandError> {
    let about = match fs::symlink_metadata(path) {
        Ok(about) => about,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(failed("look at", path, error)),
    };
    let busy = |message: String| Err(CommandError::new(Kind::Busy, message));
    if !about.file_type().is_socket() {
        return busy(format!("{} exists and is no socket", path.display()));
    }
    match UnixStream::connect(path) {
        Ok(_) => busy(format!("somebody listens on {} already", path.display())),
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
            fs::remove_file(path).map_err(|error| failed("remove the stale", path, error))
        }
        Err(error) => Err(failed("look at", path, error)),
    }
}

/// The file of our socket. It goes when this is dropped, unless another has taken its place.
struct SocketFile {
    path: PathBuf,
    device: u64,
    inode: u64,
    signals: Signals,
}

impl SocketFile {
    fn new(path: &Path, signals: &Signals) -> Result<Self, CommandError> {
        let about = fs::symlink_metadata(path).map_err(|error| failed("look at", path, error))?;
        // A second signal removes it too.
        signals.begin(path);
        Ok(Self {
            path: path.to_owned(),
            device: about.dev(),
            inode: about.ino(),
            signals: signals.clone(),
        })
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        let still = fs::symlink_metadata(&self.path);
        if still.is_ok_and(|still| (still.dev(), still.ino()) == (self.device, self.inode)) {
            // Whoever starts next removes it otherwise.
            let _ = fs::remove_file(&self.path);
        }
        self.signals.end(&self.path);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modes_are_octal_and_groups_have_numbers() {
        assert_eq!(parse_mode("660"), Ok(0o660));
        assert!(parse_mode("1777").is_err() && parse_mode("rw").is_err());
        assert_eq!(parse_group("12"), Ok(12));
        assert_eq!(parse_group("root"), Ok(0));
        assert!(parse_group("no such group").is_err());
    }
}
