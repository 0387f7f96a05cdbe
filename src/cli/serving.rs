//! The `luksmith serve` command line for a volume that an emulator opens, for hints.

use luksmith::qemu::quoted;
use luksmith::task::emulator::User;
use luksmith::task::libvirt::disk::ServedBy;
use luksmith::task::open::ImageFormat;

/// The `luksmith serve` command for a volume whose emulator runs as another user.
pub(crate) fn serve_command(
    (image, header, format): (&str, Option<&str>, ImageFormat),
    (by, socket): (ServedBy, &str),
    export: &str,
    user: Option<User>,
) -> String {
    let mut command = format!("luksmith serve {}", quoted(image));
    if let Some(header) = header {
        command.push_str(&format!(" --header {}", quoted(header)));
    }
    if format != ImageFormat::Raw {
        command.push_str(&format!(" --format {}", format.name()));
    }
    let option = match by {
        ServedBy::VhostUser => "--vhost-user",
        _ => "--socket",
    };
    command.push_str(&format!(" {option} {}", quoted(socket)));
    if !export.is_empty() {
        command.push_str(&format!(" --name {}", quoted(export)));
    }
    if let Some(user) = user {
        command.push_str(&format!(
            " --socket-mode 660 --socket-group {} --allow-uid {}",
            user.gid, user.uid
        ));
    }
    command
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_can_be_pasted() {
        let user = User::new(7, 8);
        assert_eq!(
            serve_command(
                ("/a b.img", Some("h x"), ImageFormat::Raw),
                (ServedBy::Nbd, "/run/s"),
                "x",
                Some(user)
            ),
            "luksmith serve '/a b.img' --header 'h x' --socket /run/s --name x --socket-mode 660 \
             --socket-group 8 --allow-uid 7"
        );
        assert_eq!(
            serve_command(
                ("a", None, ImageFormat::Qcow2),
                (ServedBy::VhostUser, "s"),
                "",
                None
            ),
            "luksmith serve a --format qcow2 --vhost-user s"
        );
    }
}
