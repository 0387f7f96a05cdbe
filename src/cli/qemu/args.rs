//! `luksmith qemu args`: the arguments or QMP commands with which QEMU opens a volume.

use std::path::{Path, PathBuf};

use luksmith::container::Version;
use luksmith::qemu::Cache;
use luksmith::secret::Source;
use luksmith::task::emulator::{EmulatorError, absolute, text_of, version};
use luksmith::task::qemu_arguments::{Access, QemuArguments, is_node_name};

use super::master;
use crate::cli::Session;
use crate::cli::args::{Choice, ImageArgs, KeyArgs, VERSIONS, choice};
use crate::cli::error::CommandError;
use crate::cli::output;
use crate::cli::passphrase::KeySource;
use crate::cli::serving::serve_command;
use luksmith::task::libvirt::disk::ServedBy;

/// Print the -object and -blockdev arguments with which QEMU opens a volume
///
/// QEMU reads the passphrase from a file. With --master-key, the arguments contain the passphrase,
/// encrypted with a key that QEMU reads from a file, so they reveal no secret. The volume is LUKS1,
/// raw or inside of a qcow2 image without a backing file. QEMU 9.0 and later also open one with a
/// detached header. A LUKS2 volume is served to QEMU (--served). The output is for a POSIX shell
/// (`eval "qemu-system-x86_64 … $(luksmith qemu args …)"`). With --json: also the commands for
/// QMP.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    #[command(flatten)]
    image: ImageArgs,

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
    #[arg(short = 'M', long = "type", value_name = "TYPE", value_parser = choice(VERSIONS))]
    luks_type: Option<Version>,

    /// Open the volume read-only
    #[arg(short, long)]
    read_only: bool,

    /// How QEMU uses the host's page cache [default: QEMU's own, writeback]
    #[arg(long, value_name = "HOW", value_parser = choice(CACHES))]
    cache: Option<Cache>,

    /// Let the guest's discards reach the storage, which reveals the free space to it
    #[arg(long)]
    discard: bool,

    #[command(flatten)]
    key: KeyArgs,
}

const EXAMPLES: &str = "\
Examples:
  luksmith qemu args disk.img --key-file disk.key
  luksmith qemu args disk.img --master-key vm1.master          asks for the passphrase
  eval \"qemu-system-x86_64 -m 1G $(luksmith qemu args disk.img --key-file disk.key) -device virtio-blk-pci,drive=disk\"
  luksmith qemu args disk.img --key-file disk.key --json       for exec and for QMP
  luksmith qemu args disk.qcow2 --format qcow2 --key-file disk.key
  luksmith qemu args data.img --header data.header --key-file disk.key        for QEMU 9.0 and later
  luksmith qemu args luks2.img --served /run/vm1/disk.sock";

const CACHES: &[Choice<Cache>] = &[
    ("none", "Bypass the page cache (O_DIRECT)", Cache::None),
    ("writeback", "Use the page cache", Cache::Writeback),
];

fn parse_node(text: &str) -> Result<String, String> {
    match is_node_name(text) {
        true => Ok(text.to_owned()),
        false => {
            Err("a name is a letter, then letters, digits, -, . or _, at most 24 in all".to_owned())
        }
    }
}

impl Args {
    pub(crate) fn run(self, session: &Session) -> Result<(), CommandError> {
        let mut arguments = match &self.served {
            Some(socket) => self.served(socket)?,
            None => self.opened(session)?,
        };
        arguments.block = (arguments.block)
            .read_only(self.read_only)
            .cache(self.cache)
            .discard(self.discard);
        match session.json {
            true => session.output.json(&arguments.members().into()),
            false => session.output.lines(arguments.shell()),
        }
        Ok(())
    }

    /// The volume that QEMU itself decrypts.
    fn opened(&self, session: &Session) -> Result<QemuArguments, CommandError> {
        let (image, interrupt) = (self.image.get(), session.signals.interrupt());
        image.check_header()?;
        if version(&image, self.luks_type, interrupt)? == Version::Luks2 {
            return Err(EmulatorError::Luks2(image.header_location().clone()).into());
        }
        if let Some(header) = &image.header {
            output::note(format_args!(
                "QEMU 9.0 or later is needed to open a volume whose header is in {header}"
            ));
        }
        let source = KeySource::of(&self.key)?;
        let label = image.location.to_string();
        let new = |access| Ok(QemuArguments::new(&image, &self.node, access)?);
        match (&self.master_key, source.here()) {
            (Some(path), _) => {
                let key = master::known_or_new(session, path)?;
                let passphrase = source.existing(session, &label)?;
                new(Access::Wrapped(path, &key, &passphrase))
            }
            (
                None,
                Some(Source::File {
                    path,
                    offset: 0,
                    size: None,
                }),
            ) => new(Access::File(path, &source.existing(session, &label)?)),
            _ => Err(CommandError::parameters(
                "QEMU reads a passphrase from a whole file, or encrypted",
            )
            .hint("--key-file PATH names such a file")
            .hint("--master-key FILE encrypts a passphrase from anywhere with a key in FILE")),
        }
    }

    /// The export on which luksmith serves the plaintext.
    fn served(&self, socket: &Path) -> Result<QemuArguments, CommandError> {
        let access = Access::Served(socket, &self.export);
        let image = self.image.get();
        image.check_header()?;
        if image.trust.is_some() {
            let message = "--trust: QEMU does not open the volume";
            let hint = "`luksmith serve --trust DIR` compares it";
            return Err(CommandError::parameters(message).hint(hint));
        }
        let arguments = QemuArguments::new(&image, &self.node, access)?;
        let header = image.header.as_ref().map(text_of).transpose()?;
        let (name, socket) = (text_of(&image.location)?, absolute(socket)?);
        let image = (name.as_str(), header.as_deref(), image.format);
        output::hint(&format!(
            "before QEMU starts: {}",
            serve_command(image, (ServedBy::Nbd, &socket), &self.export, None)
        ));
        Ok(arguments)
    }
}
