//! Reads passphrases and keys from the source that `--key` or `--key-file` names, and checks that a
//! new passphrase that is typed is strong enough.

use std::io::{self, IsTerminal};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use luksmith::libvirt::ValueScheme;
use luksmith::secret::{
    AnySource, HelperFolders, HelperScheme, KeyStore, ParseSourceError, Passphrase, Purpose,
    Scheme, SecretError, SecretSource, Source, VolumeKey, VolumeName, Wanted,
};
use luksmith_formats::nbd::uri;

use super::Session;
use super::args::{KeyArgs, KeysArgs, NewKeyArgs, TokenArgs, UnlockArgs};
use super::error::{CommandError, Kind};
use super::output;
use super::strength::strength;

/// A typed passphrase with a lower score of zxcvbn needs --force-weak. Fewer than 10^8 guesses find
/// it.
const WEAK_BELOW: u8 = 2;

/// Where helpers are looked for, which `--helper-dir` says.
static HELPERS: OnceLock<HelperFolders> = OnceLock::new();

/// Also looks for helpers in these directories.
pub(crate) fn use_helpers(directories: &[PathBuf]) -> Result<(), CommandError> {
    let mut folders = HelperFolders::new();
    for directory in directories {
        let path = std::path::absolute(directory)
            .map_err(|error| CommandError::new(Kind::Parameters, error).about("--helper-dir"))?;
        folders = folders.also(path);
    }
    HELPERS.get_or_init(|| folders);
    Ok(())
}

fn helpers() -> HelperFolders {
    HELPERS.get().cloned().unwrap_or_default()
}

/// What a SOURCE may be besides the library's own sources.
fn schemes() -> [Box<dyn Scheme>; 4] {
    [
        Box::new(ValueScheme::EXISTING),
        Box::new(ValueScheme::GENERATED),
        Box::new(HelperScheme::existing(helpers())),
        Box::new(HelperScheme::generated(helpers())),
    ]
}

/// The key store that an option names.
pub(crate) fn key_store(option: &str, text: &str) -> Result<KeyStore, CommandError> {
    let reference = match text.strip_prefix("helper:") {
        Some(rest) => rest.parse(),
        None => Err(ParseSourceError::Unknown),
    };
    match reference {
        Ok(reference) => Ok(KeyStore::new(reference, helpers())),
        // The text may be a passphrase, and is not repeated.
        Err(ParseSourceError::Unknown) => {
            let message = format!("{option}: not a reference of a key store");
            Err(CommandError::parameters(message).hint("helper:NAME:REFERENCE names one"))
        }
        Err(error) => Err(CommandError::new(Kind::Parameters, error).about(option)),
    }
}

/// How the text of each SOURCE begins.
pub(crate) fn forms() -> Vec<String> {
    let own = Source::FORMS.iter().map(|form| (*form).to_owned());
    let schemes = schemes();
    let more = schemes.iter().map(|scheme| format!("{}:", scheme.name()));
    own.chain(more).collect()
}

/// Where a secret comes from.
pub(crate) struct KeySource {
    source: AnySource,
    /// Whether a task takes a new passphrase that is easy to guess.
    weak: bool,
    /// The tokens of the header that may be used, which ask the source for what they need.
    tokens: TokenArgs,
}

fn parse(text: &str) -> Result<AnySource, CommandError> {
    if text == "generate" {
        return Err(
            CommandError::parameters("generate: the passphrase would be kept nowhere").hint(
                "generate:libvirt:SECRET puts it into a secret, which is a UUID or \
                 usage=volume:PATH; generate:helper:NAME:REFERENCE puts it into a key store",
            ),
        );
    }
    let schemes = schemes();
    let schemes: Vec<&dyn Scheme> = schemes.iter().map(AsRef::as_ref).collect();
    AnySource::parse(text, &schemes).map_err(|error| {
        let unknown = error == ParseSourceError::Unknown;
        let error = CommandError::new(Kind::Parameters, error);
        let more = "libvirt:SECRET and helper:NAME:REFERENCE are sources too, and with generate: \
                    before them for a new passphrase; SECRET is a UUID or usage=volume:PATH";
        error.hint_if(unknown.then(|| more.to_owned()))
    })
}

impl KeySource {
    /// The source that the arguments name for an existing passphrase, or for that of a new volume.
    pub(crate) fn of(args: &KeyArgs) -> Result<Self, CommandError> {
        Self::choose(
            "--key",
            args.key.as_deref(),
            args.key_file.as_deref(),
            args.keyfile_offset,
            args.keyfile_size,
        )
    }

    /// The source that the arguments name, if they name one.
    pub(crate) fn if_given(args: &KeyArgs) -> Result<Option<Self>, CommandError> {
        args.is_given().then(|| Self::of(args)).transpose()
    }

    /// The source of a passphrase that unlocks, and the tokens that may be used.
    pub(crate) fn to_unlock(args: &UnlockArgs) -> Result<Self, CommandError> {
        Self::by_tokens(&args.key, &args.token)
    }

    /// As [`to_unlock`](Self::to_unlock).
    pub(crate) fn by_tokens(key: &KeyArgs, tokens: &TokenArgs) -> Result<Self, CommandError> {
        check_tokens(tokens)?;
        Ok(Self::of(key)?.with_tokens(tokens))
    }

    /// The same source, and tokens that may be used.
    pub(crate) fn with_tokens(self, tokens: &TokenArgs) -> Self {
        let tokens = tokens.clone();
        Self { tokens, ..self }
    }

    /// The tokens of the header that may be used.
    pub(crate) fn tokens(&self) -> &TokenArgs {
        &self.tokens
    }

    /// The source of a new passphrase, where `old` is the source of an existing one.
    pub(crate) fn of_new(args: &NewKeyArgs, old: Option<&Self>) -> Result<Self, CommandError> {
        let new = Self::choose(
            "--new-key",
            args.new_key.as_deref(),
            args.new_key_file.as_deref(),
            args.new_keyfile_offset,
            args.new_keyfile_size,
        )?;
        match old {
            Some(old) => new.beside(old, "--new-key"),
            None => Ok(new),
        }
    }

    /// The same source, that of `option`, beside the source of an existing passphrase. Refuses two
    /// that read stdin, unless each takes one line.
    pub(crate) fn beside(self, old: &Self, option: &str) -> Result<Self, CommandError> {
        let both = old.uses_stdin() && self.uses_stdin();
        if both && (old.takes_all_of_stdin() || self.takes_all_of_stdin()) {
            let message = format!(
                "the passphrase and {option} both come from stdin, and one of them takes all of it"
            );
            return Err(CommandError::parameters(message)
                .hint(format!("--key stdin {option} stdin take one line each")));
        }
        Ok(self)
    }

    /// The sources of several existing passphrases, the last of which is for tokens, if there are
    /// any: the terminal, if none is named.
    pub(crate) fn of_each(args: &KeysArgs) -> Result<Vec<Self>, CommandError> {
        check_tokens(&args.token)?;
        let keys = args.key.iter().map(|key| Self::named("--key", key));
        let file = |file: &String| Self::choose("--key-file", None, Some(file), None, None);
        let mut sources = keys
            .chain(args.key_file.iter().map(file))
            .collect::<Result<Vec<_>, _>>()?;
        if sources.is_empty() || args.token.is_given() {
            let asked = Self::choose("--key", None, None, None, None)?;
            sources.push(asked.with_tokens(&args.token));
        }
        Ok(sources)
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
        let source = match (source, file) {
            (Some(text), _) => parse(text).map_err(|error| error.about(option))?,
            (None, Some("-")) if offset.is_none() && size.is_none() => {
                AnySource::Own(Source::Fd(0))
            }
            (None, Some(path)) => {
                let path = if path == "-" { "/dev/stdin" } else { path };
                AnySource::Own(Source::File {
                    path: path.into(),
                    offset: offset.unwrap_or(0),
                    size,
                })
            }
            (None, None) => AnySource::Own(Source::Prompt),
        };
        if let AnySource::Own(Source::File { path, .. }) = &source
            && uri::scheme(path.as_os_str().as_bytes()).is_some()
        {
            let message = format!("{option}: a local key file is required, not a URI");
            return Err(CommandError::parameters(message).hint("a file of that name is ./NAME"));
        }
        Ok(Self {
            source,
            weak: false,
            tokens: TokenArgs::default(),
        })
    }

    /// The same source for a task that takes a passphrase which is easy to guess.
    pub(crate) fn allow_weak(self, weak: bool) -> Self {
        Self { weak, ..self }
    }

    /// The source, if it is one of the library's own, and not of a scheme.
    pub(crate) fn here(&self) -> Option<&Source> {
        match &self.source {
            AnySource::Own(source) => Some(source),
            AnySource::Scheme(_) => None,
        }
    }

    /// The same source for a command whose data is on stdin.
    pub(crate) fn beside_data_on_stdin(self) -> Result<Self, CommandError> {
        let source = match self.source {
            AnySource::Own(source) => AnySource::Own(source.beside_data_on_stdin()?),
            other => other,
        };
        Ok(Self { source, ..self })
    }

    /// Whether a person types it.
    fn is_typed(&self) -> bool {
        match self.here() {
            Some(Source::Terminal) => true,
            Some(Source::Prompt) => io::stdin().is_terminal(),
            _ => false,
        }
    }

    /// Whether it is one line, without a newline.
    pub(crate) fn is_one_line(&self) -> bool {
        let line = [Source::Prompt, Source::Terminal, Source::Stdin];
        self.here().is_some_and(|source| line.contains(source))
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

    /// How often a passphrase is read if it is wrong or refused. Only a person gives another one
    /// the next time.
    pub(crate) fn tries(&self) -> u32 {
        if self.is_typed() { 3 } else { 1 }
    }

    /// Reads a passphrase that exists.
    pub(crate) fn existing(
        &self,
        session: &Session,
        label: &str,
    ) -> Result<Passphrase, CommandError> {
        let purpose = Purpose::unlock(label, session.signals.interrupt());
        Ok(self.source.read(purpose)?)
    }

    /// Reads a passphrase that exists, of this volume.
    pub(crate) fn existing_of(
        &self,
        session: &Session,
        label: &str,
        volume: VolumeName<'_>,
    ) -> Result<Passphrase, CommandError> {
        let purpose = Purpose::unlock(label, session.signals.interrupt());
        Ok(self.source.read(purpose.of(volume))?)
    }

    /// Reads a passphrase that is being set. A person is asked twice, and the strength of the
    /// passphrase is estimated.
    pub(crate) fn fresh(
        &self,
        session: &Session,
        label: &str,
        force_weak: bool,
    ) -> Result<Passphrase, CommandError> {
        let purpose = Purpose::new_secret(label, session.signals.interrupt());
        Ok(self.rated(purpose, force_weak)?)
    }

    /// A new PIN, which may be weak: what it protects limits how often it is tried.
    pub(crate) fn fresh_pin(
        &self,
        session: &Session,
        label: &str,
    ) -> Result<Passphrase, CommandError> {
        let purpose = Purpose::new_secret(label, session.signals.interrupt());
        Ok(self.rated(purpose.named("PIN"), true)?)
    }

    /// As [`fresh`](Self::fresh), for this volume.
    pub(crate) fn fresh_of(
        &self,
        session: &Session,
        label: &str,
        volume: VolumeName<'_>,
        force_weak: bool,
    ) -> Result<Passphrase, CommandError> {
        let purpose = Purpose::new_secret(label, session.signals.interrupt());
        Ok(self.rated(purpose.of(volume), force_weak)?)
    }

    /// A new passphrase that is in a file, a descriptor or a credential: it is read before the
    /// present one is tried, which takes long. One that is typed, generated or stored elsewhere is
    /// asked for only after that.
    pub(crate) fn early(
        &self,
        session: &Session,
        label: &str,
    ) -> Result<Option<Passphrase>, CommandError> {
        match self.here().is_some() && !self.is_typed() && !self.uses_stdin() {
            true => self.fresh(session, label, false).map(Some),
            false => Ok(None),
        }
    }

    /// Reads and rates. A person whose new passphrase is refused is asked again.
    fn rated(&self, purpose: Purpose<'_>, force_weak: bool) -> Result<Passphrase, SecretError> {
        let mut left = self.tries();
        loop {
            left -= 1;
            match self.rated_once(purpose, force_weak) {
                Err(
                    error @ (SecretError::Mismatch | SecretError::TooWeak(_) | SecretError::Empty),
                ) if left > 0 => ask_again(error.into()),
                outcome => return outcome,
            }
        }
    }

    fn rated_once(
        &self,
        purpose: Purpose<'_>,
        force_weak: bool,
    ) -> Result<Passphrase, SecretError> {
        let passphrase = self.source.read(purpose)?;
        if purpose.what == Wanted::New && self.is_typed() {
            rate(&passphrase, force_weak)?;
        }
        if purpose.what == Wanted::New && passphrase.as_bytes().ends_with(b"\n") {
            output::note("the new key ends with a newline, which is a part of it");
        }
        Ok(passphrase)
    }
}

/// Refuses what is only for tokens, if none may be used.
fn check_tokens(tokens: &TokenArgs) -> Result<(), CommandError> {
    if tokens.is_given() || tokens.tang_url.is_empty() {
        return Ok(());
    }
    Err(
        CommandError::parameters("--tang-url is for a token, and none may be used")
            .hint("--token-type clevis permits the tokens of this type"),
    )
}

/// Says why the same question comes again.
pub(crate) fn ask_again(why: CommandError) {
    output::warning(format_args!("{}; try again", why.line()));
    for hint in why.hints() {
        output::hint(hint);
    }
}

/// For tasks of the library. The strength of a new passphrase that is typed is estimated.
impl SecretSource for KeySource {
    fn read(&self, purpose: Purpose<'_>) -> Result<Passphrase, SecretError> {
        self.rated(purpose, self.weak)
    }
}

fn rate(passphrase: &Passphrase, force_weak: bool) -> Result<(), SecretError> {
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
    let message = format!("the new passphrase is {word}: {guesses}{why}");
    Err(SecretError::TooWeak(message))
}

/// A sentence of zxcvbn in the form of our messages: lower case, without a full stop.
fn lower(sentence: &str) -> String {
    let mut characters = sentence.trim_end_matches('.').chars();
    characters
        .next()
        .map(|first| first.to_lowercase().chain(characters).collect())
        .unwrap_or_default()
}

/// Reads a volume key: all bytes of a file.
pub(crate) fn volume_key_file(session: &Session, path: &Path) -> Result<VolumeKey, CommandError> {
    let bytes = Source::file(path).read(Purpose::unlock(
        "the volume key",
        session.signals.interrupt(),
    ))?;
    VolumeKey::copy_from(bytes.as_bytes()).map_err(|error| {
        CommandError::new(Kind::Memory, error).about("no locked memory for the volume key")
    })
}
