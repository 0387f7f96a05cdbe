//! `luksmith libvirt rotate --check`: what is wrong with secrets and volumes, without changing anything.

use std::collections::BTreeSet;
use std::path::Path;

use luksmith::container::Which;
use luksmith::libvirt::{Connection, LibvirtError};
use luksmith::task::{Work, Working, printable};
use serde_json::json;
use uuid::Uuid;

use super::inventory::Inventory;
use super::journal;
use super::volume::{Volume, VolumeArgs};
use crate::cli::Session;
use crate::cli::error::{CommandError, Exit, Kind};

/// One thing that is not as it should be.
struct Finding {
    /// A name for programs.
    name: &'static str,
    secret: Option<Uuid>,
    volume: Option<String>,
    message: String,
}

/// Looks at the chosen volumes and their secrets.
pub(super) fn run(
    session: &Session,
    connection: &Connection,
    inventory: &Inventory,
    chosen: &BTreeSet<String>,
    directory: &Path,
    args: &VolumeArgs,
    as_json: bool,
) -> Result<(), CommandError> {
    let mut findings = Vec::new();
    for (what, error) in &inventory.unread {
        findings.push(Finding {
            name: "unread",
            secret: None,
            volume: None,
            message: format!("{what} is not understood: {error}"),
        });
    }
    let mut secrets: BTreeSet<Uuid> = chosen
        .iter()
        .flat_map(|place| &inventory.volumes[place].secrets)
        .copied()
        .collect();
    if chosen.len() == inventory.volumes.len() {
        secrets.extend(inventory.secrets.iter().map(|known| known.uuid));
    }
    for secret in &secrets {
        about_secret(connection, inventory, directory, *secret, &mut findings)?;
    }
    let checking = Working::begin(session, Work::Check, Some(chosen.len() as u64));
    for place in chosen {
        session.signals.check()?;
        about_volume(session, connection, inventory, place, args, &mut findings)?;
        checking.advance(1);
    }
    checking.finish();
    if as_json {
        let found = findings.iter().map(|finding| {
            json!({
                "finding": finding.name,
                "secret": finding.secret.map(|uuid| uuid.to_string()),
                "volume": finding.volume,
                "message": finding.message,
            })
        });
        session
            .output
            .json(&json!({"checked": chosen.len(), "findings": found.collect::<Vec<_>>()}));
    } else {
        for finding in &findings {
            session.output.line(format_args!(
                "{}: {}",
                finding.name,
                printable(&finding.message)
            ));
        }
        if findings.is_empty() {
            session.output.line(format_args!(
                "volumes checked: {}; nothing is wrong",
                chosen.len()
            ));
        }
    }
    if findings.is_empty() {
        return Ok(());
    }
    session.output.finish()?;
    Err(CommandError::new(
        Exit::Rejected,
        format!("findings: {}", findings.len()),
    ))
}

fn about_secret(
    connection: &Connection,
    inventory: &Inventory,
    directory: &Path,
    secret: Uuid,
    findings: &mut Vec<Finding>,
) -> Result<(), CommandError> {
    let known = inventory.secrets.iter().find(|known| known.uuid == secret);
    let usage = known.and_then(|known| known.usage.as_ref());
    let named = usage.map_or_else(
        || format!("secret {secret}"),
        |usage| format!("secret {secret} ({usage})"),
    );
    let mut find = |name, message| {
        findings.push(Finding {
            name,
            secret: Some(secret),
            volume: None,
            message,
        })
    };
    match connection.secret(&secret).and_then(|secret| secret.value()) {
        Ok(_) | Err(LibvirtError::Private(_)) => {}
        Err(LibvirtError::NoValue(_)) => find("no-value", format!("{named} has no value")),
        Err(LibvirtError::NoSecret(_)) => find("no-value", format!("{named} went meanwhile")),
        Err(error) => return Err(error.into()),
    }
    let opened = inventory.opened_by(&secret);
    if opened.len() > 1 {
        let places = opened
            .iter()
            .map(|(place, _)| *place)
            .collect::<Vec<_>>()
            .join(", ");
        find("shared", format!("{named} opens several volumes: {places}"));
    }
    if journal::is_unfinished(directory, &secret) {
        find(
            "unfinished",
            format!(
                "a rotation of {named} was interrupted; `luksmith libvirt rotate` brings it to its end"
            ),
        );
    }
    Ok(())
}

fn about_volume(
    session: &Session,
    connection: &Connection,
    inventory: &Inventory,
    place: &str,
    args: &VolumeArgs,
    findings: &mut Vec<Finding>,
) -> Result<(), CommandError> {
    let known = &inventory.volumes[place];
    let mut find = |name, secret, message| {
        findings.push(Finding {
            name,
            secret,
            volume: Some(place.to_owned()),
            message,
        })
    };
    if known.secrets.is_empty() {
        let names = known
            .named
            .iter()
            .map(ToString::to_string)
            .collect::<Vec<_>>()
            .join(", ");
        let which = if names.is_empty() {
            "none is named".to_owned()
        } else {
            format!("{names} is not there")
        };
        find("no-secret", None, format!("{place} has no secret: {which}"));
        return Ok(());
    }
    for secret in &known.secrets {
        let value = match connection.secret(secret).and_then(|secret| secret.value()) {
            Ok(value) => value,
            Err(LibvirtError::Private(_)) => {
                find(
                    "untested",
                    Some(*secret),
                    format!("{place} was not tried: secret {secret} is private"),
                );
                continue;
            }
            // The secret's own finding.
            Err(LibvirtError::NoValue(_) | LibvirtError::NoSecret(_)) => continue,
            Err(error) => return Err(error.into()),
        };
        let volume = match Volume::new(connection, place, known, args) {
            Ok(volume) => volume,
            Err(error) => {
                find(
                    "untested",
                    Some(*secret),
                    format!("{place} was not tried: {}", error.line()),
                );
                continue;
            }
        };
        match volume.opens(session, &value, Which::Any) {
            Ok(Some(_)) => {}
            Ok(None) => find(
                "wrong-value",
                Some(*secret),
                format!("secret {secret} does not open {place}"),
            ),
            Err(error) if error.kind() == Kind::Interrupted => return Err(error),
            Err(error) if error.kind().is_of_storage() => {
                find("no-volume", Some(*secret), error.line())
            }
            Err(error) => find(
                "untested",
                Some(*secret),
                format!("{place} was not tried: {}", error.line()),
            ),
        }
    }
    Ok(())
}
