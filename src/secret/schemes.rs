//! Kinds of sources that other modules and programs add to those of [`Source`]. Text names such a
//! source as `NAME:REST`.

use super::{ParseSourceError, Passphrase, Purpose, SecretError, SecretSource, Source};

/// A kind of source, which text names as `NAME:REST`.
pub trait Scheme: Send + Sync {
    /// The name before the colon, such as `libvirt`. It may contain colons.
    fn name(&self) -> &'static str;

    /// The source that `rest`, the text after the name and its colon, describes. Nothing is read
    /// yet.
    ///
    /// # Errors
    /// [`ParseSourceError::Scheme`] when `rest` is not in the form that the scheme takes.
    fn parse(&self, rest: &str) -> Result<Box<dyn SecretSource>, ParseSourceError>;
}

/// A source that text names: one of this crate, or one of a [`Scheme`].
pub enum AnySource {
    /// A source of this crate.
    Own(Source),
    /// A source of a scheme.
    Scheme(Box<dyn SecretSource>),
}

impl AnySource {
    /// The source that `text` names: `NAME:REST` of one of `schemes`, or else a form of [`Source`].
    ///
    /// # Errors
    /// [`ParseSourceError`].
    pub fn parse(text: &str, schemes: &[&dyn Scheme]) -> Result<Self, ParseSourceError> {
        for scheme in schemes {
            let rest = text.strip_prefix(scheme.name());
            if let Some(rest) = rest.and_then(|rest| rest.strip_prefix(':')) {
                return scheme.parse(rest).map(Self::Scheme);
            }
        }
        text.parse().map(Self::Own)
    }
}

impl SecretSource for AnySource {
    fn read(&self, purpose: Purpose<'_>) -> Result<Passphrase, SecretError> {
        match self {
            Self::Own(source) => source.read(purpose),
            Self::Scheme(source) => source.read(purpose),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Interrupt;

    /// `echo:TEXT` is TEXT, which must not be empty.
    struct Echo;

    struct Text(String);

    impl Scheme for Echo {
        fn name(&self) -> &'static str {
            "echo"
        }

        fn parse(&self, rest: &str) -> Result<Box<dyn SecretSource>, ParseSourceError> {
            if rest.is_empty() {
                return Err(ParseSourceError::Scheme("echo: has no text".to_owned()));
            }
            Ok(Box::new(Text(rest.to_owned())))
        }
    }

    impl SecretSource for Text {
        fn read(&self, _purpose: Purpose<'_>) -> Result<Passphrase, SecretError> {
            Ok(Passphrase::copy_from(self.0.as_bytes())?)
        }
    }

    #[test]
    fn a_scheme_is_found_by_its_whole_name() {
        let parse = |text| AnySource::parse(text, &[&Echo]);
        let interrupt = Interrupt::new();
        let source = parse("echo:a:b").unwrap();
        let read = source.read(Purpose::unlock("a test", &interrupt)).unwrap();
        assert_eq!(read.as_bytes(), b"a:b");
        assert!(matches!(parse("stdin"), Ok(AnySource::Own(Source::Stdin))));
        for (text, expected) in [
            (
                "echo:",
                ParseSourceError::Scheme("echo: has no text".to_owned()),
            ),
            ("echo", ParseSourceError::Unknown),
            ("echoes:a", ParseSourceError::Unknown),
            ("fd:x", ParseSourceError::NotDescriptor),
        ] {
            assert_eq!(parse(text).err(), Some(expected), "{text}");
        }
    }
}
