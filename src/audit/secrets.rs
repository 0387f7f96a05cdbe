//! Secrets: each one should be for one disk, not readable for others, and never on a command line.

use std::collections::BTreeSet;

use super::confinement::{pairs, prefix};
use super::context::Context;
use super::devices;
use super::disk::Disk;
use super::inventory::{Holds, Host, KeptFile};
use super::rule::{Place, rules, shown};
use crate::xml::Element;

rules! {
    COMMANDLINE: Error, "secret.commandline",
        "a secret is in what a domain passes to its emulator",
        "All readers of the domain's XML, of its log under /var/log/libvirt/qemu or of the list \
         of processes have it.",
        "Use <encryption>, <auth> or <graphics> with a secret of libvirt (`luksmith libvirt \
         secret define`, `set`), and change the secret that was there.";
    SHARED: Warning, "secret.shared",
        "several disks are opened by one secret",
        "A person who learns the passphrase of one disk has the others, and the passphrase of a \
         single disk cannot be changed.",
        "Give each disk its own secret: `luksmith libvirt provision`, or `luksmith key change` \
         and another <secret>.";
    STORED: Note, "secret.stored",
        "the value of a secret is stored on the host as plain base64",
        "libvirt before 12.1 stores persistent secrets in this form, readable for root, and in \
         every backup of /etc. If the images are on the same disk, a person who gets the disk \
         opens them.",
        "If only libvirt has the passphrase, as after `luksmith libvirt provision`, or if domains \
         have to start without a person, the secret has to be stored: keep /etc/libvirt/secrets \
         on an encrypted disk and out of backups, or use libvirt 12.1 and set the value again. \
         Otherwise define it with `luksmith libvirt secret define --ephemeral`, and set it after \
         each boot.";
    MODE: Error, "secret.file-mode",
        "users other than root may read the file with a secret's value",
        "All these users and services can read the passphrase of a disk.",
        "Run chmod 600 on the file, and change the passphrase: `luksmith libvirt rotate`.";
}

/// The version from which libvirt encrypts the values that it stores.
const ENCRYPTS: u64 = 12_001_000;

/// The XML of a secret.
pub(super) fn secret(context: &mut Context<'_>, xml: Element<'_>, place: &Place) {
    let is_old = (context.inventory.libvirt_version).is_none_or(|version| version < ENCRYPTS);
    if xml.attribute("ephemeral") != Some("yes") && is_old {
        context.add(&STORED, place.at(xml.line()), "it is not ephemeral");
    }
}

pub(super) fn place_of_kept(file: &KeptFile) -> Place {
    Place {
        origin: shown(&file.path),
        path_bytes: None,
        is_file: true,
        line: None,
        object: Vec::new(),
    }
}

/// Files with values of secrets.
pub(super) fn kept(context: &mut Context<'_>, host: &Host) {
    let secrets = host.kept.iter().filter(|file| file.holds == Holds::Secret);
    for file in secrets {
        let place = place_of_kept(file);
        context.add(&STORED, place.clone(), "a file of base64");
        let open = file.mode & 0o077 != 0;
        let detail = open.then(|| format!("its mode is {:04o}", file.mode & 0o7777));
        context.add_if(&MODE, &place, detail);
    }
}

/// Records the users of each secret.
pub(super) fn disk(context: &mut Context<'_>, disk: &Disk<'_>, place: &Place) {
    for layer in &disk.layers {
        let secrets = layer.encryption.into_iter();
        for secret in secrets.flat_map(|one| one.elements()) {
            let named = secret.attribute("uuid").or(secret.attribute("usage"));
            if let Some(name) = named.filter(|_| secret.is("secret")) {
                used(context, name, place.at(secret.line()));
            }
        }
    }
}

/// Records the secrets of emulated TPMs.
pub(super) fn tpms(context: &mut Context<'_>, xml: Element<'_>, place: &Place) {
    for (tpm, backend) in devices::tpms(xml) {
        let encryption = backend.child("encryption");
        if let Some(secret) = encryption.and_then(|one| one.attribute("secret")) {
            let place = place.within("device", "tpm", tpm.line());
            used(context, secret, place);
        }
    }
}

fn used(context: &mut Context<'_>, secret: &str, user: Place) {
    let users = context.secrets.entry(shown(secret)).or_default();
    users.push(user);
}

/// Finds secrets with several users, after all documents were read. The layers of one disk may
/// share a secret. A running domain may occur twice, with its present definition and that for its
/// next start.
pub(super) fn shared(context: &mut Context<'_>) {
    for (secret, users) in std::mem::take(&mut context.secrets) {
        let mut seen = BTreeSet::new();
        let is_news = |user: &Place| seen.insert(user.names());
        let users: Vec<_> = users.into_iter().filter(is_news).collect();
        let Some((first, others)) = users.split_first() else {
            continue;
        };
        for user in others {
            let names = first.names();
            let detail = format!("secret {secret} is also that of {names}");
            context.add(&SHARED, user.clone(), detail);
        }
    }
}

/// Finds secrets in what the emulator gets as it is: arguments, variables and properties. Their
/// values are not repeated.
pub(super) fn passed_through(context: &mut Context<'_>, xml: Element<'_>, place: &Place) {
    let given = xml.elements().filter(|one| prefix(*one).is_some());
    for one in given.flat_map(Element::descendants) {
        let value = one.attribute("value").unwrap_or_default();
        let name = one.attribute("name").unwrap_or_default();
        let found = match one.name() {
            "arg" => secret_in(value),
            "env" if !value.is_empty() => is_secret_name(name).then(|| shown(name)),
            "property" => secret_in(&format!("{name}={value}")),
            _ => None,
        };
        let detail = found.map(|name| format!("{name} has its value there"));
        context.add_if(&COMMANDLINE, &place.at(one.line()), detail);
    }
}

/// The name of a secret with its value in an argument of QEMU: `key=value` parts, JSON, or a URI
/// with a password.
fn secret_in(argument: &str) -> Option<String> {
    let is_object = argument.starts_with("secret,") || argument.contains("\"secret\"");
    for (name, value) in pairs(argument) {
        let last = name.rsplit(['.', '-', '_']).next().unwrap_or_default();
        let is_data = is_object && name == "data";
        let is_password = ["password", "passwd", "pass", "passphrase"].contains(&last);
        if (is_data || is_password) && !["", "on", "off", "true", "false"].contains(&value) {
            return Some(shown(&name));
        }
    }
    let authority = argument.split_once("://").map(|(_, rest)| rest);
    let user = authority.and_then(|rest| rest.split('/').next()?.split_once('@'));
    let has_password = user.is_some_and(|(user, _)| user.contains(':'));
    has_password.then(|| "the user in a URI".to_owned())
}

fn is_secret_name(name: &str) -> bool {
    let name = name.to_ascii_uppercase();
    let words = ["PASSWORD", "PASSWD", "PASSPHRASE", "SECRET", "TOKEN"];
    words.iter().any(|word| name.contains(word))
}
