//! What an emulator has to know of a volume, for `qemu` and `libvirt`: which LUKS it is, where it lies, who serves it.

use std::path::Path;

use luksmith::backend::file::OpenOptions;
use luksmith::container::{self, Container, Version};
use luksmith::qemu::quoted;
use luksmith::secret::Passphrase;

use super::args::{Location, RemoteArgs, VersionName};
use super::error::{CommandError, Kind};
use super::storage;

/// Which LUKS a volume is: as stated, or as its header says. The header is read even while an emulator has it open.
pub(crate) fn version(
    image: &Location,
    remote: &RemoteArgs,
    stated: Option<VersionName>,
) -> Result<Version, CommandError> {
    if let Some(stated) = stated {
        return Ok(stated.into());
    }
    let options = OpenOptions {
        force_share: true,
        ..OpenOptions::default()
    };
    let looked = storage::open(image, remote, options).and_then(|storage| {
        Container::open(storage.backend, container::OpenOptions::default())
            .map_err(|error| CommandError::from(error).about(image))
    });
    looked
        .map(|container| container.version())
        .map_err(|error| {
            error.hint("--type luks1 says what it is, where it cannot be looked at here")
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
    let bytes = passphrase.as_bytes();
    if !bytes.contains(&0) && std::str::from_utf8(bytes).is_ok() {
        return Ok(());
    }
    Err(CommandError::new(
        Kind::Parameters,
        "QEMU takes passphrases that are UTF-8 without a NUL, and this one is not",
    )
    .hint("`luksmith key add` gives the volume a passphrase of text, such as the base64 of a key file"))
}

/// The command that serves a volume.
pub(crate) fn serve_command(image: &str, socket: &str, export: &str) -> String {
    let (image, socket) = (quoted(image), quoted(socket));
    let mut command = format!("luksmith serve {image} --socket {socket}");
    if !export.is_empty() {
        command.push_str(" --name ");
        command.push_str(&quoted(export));
    }
    command
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn qemu_takes_text_alone() {
        let check = |bytes: &[u8]| check_passphrase(&Passphrase::copy_from(bytes).unwrap()).is_ok();
        assert!(check("wörter\n".as_bytes()));
        assert!(!check(b"a\0b") && !check(b"\xff"));
    }
}
