//! Format probing: the format of every image has to be stated. If it is guessed, a guest can choose
//! it, since it can write any signature into a raw disk.

use super::context::Context;
use super::disk::{Disk, Part, Source};
use super::host::settings::Settings;
use super::inventory::Seen;
use super::rule::{Place, rules};
use crate::xml::Element;

rules! {
    DISK: Warning, "probing.disk-format",
        "a disk does not state the format of its image",
        "libvirt uses such an image as raw, unless it is allowed to guess. Other programs that \
         read the XML may guess the format: if the guest writes a qcow2 header into its raw disk, \
         they open the file that the header names.",
        "State the format: <driver name='qemu' type='raw'/> (or qcow2, …). `luksmith inspect \
         --format` checks that the image has this format.";
    LAYER: Error, "probing.backing-format",
        "a backing store, data file or mirror does not state its format",
        "Programs guess the format of an image behind another one if it is not stated. A guest \
         that once wrote to this image as a raw disk chose its first bytes.",
        "State it in the XML, <format type='raw'/>, and in the overlay: qemu-img rebase -u -F \
         FORMAT -b FILE.";
    ALLOWED: Error, "probing.allowed",
        "libvirt may guess the formats of disks",
        "If a guest writes a qcow2 header into its raw disk, then at its next start it gets the \
         file of the host that the header names.",
        "Remove allow_disk_format_probing from qemu.conf, and state every format.";
    OTHER: Error, "probing.other-format",
        "a raw disk has the signature of another image format",
        "A program that guesses the format (libvirt if it is allowed to, qemu-img without -f, a \
         backup, a migration tool) reads the disk by the rules of the other format, whose header \
         may name any file of the host. Guests write such headers on purpose.",
        "Keep `raw` stated everywhere. If the image really has the other format, state that one, \
         after `luksmith inspect --format`.";
    NOT: Warning, "probing.not-format",
        "an image does not have the signature of the format that the XML states",
        "The image was replaced, or the XML is wrong. To state another format now is a guess, \
         which the author of the image controls.",
        "Find out who wrote the image, and restore it; or state its real format, after `luksmith \
         inspect --format`.";
}

/// The signatures that a raw disk may have: partition tables, discs, and LUKS, which has a rule of
/// its own.
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
            context.add(
                &LAYER,
                place,
                format!("{} has no format", layer.part.name()),
            );
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
                let detail = format!(
                    "{path} has the signature of {} at byte {}",
                    seen.format, seen.offset
                );
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

/// A volume whose backing store does not state its format.
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
                "the backing store has no format",
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

/// The name of the signature of a format, given by libvirt's name.
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
