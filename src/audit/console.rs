//! Consoles: screens and serial lines that listen on the network.

use super::context::Context;
use super::host::migration::is_wildcard;
use super::host::settings::Settings;
use super::rule::{Place, rules, shown};
use crate::xml::Element;

rules! {
    LISTEN: Error, "console.listen",
        "a console listens on all addresses of the host",
        "A client that reaches the port has the guest's screen and keyboard, or its serial line. \
         A VNC password has eight characters, and can be guessed offline.",
        "Listen on 127.0.0.1 or on a Unix socket (<listen type='socket'/>), and reach it over \
         SSH; or listen on one address, under TLS with client certificates.";
    PASSWORD: Warning, "console.password",
        "the password of a console is in the configuration",
        "All readers of the XML or of the file have it, including readers of backups. VNC uses \
         only its first eight characters.",
        "Listen on a Unix socket, or use SASL or TLS with client certificates, and remove the \
         password.";
}

pub(super) fn domain(context: &mut Context<'_>, xml: Element<'_>, place: &Place) {
    let devices = xml.children("devices");
    for device in devices.flat_map(Element::elements) {
        let kind = device.attribute("type").unwrap_or_default();
        let name = format!("{} {kind}", device.name());
        let place = place.within("device", name.trim(), device.line());
        if device.is("graphics") {
            graphics(context, device, &place);
        } else if ["tcp", "udp"].contains(&kind) {
            serial(context, device, &place);
        }
    }
}

fn graphics(context: &mut Context<'_>, device: Element<'_>, place: &Place) {
    let own = device.attribute("listen").map(|address| (device, address));
    let within = device.children("listen").filter_map(|listen| {
        let address = listen.attribute("address")?;
        Some((listen, address))
    });
    // The attribute repeats the address of the first element.
    let found = within.chain(own).find(|(_, address)| is_wildcard(address));
    if let Some((element, address)) = found {
        let detail = format!("it listens on {}", shown(address));
        context.add(&LISTEN, place.at(element.line()), detail);
    }
    if device
        .attribute("passwd")
        .is_some_and(|one| !one.is_empty())
    {
        context.add(&PASSWORD, place.clone(), "it has the attribute passwd");
    }
}

/// A character device that listens for connections or datagrams.
fn serial(context: &mut Context<'_>, device: Element<'_>, place: &Place) {
    for source in device.children("source") {
        let host = source.attribute("host").unwrap_or_default();
        if source.attribute("mode") == Some("bind") && is_wildcard(host) {
            let detail = format!(
                "it listens on {}",
                if host.is_empty() { "any" } else { host }
            );
            context.add(&LISTEN, place.at(source.line()), detail);
        }
    }
}

/// `qemu.conf`: the settings of consoles whose XML does not have them.
pub(super) fn qemu(context: &mut Context<'_>, conf: &Settings) {
    for name in ["vnc_listen", "spice_listen", "rdp_listen"] {
        let all = conf.text(name).is_some_and(|address| is_wildcard(&address));
        context.add_if(&LISTEN, &conf.place(name), all.then(|| conf.said(name)));
    }
    for name in ["vnc_password", "spice_password", "rdp_password"] {
        let set = conf.is_set(name).then(|| format!("{name} is set"));
        context.add_if(&PASSWORD, &conf.place(name), set);
    }
}
