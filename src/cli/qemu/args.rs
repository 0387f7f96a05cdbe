//! `luksmith qemu args`: the arguments or QMP commands with which QEMU opens a volume.

use std::path::{Path, PathBuf};

use clap::ValueEnum;
use luksmith::container::Version;
use luksmith::location::Location;
use luksmith::qemu::{Block, Cache, Object, Server, quoted};
use luksmith::secret::Source;
use luksmith::task::emulator::{EmulatorError, absolute, check_passphrase, qemu_server, version};
use luksmith::task::outcome;
use luksmith::task::storage::not_opened;
use luksmith_formats::json::{Object as Members, json};

use super::master;
use crate::cli::Session;
use crate::cli::args::{KeyArgs, LocationParser, RemoteArgs, VersionName};
use crate::cli::error::CommandError;
use crate::cli::output;
use crate::cli::passphrase::KeySource;
use crate::cli::serving::serve_command;

/// Print the -object and -blockdev arguments with which QEMU opens a volume
///
/// QEMU reads the passphrase from a file. With --master-key, the arguments contain the passphrase,
/// encrypted with a key that QEMU reads from a file, so they reveal no secret. The volume is LUKS1;
/// a LUKS2 volume is served to QEMU (--served). The output is text for a POSIX shell
/// (`eval "qemu-system-x86_64 … $(luksmith qemu args …)"`). With --json: also the commands for
/// QMP.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// The encrypted volume: a file, a block device, or an export (nbd://HOST[:PORT]/NAME,
    /// nbd+unix:///NAME?socket=PATH, and nbds for TLS)
    #[arg(value_name = "IMAGE", value_parser = LocationParser::Openable)]
    image: Location,

    /// Encrypt the passphrase with the master key in FILE, which QEMU reads; a FILE that does not
    /// exist is made with a new key
    #[arg(long, value_name = "FILE", help_heading = "Passphrase")]
    master_key: Option<PathBuf>,

    /// `luksmith serve` decrypts IMAGE and serves it on this socket: QEMU needs no passphrase
    #[arg(long, value_name = "SOCKET", conflicts_with = "master_key")]
    served: Option<PathBuf>,

    /// The name of the export on that socket
    #[arg(
        long,
        value_name = "NAME",
        requires = "served",
        default_value = "",
        hide_default_value = true
    )]
    export: String,

    /// The node name of the block device, for -device drive=NAME; the ids of objects begin with it
    #[arg(long, value_name = "NAME", default_value = "disk", value_parser = parse_node)]
    node: String,

    /// The type of IMAGE; its header is then not read
    #[arg(short = 'M', long = "type", value_name = "TYPE")]
    luks_type: Option<VersionName>,

    /// Open the volume read-only
    #[arg(short, long)]
    read_only: bool,

    /// How QEMU uses the host's page cache [default: QEMU's own, writeback]
    #[arg(long, value_name = "HOW")]
    cache: Option<CacheName>,

    /// Let the guest's discards reach the storage, which reveals the free space to it
    #[arg(long)]
    discard: bool,

    #[command(flatten)]
    key: KeyArgs,

    #[command(flatten)]
    remote: RemoteArgs,
}

const EXAMPLES: &str = "\
Examples:
  luksmith qemu args disk.img --key-file disk.key
  luksmith qemu args disk.img --master-key vm1.master          asks for the passphrase
  eval \"qemu-system-x86_64 -m 1G $(luksmith qemu args disk.img --key-file disk.key) -device virtio-blk-pci,drive=disk\"
  luksmith qemu args disk.img --key-file disk.key --json       for exec and for QMP
  luksmith qemu args luks2.img --served /run/vm1/disk.sock";

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum CacheName {
    /// Bypass the page cache (O_DIRECT)
    None,
    /// Use the page cache
    Writeback,
}

/// QEMU's ids begin with a letter, and node names have at most 31 characters. The ids of objects
/// are the node name with an ending.
fn parse_node(text: &str) -> Result<String, String> {
    let mut characters = text.chars();
    let first = characters.next().is_some_and(|c| c.is_ascii_alphabetic());
    let rest = characters.all(|c| c.is_ascii_alphanumeric() || "-._".contains(c));
    if first && rest && text.len() <= 24 {
        Ok(text.to_owned())
    } else {
        Err("a name is a letter, then letters, digits, -, . or _, at most 24 in all".to_owned())
    }
}

impl Args {
    pub(crate) fn run(self, session: &Session) -> Result<(), CommandError> {
        let mut objects = Vec::new();
        let key = match &self.served {
            Some(_) => None,
            None => {
                if version(
                    &self.image,
                    self.remote.get(),
                    self.luks_type.map(Into::into),
                    session.signals.interrupt(),
                )? == Version::Luks2
                {
                    return Err(EmulatorError::Luks2(self.image.clone()).into());
                }
                Some(self.secret(session, &mut objects)?)
            }
        };
        let server = match &self.served {
            Some(socket) => self.served(socket)?,
            None => qemu_server(&self.image, &self.id("tls"), &mut objects)?,
        };
        let block = Block::new(self.node.clone(), server, key)
            .read_only(self.read_only)
            .cache(self.cache.map(|cache| match cache {
                CacheName::None => Cache::None,
                CacheName::Writeback => Cache::Writeback,
            }))
            .discard(self.discard);
        self.print(session, &objects, &block);
        Ok(())
    }

    fn id(&self, ending: &str) -> String {
        format!("{}-{ending}", self.node)
    }

    /// Adds the objects that give QEMU the passphrase, and returns the id of the last one.
    fn secret(&self, session: &Session, objects: &mut Vec<Object>) -> Result<String, CommandError> {
        let source = KeySource::of(&self.key)?;
        let id = self.id("key");
        let label = self.image.to_string();
        let Some(path) = &self.master_key else {
            let Some(Source::File {
                path,
                offset: 0,
                size: None,
            }) = source.here()
            else {
                return Err(CommandError::parameters(
                    "QEMU reads a passphrase from a whole file, or encrypted",
                )
                .hint("--key-file PATH names such a file")
                .hint("--master-key FILE encrypts a passphrase from anywhere with a key in FILE"));
            };
            check_passphrase(&source.existing(session, &label)?)?;
            objects.push(Object::SecretFile {
                id: id.clone(),
                path: absolute(path)?,
                base64: false,
            });
            return Ok(id);
        };
        let key = master::known_or_new(session, path)?;
        let passphrase = source.existing(session, &label)?;
        check_passphrase(&passphrase)?;
        let master = self.id("master");
        objects.push(Object::SecretFile {
            id: master.clone(),
            path: absolute(path)?,
            base64: true,
        });
        objects.push(Object::SecretWrapped {
            id: id.clone(),
            key: master,
            wrapped: key.wrap(&passphrase)?,
        });
        Ok(id)
    }

    /// The export on which luksmith serves the plaintext.
    fn served(&self, socket: &Path) -> Result<Server, CommandError> {
        let socket = absolute(socket)?;
        let image = match &self.image {
            Location::Path(path) => absolute(path)?,
            Location::Nbd(uri) => uri.to_string(),
            other => return Err(not_opened(other).into()),
        };
        output::hint(&format!(
            "before QEMU starts: {}",
            serve_command(&image, &socket, &self.export, None)
        ));
        Ok(Server::NbdUnix {
            socket,
            export: self.export.clone(),
            tls: None,
        })
    }

    fn print(&self, session: &Session, objects: &[Object], block: &Block) {
        let mut words = Vec::new();
        for object in objects {
            words.extend(["-object".to_owned(), object.argument()]);
        }
        words.extend(["-blockdev".to_owned(), block.json().shown().to_string()]);
        if session.json {
            let mut commands: Vec<_> = objects
                .iter()
                .map(|object| json!({"execute": "object-add", "arguments": object.json()}))
                .collect();
            commands.push(json!({"execute": "blockdev-add", "arguments": block.json()}));
            let mut members = Members::new();
            outcome::image(&mut members, &self.image);
            members.insert("node", self.node.as_str());
            members.insert("arguments", words);
            members.insert("qmp", commands);
            session.output.json(&members.into());
            return;
        }
        // A backslash before each newline makes it one command, whether it is pasted or evaluated.
        let lines: Vec<String> = words
            .chunks(2)
            .map(|pair| {
                let words: Vec<String> = pair.iter().map(|word| quoted(word)).collect();
                words.join(" ")
            })
            .collect();
        session.output.lines(lines.join(" \\\n"));
    }
}
