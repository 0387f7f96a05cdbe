//! `luksmith libvirt secret remove`: removes a secret that nothing needs.

use luksmith::libvirt::xml::SecretRef;
use luksmith::task::libvirt::secrets;
use luksmith::task::outcome::SecretChange;

use crate::cli::Session;
use crate::cli::error::CommandError;
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
    #[arg(long, value_name = "WHAT", value_parser = only(&[(Force::InUse, "remove a secret that domains or volumes use")]))]
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
        let even_used = self.force.contains(&Force::InUse);
        let secret = secrets::remove(&connection, &self.secret, even_used)?;
        session.done(&SecretChange::Removed { secret });
        Ok(())
    }
}
