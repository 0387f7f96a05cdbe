//! Where the server listens: the place that the arguments name, or the sockets that systemd passes.

use std::fs;
use std::path::{Path, PathBuf};

use clap::Args;
use luksmith::export::nbd::Listener;
use luksmith::task::captive::SocketFolder;
use luksmith::task::listen::{OpenSockets, Place, UnixSocket};

use crate::cli::args::LocalFile;
use crate::cli::error::CommandError;

/// Where clients connect.
#[derive(Debug, Args)]
#[command(next_help_heading = "Where clients connect")]
pub(super) struct SocketArgs {
    /// Listen on a Unix socket; its directory must be closed to other users. A directory that does
    /// not exist is created closed
    #[arg(long, value_name = "PATH", conflicts_with = "listen", value_parser = LocalFile)]
    socket: Option<PathBuf>,

    /// Listen on a TCP address and port; needs TLS
    #[arg(long, value_name = "ADDR:PORT")]
    listen: Option<String>,

    /// The socket's mode, in octal [default: 600]; the mode of the directory is then not checked. A
    /// socket from systemd has the mode of its unit, which must not let more users connect than
    /// this
    #[arg(long, value_name = "MODE", value_parser = parse_mode, conflicts_with = "listen")]
    socket_mode: Option<u32>,

    /// The socket's group, a name or a number; its members can connect unless --socket-mode says
    /// otherwise, and the mode of the directory is not checked. A socket from systemd must have
    /// this group, if its mode lets the group connect
    #[arg(long, value_name = "GROUP", value_parser = parse_group, conflicts_with = "listen")]
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

impl SocketArgs {
    /// The place for clients of NBD that the arguments name; without arguments, the sockets from
    /// systemd, or if `captive`, a socket in a new folder, which is removed when it is dropped.
    /// There need not be one if there are `disks`.
    pub(super) fn place(
        &self,
        captive: bool,
        disks: bool,
    ) -> Result<(Option<Place>, Option<SocketFolder>), CommandError> {
        let passed = from_systemd()?;
        if self.socket.is_some() || self.listen.is_some() || !passed.is_empty() {
            return Ok((Some(self.stated(passed)?), None));
        }
        if !captive {
            let place = (!disks).then(|| self.stated(passed)).transpose()?;
            return Ok((place, None));
        }
        let base =
            std::env::var_os("XDG_RUNTIME_DIR").map_or_else(std::env::temp_dir, PathBuf::from);
        let folder = SocketFolder::make(&base)?;
        Ok((Some(Place::unix(folder.socket())), Some(folder)))
    }

    /// The Unix socket at `path`, with the mode and the group that the arguments name.
    pub(super) fn unix(&self, path: &Path) -> UnixSocket {
        let mut socket = UnixSocket::new(path);
        socket.mode = self.mode();
        socket.group = self.socket_group;
        socket.trust_directory = self.socket_mode.is_some() || self.socket_group.is_some();
        socket
    }

    fn mode(&self) -> u32 {
        let of_group = self.socket_group.is_some();
        let default = if of_group { 0o660 } else { 0o600 };
        self.socket_mode.unwrap_or(default)
    }

    fn stated(&self, passed: Vec<Listener>) -> Result<Place, CommandError> {
        let named = [
            ("--socket", self.socket.is_some()),
            ("--listen", self.listen.is_some()),
        ];
        if let (false, Some((option, _))) = (passed.is_empty(), named.iter().find(|(_, is)| *is)) {
            let message =
                format!("systemd passes the socket to listen on, and {option} names another");
            return Err(CommandError::parameters(message).hint(format!(
                "leave {option} out, or start the server without the socket unit"
            )));
        }
        if let Some(path) = &self.socket {
            return Ok(Place::Unix(self.unix(path)));
        }
        if let Some(text) = &self.listen {
            let place = Place::tcp(text).map_err(|error| error.about(format!("--listen {text}")));
            return Ok(place?);
        }
        if passed.is_empty() {
            return Err(
                CommandError::parameters("no socket to listen on is named").hint(
                    "--socket PATH, --listen ADDR:PORT or a systemd socket unit, or --vhost-user \
                     PATH for a virtual machine",
                ),
            );
        }
        let mut sockets = OpenSockets::new(passed);
        (sockets.mode, sockets.group) = (self.mode(), self.socket_group);
        Ok(Place::Open(sockets))
    }
}

/// The sockets that systemd has passed to this process (LISTEN_FDS, LISTEN_PID).
fn from_systemd() -> Result<Vec<Listener>, CommandError> {
    let mut passed = listenfd::ListenFd::from_env();
    let mut listeners = Vec::new();
    for n in 0..passed.len() {
        let listener = match passed.take_unix_listener(n) {
            Ok(Some(listener)) => Listener::from(listener),
            _ => match passed.take_tcp_listener(n) {
                Ok(Some(listener)) => Listener::from(listener),
                _ => {
                    let message = format!("descriptor {n} from systemd is not a stream socket");
                    return Err(CommandError::parameters(message).hint("ListenStream= makes one"));
                }
            },
        };
        listeners.push(listener);
    }
    Ok(listeners)
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
