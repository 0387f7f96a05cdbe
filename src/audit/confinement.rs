//! Confinement: sVirt, seccomp and the emulator's user hold a guest that broke out of its emulator. They do not hold the host's admin.

use super::context::Context;
use super::host::settings::Settings;
use super::rule::{Place, rules, shown};
use crate::xml::Element;

rules! {
    DRIVER: Error, "confinement.driver",
        "no security driver confines the emulators",
        "A guest that breaks out of its emulator reaches the files and processes of every other guest, since all run as one user.",
        "Remove security_driver from qemu.conf, so that SELinux or AppArmor is used where the host has it.";
    DEFAULT: Warning, "confinement.default",
        "domains are unconfined where their XML does not say otherwise",
        "A guest that breaks out of its emulator reaches what every other guest has.",
        "Remove security_default_confined = 0.";
    REQUIRE: Note, "confinement.require",
        "a domain's XML may turn its confinement off",
        "Whoever may write domain XML decides whether the guest is confined.",
        "Set security_require_confined = 1.";
    SECLABEL: Error, "confinement.seclabel",
        "the domain turns its confinement off",
        "If its guest breaks out of the emulator, it reaches what every other guest has.",
        "Remove <seclabel type='none'>.";
    SECCOMP: Warning, "confinement.seccomp",
        "emulators run without a system call filter",
        "The kernel's whole interface is open to a guest that broke out of its emulator.",
        "Remove seccomp_sandbox = 0.";
    ROOT: Error, "confinement.root",
        "emulators run as root",
        "A guest that breaks out of its emulator is root on the host, held by the security driver alone.",
        "Use the distribution's user: remove `user` and `group` from qemu.conf, <seclabel model='dac'> from the domain.";
    NAMESPACES: Warning, "confinement.namespaces",
        "emulators see the host's /dev",
        "Every device node of the host is there for a guest that broke out; a mount namespace of its own holds only the domain's devices.",
        "Remove namespaces = [ ].";
    CAPABILITIES: Error, "confinement.capabilities",
        "emulators keep the capabilities that they are started with",
        "A guest that breaks out of its emulator has them too.",
        "Remove clear_emulator_capabilities = 0.";
    COMMANDLINE: Warning, "confinement.commandline",
        "the domain gives arguments to QEMU that libvirt does not understand",
        "What they open is not labelled, not locked and not audited by libvirt, and no rule here sees it.",
        "Use libvirt's own elements; keep <qemu:commandline> for what has none.";
}

pub(super) const QEMU: &str = "http://libvirt.org/schemas/domain/qemu/1.0";

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
    let is_commandline =
        |one: &Element<'_>| one.namespace() == Some(QEMU) && one.name() == "commandline";
    for commandline in xml.elements().filter(is_commandline) {
        let count = commandline.elements().count();
        if count > 0 {
            let detail = format!("arguments and variables: {count}");
            context.add(&COMMANDLINE, place.at(commandline.line()), detail);
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
