//! Telling that clients may connect, and how: on stderr, as JSON, to a descriptor, to systemd.

use std::fs::OpenOptions;
use std::io::Write as _;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use sd_notify::NotifyState;
use serde_json::json;

use crate::cli::Session;
use crate::cli::error::{CommandError, Kind};
use crate::cli::{output, size};

/// A server whose sockets listen.
pub(super) struct Started {
    /// The URI of the export without a name.
    pub(super) uri: String,
    pub(super) exports: Vec<Told>,
}

/// What is told of an export.
pub(super) struct Told {
    pub(super) name: String,
    pub(super) size: u64,
    pub(super) read_only: bool,
}

impl Started {
    pub(super) fn tell(
        &self,
        session: &Session,
        json: bool,
        ready_fd: Option<u32>,
    ) -> Result<(), CommandError> {
        for export in &self.exports {
            let only = if export.read_only { ", read-only" } else { "" };
            let uri = with_name(&self.uri, &export.name);
            output::note(format_args!(
                "serving {}{only}: {uri}",
                size::human(export.size)
            ));
        }
        if json {
            let exports = self.exports.iter().map(|export| {
                json!({
                    "name": export.name,
                    "uri": with_name(&self.uri, &export.name),
                    "size": export.size,
                    "read_only": export.read_only,
                })
            });
            let all = json!({ "uri": self.uri, "exports": exports.collect::<Vec<_>>() });
            session.output.now(all)?;
        }
        if let Some(number) = ready_fd {
            let path = format!("/proc/self/fd/{number}");
            OpenOptions::new()
                .write(true)
                .open(&path)
                .and_then(|mut ready| ready.write_all(format!("{}\n", self.uri).as_bytes()))
                .map_err(|error| {
                    CommandError::new(Kind::Parameters, error)
                        .about(format!("cannot write to descriptor {number}"))
                        .hint("--ready-fd takes a descriptor that is open for writing")
                })?;
        }
        tell_systemd(NotifyState::Ready);
        Ok(())
    }
}

/// The server ends, because somebody wants it to or all have left.
pub(super) fn stopping() {
    tell_systemd(NotifyState::Stopping);
}

/// Without systemd nothing is told.
fn tell_systemd(state: NotifyState<'_>) {
    if let Err(error) = sd_notify::notify(&[state]) {
        tracing::warn!(%error, "systemd cannot be told");
    }
}

/// The URI of a server on a Unix socket (the NBD project's `doc/uri.md`).
pub(super) fn unix_uri(tls: bool, path: &Path) -> String {
    let scheme = if tls { "nbds+unix" } else { "nbd+unix" };
    format!(
        "{scheme}:///?socket={}",
        encoded(path.as_os_str().as_bytes())
    )
}

/// The same server's URI of the export with this name.
fn with_name(uri: &str, name: &str) -> String {
    let (server, query) = match uri.split_once('?') {
        Some((server, query)) => (server, format!("?{query}")),
        None => (uri, String::new()),
    };
    format!("{server}{}{query}", encoded(name.as_bytes()))
}

/// Percent-encoded, but for what may stand anywhere and slashes (RFC 3986, section 2).
fn encoded(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len());
    for &byte in bytes {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' | b'/' => {
                text.push(byte.into());
            }
            _ => text.push_str(&format!("%{byte:02X}")),
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use luksmith_formats::nbd::uri::{Transport, Uri};

    #[test]
    fn uris_are_read_back() {
        let path = "/run/a b&c?%/d#.sock";
        let uri = with_name(&unix_uri(false, Path::new(path)), "x y/ü?&");
        let read = Uri::parse(&uri).unwrap();
        assert_eq!(read.export, "x y/ü?&");
        assert_eq!(read.transport, Transport::Unix(path.into()));
        let read = Uri::parse(&with_name("nbds://[::1]:10809/", "disk")).unwrap();
        assert!(read.tls.is_some());
        assert_eq!(read.export, "disk");
    }
}
