//! `luksmith mount`: makes a file of this machine of a volume.

use std::ffi::OsString;
use std::path::PathBuf;
use std::sync::Arc;

use luksmith::container::Which;
use luksmith::export::Discard;
use luksmith::task::background::{self, Background};
use luksmith::task::exports::Wanted;
use luksmith::task::mount::{self, Detached, MountPoint, Mounted};
use luksmith::task::pid_file::PidFile;
use luksmith::task::reencrypt::control::Running;
use luksmith_formats::json::json;

use super::args::{CompressedArgs, ImageArgs, LocalFile, UnlockArgs, choice};
use super::error::{CommandError, Exit, Kind};
use super::passphrase::KeySource;
use super::readiness::{self, Serving};
use super::serve::{Chosen, DISCARDS};
use super::{Session, output, size};

/// Mount a volume as a file, with FUSE
///
/// FILE has the plaintext, and the size of the volume: for a loop device, a virtual machine, or any
/// program. Only this user can open it. The program runs until FILE is unmounted by `luksmith
/// unmount`, SIGTERM or SIGINT: programs then keep what they have open, and it ends when they have
/// closed it. A second SIGINT, or any signal a second or more after the first one, ends it at once.
/// With --json, it prints one line on stdout once FILE is there.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    #[command(flatten)]
    image: ImageArgs,

    /// An empty file, or a name that nothing has: a file that is made is removed at the end
    #[arg(value_name = "FILE", value_parser = LocalFile)]
    file: PathBuf,

    #[command(flatten)]
    compressed: CompressedArgs,

    /// Use only keyslot N
    #[arg(short = 'S', long, alias = "key-slot", value_name = "N")]
    keyslot: Option<u32>,

    /// Programs can only read, and IMAGE is opened for reading
    #[arg(short, long)]
    read_only: bool,

    /// What a hole that is punched into FILE does, which is what a loop device makes of TRIM
    #[arg(long, value_name = "WHAT", default_value = "deny", value_parser = choice(DISCARDS))]
    discard: Discard,

    /// Let root use FILE too, which FUSE otherwise refuses if an ordinary user mounts it: a loop
    /// device needs it
    #[arg(long)]
    allow_other: bool,

    /// Keep no plaintext in the kernel's page cache: each read and write of a program is a request
    #[arg(long)]
    direct_io: bool,

    /// Return when FILE is there, and serve it in the background. Later notes are lost: for a
    /// service, leave this out
    #[arg(long, conflicts_with_all = ["exit_with_parent", "ready_fd"])]
    background: bool,

    /// Leave the terminal before --ready-fd is written
    #[arg(long, hide = true)]
    leave_terminal: bool,

    /// Do not go on with a reencryption that is in progress; both of its keys are used
    #[arg(long)]
    no_reencrypt: bool,

    /// Make the socket PATH, on which this user can begin a reencryption (`luksmith reencrypt
    /// --served PATH`), pause it, let it go on, limit its rate, and ask how far it is
    #[arg(long, value_name = "PATH", value_parser = LocalFile)]
    control: Option<PathBuf>,

    /// End when the process ends that has started this one (Linux's PR_SET_PDEATHSIG)
    #[arg(long)]
    exit_with_parent: bool,

    /// Write the number of this process to FILE when the volume is mounted; it is removed at the
    /// end
    #[arg(long, value_name = "FILE", value_parser = LocalFile)]
    pid_file: Option<PathBuf>,

    /// Write a line with the path of FILE to descriptor N once it is there
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    ready_fd: Option<u32>,

    #[command(flatten)]
    unlock: UnlockArgs,
}

const EXAMPLES: &str = "\
Examples:
  luksmith mount disk.img plain --key-file key &
  dd if=plain bs=1M count=1 | file -
  luksmith unmount plain
  luksmith mount disk.img plain --read-only --direct-io
  systemd-run --user --service-type=notify luksmith mount $PWD/disk.img $PWD/plain \\
    --key file:$PWD/key
A file system in the volume, as root:
  luksmith mount disk.img plain --discard zeroes --key-file key &
  mount -o loop plain /mnt";

/// What the program waits for after the first signal.
const WAITS_FOR: &str = "programs have to close the file, and the storage has to accept the last \
                         writes (--timeout limits that)";

impl Args {
    pub(crate) fn run(self, session: &Session) -> Result<(), CommandError> {
        if self.exit_with_parent {
            luksmith::sys::end_with_parent().map_err(|error| {
                CommandError::new(Kind::Unsupported, error).about("--exit-with-parent")
            })?;
        }
        let wanted = self.wanted();
        mount::check(&wanted)?;
        let point = session.signals.ending(|| MountPoint::look(&self.file))??;
        if self.background {
            return in_background(session);
        }
        let source = self.image.image.to_string();
        let key = KeySource::to_unlock(&self.unlock)?;
        let opened = Chosen { wanted, key }.open(session, self.unlock.limits.limits())?;
        let (export, reencryptable) = opened.unlock(session, self.control.is_some())?;

        let mut options = mount::Options::default();
        options.allow_other = self.allow_other;
        options.server.direct_io = self.direct_io;
        let export = Arc::new(export);
        let mounted = Mounted::mount(export.clone(), point, source, &options, session)?;
        let unmount = mounted.unmounter();
        let serving = Serving::until_signal(session, WAITS_FOR, move || match unmount() {
            Ok(Detached::Wholly) => {}
            Ok(Detached::InUse(users)) => output::note(format_args!(
                "the file is still in use{}{}; the program ends when it is closed",
                if users.is_empty() { "" } else { " by " },
                users.join(", ")
            )),
            Err(error) => output::warning(error.line()),
        });
        let (paused, control) = (self.no_reencrypt, self.control.as_deref());
        let reencryptable = reencryptable.into_iter().collect();
        let _running = Running::start(reencryptable, paused, control, output::note, session)?;
        let pid_file = self.pid_file.as_deref();
        let pid_file = pid_file.map(|path| PidFile::write(path, session));
        let _pid_file = pid_file.transpose()?;

        let path = mounted.path().display().to_string();
        let only = if export.is_read_only() {
            ", read-only"
        } else {
            ""
        };
        output::note(format_args!(
            "mounted {}{only}: {path}",
            size::human(export.size())
        ));
        if session.json {
            session.output.json_now(&json!({
                "file": path.as_str(),
                "size": export.size(),
                "read_only": export.is_read_only(),
            }))?;
        }
        if self.leave_terminal {
            background::leave_terminal()?;
        }
        readiness::ready(session, self.ready_fd, &path)?;
        let served = mounted.serve();
        drop(serving);
        readiness::stopping();
        Ok(served?)
    }

    fn wanted(&self) -> Wanted {
        // The name is only for messages.
        let mut wanted = Wanted::new(self.file.display().to_string(), self.image.get());
        wanted.which = self.keyslot.map_or(Which::Any, Which::Slot);
        wanted.compressed_plaintext = self.compressed.compressed_plaintext;
        wanted.read_only = self.read_only;
        wanted.discard = self.discard;
        wanted
    }
}

/// Runs the same command in the background, until the volume is mounted.
fn in_background(session: &Session) -> Result<(), CommandError> {
    let started = Background::start(|ready| {
        let mut arguments: Vec<OsString> = std::env::args_os().collect();
        let options = ["--leave-terminal", "--ready-fd", &ready.to_string()].map(OsString::from);
        if let Some(here) = arguments.iter().position(|word| word == "--background") {
            arguments.splice(here..=here, options);
        }
        arguments
    })?;
    session.signals.at_first(started.stopper());
    match started.wait()? {
        None => Ok(()),
        Some(code) => Err(CommandError::new(
            Exit::OfCommand(code),
            "the command failed",
        )),
    }
}
