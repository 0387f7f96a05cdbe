//! The values of secrets: read as a SOURCE, set so that they are there, or made.

use luksmith::libvirt::xml::SecretRef;
use luksmith::libvirt::{ConnectOptions, Connection, LibvirtError, Secret};
use luksmith::secret::Passphrase;

use crate::cli::error::{CommandError, Kind};

/// `libvirt:SECRET`, of the libvirt that LIBVIRT_DEFAULT_URI names, or that is there.
pub(crate) fn value(secret: &SecretRef) -> Result<Passphrase, CommandError> {
    let connection = Connection::open(&ConnectOptions::default())?;
    let found = connection.find_secret(secret);
    found
        .and_then(|secret| secret.value())
        .map_err(|error| CommandError::from(error).about(format_args!("libvirt:{secret}")))
}

/// `generate:libvirt:SECRET`: a new passphrase that the secret holds, and nothing else yet.
pub(crate) fn generate(secret: &SecretRef) -> Result<Passphrase, CommandError> {
    let connection = Connection::open(&ConnectOptions::default())?;
    let about = |error: CommandError| error.about(format_args!("generate:libvirt:{secret}"));
    let found = connection
        .find_secret(secret)
        .map_err(|error| about(error.into()))?;
    generate_into(&found).map_err(about)
}

/// Fills a secret that has no value. One that has is left alone: something may be opened by it.
pub(crate) fn generate_into(secret: &Secret) -> Result<Passphrase, CommandError> {
    match secret.value() {
        Err(LibvirtError::NoValue(_)) => {}
        Ok(_) => {
            return Err(CommandError::new(Kind::Busy, "the secret has a value already")
                .hint("--key libvirt:SECRET takes that one; `luksmith libvirt rotate` puts another in its place"));
        }
        Err(error @ LibvirtError::Private(_)) => {
            return Err(CommandError::new(Kind::Permission, error)
                .about("whether the secret has a value cannot be seen")
                .hint("`luksmith libvirt secret define --private --generate` makes a new one with its value"));
        }
        Err(error) => return Err(error.into()),
    }
    let passphrase = Passphrase::generate()?;
    set(secret, &passphrase)?;
    Ok(passphrase)
}

/// Sets the value, and reads it back where libvirt gives it: what it keeps is what was meant.
pub(crate) fn set(secret: &Secret, passphrase: &Passphrase) -> Result<(), CommandError> {
    secret.set_value(passphrase)?;
    match secret.value() {
        Ok(kept) if kept.ct_eq(passphrase) => Ok(()),
        Ok(_) => Err(CommandError::new(
            Kind::Device,
            "libvirt keeps another value than it was given",
        )),
        Err(LibvirtError::Private(_)) => Ok(()),
        Err(error) => Err(CommandError::from(error).about("the value cannot be read back")),
    }
}

/// Whether QEMU takes it for a passphrase: text in UTF-8, without NUL.
pub(crate) fn is_text(passphrase: &Passphrase) -> bool {
    let bytes = passphrase.as_bytes();
    !bytes.contains(&0) && std::str::from_utf8(bytes).is_ok()
}
