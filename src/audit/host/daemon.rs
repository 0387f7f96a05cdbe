//! The listeners of the daemons (`libvirtd.conf`, `virtproxyd.conf` and the like): the clients on
//! the network that may command them.

use super::migration::is_wildcard;
use super::settings::Settings;
use crate::audit::context::Context;
use crate::audit::inventory::{Document, Host, SocketUnit};
use crate::audit::rule::{Place, rules, shown};

rules! {
    TCP: Error, "listener.tcp",
        "libvirt accepts connections without TLS from the network",
        "A client that commands libvirt controls the host. An attacker on the network in between \
         can read the XML and the values of secrets, unless SASL encrypts the connection.",
        "Remove listen_tcp, run systemctl disable --now libvirtd-tcp.socket \
         (virtproxyd-tcp.socket), and use qemu+ssh:// or qemu+tls://.";
    AUTH: Error, "listener.auth-tcp",
        "connections without TLS need no authentication",
        "Every client that can reach the port controls the host.",
        "Remove auth_tcp = \"none\".";
    ADDRESS: Warning, "listener.address",
        "libvirt listens on all addresses of the host",
        "Guests and clients can reach the port, and attack it.",
        "Set listen_addr, or ListenStream= of the socket unit, to an address on a network that \
         only hosts use.";
    VERIFY: Error, "listener.no-verify",
        "the certificates of clients are not verified",
        "Every client that can reach the port controls the host: only the certificate \
         authenticates a client.",
        "Remove tls_no_verify_certificate.";
    SANITY: Note, "listener.no-sanity",
        "the daemon does not check its own certificates",
        "The daemon uses a certificate that is expired or of the wrong kind, without a message.",
        "Remove tls_no_sanity_certificate.";
    NAMES: Note, "listener.any-certificate",
        "a client with any certificate of the CA may command libvirt",
        "A certificate that the same CA issued for another purpose gives control of the host too.",
        "Set tls_allowed_dn_list, or use a CA only for libvirt's clients.";
}

/// The file of a daemon. The file, and how the daemon is started, determine whether it listens for
/// TLS and for plain TCP.
pub(super) fn settings(context: &mut Context<'_>, conf: &Settings, starts: Starts) {
    let tcp = conf.flag("listen_tcp") == Some(true);
    context.add_if(
        &TCP,
        &conf.place("listen_tcp"),
        tcp.then(|| conf.said("listen_tcp")),
    );
    let tls = conf.flag("listen_tls");
    let tls = tls == Some(true) || starts.listens && tls.is_none();
    let none = conf.text("auth_tcp").as_deref() == Some("none");
    context.add_if(
        &AUTH,
        &conf.place("auth_tcp"),
        none.then(|| conf.said("auth_tcp")),
    );
    // With a socket of systemd, the unit has the address.
    let name = "listen_addr";
    let all = conf.text(name).is_none_or(|address| is_wildcard(&address));
    let listens = (tcp || tls) && !starts.by_socket;
    context.add_if(
        &ADDRESS,
        &conf.place(name),
        (listens && all).then(|| conf.said(name)),
    );
    for (rule, name) in [
        (&VERIFY, "tls_no_verify_certificate"),
        (&SANITY, "tls_no_sanity_certificate"),
    ] {
        let off = conf.flag(name) == Some(true);
        context.add_if(rule, &conf.place(name), off.then(|| conf.said(name)));
    }
    let name = "tls_allowed_dn_list";
    let any = (tls || starts.by_socket) && !conf.is_set(name);
    context.add_if(&NAMES, &conf.place(name), any.then(|| conf.said(name)));
}

/// How a daemon is started.
#[derive(Clone, Copy, Default)]
pub(super) struct Starts {
    /// Whether it is started with `--listen`.
    pub(super) listens: bool,
    /// Whether a socket of systemd listens for TLS.
    pub(super) by_socket: bool,
}

impl Starts {
    /// Finds this in the files with arguments, and in the units.
    pub(super) fn read(daemon: &str, host: &Host) -> Self {
        let has_arguments = |file: &&Document| {
            let ends = ["default/libvirtd", "sysconfig/libvirtd"];
            ends.iter().any(|end| file.origin.ends_with(end))
        };
        let gives = |file: &Document| {
            let text = String::from_utf8_lossy(&file.text);
            let mut lines = text.lines().map(str::trim);
            lines.any(|line| !line.starts_with('#') && line.contains("--listen"))
        };
        let tls = format!("{daemon}-tls.socket");
        let mut units = host.sockets.iter();
        Self {
            listens: daemon == "libvirtd" && host.files.iter().filter(has_arguments).any(gives),
            by_socket: units.any(|unit| unit.enabled && unit.name == tls),
        }
    }
}

/// A unit of systemd that listens on the network.
pub(super) fn unit(context: &mut Context<'_>, unit: &SocketUnit) {
    let plain = unit.name.ends_with("-tcp.socket");
    if !unit.enabled || !(plain || unit.name.ends_with("-tls.socket")) {
        return;
    }
    let found = last(unit, "ListenStream");
    let Some((place, stream)) = found else {
        return;
    };
    if plain {
        context.add(&TCP, place.clone(), "the unit is enabled");
    }
    // Only a port means all addresses.
    let (address, _) = stream.rsplit_once(':').unwrap_or(("", ""));
    let detail = is_wildcard(address).then(|| format!("ListenStream={}", shown(&stream)));
    context.add_if(&ADDRESS, &place, detail);
}

/// The last assignment in a unit, which is the one that counts.
pub(super) fn last(unit: &SocketUnit, name: &str) -> Option<(Place, String)> {
    let mut found = None;
    for file in &unit.files {
        let text = String::from_utf8_lossy(&file.text);
        for (number, line) in (1..).zip(text.lines()) {
            let Some((key, value)) = line.split_once('=') else {
                continue;
            };
            if key.trim() == name && !value.trim().is_empty() {
                let place = crate::audit::context::place_of(file);
                let place = place.within("setting", name, number);
                found = Some((place, value.trim().to_owned()));
            }
        }
    }
    found
}
