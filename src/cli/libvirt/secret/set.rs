//! `luksmith libvirt secret set`: the value of a secret.

use luksmith::libvirt::xml::{SecretRef, UsageType};
use luksmith::secret::Passphrase;

use crate::cli::Session;
use crate::cli::args::KeyArgs;
use crate::cli::error::{CommandError, Kind};
use crate::cli::force::{Force, only};
use crate::cli::libvirt::connect::ConnectArgs;
use crate::cli::passphrase::KeySource;

/// Give a secret its value
///
/// The bytes are kept as they are, and read back where libvirt gives them. QEMU opens volumes by text alone (UTF-8 without NUL): the
/// bytes of a key file that are none have to become the base64 of them, in the secret and in a keyslot.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// The secret: a UUID, or usage=TYPE:ID
    #[arg(value_name = "SECRET")]
    secret: SecretRef,

    /// Keep the base64 of the bytes (RFC 4648) in place of the bytes
    #[arg(long)]
    base64: bool,

    /// Go on without asking: not-text, for bytes that QEMU does not take
    #[arg(long, value_name = "WHAT", value_parser = only(&[Force::NotText]))]
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
            return Err(CommandError::new(Kind::Parameters, "QEMU cannot open a volume by this value: it is no text in UTF-8 without NUL")
                .hint("--base64 keeps its base64, for a keyslot that `luksmith key add IMAGE --new-key libvirt:SECRET` then makes")
                .hint("--force not-text keeps it as it is, for luksmith and librbd"));
        }
        secret
            .store(&passphrase)
            .map_err(|error| about(error.into()))
    }
}
