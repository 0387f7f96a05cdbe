//! `luksmith serve`: serves volumes over NBD, and as disks of virtual machines.

mod clients;
mod exports;
mod ready;
mod sockets;
mod tags;

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use luksmith::container::Which;
use luksmith::export::nbd::Options;
use luksmith::export::{Discard, Export};
use luksmith::location::Location;
use luksmith::task::captive::Captive;
use luksmith::task::disk_sockets::DiskSocket;
use luksmith::task::export_text::ExportText;
use luksmith::task::exports::{Wanted, refuse_twice};
use luksmith::task::listen::Listen;
use luksmith::task::open::ImageFormat;
use luksmith::task::pid_file::PidFile;
use luksmith::task::reencrypt::control::Running;
use luksmith::task::service::{self, Places, Service};

use super::Session;
use super::args::{
    CompressedArgs, IMAGE_FORMATS, ImageArgs, KeyArgs, LimitArgs, LocalFile, LocationParser,
    RemoteArgs, TokenArgs, TrustArgs, choice, parse_sector_size,
};
use super::error::{CommandError, Exit, Kind};
use super::output;
use super::passphrase::KeySource;
use super::readiness::{self, Serving};
use clients::ClientArgs;
pub(super) use exports::{Chosen, DISCARDS};
use ready::Ready;
use sockets::SocketArgs;
use tags::TagsArgs;

/// Serve volumes to QEMU, libvirt, … over NBD or vhost-user
///
/// Clients get the plaintext. By default only this user can connect. The passphrases are asked for
/// once, at the start. On SIGTERM or SIGINT the server replies to the requests that it has
/// received, flushes, and stops. A second SIGINT, or any signal a second or more after the first
/// one, stops it immediately. With --json, it prints one line on stdout once clients can connect.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// The encrypted volume to serve under --name: a file, a block device, an export of another
    /// server, or an image in Ceph
    #[arg(value_name = "IMAGE", value_parser = LocationParser::Openable, required_unless_present = "export")]
    image: Option<Location>,

    /// The LUKS header is in FILE (a detached header); IMAGE contains only the data
    #[arg(long, value_name = "FILE", value_parser = LocationParser::Openable)]
    header: Option<Location>,

    /// The format of IMAGE, which is never guessed
    #[arg(long, value_name = "FORMAT", default_value = "raw", value_parser = choice(IMAGE_FORMATS))]
    format: ImageFormat,

    #[command(flatten)]
    compressed: CompressedArgs,

    /// Open IMAGE only with keyslot N
    #[arg(short = 'S', long, alias = "key-slot", value_name = "N")]
    keyslot: Option<u32>,

    /// The name of the export [default: the empty name, for clients that name no export]
    #[arg(
        long,
        value_name = "NAME",
        default_value = "",
        hide_default_value = true
    )]
    name: String,

    /// A description that clients can show
    #[arg(
        long,
        value_name = "TEXT",
        default_value = "",
        hide_default_value = true
    )]
    description: String,

    /// Serve another volume: NAME=IMAGE and any of ,partition=N ,offset=SIZE ,size=SIZE ,key=SOURCE
    /// ,token=N ,token-type=TYPE ,header=FILE ,format=FORMAT ,compressed-plaintext ,keyslot=N
    /// ,description=TEXT ,discard=WHAT ,read-only ,vhost-user=PATH. A comma in a value is written
    /// twice (repeatable)
    #[arg(long, value_name = "EXPORT")]
    export: Vec<ExportText>,

    /// IMAGE is the disk of a virtual machine, whose emulator connects to the socket PATH. The
    /// rules for the directory are those of --socket
    #[arg(long, value_name = "PATH", value_parser = LocalFile)]
    vhost_user: Option<PathBuf>,

    /// The size of the blocks of such a disk: 512, 1024, 2048 or 4096
    #[arg(long, value_name = "BYTES", default_value_t = 512, value_parser = parse_sector_size)]
    block_size: u32,

    /// Clients can only read, and images are opened for reading
    #[arg(short, long)]
    read_only: bool,

    /// What a client's discard does (TRIM)
    #[arg(long, value_name = "WHAT", default_value = "deny", value_parser = choice(DISCARDS))]
    discard: Discard,

    /// Do not go on with a reencryption that is in progress; both of its keys are used
    #[arg(long)]
    no_reencrypt: bool,

    /// Make the socket PATH, on which this user can begin a reencryption (`luksmith reencrypt
    /// --served PATH`), pause it, let it go on, limit its rate, and ask how far it is
    #[arg(long, value_name = "PATH", value_parser = LocalFile)]
    control: Option<PathBuf>,

    /// Stop when the last client has disconnected, and no other one has connected for this time
    /// [0 s without a value]
    #[arg(
        long,
        value_name = "SECONDS",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "0",
        value_parser = clap::value_parser!(u64).range(..=86400)
    )]
    exit_when_idle: Option<u64>,

    /// Run COMMAND by /bin/sh when clients can connect, and stop when it ends, with its exit code.
    /// Its environment has uri, exportname and unixsocket. Without --socket and --listen, the
    /// socket is in a new folder. With --json, what COMMAND prints follows the line of JSON
    #[arg(long, value_name = "COMMAND")]
    run: Option<OsString>,

    /// Stop when the process ends that has started this one (Linux's PR_SET_PDEATHSIG)
    #[arg(long)]
    exit_with_parent: bool,

    /// Write the number of this process to FILE when clients can connect; it is removed at the end
    #[arg(long, value_name = "FILE", value_parser = LocalFile)]
    pid_file: Option<PathBuf>,

    /// Write a line with the URI to descriptor N once clients can connect
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    ready_fd: Option<u32>,

    /// The most clients at once; further ones wait until one disconnects
    #[arg(long, value_name = "N", default_value_t = 128, value_parser = clap::value_parser!(u16).range(1..))]
    max_connections: u16,

    /// The most clients at once of one process, certificate or address [default: half of
    /// --max-connections]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    clients_per_peer: Option<u16>,

    /// The time within which a client has to choose its export
    #[arg(long, value_name = "SECONDS", default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=3600))]
    handshake_time: u64,

    #[command(flatten)]
    sockets: SocketArgs,

    #[command(flatten)]
    clients: ClientArgs,

    #[command(flatten)]
    key: KeyArgs,

    #[command(flatten)]
    token: TokenArgs,

    #[command(flatten)]
    trust: TrustArgs,

    #[command(flatten)]
    tags: TagsArgs,

    #[command(flatten)]
    remote: RemoteArgs,

    #[command(flatten)]
    limits: LimitArgs,
}

const EXAMPLES: &str = "\
Examples:
  luksmith serve disk.img --socket /run/user/1000/vm/disk.sock
  qemu-system-x86_64 -drive 'driver=nbd,server.type=unix,server.path=/run/user/1000/vm/disk.sock'
  luksmith serve --socket vms/nbd.sock --export a=a.img,key=file:a.key \\
    --export b=b.img,key=file:b.key,read-only
  luksmith serve disk.qcow2 --format qcow2 --discard pass --socket vms/disk.sock
  luksmith serve disk.img --vhost-user vms/disk.vhost
  luksmith serve disk.img --listen 0.0.0.0:10809 --tls-dir /etc/pki/luksmith
  luksmith serve disk.img --key-file disk.key --socket tmp/copy.sock --exit-when-idle &
  nbdcopy 'nbd+unix:///?socket=tmp/copy.sock' plain.img
  luksmith serve disk.img --key-file disk.key --run 'nbdcopy \"$uri\" plain.img'";

/// What the program waits for after the first signal.
const WAITS_FOR: &str = "clients get their last replies, and the storage has to accept the last \
                         writes (--timeout limits that)";

impl Args {
    pub(crate) fn run(self, session: &Session) -> Result<(), CommandError> {
        if self.exit_with_parent {
            luksmith::sys::end_with_parent().map_err(|error| {
                CommandError::new(Kind::Unsupported, error).about("--exit-with-parent")
            })?;
        }
        // Invalid arguments are refused before any passphrase is asked for.
        if self.image.is_none() {
            self.refuse_without_image()?;
        }
        let mut options = Options::default();
        options.max_connections = self.max_connections.into();
        options.clients_per_peer = self.clients_per_peer.map(usize::from);
        options.handshake_time = Duration::from_secs(self.handshake_time);
        options.exit_when_idle = self.exit_when_idle.is_some();
        options.idle_time = Duration::from_secs(self.exit_when_idle.unwrap_or(0));
        options.allow_uids = self.clients.allow_uids();
        options.tls = session.signals.ending(|| self.clients.tls())??;
        let mut disk_options = luksmith::export::vhost_user::Options::default();
        disk_options.allow_uids = options.allow_uids.clone();
        disk_options.exit_when_idle = options.exit_when_idle;
        disk_options.idle_time = options.idle_time;
        let mut chosen = self.exports()?;
        let is_pinned = chosen.iter().any(|one| one.wanted.image.trust.is_some());
        let (tags, tamper) = self.tags.options(is_pinned)?;
        for one in &mut chosen {
            one.wanted.image.tags = tags.clone();
        }
        refuse_twice(chosen.iter().map(|chosen| &chosen.wanted))?;
        let disks: Vec<_> = (chosen.iter())
            .map(|chosen| self.disk(&chosen.wanted))
            .collect();
        let is_disk = disks.iter().any(Option::is_some);
        let (place, _folder) = self.sockets.place(self.run.is_some(), is_disk)?;
        if place.is_some() && is_disk && options.exit_when_idle {
            let message = "--exit-when-idle is for clients of one kind";
            let hint = "leave it out, or serve over NBD only or with --vhost-user only";
            return Err(CommandError::parameters(message).hint(hint));
        }
        let listen = place.map(|place| match self.clients.insecure {
            true => Listen::new_insecure(place, &options),
            false => Listen::new(place, &options),
        });
        let places = Places::new(listen.transpose()?, disks)?;
        let opened: Vec<_> = (chosen.into_iter())
            .map(|chosen| chosen.open(session, self.limits.limits()))
            .collect::<Result<_, _>>()?;
        places.check()?;
        let (mut exports, mut reencryptable) = (Vec::new(), Vec::new());
        for opened in opened {
            let (export, one) = opened.unlock(session, self.control.is_some())?;
            reencryptable.extend(one);
            exports.push(export);
        }
        let first = exports.first().map_or("", Export::name).to_owned();

        let mut both = service::Options::default();
        (both.nbd, both.vhost_user) = (options, disk_options);
        let service = Service::new(exports, places, both)?;
        let stopper = service.stopper();
        tamper.stops(stopper.clone());
        let serving = Serving::until_signal(session, WAITS_FOR, stopper.clone());

        let running = service.start(session)?;
        let (paused, control) = (self.no_reencrypt, self.control.as_deref());
        let _running = Running::start(reencryptable, paused, control, output::note, session)?;
        let pid_file = self.pid_file.as_deref();
        let pid_file = pid_file.map(|path| PidFile::write(path, session));
        let _pid_file = pid_file.transpose()?;
        Ready(&running).announce(session, self.ready_fd)?;
        let captive = match (&self.run, running.nbd()) {
            (Some(command), Some(listening)) => {
                let captive = Captive::start(command, listening, &first, stopper)?;
                let ending = captive.ending();
                session.signals.at_first(move || ending.terminate());
                Some(captive)
            }
            _ => None,
        };
        let served = running.serve();
        drop(serving);
        readiness::stopping();
        if let Some(captive) = &captive
            && (served.is_err() || tamper.check().is_err())
        {
            captive.ending().terminate();
        }
        let code = captive.map_or(Ok(0), Captive::finish);
        served?;
        tamper.check()?;
        match code? {
            0 => Ok(()),
            code => Err(CommandError::new(
                Exit::OfCommand(code),
                "the command failed",
            )),
        }
    }

    /// Refuses options that are for IMAGE, if there is none.
    fn refuse_without_image(&self) -> Result<(), CommandError> {
        let given = [
            (self.header.is_some(), "header=FILE"),
            (self.format != ImageFormat::Raw, "format=qcow2"),
            (self.compressed.compressed_plaintext, "compressed-plaintext"),
            (self.keyslot.is_some(), "keyslot=N"),
            (!self.description.is_empty(), "description=TEXT"),
            (self.vhost_user.is_some(), "vhost-user=PATH"),
            (!self.name.is_empty(), "name"),
        ];
        let Some((_, part)) = given.iter().find(|(given, _)| *given) else {
            return Ok(());
        };
        let option = part.split('=').next().unwrap_or_default();
        let message = format!("--{option} is for IMAGE, and there are only --export options");
        Err(CommandError::parameters(message).hint(match *part {
            "name" => "--export NAME=IMAGE has the name".to_owned(),
            part => format!("each export states its own: --export NAME=IMAGE,{part}"),
        }))
    }

    /// The socket of an export that is the disk of a virtual machine.
    fn disk(&self, wanted: &Wanted) -> Option<DiskSocket> {
        let mut disk = DiskSocket::new(self.sockets.unix(wanted.vhost_user.as_deref()?));
        disk.block_size = self.block_size;
        Some(disk)
    }

    /// The exports that the arguments name, IMAGE first.
    fn exports(&self) -> Result<Vec<Chosen>, CommandError> {
        let mut chosen = Vec::new();
        if let Some(image) = &self.image {
            let image = ImageArgs {
                image: image.clone(),
                header: self.header.clone(),
                format: self.format,
                trust: self.trust.clone(),
                remote: self.remote.clone(),
            };
            let mut wanted = Wanted::new(&self.name, image.get());
            wanted.description.clone_from(&self.description);
            wanted.which = self.keyslot.map_or(Which::Any, Which::Slot);
            wanted.compressed_plaintext = self.compressed.compressed_plaintext;
            wanted.read_only = self.read_only;
            wanted.discard = self.discard;
            wanted.vhost_user.clone_from(&self.vhost_user);
            let key = KeySource::of(&self.key)?.with_tokens(&self.token);
            chosen.push(Chosen { wanted, key });
        }
        for text in &self.export {
            let (key, remote) = ((&self.key, &self.token), &self.remote);
            let mut one = Chosen::of(text, key, remote, self.read_only, self.discard)?;
            one.wanted.image.trust = self.trust.dir();
            chosen.push(one);
        }
        Ok(chosen)
    }
}
