//! `luksmith libvirt secret list`: lists the secrets and their users.

use comfy_table::Table;
use luksmith::libvirt::xml::{SecretXml, Usage};
use luksmith::libvirt::{LibvirtError, UserKind, users};
use luksmith::task::printable;
use luksmith_formats::json::{Value, json};
use uuid::Uuid;

use crate::cli::Session;
use crate::cli::error::{CommandError, Kind};
use crate::cli::libvirt::connect::ConnectArgs;
use crate::cli::output;
use crate::cli::table;

/// List the secrets
///
/// libvirt does not tell whether a private secret has a value.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    #[command(flatten)]
    connect: ConnectArgs,
}

const EXAMPLES: &str = "\
Examples:
  luksmith libvirt secret list
  luksmith libvirt secret list --json | jq -r '.secrets[] | select(.has_value == false) | .secret'
  luksmith libvirt secret list --connect qemu+ssh://host/system";

/// One secret in the list.
struct Row {
    uuid: Uuid,
    usage: Option<Usage>,
    definition: SecretXml,
    has_value: Option<bool>,
    users: Vec<UserKind>,
}

impl Args {
    pub(crate) fn run(self, session: &Session) -> Result<(), CommandError> {
        let connection = self.connect.open()?;
        let users = users(&connection)?;
        for (what, error) in &users.unread {
            output::warning(format_args!("{what} is skipped: {error}"));
        }
        let mut rows = Vec::new();
        for secret in connection.secrets()? {
            let uuid = secret.uuid()?;
            let definition = secret.xml()?;
            let definition = SecretXml::parse(definition.as_bytes()).map_err(|error| {
                CommandError::new(Kind::Storage, error).about(format_args!("secret {uuid}"))
            })?;
            let usage = secret.usage()?;
            let has_value = match secret.value() {
                Ok(_) => Some(true),
                Err(LibvirtError::NoValue(_)) => Some(false),
                // A private secret, or a read-only connection: libvirt does not tell.
                Err(LibvirtError::Private(_) | LibvirtError::Denied(_)) => None,
                Err(error) => return Err(error.into()),
            };
            let users = users
                .of(&uuid, usage.as_ref())
                .into_iter()
                .cloned()
                .collect();
            rows.push(Row {
                uuid,
                usage,
                definition,
                has_value,
                users,
            });
        }
        rows.sort_by(|a, b| (&a.usage, a.uuid).cmp(&(&b.usage, b.uuid)));
        if session.json {
            let secrets = rows.iter().map(Row::json).collect::<Vec<_>>();
            session.output.json(&json!({ "secrets": secrets }));
        } else {
            session.output.lines(table(&rows));
        }
        Ok(())
    }
}

impl Row {
    fn json(&self) -> Value {
        let (mut domains, mut volumes) = (Vec::new(), Vec::new());
        for user in &self.users {
            match user {
                UserKind::Domain { name, by } => domains.push(json!({ "name": name, "by": by })),
                UserKind::Volume { pool, path } => {
                    volumes.push(json!({ "pool": pool, "path": path }))
                }
                _ => {}
            }
        }
        json!({
            "secret": self.uuid.to_string(),
            "usage": self.usage.as_ref().map(|usage| json!({ "type": usage.kind.name(), "id": usage.id })),
            "description": self.definition.description,
            "private": self.definition.private,
            "ephemeral": self.definition.ephemeral,
            "has_value": self.has_value,
            "domains": domains,
            "volumes": volumes,
        })
    }
}

fn table(rows: &[Row]) -> Table {
    let mut table = table::table();
    table.set_header(["uuid", "usage", "kept", "value", "used by"]);
    for row in rows {
        let kept = match (row.definition.private, row.definition.ephemeral) {
            (false, false) => "on disk",
            (true, false) => "on disk, private",
            (false, true) => "in memory",
            (true, true) => "in memory, private",
        };
        let value = match row.has_value {
            Some(true) => "yes",
            Some(false) => "none",
            None => "?",
        };
        let usage = row
            .usage
            .as_ref()
            .map_or_else(|| "-".to_owned(), ToString::to_string);
        let users = row
            .users
            .iter()
            .map(ToString::to_string)
            .collect::<Vec<_>>()
            .join("; ");
        table.add_row([
            row.uuid.to_string().as_str(),
            &printable(&usage),
            kept,
            value,
            &printable(&users),
        ]);
    }
    table
}
