//! Data access: a guest's image must not be mounted, attached as a loop device or mapped on the
//! host, whose kernel would read its file systems.

use std::collections::BTreeSet;

use crate::audit::context::Context;
use crate::audit::inventory::{BlockDevice, Host};
use crate::audit::policy::lies_in;
use crate::audit::rule::{Place, rules, shown};

rules! {
    MOUNTED: Error, "access.mounted",
        "the host has mounted a guest's disk",
        "The kernel's file system code reads what the guest wrote: a crafted file system can take \
         over the kernel. And if both the host and the guest write to it, they destroy it.",
        "Unmount it. To look into a disk, use a throw-away virtual machine (libguestfs).";
    LOOPED: Warning, "access.looped",
        "a guest's image is a loop device of the host",
        "The kernel searches it for partitions, and programs search it for file systems, volumes \
         and RAID, which they may start.",
        "Detach it: losetup -d. To look into a disk, use a throw-away virtual machine \
         (libguestfs).";
    MAPPED: Warning, "access.mapped",
        "the host has mapped the contents of a guest's disk",
        "A partition, an LVM volume or an encrypted volume of the guest is a device of the host, \
         which every program that searches for file systems can open. The key of an opened LUKS \
         volume is in the host's kernel.",
        "Remove the mapping (kpartx -d, vgchange -an, cryptsetup close), and exclude the disk \
         from LVM with a filter.";
}

/// Checks all known disks and volumes, and the files in the folders of pools.
pub(super) fn access(context: &mut Context<'_>, host: &Host) {
    let mut told = BTreeSet::new();
    let mut known = std::mem::take(&mut context.paths);
    // A finding about a disk is not repeated for the volume of this disk.
    known.sort_by_key(|(_, place)| !place.object.iter().any(|(kind, _)| *kind == "disk"));
    for (path, place) in &known {
        for start in devices_of(context, host, path) {
            if told.insert(start.name.clone()) {
                one(context, host, start, place);
            }
        }
    }
    let folders = context
        .pools
        .values()
        .filter_map(|pool| pool.target.clone());
    let folders: Vec<_> = folders.filter(|one| !one.starts_with("/dev")).collect();
    for device in &host.devices {
        let file = device.backing_file.as_deref().unwrap_or_default();
        let Some(folder) = folders.iter().find(|folder| lies_in(file, folder)) else {
            continue;
        };
        if told.insert(device.name.clone()) {
            let place = Place {
                origin: shown(file),
                path_bytes: None,
                is_file: true,
                line: None,
                object: vec![("folder", shown(folder))],
            };
            one(context, host, device, &place);
        }
    }
}

/// The devices of a path: the device itself, or loop devices of the file.
fn devices_of<'h>(context: &Context<'_>, host: &'h Host, path: &str) -> Vec<&'h BlockDevice> {
    let images = &context.inventory.images;
    let images: Vec<_> = images.iter().filter(|(one, _)| one.path == path).collect();
    let is = |device: &&BlockDevice| {
        let file = device.backing_file.as_deref();
        let same_file = file.is_some_and(|file| {
            let mut real = images.iter().map(|(_, image)| image.real_path.as_deref());
            file == path || real.any(|real| real == Some(file))
        });
        let mut files = images.iter().filter_map(|(_, image)| image.file);
        let same_file = same_file || files.any(|file| device.backing == Some(file));
        let mut numbers = images.iter().filter_map(|(_, image)| image.device);
        same_file || numbers.any(|number| number == device.number)
    };
    host.devices.iter().filter(is).collect()
}

/// Checks a device of a guest, and all devices on top of it.
fn one(context: &mut Context<'_>, host: &Host, start: &BlockDevice, place: &Place) {
    if let Some(file) = &start.backing_file {
        let detail = format!("/dev/{} is {}", shown(&start.name), shown(file));
        context.add(&LOOPED, place.clone(), detail);
    }
    let mut reached = vec![start];
    let mut at = 0;
    while let Some(below) = reached.get(at).copied() {
        at += 1;
        for device in &host.devices {
            let over = device.slaves.contains(&below.name)
                || device.whole.as_deref() == Some(below.name.as_str());
            if !over || reached.iter().any(|one| one.name == device.name) {
                continue;
            }
            reached.push(device);
            if let Some(mapping) = &device.mapping {
                let (mapping, below) = (shown(mapping), shown(&below.name));
                let detail = format!("/dev/mapper/{mapping} maps /dev/{below}");
                context.add(&MAPPED, place.clone(), detail);
            }
        }
    }
    let mountinfo = host.mountinfo.as_ref().map_or("", |file| &file.origin);
    let mounted = context.mounts.iter().filter_map(|mount| {
        // Some file systems have a device number of their own, so names are compared too.
        let is = |device: &&&BlockDevice| {
            let named = mount.source.strip_prefix("/dev/");
            let mapped = named.and_then(|name| name.strip_prefix("mapper/"));
            device.number == mount.number
                || named == Some(device.name.as_str())
                || mapped.is_some() && mapped == device.mapping.as_deref()
        };
        let (name, point) = (shown(&reached.iter().find(is)?.name), shown(&mount.point));
        let line = mount.line;
        Some(format!(
            "/dev/{name} is mounted on {point} ({mountinfo}:{line})"
        ))
    });
    for detail in mounted.collect::<Vec<_>>() {
        context.add(&MOUNTED, place.clone(), detail);
    }
}
