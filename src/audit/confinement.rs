//! Confinement: sVirt, seccomp and the emulator's user confine a guest that escapes from its
//! emulator. They do not confine the administrator of the host.

use super::context::Context;
use super::host::settings::Settings;
use super::rule::{Place, rules, shown};
use crate::xml::Element;

rules! {
    DRIVER: Error, "confinement.driver",
        "no security driver confines the emulators",
        "A guest that escapes from its emulator can access the files and processes of all other \
         guests, since all emulators run as one user.",
        "Remove security_driver from qemu.conf, so that libvirt uses SELinux or AppArmor if the \
         host has it.";
    DEFAULT: Warning, "confinement.default",
        "domains are not confined unless their XML requests it",
        "A guest that escapes from its emulator can access what all other guests have.",
        "Remove security_default_confined = 0.";
    REQUIRE: Note, "confinement.require",
        "the XML of a domain may disable its confinement",
        "A user who may write domain XML decides whether the guest is confined.",
        "Set security_require_confined = 1.";
    SECLABEL: Error, "confinement.seclabel",
        "a domain disables its confinement",
        "If the guest escapes from its emulator, it can access what all other guests have.",
        "Remove <seclabel type='none'>.";
    SECCOMP: Warning, "confinement.seccomp",
        "emulators run without a system call filter",
        "A guest that escapes from its emulator can use all system calls of the kernel.",
        "Remove seccomp_sandbox = 0.";
    ROOT: Error, "confinement.root",
        "emulators run as root",
        "A guest that escapes from its emulator is root on the host. Only the security driver \
         confines it then.",
        "Use the distribution's user: remove `user` and `group` from qemu.conf, and <seclabel \
         model='dac'> from the domain.";
    NAMESPACES: Warning, "confinement.namespaces",
        "emulators see the host's /dev",
        "A guest that escapes from its emulator finds all device nodes of the host. A mount \
         namespace has only the devices of the domain.",
        "Remove namespaces = [ ].";
    CAPABILITIES: Error, "confinement.capabilities",
        "emulators keep the capabilities with which they are started",
        "A guest that escapes from its emulator has them too.",
        "Remove clear_emulator_capabilities = 0.";
    COMMANDLINE: Warning, "confinement.commandline",
        "a domain passes arguments or properties to its emulator that libvirt does not interpret",
        "libvirt does not label, lock or audit what they open, and no rule here checks it.",
        "Use libvirt's own elements, and <qemu:commandline>, <qemu:override>, <bhyve:commandline> \
         or <xen:commandline> only for what they cannot express.";
}

/// The namespaces of elements whose content libvirt passes to the emulator as it is.
const PASSED_THROUGH: [(&str, &str); 3] = [
    ("qemu", "http://libvirt.org/schemas/domain/qemu/1.0"),
    ("bhyve", "http://libvirt.org/schemas/domain/bhyve/1.0"),
    ("xen", "http://libvirt.org/schemas/domain/xen/1.0"),
];

/// The usual prefix of such a namespace, if the element is in one.
pub(super) fn prefix(element: Element<'_>) -> Option<&'static str> {
    let named = element.namespace()?;
    let found = PASSED_THROUGH.iter().find(|(_, uri)| *uri == named);
    found.map(|(prefix, _)| *prefix)
}

/// The parts `key=value` of an argument of QEMU: options with commas, JSON, or the parameters of a
/// URI. A part without a value is only a key.
pub(super) fn pairs(argument: &str) -> impl Iterator<Item = (String, &str)> {
    let parts = argument.split([',', '{', '}', '?', '&']);
    parts.map(|part| {
        let (name, value) = part.split_once(['=', ':']).unwrap_or((part, ""));
        let name = name.trim_matches([' ', '"', '\'']).to_ascii_lowercase();
        (name, value.trim_matches([' ', '"', '\'']))
    })
}

/// Arguments, variables and properties that the emulator gets as they are.
pub(super) fn passed_through(context: &mut Context<'_>, xml: Element<'_>, place: &Place) {
    for element in xml.elements() {
        let Some(prefix) = prefix(element) else {
            continue;
        };
        let what = match element.name() {
            "commandline" => "arguments and variables",
            "override" => "devices",
            _ => continue,
        };
        let count = element.elements().count();
        if count > 0 {
            let detail = format!("<{prefix}:{}> with {what}: {count}", element.name());
            context.add(&COMMANDLINE, place.at(element.line()), detail);
        }
    }
}

pub(super) fn domain(context: &mut Context<'_>, xml: Element<'_>, place: &Place) {
    for label in xml.children("seclabel") {
        let place = place.at(label.line());
        let model = label.attribute("model").unwrap_or("every model");
        if label.attribute("type") == Some("none") {
            let detail = format!("<seclabel type='none'> for {}", shown(model));
            context.add(&SECLABEL, place, detail);
        } else if model == "dac" {
            let named = label.child("label").map(Element::text).unwrap_or_default();
            let user = named.split(':').next().unwrap_or_default();
            let broken = is_root(user).then(|| format!("<label>{}</label>", shown(&named)));
            context.add_if(&ROOT, &place, broken);
        }
    }
}

fn is_root(user: &str) -> bool {
    matches!(user.trim(), "root" | "0" | "+0")
}

/// `qemu.conf`.
pub(super) fn qemu(context: &mut Context<'_>, conf: &Settings) {
    let drivers = conf.texts("security_driver");
    let off = drivers.iter().any(|one| one == "none");
    context.add_if(
        &DRIVER,
        &conf.place("security_driver"),
        off.then(|| conf.said("security_driver")),
    );
    for (rule, name) in [
        (&DEFAULT, "security_default_confined"),
        (&SECCOMP, "seccomp_sandbox"),
        (&CAPABILITIES, "clear_emulator_capabilities"),
    ] {
        let off = conf.number(name) == Some(0);
        context.add_if(rule, &conf.place(name), off.then(|| conf.said(name)));
    }
    let name = "security_require_confined";
    let free = conf.flag(name) != Some(true);
    context.add_if(&REQUIRE, &conf.place(name), free.then(|| conf.said(name)));
    for name in ["user", "group"] {
        let root = conf.text(name).is_some_and(|user| is_root(&user));
        context.add_if(&ROOT, &conf.place(name), root.then(|| conf.said(name)));
    }
    let name = "namespaces";
    let none = conf.is_set(name) && !conf.texts(name).iter().any(|one| one == "mount");
    context.add_if(
        &NAMESPACES,
        &conf.place(name),
        none.then(|| conf.said(name)),
    );
}
