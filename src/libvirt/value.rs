//! The value of a secret: as a source of passphrases, and set with a check that libvirt returns it.

use super::xml::SecretRef;
use super::{ConnectOptions, Connection, LibvirtError, Secret};
use crate::secret::{
    ParseSourceError, Passphrase, Purpose, Scheme, SecretError, SecretSource, Wanted,
};

/// A scheme whose sources are the values of libvirt secrets. It connects as
/// [`ConnectOptions::new`] says.
#[derive(Debug)]
pub struct ValueScheme {
    generate: bool,
}

impl ValueScheme {
    /// `libvirt:SECRET`: the value that a secret has.
    pub const EXISTING: Self = Self { generate: false };
    /// `generate:libvirt:SECRET`: a new random passphrase, put into a secret without a value.
    pub const GENERATED: Self = Self { generate: true };
}

impl Scheme for ValueScheme {
    fn name(&self) -> &'static str {
        if self.generate {
            "generate:libvirt"
        } else {
            "libvirt"
        }
    }

    fn parse(&self, rest: &str) -> Result<Box<dyn SecretSource>, ParseSourceError> {
        let secret = rest.parse::<SecretRef>();
        let secret = secret.map_err(|error| ParseSourceError::Scheme(error.to_string()))?;
        let options = ConnectOptions::new();
        Ok(Box::new(if self.generate {
            ValueSource::generated(secret, options)
        } else {
            ValueSource::existing(secret, options)
        }))
    }
}

/// The value of a libvirt secret as a source of a passphrase. Each read opens a new connection.
#[derive(Debug)]
pub struct ValueSource {
    secret: SecretRef,
    options: ConnectOptions,
    generate: bool,
}

impl ValueSource {
    /// The value that the secret has.
    #[must_use]
    pub fn existing(secret: SecretRef, options: ConnectOptions) -> Self {
        Self {
            secret,
            options,
            generate: false,
        }
    }

    /// A new random passphrase, which the secret holds before the caller gets it. See
    /// [`Secret::generate_value`].
    #[must_use]
    pub fn generated(secret: SecretRef, options: ConnectOptions) -> Self {
        Self {
            secret,
            options,
            generate: true,
        }
    }

    fn get(&self) -> Result<Passphrase, ValueError> {
        let connection = Connection::open(&self.options)?;
        let secret = connection.find_secret(&self.secret)?;
        if self.generate {
            secret.generate_value()
        } else {
            Ok(secret.value()?)
        }
    }
}

impl SecretSource for ValueSource {
    fn read(&self, purpose: Purpose<'_>) -> Result<Passphrase, SecretError> {
        let scheme = ValueScheme {
            generate: self.generate,
        };
        let from = format!("{}:{}", scheme.name(), self.secret);
        if self.generate && purpose.what == Wanted::Unlock {
            return Err(SecretError::OnlyNew { from });
        }
        self.get().map_err(|error| SecretError::Scheme {
            from,
            source: Box::new(error),
        })
    }
}

/// Why the value of a secret could not be read or set.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ValueError {
    /// libvirt failed.
    #[error(transparent)]
    Libvirt(#[from] LibvirtError),
    /// A value would be generated for a secret that has one.
    #[error("the secret has a value already")]
    Present,
    /// A value would be generated for a secret, but libvirt does not say whether the secret has
    /// one.
    #[error("whether the secret has a value cannot be seen")]
    Unseen(#[source] LibvirtError),
    /// libvirt returns another value than was set.
    #[error("libvirt keeps another value than it was given")]
    Altered,
    /// A value was set, and libvirt does not return it.
    #[error("the value cannot be read back")]
    NotReadBack(#[source] LibvirtError),
    /// No random passphrase could be made.
    #[error(transparent)]
    Generate(SecretError),
}

impl Secret {
    /// Sets the value and reads it back, where libvirt returns it: a private secret's value is
    /// only set.
    ///
    /// # Errors
    /// [`ValueError::Altered`], [`ValueError::NotReadBack`], or [`ValueError::Libvirt`] when
    /// nothing was set.
    pub fn store(&self, value: &Passphrase) -> Result<(), ValueError> {
        self.set_value(value)?;
        match self.value() {
            Ok(kept) if kept.ct_eq(value) => Ok(()),
            Ok(_) => Err(ValueError::Altered),
            Err(LibvirtError::Private(_)) => Ok(()),
            Err(error) => Err(ValueError::NotReadBack(error)),
        }
    }

    /// Stores a new random passphrase in a secret that has no value, and returns it. An existing
    /// value is not replaced, because it may open something.
    ///
    /// # Errors
    /// [`ValueError::Present`], [`ValueError::Unseen`] for a private secret,
    /// [`ValueError::Generate`], and those of [`Secret::store`].
    pub fn generate_value(&self) -> Result<Passphrase, ValueError> {
        match self.value() {
            Err(LibvirtError::NoValue(_)) => {}
            Ok(_) => return Err(ValueError::Present),
            Err(error @ LibvirtError::Private(_)) => return Err(ValueError::Unseen(error)),
            Err(error) => return Err(error.into()),
        }
        let passphrase = Passphrase::generate().map_err(ValueError::Generate)?;
        self.store(&passphrase)?;
        Ok(passphrase)
    }
}
