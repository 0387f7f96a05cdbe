//! `luksmith libvirt secret set`: sets the value of a secret.

use luksmith::libvirt::LibvirtError;
use luksmith::libvirt::xml::{SecretRef, UsageType};
use luksmith::secret::Passphrase;
use luksmith::task::outcome::SecretChange;

use crate::cli::Session;
use crate::cli::args::KeyArgs;
use crate::cli::error::CommandError;
use crate::cli::force::{Force, confirm, only};
use crate::cli::libvirt::connect::ConnectArgs;
use crate::cli::passphrase::KeySource;

/// Set the value of a secret
///
/// The value is exactly the bytes of the source. It is read back, unless the secret is private.
/// Another value that the secret has is replaced only after a question; that of a private secret is
/// not known, and is replaced.
/// QEMU takes only passphrases that are text (UTF-8 without NUL). For the bytes of a key file that
/// are not text, use their base64 in the secret (--base64) and in a keyslot.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// The secret: a UUID, or usage=TYPE:ID
    #[arg(value_name = "SECRET")]
    secret: SecretRef,

    /// Store the base64 of the bytes (RFC 4648) instead of the bytes
    #[arg(long)]
    base64: bool,

    /// Go on without asking about WHAT
    #[arg(long, value_name = "WHAT", value_parser = only(&[
        (Force::Overwrite, "replace the value that the secret has"),
        (Force::NotText, "store a value that QEMU does not accept"),
    ]))]
    force: Vec<Force>,

    #[command(flatten)]
    connect: ConnectArgs,

    #[command(flatten)]
    key: KeyArgs,
}

const EXAMPLES: &str = "\
Examples:
  luksmith libvirt secret set usage=volume:/pool/vm.img                        asks for the passphrase
  luksmith libvirt secret set usage=volume:/pool/vm.img --key-file vm.key
  luksmith libvirt secret set usage=volume:/pool/vm.img --key-file random.key --base64
  luksmith key add /pool/vm.img --new-key libvirt:usage=volume:/pool/vm.img    a keyslot with what the secret holds";

impl Args {
    pub(crate) fn run(self, session: &Session) -> Result<(), CommandError> {
        let connection = self.connect.open()?;
        let about = |error: CommandError| error.about(&self.secret);
        let secret = connection
            .find_secret(&self.secret)
            .map_err(|error| about(error.into()))?;
        let source = KeySource::of(&self.key)?;
        let mut passphrase = source.fresh(session, &format!("secret {}", self.secret), true)?;
        if self.base64 {
            passphrase = Passphrase::base64_of(passphrase.as_bytes())?;
        }
        let opens_volumes = secret
            .usage()?
            .is_none_or(|usage| usage.kind == UsageType::Volume);
        if opens_volumes && !passphrase.is_text() && !self.force.contains(&Force::NotText) {
            let message =
                "QEMU cannot open a volume with this value: it is not text (UTF-8 without NUL)";
            return Err(CommandError::parameters(message)
                .hint(
                    "--base64 stores its base64, for a keyslot that `luksmith key add IMAGE \
                     --new-key libvirt:SECRET` then makes",
                )
                .hint("--force not-text stores it as it is, for luksmith and librbd"));
        }
        let present = match secret.value() {
            Ok(value) => Some(value),
            // libvirt does not say whether a private secret has a value.
            Err(LibvirtError::NoValue(_) | LibvirtError::Private(_)) => None,
            Err(error) => return Err(about(error.into())),
        };
        if present.is_some_and(|present| present.as_bytes() != passphrase.as_bytes()) {
            let loss = format!(
                "secret {} has another value, which would be replaced: a volume of which it is the \
                 only passphrase could not be opened any more",
                self.secret
            );
            confirm(&self.force, Force::Overwrite, &loss)?;
        }
        secret
            .store(&passphrase)
            .map_err(|error| about(error.into()))?;
        let secret = secret.uuid()?;
        session.done(&SecretChange::Set { secret });
        Ok(())
    }
}
