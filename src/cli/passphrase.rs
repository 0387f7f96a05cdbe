//! Passphrases and keys: which source, asked how, and whether a typed one is good enough.
//!
//! Beside the sources of the library there are those of libvirt: `libvirt:SECRET` is the value of a secret, `generate:libvirt:SECRET` a new
//! passphrase that the secret holds before anything else has it.

use std::io::{self, IsTerminal};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use std::str::FromStr;

use luksmith::libvirt::xml::SecretRef;
use luksmith::secret::{
    ParseSourceError, Passphrase, Purpose, SecretSource, Source, VolumeKey, strength,
};
use luksmith_formats::nbd::uri;

use super::Session;
use super::args::{KeyArgs, NewKeyArgs};
use super::error::{CommandError, Kind};
use super::libvirt;
use super::output;

/// A typed passphrase below this score of zxcvbn needs --force-weak: it falls to fewer than 10⁸ guesses.
const WEAK_BELOW: u8 = 2;

/// Where a secret comes from.
pub(crate) struct KeySource {
    origin: Origin,
}

/// Who has it.
enum Origin {
    /// A person, a file, a descriptor, …
    Here(Source),
    /// libvirt.
    Secret(SecretRef),
    /// Nobody yet: it is made, and given to libvirt.
    Generated(SecretRef),
}

impl FromStr for Origin {
    type Err = CommandError;

    fn from_str(text: &str) -> Result<Self, CommandError> {
        let secret = |text: &str| {
            text.parse()
                .map_err(|error| CommandError::new(Kind::Parameters, error))
        };
        if let Some(text) = text.strip_prefix("libvirt:") {
            return secret(text).map(Self::Secret);
        }
        if let Some(text) = text.strip_prefix("generate:libvirt:") {
            return secret(text).map(Self::Generated);
        }
        if text == "generate" {
            return Err(CommandError::parameters("generate: nobody would have the passphrase")
                .hint("generate:libvirt:SECRET puts it into a secret, which is a UUID or usage=volume:PATH"));
        }
        text.parse().map(Self::Here).map_err(|error| {
            let unknown = error == ParseSourceError::Unknown;
            let error = CommandError::new(Kind::Parameters, error);
            let more = "libvirt:SECRET is one too, and generate:libvirt:SECRET for a new passphrase; SECRET is a UUID or usage=volume:PATH";
            error.hint_if(unknown.then(|| more.to_owned()))
        })
    }
}

impl KeySource {
    /// The source that the arguments name for an existing passphrase, or for the one of a new volume.
    pub(crate) fn of(args: &KeyArgs) -> Result<Self, CommandError> {
        Self::choose(
            "--key",
            args.key.as_deref(),
            args.key_file.as_deref(),
            args.keyfile_offset,
            args.keyfile_size,
        )
    }

    /// The source of a passphrase that is being set beside an existing one.
    pub(crate) fn of_new(args: &NewKeyArgs, old: Option<&Self>) -> Result<Self, CommandError> {
        let new = Self::choose(
            "--new-key",
            args.new_key.as_deref(),
            args.new_key_file.as_deref(),
            args.new_keyfile_offset,
            args.new_keyfile_size,
        )?;
        if let Some(old) = old
            && ((old.takes_all_of_stdin() && new.uses_stdin())
                || (old.uses_stdin() && new.takes_all_of_stdin()))
        {
            return Err(CommandError::parameters(
                "both passphrases come from stdin, and one of them takes all of it",
            )
            .hint("--key stdin --new-key stdin take one line each"));
        }
        Ok(new)
    }

    /// The source that an option names.
    pub(crate) fn named(option: &str, source: &str) -> Result<Self, CommandError> {
        Self::choose(option, Some(source), None, None, None)
    }

    fn choose(
        option: &str,
        source: Option<&str>,
        file: Option<&str>,
        offset: Option<u64>,
        size: Option<u64>,
    ) -> Result<Self, CommandError> {
        let origin = match (source, file) {
            (Some(text), _) => text
                .parse()
                .map_err(|error: CommandError| error.about(option))?,
            (None, Some("-")) if offset.is_none() && size.is_none() => Origin::Here(Source::Fd(0)),
            (None, Some(path)) => {
                let path = if path == "-" { "/dev/stdin" } else { path };
                Origin::Here(Source::File {
                    path: path.into(),
                    offset: offset.unwrap_or(0),
                    size,
                })
            }
            (None, None) => Origin::Here(Source::Prompt),
        };
        if let Origin::Here(Source::File { path, .. }) = &origin
            && uri::scheme(path.as_os_str().as_bytes()).is_some()
        {
            let message = format!("{option}: a key file of this machine is wanted, not a URI");
            return Err(CommandError::parameters(message).hint("a file of that name is ./NAME"));
        }
        Ok(Self { origin })
    }

    /// The source that is one of the library's, also for who reads it in our place.
    pub(crate) fn here(&self) -> Option<&Source> {
        match &self.origin {
            Origin::Here(source) => Some(source),
            Origin::Secret(_) | Origin::Generated(_) => None,
        }
    }

    /// The same where stdin carries the data.
    pub(crate) fn beside_data_on_stdin(self) -> Result<Self, CommandError> {
        let origin = match self.origin {
            Origin::Here(source) => Origin::Here(source.beside_data_on_stdin()?),
            other => other,
        };
        Ok(Self { origin })
    }

    /// Whether a person types it.
    fn is_typed(&self) -> bool {
        match self.here() {
            Some(Source::Terminal) => true,
            Some(Source::Prompt) => io::stdin().is_terminal(),
            _ => false,
        }
    }

    fn takes_all_of_stdin(&self) -> bool {
        match self.here() {
            Some(Source::Fd(0)) => true,
            Some(Source::File { path, .. }) => path == Path::new("/dev/stdin"),
            _ => false,
        }
    }

    fn uses_stdin(&self) -> bool {
        self.takes_all_of_stdin()
            || self.here() == Some(&Source::Stdin)
            || (self.here() == Some(&Source::Prompt) && !self.is_typed())
    }

    /// How often a wrong passphrase may be tried: only a person gets it right the next time.
    pub(crate) fn tries(&self) -> u32 {
        if self.is_typed() { 3 } else { 1 }
    }

    /// A passphrase that exists.
    pub(crate) fn existing(
        &self,
        session: &Session,
        label: &str,
    ) -> Result<Passphrase, CommandError> {
        match &self.origin {
            Origin::Here(source) => {
                Ok(source.read(Purpose::unlock(label, session.signals.interrupt()))?)
            }
            Origin::Secret(secret) => libvirt::value(secret),
            Origin::Generated(_) => Err(CommandError::parameters(
                "generate: makes a new passphrase, and this one has to exist",
            )),
        }
    }

    /// A passphrase that is being set: asked twice and rated if it is typed.
    pub(crate) fn fresh(
        &self,
        session: &Session,
        label: &str,
        force_weak: bool,
    ) -> Result<Passphrase, CommandError> {
        let passphrase = match &self.origin {
            Origin::Here(source) => {
                source.read(Purpose::new_secret(label, session.signals.interrupt()))?
            }
            Origin::Secret(secret) => libvirt::value(secret)?,
            Origin::Generated(secret) => libvirt::generate(secret)?,
        };
        if self.is_typed() {
            rate(&passphrase, force_weak)?;
        }
        Ok(passphrase)
    }
}

fn rate(passphrase: &Passphrase, force_weak: bool) -> Result<(), CommandError> {
    let Some(strength) = strength(passphrase) else {
        return Ok(());
    };
    let word = match strength.score {
        0 => "very weak",
        1 => "weak",
        2 => "fair",
        3 => "good",
        _ => "strong",
    };
    let guesses = format!("about 10^{:.0} guesses", strength.guesses_log10);
    if strength.score >= WEAK_BELOW || force_weak {
        output::note(format_args!("the passphrase is {word}: {guesses}"));
        return Ok(());
    }
    let why = strength
        .warning
        .map(|warning| format!("; {}", lower(&warning)))
        .unwrap_or_default();
    Err(CommandError::new(
        Kind::Permission,
        format!("the new passphrase is {word}: {guesses}{why}"),
    )
    .hint("choose several unrelated words, or pass --force-weak to take it"))
}

/// A sentence of zxcvbn in our manner: lower case, no full stop.
fn lower(sentence: &str) -> String {
    let mut characters = sentence.trim_end_matches('.').chars();
    characters
        .next()
        .map(|first| first.to_lowercase().chain(characters).collect())
        .unwrap_or_default()
}

/// A volume key from a file, all of its bytes.
pub(crate) fn volume_key_file(session: &Session, path: &Path) -> Result<VolumeKey, CommandError> {
    let bytes = Source::file(path).read(Purpose::unlock(
        "the volume key",
        session.signals.interrupt(),
    ))?;
    VolumeKey::copy_from(bytes.as_bytes()).map_err(|error| {
        CommandError::new(Kind::Memory, error).about("no locked memory for the volume key")
    })
}
