//! The host: its settings, sockets, mounts and devices.
//!
//! - `settings`: a file of libvirt's settings, with the places of the settings.
//! - `migration`: migration, and TLS of the emulators. `daemon`: clients that command libvirt over
//!   the network. `control`: clients that command it on the host.
//! - `blocks` and `mounts`: guests' disks that the host itself uses. `lvm`: guests' disks that LVM
//!   searches.

mod blocks;
mod control;
mod daemon;
mod lvm;
pub(super) mod migration;
pub(super) mod mounts;
pub(super) mod settings;

use settings::Settings;

use super::conf::Conf;
use super::context::{Context, place_of};
use super::inventory::{Document, Host};
use super::rule::{Rule, rules, shown};
use super::{confinement, console, memory, probing, secrets};

rules! {
    INVALID: Warning, "host.invalid-setting",
        "libvirt cannot read a file of settings",
        "The daemon does not start, or continues with its old settings: those in the file are not \
         in effect.",
        "Correct the line. libvirt's log has the same error.";
    UNSEEN: Warning, "host.not-looked-at",
        "a file of the host could not be read",
        "The rules about its contents were not checked.",
        "Run the audit as root.";
}

pub(super) static ALL: [&[&Rule]; 6] = [
    RULES,
    blocks::RULES,
    control::RULES,
    daemon::RULES,
    lvm::RULES,
    migration::RULES,
];

/// The largest file other than libvirt's settings, which have a limit of their own.
const LARGEST: usize = 1 << 20;

/// Checks the settings. This comes before the documents: the settings determine what uses TLS by
/// default.
pub(super) fn settings(context: &mut Context<'_>, host: &Host) {
    if let Some(mountinfo) = &host.mountinfo {
        context.mounts = mounts::mounts(mountinfo);
    }
    for file in &host.files {
        let name = file.origin.rsplit('/').next().unwrap_or_default();
        if name.ends_with(".conf") && name != "lvm.conf" {
            libvirt(context, host, file, name.trim_end_matches(".conf"));
        } else {
            other(context, host, file, name);
        }
    }
    for unit in &host.sockets {
        daemon::unit(context, unit);
        control::admin_unit(context, unit);
    }
    for (path, why) in &host.not_read {
        let place = place_of(&Document::file(path.clone(), ""));
        context.add(&UNSEEN, place, shown(why));
    }
    secrets::kept(context, host);
    memory::kept(context, host);
}

/// A file of libvirt's settings.
fn libvirt(context: &mut Context<'_>, host: &Host, file: &Document, name: &str) {
    let Some(conf) = read(context, file) else {
        return;
    };
    if name == "qemu" {
        return qemu(context, conf);
    }
    let starts = daemon::Starts::read(name, host);
    daemon::settings(context, &conf, starts);
    let unit = format!("{name}.socket");
    let unit = host.sockets.iter().find(|one| one.name == unit);
    control::settings(context, name, &conf, unit);
}

/// A file with the settings of another program.
fn other(context: &mut Context<'_>, host: &Host, file: &Document, name: &str) {
    let place = place_of(file);
    if file.text.len() > LARGEST {
        return context.add(&UNSEEN, place, "it is larger than 1 MiB");
    }
    let text = String::from_utf8_lossy(&file.text);
    match name {
        "lvm.conf" => lvm::settings(context, host, &place, &text),
        "libvirt-guests" => memory::guests(context, &place, &text),
        _ if name.ends_with(".rules") => control::polkit_rules(context, &place, &text),
        _ if name.ends_with(".policy") => control::polkit_actions(context, &place, &text),
        _ => {}
    }
}

fn read(context: &mut Context<'_>, file: &Document) -> Option<Settings> {
    let place = place_of(file);
    match Conf::parse(&file.text) {
        Ok(conf) => {
            let settings = Settings::new(place, conf);
            if let Some((place, said)) = settings.mistaken() {
                context.add(&INVALID, place, said);
            }
            Some(settings)
        }
        Err(error) => {
            context.add(&INVALID, place.at(error.line), error.what);
            None
        }
    }
}

fn qemu(context: &mut Context<'_>, conf: Settings) {
    probing::qemu(context, &conf);
    migration::qemu(context, &conf);
    confinement::qemu(context, &conf);
    console::qemu(context, &conf);
    memory::qemu(context, &conf);
    context.qemu = Some(conf);
}

/// Checks how the host uses the disks, after all documents were read.
pub(super) fn access(context: &mut Context<'_>, host: &Host) {
    blocks::access(context, host);
}
