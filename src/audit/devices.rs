//! Storage of a domain outside of `<disk>` (libvirt's `formatdomain`): firmware and its variables,
//! SCSI devices over iSCSI, non-volatile memory, and files of the host with data of the guest or of
//! what it boots.

use std::borrow::Cow;

use super::disk::{Disk, Layer, Network, Part, Source, encryption};
use crate::xml::Element;

/// The storages that are used like a disk, which the rules of disks judge.
pub(super) fn storages(domain: Element<'_>) -> Vec<Disk<'_>> {
    let mut found = Vec::new();
    for os in domain.children("os") {
        for loader in os.children("loader") {
            let source = Source::text(loader);
            found.push(one("loader", loader, "loader".into(), source));
        }
        for nvram in os.children("nvram") {
            let source = match nvram.child("source") {
                Some(_) => Source::read(nvram),
                None => Source::text(nvram),
            };
            found.push(one("nvram", nvram, "nvram".into(), source));
        }
    }
    let devices = domain.children("devices").flat_map(Element::elements);
    let (mut hostdevs, mut memories) = (0, 0);
    for device in devices {
        if device.is("hostdev") {
            let name = name(device, "hostdev", &mut hostdevs);
            let source = device.child("source");
            if let Some(source) = source.filter(|one| one.attribute("protocol") == Some("iscsi")) {
                let source = Source::Network(Network::read(source));
                found.push(one("hostdev", device, name, source));
            }
        } else if device.is("memory") {
            let name = name(device, "memory", &mut memories);
            if let Some(path) = device.at(&["source", "path"]) {
                found.push(one("memory", device, name, Source::text(path)));
            }
        }
    }
    found
}

/// A storage without images behind it. If its format is not stated, libvirt states raw.
fn one<'a>(
    kind: &'static str,
    element: Element<'a>,
    target: Cow<'a, str>,
    source: Source<'a>,
) -> Disk<'a> {
    let own = Layer {
        part: Part::Own,
        line: element.line(),
        format: Some(element.attribute("format").unwrap_or("raw")),
        source,
        encryption: encryption(element),
    };
    Disk {
        kind,
        element,
        target,
        layers: vec![own],
    }
}

/// The name of a device: its alias, or as libvirt names it, its kind and its number.
fn name<'a>(device: Element<'a>, kind: &str, count: &mut usize) -> Cow<'a, str> {
    let number = *count;
    *count += 1;
    let alias = device.child("alias").and_then(|one| one.attribute("name"));
    alias.map_or_else(|| format!("{kind}{number}").into(), Cow::Borrowed)
}

/// A file or folder of the host that is no image of a disk.
pub(super) struct HostFile<'a> {
    /// The element that names it.
    pub(super) element: Element<'a>,
    pub(super) source: Source<'a>,
}

/// The files and folders that a domain names, beside those of disks and of [`storages`]: what it
/// boots, folders that it shares, and files into which its devices write.
pub(super) fn files(domain: Element<'_>) -> Vec<HostFile<'_>> {
    let mut found = Vec::new();
    let mut add = |element, source| found.push(HostFile { element, source });
    for os in domain.children("os") {
        for name in ["kernel", "initrd", "dtb", "shim"] {
            for element in os.children(name) {
                add(element, Source::text(element));
            }
        }
        for table in os.children("acpi").flat_map(|acpi| acpi.children("table")) {
            add(table, Source::text(table));
        }
        for element in os.children("varstore") {
            add(element, path(element, "path"));
        }
    }
    for entry in domain
        .children("sysinfo")
        .flat_map(|info| info.children("entry"))
    {
        add(entry, path(entry, "file"));
    }
    for device in domain.children("devices").flat_map(Element::elements) {
        let kind = device.attribute("type");
        for log in device.children("log") {
            add(log, path(log, "file"));
        }
        match device.name() {
            "disk" if kind == Some("dir") => {
                let source = device.child("source");
                add(device, source.map_or(Source::None, |one| path(one, "dir")));
            }
            "filesystem" => add(device, folder(device)),
            "serial" | "parallel" | "console" | "channel" if kind == Some("file") => {
                let source = device.child("source");
                add(device, source.map_or(Source::None, |one| path(one, "path")));
            }
            "pstore" => add(
                device,
                device.child("path").map_or(Source::None, Source::text),
            ),
            "audio" if kind == Some("file") => add(device, path(device, "path")),
            _ => {
                for rom in device.children("rom") {
                    add(rom, path(rom, "file"));
                }
            }
        }
    }
    found
}

fn path<'a>(element: Element<'a>, attribute: &str) -> Source<'a> {
    let path = element.attribute(attribute).filter(|path| !path.is_empty());
    path.map_or(Source::None, |path| Source::File(path.into()))
}

/// The source of a `<filesystem>`: a folder or a volume.
fn folder(device: Element<'_>) -> Source<'_> {
    let Some(source) = device.child("source") else {
        return Source::None;
    };
    match device.attribute("type").unwrap_or("mount") {
        "mount" => path(source, "dir"),
        "volume" => Source::read(device),
        _ => Source::None,
    }
}

/// The emulated TPMs of a domain, each with its `<backend>`.
pub(super) fn tpms(domain: Element<'_>) -> impl Iterator<Item = (Element<'_>, Element<'_>)> {
    let devices = domain.children("devices");
    let tpms = devices.flat_map(|devices| devices.children("tpm"));
    tpms.filter_map(|tpm| {
        let backend = tpm.child("backend")?;
        (backend.attribute("type") == Some("emulator")).then_some((tpm, backend))
    })
}

/// The stated place of the state of an emulated TPM.
pub(super) fn tpm_state(backend: Element<'_>) -> Source<'_> {
    let source = backend.child("source");
    source.map_or(Source::None, |one| path(one, "path"))
}
