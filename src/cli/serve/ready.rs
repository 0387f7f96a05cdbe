//! Announces that clients can connect, and the URIs for that: on stderr, as JSON, to a descriptor,
//! and to systemd.

use luksmith::task::service::Running;
use luksmith_formats::json::json;
use luksmith_formats::nbd::uri::{Transport, Uri};

use crate::cli::Session;
use crate::cli::error::CommandError;
use crate::cli::{output, readiness, size};

/// A server whose sockets listen.
pub(super) struct Ready<'a>(pub(super) &'a Running<'a>);

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
        let uris = self.0.nbd().map(|nbd| nbd.uris(export).map(place));
        uris.into_iter().flatten().collect()
    }

    pub(super) fn announce(
        &self,
        session: &Session,
        ready_fd: Option<u32>,
    ) -> Result<(), CommandError> {
        let nbd = self.0.nbd();
        let uri = |name: &str| nbd.map(|nbd| nbd.uri(name).to_string());
        let uris = |name: &str| -> Vec<String> {
            let uris = nbd.into_iter().flat_map(|nbd| nbd.uris(name));
            uris.map(|uri| uri.to_string()).collect()
        };
        for (export, disk) in self.0.exports() {
            let only = if export.is_read_only() {
                ", read-only"
            } else {
                ""
            };
            let disk = disk.map(|path| format!("vhost-user:{}", path.display()));
            output::note(format_args!(
                "serving {}{only}: {}",
                size::human(export.size()),
                [self.places(export.name()), disk.into_iter().collect()]
                    .concat()
                    .join(" ")
            ));
        }
        if session.json {
            let exports = self.0.exports().map(|(export, disk)| {
                json!({
                    "name": export.name(),
                    "uri": uri(export.name()),
                    "uris": uris(export.name()),
                    "vhost_user": disk.map(|path| path.display().to_string()),
                    "size": export.size(),
                    "read_only": export.is_read_only(),
                })
            });
            let exports = exports.collect::<Vec<_>>();
            let all = json!({ "uri": uri(""), "uris": uris(""), "exports": exports });
            session.output.json_now(&all)?;
        }
        let first = || self.0.exports().find_map(|(_, disk)| disk);
        let path = || first().map(|disk| disk.display().to_string());
        let place = uri("").or_else(path).unwrap_or_default();
        readiness::ready(session, ready_fd, &place)
    }
}
