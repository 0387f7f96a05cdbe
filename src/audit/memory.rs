//! The memory of guests that is written to a disk without encryption. It contains the keys of the
//! disks that the guest or the emulator has open.

use super::context::Context;
use super::host::settings::Settings;
use super::inventory::{Holds, Host};
use super::rule::{Place, rules, shown};
use crate::xml::Element;

rules! {
    DUMP: Warning, "memory.dump",
        "core dumps of the emulator contain the guest's memory",
        "A dump contains the guest's memory with all keys in it, and the passphrases of its \
         disks.",
        "Remove dump_guest_core and dumpCore='on'.";
    CRASH: Warning, "memory.crash-dump",
        "the guest's memory is written to a file when it crashes or its watchdog fires",
        "The file contains the guest's memory unencrypted, and the guest decides when it crashes.",
        "Set <on_crash> to destroy or restart, and the watchdog to an action other than dump, or \
         put auto_dump_path on an encrypted file system.";
    FILE: Warning, "memory.file",
        "the guest's memory is a file",
        "The guest's memory reaches the disk unencrypted, unless the file is on hugetlbfs or \
         tmpfs.",
        "Use <source type='memfd'/>, or put memory_backing_dir on tmpfs.";
    SAVING: Warning, "memory.saving",
        "guests are saved to disk when the host shuts down",
        "libvirt writes their memory unencrypted, even if their disks are encrypted.",
        "Shut guests down instead (ON_SHUTDOWN=shutdown), or put the folder of saved guests on an \
         encrypted file system.";
    SAVED: Warning, "memory.saved",
        "the memory of a guest is in a file",
        "The file is not encrypted, and contains the keys of the guest's disks. A person who gets \
         the host's disk has them.",
        "Start the guest from it and shut the guest down, or run virsh managedsave-remove. Then \
         wipe the free space, or keep the folder on an encrypted file system.";
}

pub(super) fn domain(context: &mut Context<'_>, xml: Element<'_>, place: &Place) {
    for memory in xml.children("memory") {
        if memory.attribute("dumpCore") == Some("on") {
            context.add(&DUMP, place.at(memory.line()), "<memory dumpCore='on'>");
        }
    }
    for crash in xml.children("on_crash") {
        let action = crash.text();
        let dumps = action.starts_with("coredump");
        let detail = dumps.then(|| format!("<on_crash>{}", shown(&action)));
        context.add_if(&CRASH, &place.at(crash.line()), detail);
    }
    let devices = xml.children("devices");
    for watchdog in devices.flat_map(|devices| devices.children("watchdog")) {
        let dumps = watchdog.attribute("action") == Some("dump");
        let detail = dumps.then(|| "<watchdog action='dump'>".to_owned());
        context.add_if(&CRASH, &place.at(watchdog.line()), detail);
    }
    if let Some(source) = xml.at(&["memoryBacking", "source"])
        && source.attribute("type") == Some("file")
    {
        context.add(&FILE, place.at(source.line()), "<source type='file'>");
    }
}

/// `qemu.conf`.
pub(super) fn qemu(context: &mut Context<'_>, conf: &Settings) {
    let name = "dump_guest_core";
    let dumps = conf.flag(name) == Some(true);
    context.add_if(&DUMP, &conf.place(name), dumps.then(|| conf.said(name)));
    let name = "auto_shutdown_try_save";
    let saves = conf.text(name).is_some_and(|which| which != "none");
    context.add_if(&SAVING, &conf.place(name), saves.then(|| conf.said(name)));
}

/// `/etc/default/libvirt-guests`, a shell script of assignments.
pub(super) fn guests(context: &mut Context<'_>, place: &Place, text: &str) {
    for (number, line) in (1..).zip(text.lines()) {
        let value = line.trim().strip_prefix("ON_SHUTDOWN=");
        if value.is_some_and(|value| value.trim_matches(['"', '\'']).trim() == "suspend") {
            let place = place.within("setting", "ON_SHUTDOWN", number);
            context.add(&SAVING, place, "ON_SHUTDOWN=suspend");
        }
    }
}

/// Files with the memory of guests.
pub(super) fn kept(context: &mut Context<'_>, host: &Host) {
    for file in &host.kept {
        if file.holds == Holds::Memory {
            context.add(
                &SAVED,
                super::secrets::place_of_kept(file),
                "saved, dumped or of a snapshot",
            );
        }
    }
}
