//! Control of libvirt. A client that may define domains controls the host: a domain may have any
//! file as its disk. So only root, and users who may be root, should be able to connect to the
//! read-write socket.

use super::daemon::last;
use super::settings::Settings;
use crate::audit::context::Context;
use crate::audit::inventory::SocketUnit;
use crate::audit::rule::{Place, rules, shown};

rules! {
    SOCKET: Error, "control.socket",
        "every user of the host may command libvirt",
        "Without authentication, only the socket's mode protects it, and the mode lets other \
         users write: every user and service controls the host.",
        "Remove auth_unix_rw = \"none\", or let only root and a group connect: SocketMode=0660 in \
         a drop-in of the socket unit, or without a unit unix_sock_rw_perms.";
    GROUP: Note, "control.group",
        "the members of a group may command libvirt without a password",
        "They control the host: a domain may have any file as its disk.",
        "Keep only users in this group to whom you would give root, or use auth_unix_rw = \
         \"polkit\" with access_drivers = [ \"polkit\" ] and rules for single domains.";
    ADMIN: Error, "control.admin-socket",
        "users other than root may use the admin socket",
        "A client of this socket can change the daemon's logging, limits and clients, without \
         authentication.",
        "Set SocketMode=0600, or remove unix_sock_admin_perms.";
    RULE: Note, "control.polkit-rule",
        "a rule of polkit lets users command libvirt without a password",
        "These users control the host: a domain may have any file as its disk.",
        "Let the rule apply only to users to whom you would give root, or remove it: an empty \
         file with its name in /etc/polkit-1/rules.d hides it.";
    ACTION: Error, "control.polkit-action",
        "polkit lets every user command libvirt",
        "Every user and service of the host controls it.",
        "Restore org.libvirt.unix.policy of the package, which says auth_admin_keep.";
    ACCESS: Note, "control.access-drivers",
        "every client that may connect may do everything",
        "libvirt does not distinguish a user who may start a domain from a user who may give it \
         the host's disk.",
        "Set access_drivers = [ \"polkit\" ], with rules for what each user may do.";
}

/// The file of a daemon, with the unit of its socket if there is one.
pub(super) fn settings(
    context: &mut Context<'_>,
    daemon: &str,
    conf: &Settings,
    unit: Option<&SocketUnit>,
) {
    let none = conf.text("auth_unix_rw").as_deref() == Some("none");
    let by_unit = unit.map(mode);
    let name = "unix_sock_rw_perms";
    // A libvirt that was built with polkit lets all users connect.
    let by_file = || (conf.place("auth_unix_rw"), conf.mode(name).unwrap_or(0o777));
    let (place, mode) = by_unit.unwrap_or_else(by_file);
    let detail = format!(
        "the socket's mode is {mode:04o}, {}",
        conf.said("auth_unix_rw")
    );
    if none && mode & 0o002 != 0 {
        context.add(&SOCKET, place, detail);
    } else if none && mode & 0o020 != 0 {
        context.add(&GROUP, place, detail);
    }
    let name = "unix_sock_admin_perms";
    let open = conf.mode(name).is_some_and(|mode| mode & 0o077 != 0);
    context.add_if(&ADMIN, &conf.place(name), open.then(|| conf.said(name)));
    let name = "access_drivers";
    let restricted = conf.texts(name).iter().any(|driver| driver != "nop");
    // Only of the daemons for domains. The other daemons would repeat the finding.
    if !restricted && ["libvirtd", "virtqemud"].contains(&daemon) {
        context.add(&ACCESS, conf.place(name), conf.said(name));
    }
}

/// The mode of a unit's socket. By systemd's default all users may connect.
fn mode(unit: &SocketUnit) -> (Place, u32) {
    let stated = last(unit, "SocketMode");
    let (place, mode) = stated.unwrap_or_else(|| {
        let file = unit.files.first().cloned().unwrap_or_default();
        (crate::audit::context::place_of(&file), "0666".to_owned())
    });
    (place, u32::from_str_radix(&mode, 8).unwrap_or(0o666))
}

pub(super) fn admin_unit(context: &mut Context<'_>, unit: &SocketUnit) {
    if unit.name.ends_with("-admin.socket") {
        let (place, mode) = mode(unit);
        let detail = (mode & 0o066 != 0).then(|| format!("SocketMode={mode:04o}"));
        context.add_if(&ADMIN, &place, detail);
    }
}

const MANAGE: &str = "org.libvirt.unix.manage";

/// A file of polkit's rules. It is a program: the audit only finds that it names this action and
/// returns yes, not for which users.
pub(super) fn polkit_rules(context: &mut Context<'_>, place: &Place, text: &str) {
    let lines = text
        .lines()
        .map(|line| line.split("//").next().unwrap_or_default());
    let lines: Vec<_> = (1..).zip(lines).collect();
    let says_yes = lines.iter().any(|(_, line)| line.contains("Result.YES"));
    let about = lines.iter().find(|(_, line)| line.contains(MANAGE));
    if let Some((number, _)) = about.filter(|_| says_yes) {
        let detail = format!("it answers {MANAGE} with YES");
        context.add(&RULE, place.at(*number), detail);
    }
}

/// A file of polkit's actions. These have a document type, so it is not read as XML.
pub(super) fn polkit_actions(context: &mut Context<'_>, place: &Place, text: &str) {
    let mut about = false;
    for (number, line) in (1..).zip(text.lines()) {
        if line.contains("<action ") {
            about = line.contains(MANAGE);
        }
        let line = line.trim();
        if about && line.starts_with("<allow_") && line.contains(">yes<") {
            context.add(&ACTION, place.at(number), shown(line));
        }
    }
}
