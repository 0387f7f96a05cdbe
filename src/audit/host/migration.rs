//! Migration: it should use a network of its own, and encryption.

use super::settings::Settings;
use crate::audit::context::Context;
use crate::audit::rule::rules;

rules! {
    LISTEN: Warning, "migration.listen",
        "the host accepts migrations on all its addresses",
        "Guests and clients can connect to the migration port. They can send a forged state, or \
         keep the port busy.",
        "Set migration_address to an address on a network that only hosts use.";
    HOST: Note, "migration.host",
        "the address to which other hosts migrate is not set",
        "Other hosts connect to the address to which the host's name resolves, which may be on a \
         network of guests or clients.",
        "Set migration_host to the host's name or address on a network that only hosts use.";
    TLS: Warning, "migration.tls",
        "migrations without encryption are allowed",
        "The memory of a guest, with the keys of its disks, crosses the network unencrypted if a \
         program does not set VIR_MIGRATE_TLS.",
        "Set migrate_tls_force = 1, with certificates in migrate_tls_x509_cert_dir.";
    VERIFY: Warning, "migration.verify",
        "migrations are accepted from hosts without a certificate",
        "Every program that can reach the port can send the state of a guest.",
        "Set migrate_tls_x509_verify = 1, or remove it and default_tls_x509_verify = 0.";
    OTHER: Warning, "migration.tls-verify",
        "a server of QEMU accepts clients without a certificate",
        "Then TLS only prevents eavesdropping. Every client can connect, to consoles, serial \
         lines or backups.",
        "Remove the setting, or set it to 1, and give certificates to the clients.";
    NBD: Note, "migration.nbd-tls",
        "NBD disks do not use TLS unless their XML requests it",
        "The data of a disk without <encryption> crosses the network unencrypted, and can be read \
         and changed there.",
        "Set nbd_tls = 1, with certificates in nbd_tls_x509_cert_dir. <source tls='no'> makes an \
         exception for a disk.";
}

/// Whether an address means all addresses.
pub(in crate::audit) fn is_wildcard(address: &str) -> bool {
    let address = address.trim_start_matches('[').trim_end_matches(']');
    match address.parse::<std::net::IpAddr>() {
        Ok(address) => address.is_unspecified(),
        Err(_) => ["", "*", "0"].contains(&address),
    }
}

/// `qemu.conf`.
pub(super) fn qemu(context: &mut Context<'_>, conf: &Settings) {
    let name = "migration_address";
    let all = conf.text(name).is_none_or(|address| is_wildcard(&address));
    context.add_if(&LISTEN, &conf.place(name), all.then(|| conf.said(name)));
    let name = "migration_host";
    let unsaid = !conf.is_set(name);
    context.add_if(&HOST, &conf.place(name), unsaid.then(|| conf.said(name)));
    for (rule, name) in [(&TLS, "migrate_tls_force"), (&NBD, "nbd_tls")] {
        let off = conf.flag(name) != Some(true);
        context.add_if(rule, &conf.place(name), off.then(|| conf.said(name)));
    }
    // A setting that is missing for one use has the value of the default, if that is set.
    let off = |name: &str| match conf.flag(name) {
        Some(verify) => (!verify).then(|| name.to_owned()),
        None if conf.flag("default_tls_x509_verify") == Some(false) => {
            Some("default_tls_x509_verify".to_owned())
        }
        None => None,
    };
    if let Some(name) = off("migrate_tls_x509_verify") {
        context.add(&VERIFY, conf.place(&name), conf.said(&name));
    }
    let used = |name: &str| name != "vnc_tls_x509_verify" || conf.flag("vnc_tls") == Some(true);
    let others = [
        "backup_tls_x509_verify",
        "chardev_tls_x509_verify",
        "vnc_tls_x509_verify",
    ];
    for name in others.into_iter().filter(|name| used(name)) {
        let off = conf.flag(name) == Some(false);
        context.add_if(&OTHER, &conf.place(name), off.then(|| conf.said(name)));
    }
}
