//! The `luksmith serve` command line for a volume that an emulator opens, for hints.

use luksmith::qemu::quoted;
use luksmith::task::emulator::User;

/// The `luksmith serve` command for a volume whose emulator runs as another user.
pub(crate) fn serve_command(image: &str, socket: &str, export: &str, user: Option<User>) -> String {
    let mut command = format!(
        "luksmith serve {} --socket {}",
        quoted(image),
        quoted(socket)
    );
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
            serve_command("/a b.img", "/run/s", "x", Some(user)),
            "luksmith serve '/a b.img' --socket /run/s --name x --socket-mode 660 --socket-group 8 \
             --allow-uid 7"
        );
    }
}
