//! Storage encryption: data that leaves the host has to be encrypted, by LUKS on the host, by the
//! guest if the policy declares it, or by the transport if the policy says that this is enough.

use super::context::Context;
use super::devices;
use super::disk::{Disk, Layer, Part, Source};
use super::host::mounts::remote_filesystem;
use super::inventory::Seen;
use super::rule::{Place, rules, shown};
use crate::xml::Element;

rules! {
    PLAIN: Error, "storage.remote-plain",
        "storage on another machine is used without encryption",
        "The operator of the storage, and attackers on the network in between, can read and \
         change the guest's data.",
        "Encrypt it on this host: <encryption format='luks'> with a secret (`luksmith encrypt`, \
         `luksmith libvirt provision`). If the guest encrypts the disk itself, declare that: \
         --guest-encrypted DOMAIN:TARGET.";
    TRANSPORT: Warning, "storage.transport-only",
        "storage on another machine is used without encryption, over an encrypted transport",
        "An attacker on the network cannot read the data, but the operator of the storage can \
         read and change it.",
        "Encrypt it on this host (`luksmith encrypt`), or declare that the transport is enough: \
         --transport-is-enough DOMAIN:TARGET.";
    RAW: Error, "storage.luks-as-raw",
        "a LUKS image is attached as a raw disk, without <encryption>",
        "The domain starts, and the guest sees the LUKS header as a part of its disk. The guest \
         can overwrite the header, and with it all keys of the volume, or use it to guess the \
         passphrase.",
        "Add <encryption format='luks'><secret type='passphrase' uuid='…'/></encryption>. If the \
         guest itself created the LUKS volume on its whole disk, declare that: --guest-encrypted \
         DOMAIN:TARGET.";
    LEGACY: Error, "storage.legacy-encryption",
        "a disk is encrypted with the AES-CBC of old qcow images",
        "Its IVs are predictable, the passphrase is the key itself, and it cannot be changed. \
         QEMU no longer supports it for guests.",
        "Convert it to LUKS: qemu-img convert on a host that can still read it, then `luksmith \
         encrypt`.";
    COPY: Error, "storage.plain-copy",
        "data of an encrypted disk is stored without encryption",
        "The encryption of one image of a disk does not cover its other images. What the guest \
         writes, or what is copied, is in plaintext in the image without encryption.",
        "Give its <source> an <encryption> with a secret too: snapshots and block copies take it \
         in their XML (virsh snapshot-create, virsh blockcopy --xml). Then remove the image \
         without encryption, and wipe the free space.";
    TPM: Note, "storage.tpm-state",
        "the state of an emulated TPM is stored without encryption",
        "The state has the keys that the guest's TPM protects, for example those with which the \
         guest encrypts its disks. A person who gets the host's disk has them.",
        "Add <encryption secret='UUID'/> to the TPM's <backend>, with a secret of libvirt whose \
         usage is vtpm.";
}

pub(super) fn disk(context: &mut Context<'_>, disk: &Disk<'_>, place: &Place) {
    for (number, layer) in disk.layers.iter().enumerate() {
        let place = place.at(layer.line);
        let format = layer.encryption.and_then(|one| one.attribute("format"));
        let guest = context.policy.guest_encrypts(&place) && layer.part == Part::Own;
        if ["qcow", "default"].contains(&format.unwrap_or("luks")) {
            let detail = format!(
                "<encryption format='{}'>",
                shown(format.unwrap_or_default())
            );
            context.add(&LEGACY, place.clone(), detail);
        } else if !disk.is_encrypted(number) && !guest {
            if let Some(remote) = remote(context, &layer.source) {
                unencrypted(context, remote, &place);
            }
            as_raw(context, layer, &place);
        }
    }
    if !context.policy.guest_encrypts(place) {
        plain_copies(context, disk, place);
    }
}

/// The images of an encrypted disk that are not encrypted themselves: overlays over an encrypted
/// image, mirrors, and the overlay of a transient disk. A base without encryption below an
/// encrypted overlay is a template, and the guest writes nothing to it.
fn plain_copies(context: &mut Context<'_>, disk: &Disk<'_>, place: &Place) {
    for (number, layer) in disk.layers.iter().enumerate() {
        let mut others = match layer.part {
            Part::Own | Part::Backing | Part::MirrorBacking => number + 1..disk.layers.len(),
            Part::Mirror => 0..disk.layers.len(),
            Part::Data => continue,
        };
        let is_of_chain = |other: &usize| {
            let parts = disk.layers.get(number + 1..*other + 1).unwrap_or_default();
            layer.part == Part::Mirror || parts.iter().all(|one| one.part != Part::Mirror)
        };
        let is_encrypted = |other: usize| is_of_chain(&other) && disk.is_encrypted(other);
        if !disk.is_encrypted(number) && others.any(is_encrypted) {
            let what = match layer.part {
                Part::Mirror => "the disk has",
                _ => "an image behind it has",
            };
            let detail = format!("{} has no <encryption>, and {what}", layer.part.name());
            context.add(&COPY, place.at(layer.line), detail);
        }
    }
    if let Some(transient) = disk.element.child("transient")
        && disk.is_encrypted(0)
    {
        let detail = "<transient/>: libvirt makes an overlay without encryption";
        context.add(&COPY, place.at(transient.line()), detail);
    }
}

/// Files of the host that a domain uses and that are on another machine, and the state of its TPMs.
pub(super) fn files(context: &mut Context<'_>, domain: Element<'_>, place: &Place) {
    for file in devices::files(domain) {
        let (name, line) = (file.element.name(), file.element.line());
        let place = place.within("file", name, line);
        if let Some(remote) = remote(context, &file.source) {
            unencrypted(context, remote, &place);
        }
    }
    for (tpm, backend) in devices::tpms(domain) {
        let place = place.within("device", "tpm", tpm.line());
        if backend.child("encryption").is_none() {
            context.add(&TPM, place.clone(), "<backend> has no <encryption>");
            if let Some(remote) = remote(context, &devices::tpm_state(backend)) {
                unencrypted(context, remote, &place);
            }
        }
    }
}

/// A storage on another machine, and whether the transport to it is encrypted.
struct Remote {
    what: String,
    encrypted: bool,
}

fn remote(context: &Context<'_>, source: &Source<'_>) -> Option<Remote> {
    let plain = |what| Remote {
        what,
        encrypted: false,
    };
    match source {
        Source::Network(network) if network.is_local => None,
        Source::Network(network) => {
            let by_default = context.qemu.as_ref().and_then(|conf| conf.flag("nbd_tls"));
            let encrypted = match network.protocol {
                "https" | "ftps" | "ssh" => true,
                "nbd" => network.tls.or(by_default) == Some(true),
                _ => network.tls == Some(true),
            };
            let what = format!("{} over {}", shown(network.name), shown(network.protocol));
            Some(Remote { what, encrypted })
        }
        Source::Volume { pool, volume } => {
            let kind = &context
                .pools
                .get(*pool)
                .filter(|pool| pool.is_remote())?
                .kind;
            let (pool, volume) = (shown(pool), shown(volume));
            Some(plain(format!(
                "volume {volume} of pool {pool}, which is {kind}"
            )))
        }
        Source::File(path) => {
            let kind = remote_filesystem(&context.mounts, path)?;
            Some(plain(format!("{} is on {kind}", shown(path))))
        }
        // What a program of this host serves, it decrypts.
        Source::None | Source::Block(_) | Source::Socket(_) | Source::Other => None,
    }
}

fn unencrypted(context: &mut Context<'_>, remote: Remote, place: &Place) {
    if !remote.encrypted {
        context.add(&PLAIN, place.clone(), remote.what);
    } else if !context.policy.transport_suffices(place) {
        context.add(&TRANSPORT, place.clone(), remote.what);
    }
}

fn as_raw(context: &mut Context<'_>, layer: &Layer<'_>, place: &Place) {
    let path = context.path(layer).unwrap_or_default();
    let image = context.image(&path, layer.format);
    let Some(Seen::Bytes(look)) = image.map(|one| &one.seen) else {
        return;
    };
    let is_luks = look.looks_like.iter().any(|seen| seen.format == "luks");
    if is_luks && layer.format.unwrap_or("raw") == "raw" {
        let detail = format!("{} begins with a LUKS header", shown(&path));
        context.add(&RAW, place.clone(), detail);
    }
}

/// A volume of a pool on another machine.
pub(super) fn volume(
    context: &mut Context<'_>,
    xml: Element<'_>,
    place: &Place,
    pool: Option<&str>,
) {
    let Some(pool) = pool.and_then(|name| context.pools.get(name)) else {
        return;
    };
    let encrypted = xml.at(&["target", "encryption"]).is_some();
    if pool.is_remote() && !encrypted && !context.policy.guest_encrypts(place) {
        let detail = format!("its pool is {}", pool.kind);
        context.add(&PLAIN, place.clone(), detail);
    }
}
