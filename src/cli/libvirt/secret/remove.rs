//! `luksmith libvirt secret remove`: removes a secret that nothing needs.

use std::path::Path;

use luksmith::libvirt::users;
use luksmith::libvirt::xml::{SecretRef, UsageType};
use luksmith::task::emulator::is_encrypted;
use luksmith::task::outcome::SecretChange;

use crate::cli::Session;
use crate::cli::error::{CommandError, Kind};
use crate::cli::force::{Force, only};
use crate::cli::libvirt::connect::ConnectArgs;

/// Remove a secret and its value
///
/// This is refused while a domain or a volume refers to the secret, or while there is an encrypted
/// image on this host at the path of its usage. libvirt itself would remove the secret, and the
/// domain would fail at its next start.
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
    pub(crate) fn run(self, session: &Session) -> Result<(), CommandError> {
        let connection = self.connect.open()?;
        let is_needed = |what: String| {
            CommandError::new(Kind::Busy, format!("{} is in use: {what}", self.secret))
                .hint("--force in-use removes it anyway")
        };
        let about = |error| CommandError::from(error).about(&self.secret);
        let secret = connection.find_secret(&self.secret).map_err(about)?;
        if !self.force.contains(&Force::InUse) {
            let users = users(&connection)?;
            let hint = "--force in-use removes it anyway";
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
        let uuid = secret.uuid().map_err(about)?;
        secret.undefine().map_err(about)?;
        session.done(&SecretChange::Removed { secret: uuid });
        Ok(())
    }
}
