//! Announces that clients can connect, and the URIs for that: on stderr, as JSON, to a descriptor,
//! and to systemd.

use std::fs::OpenOptions;
use std::io::Write as _;

use luksmith::export::Export;
use luksmith::task::listen::Listening;
use luksmith_formats::json::json;
use luksmith_formats::nbd::uri::{Transport, Uri};
use sd_notify::NotifyState;

use crate::cli::Session;
use crate::cli::error::{CommandError, Kind};
use crate::cli::{output, size};

/// A server whose sockets listen.
pub(super) struct Ready<'a> {
    pub(super) listening: &'a Listening<'a>,
    pub(super) exports: Vec<Served>,
}

/// The properties of an export that are printed.
pub(super) struct Served {
    name: String,
    size: u64,
    read_only: bool,
}

impl Served {
    pub(super) fn name(&self) -> String {
        self.name.clone()
    }

    pub(super) fn of(export: &Export) -> Self {
        Self {
            name: export.name().to_owned(),
            size: export.size(),
            read_only: export.is_read_only(),
        }
    }
}

impl Ready<'_> {
    /// Where clients reach an export, for people. No client takes the URI of an abstract socket.
    fn places(&self, export: &str) -> Vec<String> {
        let place = |uri: Uri| match &uri.transport {
            Transport::Unix(name) if name.first() == Some(&0) => {
                let name = name[1..].escape_ascii();
                match export {
                    "" => format!("the abstract socket @{name}"),
                    _ => format!("export {export} on the abstract socket @{name}"),
                }
            }
            _ => uri.to_string(),
        };
        self.listening.uris(export).map(place).collect()
    }

    pub(super) fn announce(
        &self,
        session: &Session,
        ready_fd: Option<u32>,
    ) -> Result<(), CommandError> {
        let uris = |name: &str| -> Vec<String> {
            let uris = self.listening.uris(name);
            uris.map(|uri| uri.to_string()).collect()
        };
        let uri = self.listening.uri("").to_string();
        for export in &self.exports {
            let only = if export.read_only { ", read-only" } else { "" };
            output::note(format_args!(
                "serving {}{only}: {}",
                size::human(export.size),
                self.places(&export.name).join(" ")
            ));
        }
        if session.json {
            let exports = self.exports.iter().map(|export| {
                json!({
                    "name": export.name,
                    "uri": self.listening.uri(&export.name).to_string(),
                    "uris": uris(&export.name),
                    "size": export.size,
                    "read_only": export.read_only,
                })
            });
            let exports = exports.collect::<Vec<_>>();
            let all = json!({ "uri": uri, "uris": uris(""), "exports": exports });
            session.output.json_now(&all)?;
        }
        if let Some(number) = ready_fd {
            let path = format!("/proc/self/fd/{number}");
            let told = session.signals.ending(|| {
                let mut ready = OpenOptions::new().write(true).open(&path)?;
                ready.write_all(format!("{uri}\n").as_bytes())
            });
            told?.map_err(|error| {
                CommandError::new(Kind::Parameters, error)
                    .about(format!("cannot write to descriptor {number}"))
                    .hint("--ready-fd takes a descriptor that is open for writing")
            })?;
        }
        notify(NotifyState::Ready);
        Ok(())
    }
}

/// Tells systemd that the server ends.
pub(super) fn stopping() {
    notify(NotifyState::Stopping);
}

/// Notifies systemd, if that has started the program.
fn notify(state: NotifyState<'_>) {
    if let Err(error) = sd_notify::notify(&[state]) {
        tracing::warn!(%error, "cannot notify systemd");
    }
}
