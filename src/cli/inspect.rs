//! `luksmith inspect`: checks that an image is valid in its declared format, and that a policy
//! allows it.

use std::path::{Path, PathBuf};

use luksmith::backend::file::OpenOptions;
use luksmith::location::Location;
use luksmith::task::destination::{Destination, Present};
use luksmith::task::inspect::{inspect_copy, read_policy};
use luksmith::task::outcome;
use luksmith::vet::{self, Format, Policy, Report, Verdict};

use super::Session;
use super::args::{LocalFile, LocationParser, RemoteArgs};
use super::error::{CommandError, Exit, Kind};
use super::force::{Force, confirm, only};
use super::open::ReadArgs;
use super::output::Output;
use super::size;
use luksmith::task::storage::Storage;

/// Check an untrusted image in its declared format
///
/// It has to be valid in that format, and in no other one. Only the image is read: no file that it
/// names is opened, nothing is written, and no key is needed. The part that is read is bounded.
/// Exit code 0: accept. 10: reject, the image is not valid in the declared format, or a program
/// could read it in another way. 6: policy, the image may be valid, but the policy does not allow
/// it, or it is too large to be checked completely. docs/inspect.md explains every finding.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// The declared format of the image; the format is never guessed
    #[arg(long, value_name = "FORMAT", value_parser = format_parser())]
    format: String,

    #[command(flatten)]
    image: UntrustedImage,

    /// The largest disk that is allowed, in bytes or as 10G; overrides the policy
    #[arg(long, value_name = size::SIZE, value_parser = size::parse)]
    max_size: Option<u64>,

    /// Copy the image first, check the copy, and give it the name FILE only if it is accepted
    #[arg(long, value_name = "FILE", value_parser = LocalFile)]
    out: Option<PathBuf>,

    /// Go on without asking: overwrite FILE
    #[arg(long, value_name = "WHAT", requires = "out", value_parser = only(&[(Force::Overwrite, "replace FILE, if the image is accepted")]))]
    force: Vec<Force>,

    /// The policy, in TOML; docs/inspect.md shows every member [default: a strict one]
    #[arg(long, value_name = "FILE", value_parser = LocalFile)]
    policy: Option<PathBuf>,
}

/// An image from an untrusted source. Its path is not trusted either.
#[derive(Debug, clap::Args)]
pub(crate) struct UntrustedImage {
    /// The image: a regular file, a block device, an export (nbd://HOST[:PORT]/NAME,
    /// nbd+unix:///NAME?socket=PATH, and nbds for TLS), or a file on a web server
    /// (https://HOST/PATH)
    #[arg(value_name = "IMAGE", value_parser = LocationParser::Openable)]
    pub(super) image: Location,

    /// Follow IMAGE if it is a symbolic link
    #[arg(long)]
    follow_symlinks: bool,

    #[command(flatten)]
    read: ReadArgs,

    #[command(flatten)]
    remote: RemoteArgs,
}

const EXAMPLES: &str = "\
Examples:
  luksmith inspect --format qcow2 upload.img
  luksmith inspect --format luks upload.img --max-size 100G --json
  luksmith inspect --format raw upload.img --policy site.toml
  luksmith inspect --format qcow2 upload.img --out checked.qcow2
  luksmith inspect --format raw nbd://localhost/upload";

fn format_parser() -> clap::builder::PossibleValuesParser {
    Format::ALL.map(Format::name).into()
}

impl UntrustedImage {
    pub(crate) fn open(&self, session: &Session) -> Result<Storage, CommandError> {
        let options = OpenOptions::new()
            .no_follow(!self.follow_symlinks)
            .force_share(self.read.force_share);
        let remote = self.remote.get();
        Ok(Storage::open(
            &self.image,
            remote,
            options,
            session.signals.interrupt(),
        )?)
    }

    pub(crate) fn name(&self) -> String {
        self.image.to_string()
    }
}

impl Args {
    pub(crate) fn run(self, session: &Session) -> Result<(), CommandError> {
        let format = Format::by_name(&self.format)
            .ok_or_else(|| CommandError::parameters("there is no such format"))?;
        let mut policy = match &self.policy {
            Some(path) => session.signals.ending(|| read_policy(path))??,
            None => Policy::default(),
        };
        if let Some(size) = self.max_size {
            policy.max_size = size;
        }
        let image = self.image.open(session)?;
        let destination = self
            .out
            .as_deref()
            .map(|path| self.look(path))
            .transpose()?;
        let (report, kept) = match destination {
            None => vet::inspect(&*image.backend, format, &policy)
                .map(|report| (report, None))
                .map_err(|error| CommandError::new(Kind::Storage, error)),
            Some(to) => inspect_copy(&*image.backend, format, &policy, to, session)
                .map(|(report, kept)| (report, self.out.as_deref().filter(|_| kept)))
                .map_err(|error| {
                    let larger = error.kind() == Kind::OverLimit;
                    let hint = "--max-size allows larger disks, and larger files";
                    CommandError::from(error).hint_if(larger.then(|| hint.to_owned()))
                }),
        }
        .map_err(|error| error.about(self.image.name()))?;
        if session.json {
            let members = outcome::inspected(&self.image.image, &report, kept);
            session.output.json(&members.into());
        } else {
            self.print(&session.output, &report, kept);
        }
        let (kind, outcome) = match report.verdict() {
            Verdict::Accept if self.out.is_none() || kept.is_some() => return Ok(()),
            Verdict::Accept => {
                let message = "it names other files, and --out takes only an image of one file";
                return Err(CommandError::new(Exit::AgainstPolicy, message)
                    .about(self.image.name())
                    .hint("`qemu-img convert` makes one file of an image that you trust"));
            }
            Verdict::Reject => (Exit::Rejected, "rejected"),
            Verdict::Policy => (Exit::AgainstPolicy, "against the policy"),
        };
        let message = format!("{} is {outcome} as {}", self.image.name(), format.name());
        Err(CommandError::new(kind, message).hint("docs/inspect.md explains every finding"))
    }

    /// Looks at FILE, and asks if it would be replaced.
    fn look(&self, path: &Path) -> Result<Destination, CommandError> {
        if path == Path::new("-") {
            let message = "--out -: a copy is judged before it has a name, and stdout cannot wait";
            return Err(CommandError::parameters(message)
                .hint("--out FILE names a new file; ./- is a file of this name"));
        }
        let destination = Destination::look(path)?;
        match destination.present() {
            Present::Nothing => {}
            Present::File { size } => {
                let loss = format!("{} exists and has {size} bytes", path.display());
                confirm(&self.force, Force::Overwrite, &loss)?;
            }
            Present::BlockDevice => {
                let message = "it is a block device, and a copy is not named before it is accepted";
                return Err(CommandError::parameters(message)
                    .about(path.display())
                    .hint("--out FILE names a new file"));
            }
        }
        Ok(destination)
    }

    fn print(&self, output: &Output, report: &Report, kept: Option<&Path>) {
        let row = |name: &str, value: &str| {
            output.line(format_args!("  {name:<14} {value}"));
        };
        output.line(format_args!(
            "{} as {}: {}",
            self.image.name(),
            report.format.name(),
            report.verdict().name()
        ));
        let size = report.virtual_size.map(size::both);
        row("virtual size", size.as_deref().unwrap_or("unknown"));
        row("encryption", report.encryption.name());
        if !report.features.is_empty() {
            let names: Vec<_> = report.features.iter().map(|one| one.name()).collect();
            row("features", &names.join(", "));
        }
        for reference in &report.references {
            row("names", reference);
        }
        if let Some(path) = kept {
            row("copied to", &path.display().to_string());
        }
        for finding in &report.findings {
            let check = finding.check;
            output.line("");
            output.line(format_args!("{}: {}", check.severity.name(), check.id));
            output.line(format_args!("  {}", check.meaning));
            output.line(format_args!(
                "  byte {}, {}: {}",
                finding.offset, finding.field, finding.detail
            ));
        }
    }
}
