//! Transports that libvirt's XML does not have, and that no other rule judges: TLS with pre-shared
//! keys, and virtio sockets. A domain can use them only by arguments that libvirt passes through.

use super::confinement::{pairs, prefix};
use super::context::Context;
use super::rule::{Place, rules};
use crate::xml::Element;

rules! {
    PSK: Warning, "transport.psk",
        "a domain uses TLS with pre-shared keys",
        "Every holder of the file with the keys can act as the server and as the client. libvirt \
         does not know of the keys, and luksmith does not check them: it supports only TLS with \
         certificates.",
        "Use certificates: tls='yes' of the <source> of a disk or of a character device, and the \
         settings of TLS in qemu.conf.";
    VSOCK: Warning, "transport.vsock",
        "a domain reaches its storage or another peer over virtio sockets",
        "A CID and a port do not authenticate the peer: any process of that machine may have the \
         port. libvirt and luksmith do not support this transport, and no rule here checks it.",
        "Use a Unix socket (<host transport='unix'>), or TCP with tls='yes'. The device <vsock> \
         of a guest may stay.";
}

/// Arguments that the emulator gets as they are.
pub(super) fn passed_through(context: &mut Context<'_>, xml: Element<'_>, place: &Place) {
    let given = xml.elements().filter(|one| prefix(*one) == Some("qemu"));
    let arguments = given.filter(|one| one.name() == "commandline");
    for one in arguments.flat_map(Element::elements) {
        let argument = one.attribute("value").unwrap_or_default();
        if one.name() != "arg" {
            continue;
        }
        let place = place.at(one.line());
        let psk = is_psk(argument).then(|| "an object tls-creds-psk".to_owned());
        context.add_if(&PSK, &place, psk);
        context.add_if(&VSOCK, &place, vsock(argument).map(str::to_owned));
    }
}

/// Whether an argument is that of an object with pre-shared keys: `tls-creds-psk,…`, or its JSON.
fn is_psk(argument: &str) -> bool {
    const TYPE: &str = "tls-creds-psk";
    let mut pairs = pairs(argument);
    let first = pairs.next();
    let is_first = first.is_some_and(|(key, value)| key == TYPE || is_qom(&key, value));
    is_first || pairs.any(|(key, value)| is_qom(&key, value))
}

fn is_qom(key: &str, value: &str) -> bool {
    key == "qom-type" && value == "tls-creds-psk"
}

/// How an argument names a virtio socket: as the type of an address (`server.type=vsock`, or its
/// JSON), as a URI of NBD, or as QEMU's `vsock:CID:PORT`.
fn vsock(argument: &str) -> Option<&'static str> {
    let is_type = |(key, value): (String, &str)| {
        (key == "type" || key.ends_with(".type")) && value == "vsock"
    };
    if pairs(argument).any(is_type) {
        return Some("an address of the type vsock");
    }
    let lower = argument.to_ascii_lowercase();
    if lower.contains("nbd+vsock://") || lower.contains("nbds+vsock://") {
        return Some("a URI of the scheme nbd+vsock or nbds+vsock");
    }
    argument
        .starts_with("vsock:")
        .then_some("an address vsock:CID:PORT")
}
