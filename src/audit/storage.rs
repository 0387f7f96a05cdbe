//! Storage encryption: data that leaves the host has to be encrypted, by LUKS on the host, by the
//! guest if the policy declares it, or by the transport if the policy says that this is enough.

use super::context::Context;
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
}

pub(super) fn disk(context: &mut Context<'_>, disk: &Disk<'_>, place: &Place) {
    for layer in &disk.layers {
        let place = place.at(layer.line);
        let format = layer.encryption.and_then(|one| one.attribute("format"));
        let guest = context.policy.guest_encrypts(&place) && layer.part == Part::Own;
        if ["qcow", "default"].contains(&format.unwrap_or("luks")) {
            let detail = format!(
                "<encryption format='{}'>",
                shown(format.unwrap_or_default())
            );
            context.add(&LEGACY, place.clone(), detail);
        } else if layer.encryption.is_none() && !guest {
            if let Some(remote) = remote(context, layer) {
                unencrypted(context, remote, &place);
            }
            as_raw(context, layer, &place);
        }
    }
}

/// A storage on another machine, and whether the transport to it is encrypted.
struct Remote {
    what: String,
    encrypted: bool,
}

fn remote(context: &Context<'_>, layer: &Layer<'_>) -> Option<Remote> {
    let plain = |what| Remote {
        what,
        encrypted: false,
    };
    match layer.source {
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
                .get(pool)
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
        Source::None | Source::Block(_) | Source::Other => None,
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
