//! Disks that another program of this host serves to the emulator on a Unix socket: over NBD, or by
//! memory that the guest shares (vhost-user). Such a disk has no `<encryption>` in the XML, since
//! that program decrypts it: what is on the socket is plaintext.

use super::context::Context;
use super::disk::{Disk, Source};
use super::rule::{Place, rules, shown};
use crate::xml::{self, Element};

rules! {
    SOCKET: Error, "served.socket",
        "other users of the host may use the socket of a disk",
        "What is behind the socket is the decrypted disk. A user who can connect reads and \
         changes it, and a user who can replace the socket gives the guest another disk.",
        "Serve it with `luksmith serve --socket-mode 660 --socket-group GROUP` for the group of \
         the emulator, in a folder that only root can write to.";
    MEMORY: Error, "served.memory",
        "a domain does not share its memory, and has a disk that needs it",
        "libvirt does not start the domain: the server of a disk of the type vhostuser reads and \
         writes the memory of the guest.",
        "Add <memoryBacking><source type='memfd'/><access mode='shared'/></memoryBacking>.";
}

/// The sockets on which the images of a disk are served, with their lines.
pub(super) fn sockets<'a>(disk: &'a Disk<'_>) -> impl Iterator<Item = (&'a str, usize)> {
    let sockets = disk.layers.iter().filter_map(|layer| match &layer.source {
        Source::Socket(path) => Some((*path, layer.line)),
        Source::Network(network) => network.socket.map(|path| (path, layer.line)),
        _ => None,
    });
    sockets.filter(|(path, _)| path.starts_with('/'))
}

pub(super) fn disk(context: &mut Context<'_>, disk: &Disk<'_>, place: &Place) {
    for (path, line) in sockets(disk) {
        let Some(found) = context.inventory.sockets.get(path) else {
            continue;
        };
        let (mode, folder) = (found.mode & 0o7777, found.folder_mode & 0o7777);
        let path = shown(path);
        let detail = if folder & 0o002 != 0 {
            format!("{path} is in a folder with the mode {folder:04o}")
        } else if mode & 0o002 != 0 && folder & 0o001 != 0 {
            format!("{path} has the mode {mode:04o}, and its folder {folder:04o}")
        } else {
            continue;
        };
        context.add(&SOCKET, place.at(line), detail);
    }
}

/// A domain whose memory is not shared, with disks that need it.
pub(super) fn memory(
    context: &mut Context<'_>,
    domain: Element<'_>,
    disk: &Disk<'_>,
    place: &Place,
) {
    let needs = matches!(
        disk.layers.first().map(|own| &own.source),
        Some(Source::Socket(_))
    );
    if needs && !xml::shares_memory(domain) {
        context.add(&MEMORY, place.clone(), "<disk type='vhostuser'>");
    }
}
