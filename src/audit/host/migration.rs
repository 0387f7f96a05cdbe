//! Migration: a network of its own, and encrypted.

use super::settings::Settings;
use crate::audit::context::Context;
use crate::audit::rule::rules;

rules! {
    LISTEN: Warning, "migration.listen",
        "incoming migrations are taken on every address of the host",
        "Guests and clients can connect to the migration port: they can feed it a forged state, or keep it busy.",
        "Set migration_address to the address of a network that only hosts are on.";
    HOST: Note, "migration.host",
        "the address that other hosts migrate to is not said",
        "They connect to whatever the host's name resolves to, which may be a network of guests or clients.",
        "Set migration_host to the host's name or address on a network that only hosts are on.";
    TLS: Warning, "migration.tls",
        "migrations need not be encrypted",
        "The memory of a guest, with the keys of its disks, crosses the network in the clear whenever somebody forgets VIR_MIGRATE_TLS.",
        "Set migrate_tls_force = 1, with certificates in migrate_tls_x509_cert_dir.";
    VERIFY: Warning, "migration.verify",
        "migrations are taken from hosts that show no certificate",
        "Anybody who reaches the port can send a guest's state.",
        "Set migrate_tls_x509_verify = 1, or remove it and default_tls_x509_verify = 0.";
    OTHER: Warning, "migration.tls-verify",
        "a server of QEMU takes clients that show no certificate",
        "TLS then keeps listeners out, and lets anybody in: to consoles, serial lines or backups.",
        "Remove the setting, or set it to 1, and give certificates to clients.";
    NBD: Note, "migration.nbd-tls",
        "NBD disks are not under TLS where their XML does not say so",
        "What a disk without <encryption> stores crosses the network in the clear, and anybody between can change it.",
        "Set nbd_tls = 1, with certificates in nbd_tls_x509_cert_dir; <source tls='no'> excepts a disk.";
}

/// Whether an address means all of them.
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
    // What is not set for one use is as the default says, where that is set.
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
