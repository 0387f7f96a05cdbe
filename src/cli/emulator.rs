//! What an emulator has to know of a volume, for `qemu` and `libvirt`: which LUKS it is, where it lies, who serves it.

use std::path::Path;

use luksmith::backend::file::OpenOptions;
use luksmith::container::{self, Container, Undo, Version};
use luksmith::location::Location;
use luksmith::qemu::quoted;
use luksmith::secret::Passphrase;

use super::args::{RemoteArgs, VersionName};
use super::error::{CommandError, Kind};
use luksmith::task;
use luksmith::task::storage::Storage;

/// Which LUKS a volume is: as stated, or as its header says. The header is read even while an emulator has it open.
pub(crate) fn version(
    image: &Location,
    remote: &RemoteArgs,
    stated: Option<VersionName>,
) -> Result<Version, CommandError> {
    if let Some(stated) = stated {
        return Ok(stated.into());
    }
    let options = OpenOptions::new().force_share(true);
    let looked = Storage::open(image, remote.get(), options).and_then(|storage| {
        Container::open(
            storage.backend,
            container::OpenOptions::new(Undo::NotLookedFor),
        )
        .map_err(|error| task::Error::from(error).about(image))
    });
    looked
        .map(|container| container.version())
        .map_err(|error| {
            CommandError::from(error)
                .hint("--type luks1 says what it is, where it cannot be looked at here")
        })
}

/// QEMU opens LUKS1 alone.
pub(crate) fn refuse_luks2(image: &Location) -> CommandError {
    let message =
        format!("{image} is LUKS2, which QEMU does not open: its driver knows LUKS1 alone");
    CommandError::new(Kind::Parameters, message)
        .hint("--served SOCKET is for a volume that `luksmith serve` decrypts")
        .hint("`luksmith convert --to luks1` makes it LUKS1, if its keyslots allow that")
}

/// A path as it holds for another process.
pub(crate) fn absolute(path: &Path) -> Result<String, CommandError> {
    let absolute = std::path::absolute(path)
        .map_err(|error| CommandError::new(Kind::Parameters, error).about(path.display()))?;
    absolute.into_os_string().into_string().map_err(|path| {
        let message = format!("{} is not UTF-8", Path::new(&path).display());
        CommandError::parameters(message).hint("give it another name")
    })
}

/// The socket as text.
pub(crate) fn text_of_socket(socket: &[u8]) -> Result<String, CommandError> {
    match String::from_utf8(socket.to_vec()) {
        Ok(text) if text.starts_with('/') => Ok(text),
        Ok(text) if text.starts_with('\0') => Err(CommandError::parameters(
            "a socket in the abstract namespace cannot be named here",
        )
        .hint("socket=PATH names a socket in a directory")),
        Ok(text) => absolute(Path::new(&text)),
        Err(_) => Err(CommandError::parameters(
            "the path of the socket is not UTF-8",
        )),
    }
}

/// QEMU takes a passphrase for text.
pub(crate) fn check_passphrase(passphrase: &Passphrase) -> Result<(), CommandError> {
    if passphrase.is_text() {
        return Ok(());
    }
    Err(CommandError::new(
        Kind::Parameters,
        "QEMU takes passphrases that are UTF-8 without a NUL, and this one is not",
    )
    .hint("`luksmith key add` gives the volume a passphrase of text, such as the base64 of a key file"))
}

/// The command that serves a volume to an emulator which runs as another user.
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

/// A user of this machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct User {
    pub(crate) uid: u32,
    pub(crate) gid: u32,
}

/// As which libvirt's system daemon runs emulators, by the names that distributions use.
const EMULATORS: [&str; 2] = ["libvirt-qemu", "qemu"];

impl User {
    /// The user of emulators on this machine.
    pub(crate) fn of_emulators() -> Option<Self> {
        EMULATORS.into_iter().find_map(Self::named)
    }

    /// The user of a name in `/etc/passwd`.
    pub(crate) fn named(name: &str) -> Option<Self> {
        Self::in_list(&std::fs::read_to_string("/etc/passwd").ok()?, name)
    }

    fn in_list(list: &str, name: &str) -> Option<Self> {
        list.lines().find_map(|line| {
            let mut fields = line.split(':');
            let found = fields.next() == Some(name);
            let mut numbers = fields.skip(1).map(str::parse);
            let (uid, gid) = (numbers.next()?.ok()?, numbers.next()?.ok()?);
            found.then_some(Self { uid, gid })
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_is_found_by_name() {
        let list = "root:x:0:0:root:/r:/bin/sh\nbroken\nlibvirt-qemu:x:64055:103::/:/x\n";
        let user = User {
            uid: 64055,
            gid: 103,
        };
        assert_eq!(User::in_list(list, "libvirt-qemu"), Some(user));
        assert_eq!(User::in_list(list, "libvirt"), None);
        assert_eq!(User::in_list(list, "broken"), None);
    }

    #[test]
    fn the_command_that_serves_can_be_pasted() {
        let user = User { uid: 7, gid: 8 };
        assert_eq!(
            serve_command("/a b.img", "/run/s", "x", Some(user)),
            "luksmith serve '/a b.img' --socket /run/s --name x --socket-mode 660 --socket-group 8 --allow-uid 7"
        );
    }

    #[test]
    fn qemu_takes_text_alone() {
        let check = |bytes: &[u8]| check_passphrase(&Passphrase::copy_from(bytes).unwrap()).is_ok();
        assert!(check("wörter\n".as_bytes()));
        assert!(!check(b"a\0b") && !check(b"\xff"));
    }
}
