//! The command line arguments and the QMP commands with which QEMU opens a volume.

use std::path::Path;

use luksmith_formats::json::{Object as Members, Value, json};

use super::Error;
use super::emulator::{absolute, check_passphrase, qemu_server};
use super::outcome;
use crate::location::Location;
use crate::qemu::{Block, MasterKey, Object, Server, quoted};
use crate::secret::Passphrase;
use crate::task::open::{Image, ImageFormat};

/// How QEMU gets the plaintext of a volume.
#[derive(Clone, Copy)]
pub enum Access<'a> {
    /// QEMU reads the passphrase from a whole file.
    File(&'a Path, &'a Passphrase),
    /// QEMU decrypts the passphrase with the master key in a file.
    Wrapped(&'a Path, &'a MasterKey, &'a Passphrase),
    /// luksmith decrypts the volume and serves it on a Unix socket, under this name.
    Served(&'a Path, &'a str),
}

/// The objects and the block device with which QEMU opens a volume.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct QemuArguments {
    /// Where the volume is stored.
    pub image: Location,
    /// The objects to which the block device refers.
    pub objects: Vec<Object>,
    /// The block device.
    pub block: Block,
}

impl QemuArguments {
    /// A writable device with this node name, with which the ids of its objects begin.
    ///
    /// # Errors
    /// [`EmulatorError`](super::emulator::EmulatorError), and a location that QEMU does not open.
    pub fn new(image: &Image, node: &str, access: Access<'_>) -> Result<Self, Error> {
        let mut objects = Vec::new();
        let id = |ending: &str| format!("{node}-{ending}");
        let secret_file = |id, path, base64| -> Result<_, Error> {
            let path = absolute(path)?;
            Ok(Object::SecretFile { id, path, base64 })
        };
        match access {
            Access::Served(socket, export) => {
                let server = Server::NbdUnix {
                    socket: absolute(socket)?,
                    export: export.to_owned(),
                    tls: None,
                };
                return Ok(Self {
                    image: image.location.clone(),
                    objects,
                    block: Block::new(node, server, None),
                });
            }
            Access::File(path, passphrase) => {
                check_passphrase(passphrase)?;
                objects.push(secret_file(id("key"), path, false)?);
            }
            Access::Wrapped(path, master, passphrase) => {
                check_passphrase(passphrase)?;
                objects.push(secret_file(id("master"), path, true)?);
                objects.push(Object::SecretWrapped {
                    id: id("key"),
                    key: id("master"),
                    wrapped: master.wrap(passphrase)?,
                });
            }
        }
        let server = qemu_server(&image.location, &id("tls"), &mut objects)?;
        let header = image.header.as_ref();
        let header = header.map(|header| qemu_server(header, &id("htls"), &mut objects));
        let block = Block::new(node, server, Some(id("key")))
            .qcow2(image.format == ImageFormat::Qcow2)
            .header(header.transpose()?);
        Ok(Self {
            image: image.location.clone(),
            objects,
            block,
        })
    }

    /// `-object` and `-blockdev` with their arguments.
    #[must_use]
    pub fn words(&self) -> Vec<String> {
        let mut words = Vec::new();
        for object in &self.objects {
            words.extend(["-object".to_owned(), object.argument()]);
        }
        words.extend([
            "-blockdev".to_owned(),
            self.block.json().shown().to_string(),
        ]);
        words
    }

    /// The words as one command of a POSIX shell, an option on each line. A backslash before each
    /// newline makes it one command, whether it is pasted or evaluated.
    #[must_use]
    pub fn shell(&self) -> String {
        let words = self.words();
        let pairs = words.chunks(2).map(|pair| {
            let words: Vec<_> = pair.iter().map(|word| quoted(word)).collect();
            words.join(" ")
        });
        pairs.collect::<Vec<_>>().join(" \\\n")
    }

    /// The words, and the commands of QMP that do the same.
    #[must_use]
    pub fn members(&self) -> Members {
        let add = |object: &Object| json!({"execute": "object-add", "arguments": object.json()});
        let mut commands: Vec<Value> = self.objects.iter().map(add).collect();
        commands.push(json!({"execute": "blockdev-add", "arguments": self.block.json()}));
        let mut members = Members::new();
        outcome::image(&mut members, &self.image);
        members.insert("node", self.block.node.as_str());
        members.insert("arguments", self.words());
        members.insert("qmp", commands);
        members
    }
}

/// Whether QEMU takes a name for a block node, and each id that consists of it and an ending: ids
/// begin with a letter, and node names have at most 31 characters.
#[must_use]
pub fn is_node_name(name: &str) -> bool {
    let mut characters = name.chars();
    let first = characters.next().is_some_and(|c| c.is_ascii_alphabetic());
    let rest = characters.all(|c| c.is_ascii_alphanumeric() || "-._".contains(c));
    first && rest && name.len() <= 24
}
