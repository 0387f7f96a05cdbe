//! `luksmith serve`: volumes over NBD.

mod exports;
mod sockets;
mod started;
mod who;

use std::sync::{Mutex, PoisonError, mpsc};
use std::time::Duration;

use clap::ValueEnum;
use luksmith::container::Which;
use luksmith::export::Discard;
use luksmith::export::nbd::{Options, Server};
use luksmith::location::Location;
use luksmith::task::exports::{Wanted, refuse_twice};
use luksmith::task::listen::Listen;

use super::Session;
use super::args::{
    CompressedArgs, ImageArgs, ImageFormat, KeyArgs, LimitArgs, LocationParser, RemoteArgs,
};
use super::error::CommandError;
use super::output;
use super::passphrase::KeySource;
use exports::{Chosen, ExportText};
use sockets::SocketArgs;
use started::{Started, Told};
use who::WhoArgs;

/// Serve volumes to QEMU, libvirt, nbdcopy, … over NBD
///
/// The plaintext is for whoever may connect: by default this user alone. Keys are derived once, at
/// the start. SIGTERM and SIGINT answer what was asked, flush and stop; a second one stops at once.
/// With --json, one line on stdout once clients may connect: {"uri": …, "exports": [{"name", "uri",
/// "size", "read_only"}]}
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// The encrypted volume to serve under --name: a file, a block device, or an export of another
    /// server
    #[arg(value_name = "IMAGE", value_parser = LocationParser::Openable, required_unless_present = "export")]
    image: Option<Location>,

    /// The LUKS header lies in FILE (a detached header), IMAGE holds the data alone
    #[arg(long, value_name = "FILE", value_parser = LocationParser::Openable, requires = "image")]
    header: Option<Location>,

    /// What IMAGE is; nothing is guessed
    #[arg(long, value_name = "FORMAT", default_value = "raw", requires = "image")]
    format: ImageFormat,

    #[command(flatten)]
    compressed: CompressedArgs,

    /// Open IMAGE with keyslot N alone
    #[arg(
        short = 'S',
        long,
        alias = "key-slot",
        value_name = "N",
        requires = "image"
    )]
    keyslot: Option<u32>,

    /// Under which name IMAGE is served [default: the empty one, which clients take who name none]
    #[arg(
        long,
        value_name = "NAME",
        requires = "image",
        default_value = "",
        hide_default_value = true
    )]
    name: String,

    /// A text that clients can show
    #[arg(
        long,
        value_name = "TEXT",
        requires = "image",
        default_value = "",
        hide_default_value = true
    )]
    description: String,

    /// Serve another volume: NAME=IMAGE and any of ,key=SOURCE ,header=FILE ,format=FORMAT
    /// ,compressed-plaintext ,keyslot=N ,description=TEXT ,discard=WHAT ,read-only; a comma in a
    /// value is written twice (repeatable)
    #[arg(long, value_name = "EXPORT")]
    export: Vec<ExportText>,

    /// Let clients read alone; images are opened for reading
    #[arg(short, long)]
    read_only: bool,

    /// What clients' discards do: deny them, zeroes (written encrypted), pass them on, so that the
    /// storage sees which sectors are free
    #[arg(long, value_name = "WHAT", default_value = "deny")]
    discard: DiscardName,

    /// Stop when the last client has left
    #[arg(long)]
    exit_when_idle: bool,

    /// Write a line with the URI to descriptor N once clients may connect
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    ready_fd: Option<u32>,

    /// How many clients at once; more wait until one leaves
    #[arg(long, value_name = "N", default_value_t = 128, value_parser = clap::value_parser!(u16).range(1..))]
    max_connections: u16,

    /// In which time a client has to choose its export
    #[arg(long, value_name = "SECONDS", default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=3600))]
    handshake_time: u64,

    /// Print JSON
    #[arg(long)]
    json: bool,

    #[command(flatten)]
    sockets: SocketArgs,

    #[command(flatten)]
    who: WhoArgs,

    #[command(flatten)]
    key: KeyArgs,

    #[command(flatten)]
    remote: RemoteArgs,

    #[command(flatten)]
    limits: LimitArgs,
}

const EXAMPLES: &str = "\
Examples:
  luksmith serve disk.img --socket /run/user/1000/vm/disk.sock
  qemu-system-x86_64 -drive 'driver=nbd,server.type=unix,server.path=/run/user/1000/vm/disk.sock'
  luksmith serve --socket vms/nbd.sock --export a=a.img,key=file:a.key --export b=b.img,key=file:b.key,read-only
  luksmith serve disk.qcow2 --format qcow2 --discard pass --socket vms/disk.sock
  luksmith serve disk.img --listen 0.0.0.0:10809 --tls-dir /etc/pki/luksmith
  luksmith serve disk.img --key-file disk.key --socket tmp/copy.sock --exit-when-idle & nbdcopy 'nbd+unix:///?socket=tmp/copy.sock' plain.img";

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum DiscardName {
    /// Clients cannot discard
    Deny,
    /// A discard writes encrypted zeroes
    Zeroes,
    /// A discard reaches the storage, which sees what is free
    Pass,
}

impl From<DiscardName> for Discard {
    fn from(name: DiscardName) -> Self {
        match name {
            DiscardName::Deny => Self::Deny,
            DiscardName::Zeroes => Self::Zeroes,
            DiscardName::Pass => Self::Pass,
        }
    }
}

/// After this time it is said why the end is not there yet.
const PATIENCE: Duration = Duration::from_secs(2);

/// Says what is waited for, if that takes longer than a moment.
fn tell_of_the_wait(end: mpsc::Receiver<()>) {
    let waiting = move || {
        if end.recv_timeout(PATIENCE) == Err(mpsc::RecvTimeoutError::Timeout) {
            output::note(
                "stopping: clients get their last answers, and the storage has to take what was written (--timeout bounds that); a second \
                 signal stops at once, and what was not flushed may be lost",
            );
        }
    };
    // Without a thread nothing is said.
    drop(
        std::thread::Builder::new()
            .name("stopping".to_owned())
            .spawn(waiting),
    );
}

impl Args {
    pub(crate) fn run(self, session: &Session) -> Result<(), CommandError> {
        // What the arguments alone can refuse comes before any passphrase is asked for.
        let mut options = Options::default();
        options.max_connections = self.max_connections.into();
        options.handshake_time = Duration::from_secs(self.handshake_time);
        options.exit_when_idle = self.exit_when_idle;
        options.allow_uids = self.who.allow_uids();
        options.tls = self.who.tls()?;
        let place = self.sockets.place()?;
        let listen = if self.who.insecure {
            Listen::new_insecure(place, &options)?
        } else {
            Listen::new(place, &options)?
        };
        let chosen = self.exports()?;
        refuse_twice(chosen.iter().map(|chosen| &chosen.wanted))?;
        let mut exports = Vec::new();
        for chosen in chosen {
            exports.push(chosen.open(session, self.limits.limits())?);
        }
        let told = exports.iter().map(Told::of).collect();

        let server = Server::new(exports, options)?;
        let stopper = server.stopper();
        let (ended, end) = mpsc::channel();
        let end = Mutex::new(Some(end));
        session.signals.at_first(move || {
            started::stopping();
            stopper.stop();
            let end = end.lock().unwrap_or_else(PoisonError::into_inner).take();
            end.into_iter().for_each(tell_of_the_wait);
        });

        let listening = listen.start(session)?;
        Started {
            listening: &listening,
            exports: told,
        }
        .tell(session, self.json, self.ready_fd)?;
        let served = listening.serve(&server);
        drop(ended);
        started::stopping();
        Ok(served?)
    }

    /// The exports that the arguments name, IMAGE first.
    fn exports(&self) -> Result<Vec<Chosen>, CommandError> {
        let mut chosen = Vec::new();
        if let Some(image) = &self.image {
            let image = ImageArgs {
                image: image.clone(),
                header: self.header.clone(),
                format: self.format,
                remote: self.remote.clone(),
            };
            let mut wanted = Wanted::new(&self.name, image.get());
            wanted.description.clone_from(&self.description);
            wanted.which = self.keyslot.map_or(Which::Any, Which::Slot);
            wanted.compressed_plaintext = self.compressed.compressed_plaintext;
            wanted.read_only = self.read_only;
            wanted.discard = self.discard.into();
            let key = KeySource::of(&self.key)?;
            chosen.push(Chosen { wanted, key });
        }
        for text in &self.export {
            chosen.push(text.chosen(&self.key, &self.remote, self.read_only, self.discard)?);
        }
        Ok(chosen)
    }
}
