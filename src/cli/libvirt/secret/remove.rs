//! `luksmith libvirt secret remove`: removes a secret that nothing needs.

use std::fs::File;
use std::io::Read;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use luksmith::libvirt::users;
use luksmith::libvirt::xml::{SecretRef, UsageType};

use crate::cli::Session;
use crate::cli::error::{CommandError, Kind};
use crate::cli::force::{Force, only};
use crate::cli::libvirt::connect::ConnectArgs;

/// Remove a secret and its value
///
/// Refused while a domain or a volume refers to the secret, or an encrypted image lies on this
/// host at the path of its usage. libvirt itself would remove it, and the domain would not start
/// again.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// The secret: a UUID, or usage=TYPE:ID
    #[arg(value_name = "SECRET")]
    secret: SecretRef,

    /// Go on without asking: in-use
    #[arg(long, value_name = "WHAT", value_parser = only(&[Force::InUse]))]
    force: Vec<Force>,

    #[command(flatten)]
    connect: ConnectArgs,
}

const EXAMPLES: &str = "\
Examples:
  luksmith libvirt secret remove usage=volume:/pool/old.img
  luksmith libvirt secret remove 6c1f3c1e-4c22-4e8c-8a0e-4f7a5d0f9a11 --force in-use";

impl Args {
    pub(crate) fn run(self, _session: &Session) -> Result<(), CommandError> {
        let connection = self.connect.open()?;
        let is_needed = |what: String| {
            CommandError::new(Kind::Busy, format!("{} is in use: {what}", self.secret))
                .hint("--force in-use removes it all the same")
        };
        let about = |error| CommandError::from(error).about(&self.secret);
        let secret = connection.find_secret(&self.secret).map_err(about)?;
        if !self.force.contains(&Force::InUse) {
            let users = users(&connection)?;
            let hint = "--force in-use removes it all the same";
            let usage = secret.usage()?;
            let named = users.of(&secret.uuid()?, usage.as_ref());
            if !named.is_empty() {
                let named = named
                    .iter()
                    .map(ToString::to_string)
                    .collect::<Vec<_>>()
                    .join(", ");
                return Err(is_needed(named));
            }
            // libvirt does not know an image that is in no pool and that no domain uses yet.
            let image = usage.filter(|usage| usage.kind == UsageType::Volume);
            if let Some(usage) = image.filter(|usage| is_encrypted(Path::new(&usage.id))) {
                return Err(is_needed(format!("the encrypted image {}", usage.id)));
            }
            if let Some((what, error)) = users.unread.into_iter().next() {
                return Err(CommandError::new(Kind::Busy, error)
                    .about(format_args!(
                        "{what} cannot be read, and may use {}",
                        self.secret
                    ))
                    .hint(hint));
            }
        }
        secret.undefine().map_err(about)
    }
}

/// Whether a file or block device of this host begins as a LUKS volume or an encrypted qcow2 image
/// does.
fn is_encrypted(path: &Path) -> bool {
    let mut begin = [0; 36];
    // Without O_NONBLOCK, opening a FIFO would block until its other end is opened.
    let nonblocking = i32::try_from(rustix::fs::OFlags::NONBLOCK.bits()).unwrap_or_default();
    let read = File::options()
        .read(true)
        .custom_flags(nonblocking)
        .open(path)
        .and_then(|mut file| file.read_exact(&mut begin));
    let is_qcow2 = begin.starts_with(b"QFI\xfb") && begin[32..] == [0, 0, 0, 2];
    read.is_ok() && (begin.starts_with(b"LUKS\xba\xbe") || is_qcow2)
}
