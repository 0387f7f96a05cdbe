//! Where a passphrase comes from: a SOURCE as text, or a function of the program.

use crate::secret::{
    AnySource, HelperFolders, HelperScheme, LockedBytes, Passphrase, Purpose, Scheme, SecretError,
    SecretSource, Wanted,
};
use crate::task::{Error, Kind};

/// The longest passphrase that a function can give, in bytes.
pub const MAX_GIVEN: usize = 4096;

/// A function that writes a passphrase to the buffer, which is locked memory of [`MAX_GIVEN`]
/// bytes, and returns its length. `None` ends the work as an interrupt does.
pub type Ask<'a> = dyn Fn(Purpose<'_>, &mut [u8]) -> Option<usize> + Send + Sync + 'a;

/// Where a passphrase comes from.
pub enum Key<'a> {
    /// A source that text names.
    Source(AnySource),
    /// A function of the program, which is called in the thread that needs the passphrase.
    Function(Box<Ask<'a>>),
}

impl Key<'_> {
    /// The source that text names, in the language of `--key`. Those of key stores are among them,
    /// and those of libvirt are not.
    ///
    /// # Errors
    /// [`Kind::Parameters`]. The message does not repeat text that is no source, which may be a
    /// passphrase.
    pub fn source(text: &str) -> Result<Self, Error> {
        let folders = HelperFolders::new();
        let (existing, generated) = (
            HelperScheme::existing(folders.clone()),
            HelperScheme::generated(folders),
        );
        let schemes: [&dyn Scheme; 2] = [&existing, &generated];
        let source = AnySource::parse(text, &schemes).map_err(SecretError::from)?;
        Ok(Self::Source(source))
    }

    /// Reads the passphrase.
    ///
    /// # Errors
    /// Those of the source; [`Kind::Interrupted`] if the function gives none.
    pub fn read(&self, purpose: Purpose<'_>) -> Result<Passphrase, Error> {
        let ask = match self {
            Self::Source(source) => return Ok(source.read(purpose)?),
            Self::Function(ask) => ask,
        };
        let mut buffer = LockedBytes::new(MAX_GIVEN).map_err(SecretError::from)?;
        let Some(length) = ask(purpose, &mut buffer) else {
            return Err(Error::interrupted());
        };
        let Some(given) = buffer.get(..length) else {
            let message = format!("a passphrase of {length} bytes; at most {MAX_GIVEN} fit");
            return Err(Error::new(Kind::Parameters, message));
        };
        if given.is_empty() && purpose.what == Wanted::New {
            return Err(SecretError::Empty.into());
        }
        Ok(Passphrase::copy_from(given).map_err(SecretError::from)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Interrupt;

    fn read(what: Wanted, give: Option<usize>) -> Result<Passphrase, Error> {
        let interrupt = Interrupt::new();
        let mut purpose = Purpose::unlock("a test", &interrupt);
        purpose.what = what;
        let key = Key::Function(Box::new(move |purpose, buffer| {
            assert_eq!((purpose.label, buffer.len()), ("a test", MAX_GIVEN));
            buffer[..3].copy_from_slice(b"abc");
            give
        }));
        key.read(purpose)
    }

    #[test]
    fn a_function_gives_the_bytes_that_it_wrote() {
        assert_eq!(read(Wanted::New, Some(3)).unwrap().as_bytes(), b"abc");
        assert_eq!(read(Wanted::Unlock, Some(0)).unwrap().as_bytes(), b"");
        let kind = |what, give| read(what, give).unwrap_err().kind();
        assert_eq!(kind(Wanted::New, Some(0)), Kind::WrongPassphrase);
        assert_eq!(kind(Wanted::New, Some(MAX_GIVEN + 1)), Kind::Parameters);
        assert_eq!(kind(Wanted::Unlock, None), Kind::Interrupted);
    }

    #[test]
    fn text_that_is_no_source_is_not_repeated() {
        let error = Key::source("correct horse").map(drop).unwrap_err();
        assert_eq!(error.kind(), Kind::Parameters);
        assert!(!error.line().contains("horse"), "{}", error.line());
        for text in [
            "file:a.key",
            "helper:vault:a",
            "generate:helper:vault:a",
            "fd:3",
        ] {
            Key::source(text).unwrap();
        }
    }
}
