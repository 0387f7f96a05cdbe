//! `luksmith libvirt secret remove`: a secret goes, if nobody needs it.

use luksmith::libvirt::users;
use luksmith::libvirt::xml::SecretRef;

use crate::cli::Session;
use crate::cli::error::{CommandError, Kind};
use crate::cli::force::{Force, only};
use crate::cli::libvirt::connect::ConnectArgs;

/// Remove a secret and its value
///
/// Refused while a domain or a volume refers to it: libvirt itself would forget it, and the domain would not start again.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// The secret: a UUID, or usage=TYPE:ID
    #[arg(value_name = "SECRET")]
    secret: SecretRef,

    /// Go on all the same: in-use
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
        let about = |error| CommandError::from(error).about(&self.secret);
        let secret = connection.find_secret(&self.secret).map_err(about)?;
        if !self.force.contains(&Force::InUse) {
            let users = users(&connection)?;
            let hint = "--force in-use removes it all the same";
            let named = users.of(&secret.uuid()?, secret.usage()?.as_ref());
            if !named.is_empty() {
                let named = named
                    .iter()
                    .map(ToString::to_string)
                    .collect::<Vec<_>>()
                    .join(", ");
                return Err(CommandError::new(
                    Kind::Busy,
                    format!("{} is in use: {named}", self.secret),
                )
                .hint(hint));
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
