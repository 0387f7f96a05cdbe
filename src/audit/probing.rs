//! Format probing: nobody guesses what an image is, since a guest can write any magic into a raw disk.

use super::context::Context;
use super::disk::{Disk, Part, Source};
use super::host::settings::Settings;
use super::inventory::Seen;
use super::rule::{Place, rules};
use crate::xml::Element;

rules! {
    DISK: Warning, "probing.disk-format",
        "a disk does not state the format of its image",
        "libvirt takes such an image as raw, as long as nobody allowed it to guess; programs that read the XML may guess, and a guest that writes a qcow2 header into its raw disk then gets whatever file that header names.",
        "State it: <driver name='qemu' type='raw'/> (or qcow2, …), as `luksmith inspect --format` confirms it.";
    LAYER: Error, "probing.backing-format",
        "a backing store, data file or mirror does not state its format",
        "An image behind another one is guessed at where nothing states what it is: a guest that once wrote to it as raw chose what it looks like.",
        "State it in the XML, <format type='raw'/>, and in the overlay: qemu-img rebase -u -F FORMAT -b FILE.";
    ALLOWED: Error, "probing.allowed",
        "libvirt may guess the formats of disks",
        "A guest that writes a qcow2 header into its raw disk gets, at its next start, whatever file of the host that header names.",
        "Remove allow_disk_format_probing from qemu.conf, and state every format.";
    OTHER: Error, "probing.other-format",
        "the content of a raw disk begins as an image of another format does",
        "Whoever probes it (libvirt with probing allowed, qemu-img without -f, a backup, a migration tool) reads it by the other format's rules, which may name any file of the host. Guests write such headers on purpose.",
        "Keep `raw` stated everywhere. If the image is really of the other format, state that one, after `luksmith inspect --format`.";
    NOT: Warning, "probing.not-format",
        "the image does not begin as the format that the XML states",
        "It was replaced, or the XML is wrong: to state another format now is a guess that whoever wrote the image decides.",
        "Find out who wrote it, and restore it, or state its real format after `luksmith inspect --format`.";
}

/// What a raw disk may hold without being mistaken for an image: partitions, a disc, and LUKS, which has a rule of its own.
const HARMLESS: [&str; 5] = ["mbr", "gpt", "iso", "udf", "luks"];

pub(super) fn disk(context: &mut Context<'_>, disk: &Disk<'_>, place: &Place) {
    for layer in &disk.layers {
        if matches!(layer.source, Source::None | Source::Other) || layer.format.is_some() {
            continue;
        }
        let place = place.at(layer.line);
        if layer.part == Part::Own {
            context.add(&DISK, place, "<driver> has no type");
        } else {
            context.add(&LAYER, place, format!("{} has none", layer.part.name()));
        }
    }
    for layer in &disk.layers {
        let Some(path) = context.path(layer) else {
            continue;
        };
        let Some(Seen::Bytes(look)) = context.image(&path, layer.format).map(|one| &one.seen)
        else {
            continue;
        };
        let stated = layer.format.unwrap_or("raw");
        let place = place.at(layer.line);
        if stated == "raw" {
            let other = |seen: &&_| !HARMLESS.contains(&format_of(seen));
            if let Some(seen) = look.looks_like.iter().find(other) {
                let detail = format!("{path} looks like {} at byte {}", seen.format, seen.offset);
                context.add(&OTHER, place, super::rule::shown(&detail));
            }
        } else if let Some(wanted) = signature(stated)
            && look.looks_like.iter().all(|seen| seen.format != wanted)
        {
            let detail = format!("{path} has no signature of {stated}");
            context.add(&NOT, place, super::rule::shown(&detail));
        }
    }
}

/// A volume whose backing store is not described.
pub(super) fn volume(context: &mut Context<'_>, xml: Element<'_>, place: &Place) {
    for backing in xml.children("backingStore") {
        let has_path = backing.child("path").is_some();
        let format = backing
            .child("format")
            .and_then(|one| one.attribute("type"));
        if has_path && format.is_none_or(|name| ["auto", "unknown", "none"].contains(&name)) {
            context.add(
                &LAYER,
                place.at(backing.line()),
                "the backing store has none",
            );
        }
    }
}

/// `qemu.conf`. Newer versions of libvirt do not know the setting, and never guess.
pub(super) fn qemu(context: &mut Context<'_>, conf: &Settings) {
    let name = "allow_disk_format_probing";
    let allowed = conf.flag(name) == Some(true);
    context.add_if(
        &ALLOWED,
        &conf.place(name),
        allowed.then(|| conf.said(name)),
    );
}

fn format_of(seen: &luksmith_formats::image::signature::Signature) -> &'static str {
    seen.format
}

/// What an image of a format, as libvirt spells it, begins like.
pub(super) fn signature(format: &str) -> Option<&'static str> {
    let known = [
        ("qcow", "qcow1"),
        ("qcow2", "qcow2"),
        ("qed", "qed"),
        ("vmdk", "vmdk"),
        ("vpc", "vhd"),
        ("vhd", "vhd"),
        ("vhdx", "vhdx"),
        ("vdi", "vdi"),
        ("bochs", "bochs"),
        ("cloop", "cloop"),
        ("ploop", "parallels"),
        ("iso", "iso"),
    ];
    let found = known.iter().find(|(name, _)| *name == format);
    found.map(|(_, signature)| *signature)
}
