//! Opens a container with a token of its header.

use std::sync::OnceLock;

use luksmith_formats::luks2::Priority;
use luksmith_formats::text::Shown;

use super::{Watch, Work, Working};
use crate::container::{Container, Header, UnlockError, Unlocked, Which};
use crate::secret::{Passphrase, Purpose, SecretError, SecretSource};
use crate::tokens::{Context, Token, TokenError, TokenOptions, TokenType};

/// Which tokens of a header may be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Choice {
    /// The token with this number.
    Id(u32),
    /// All tokens of this type, in the order of their numbers.
    OfType(TokenType),
}

/// What a token has opened.
#[derive(Debug)]
#[non_exhaustive]
pub struct OpenedByToken {
    /// The number of the token.
    pub token: u32,
    /// Its type.
    pub kind: TokenType,
    /// The key.
    pub unlocked: Unlocked,
    /// The passphrase of the keyslot.
    pub passphrase: Passphrase,
}

/// Why no token opened a container.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenByTokenError {
    /// The caller chose no token.
    #[error("no token was chosen")]
    NoChoice,
    /// The header is of LUKS1.
    #[error("LUKS1 has no tokens")]
    Luks1,
    /// The header has no token with this number.
    #[error("there is no token {0}")]
    NoSuchToken(u32),
    /// The header has no token of this type.
    #[error("there is no token of type {kind}; {}", listed(.present))]
    NoneOfType {
        /// The type.
        kind: TokenType,
        /// The types of the tokens that the header has.
        present: Vec<String>,
    },
    /// The token is of a type that this library does not use.
    #[error("token {token} is of type {}, which is not known; the types are {}", Shown(.kind), TokenType::names())]
    UnknownType {
        /// The number of the token.
        token: u32,
        /// Its type.
        kind: String,
    },
    /// The token is for no keyslot that may be opened.
    #[error("token {token} is for no keyslot that may be opened")]
    NoKeyslot {
        /// The number of the token.
        token: u32,
    },
    /// The passphrase of the token opens none of its keyslots.
    #[error("token {token} ({kind}) gives a passphrase that opens none of its keyslots")]
    WrongPassphrase {
        /// The number of the token.
        token: u32,
        /// Its type.
        kind: TokenType,
    },
    /// The token gave no passphrase.
    #[error("token {token} ({kind})")]
    Token {
        /// The number of the token.
        token: u32,
        /// Its type.
        kind: TokenType,
        /// Why.
        source: TokenError,
    },
    /// A keyslot of the token could not be tried.
    #[error("token {token}")]
    Unlock {
        /// The number of the token.
        token: u32,
        /// Why.
        source: UnlockError,
    },
}

fn listed(types: &[String]) -> String {
    let shown: Vec<_> = types.iter().map(|kind| Shown(kind).to_string()).collect();
    match shown.is_empty() {
        true => "the header has no tokens".to_owned(),
        false => format!("the header has {}", shown.join(", ")),
    }
}

/// A token that may be used, and its keyslots.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Usable<'a> {
    /// The token.
    pub token: Token<'a>,
    /// Its type.
    pub kind: TokenType,
    /// The keyslots that it may open, those of priority prefer first.
    pub keyslots: Vec<u32>,
}

/// The tokens that `choices` name, in this order, with the keyslots that `which` permits. A keyslot
/// of priority ignore, or an unbound one, is opened only if `which` names it. No token is used yet.
///
/// # Errors
/// [`OpenByTokenError`] if one of the choices names none.
pub fn usable<'a>(
    container: &'a Container,
    choices: &[Choice],
    which: Which,
) -> Result<Vec<Usable<'a>>, OpenByTokenError> {
    let mut all: Vec<Usable<'a>> = Vec::new();
    for choice in choices {
        for one in usable_by(container, *choice, which)? {
            if !all.iter().any(|known| known.token.id == one.token.id) {
                all.push(one);
            }
        }
    }
    Ok(all)
}

fn usable_by<'a>(
    container: &'a Container,
    choice: Choice,
    which: Which,
) -> Result<Vec<Usable<'a>>, OpenByTokenError> {
    let Header::Luks2(header) = container.header() else {
        return Err(OpenByTokenError::Luks1);
    };
    let all = header.metadata.tokens();
    let slots = container.keyslots();
    let json = header.metadata.value().get("tokens");
    let mut found = Vec::new();
    let mut without = None;
    for (&id, token) in all {
        let known: Result<TokenType, _> = token.kind.parse();
        let kind = match (choice, known) {
            (Choice::Id(wanted), _) if wanted != id => continue,
            (Choice::Id(_), Ok(kind)) => kind,
            (Choice::Id(_), Err(_)) => {
                let kind = token.kind.clone();
                return Err(OpenByTokenError::UnknownType { token: id, kind });
            }
            (Choice::OfType(wanted), Ok(kind)) if wanted == kind => kind,
            (Choice::OfType(_), _) => continue,
        };
        let mut keyslots: Vec<_> = slots
            .iter()
            .filter(|slot| token.keyslots.contains(&slot.slot))
            .filter(|slot| match which {
                Which::Any => slot.bound && slot.priority != Priority::Ignore,
                Which::Slot(wanted) => wanted == slot.slot,
            })
            .collect();
        keyslots.sort_by_key(|slot| (slot.priority != Priority::Prefer, slot.slot));
        let keyslots: Vec<_> = keyslots.iter().map(|slot| slot.slot).collect();
        let json = json.and_then(|all| all.get(&id.to_string()));
        match (json, keyslots.is_empty()) {
            (Some(json), false) => found.push(Usable {
                token: Token::new(id, json),
                kind,
                keyslots,
            }),
            _ => without = Some(OpenByTokenError::NoKeyslot { token: id }),
        }
    }
    match (choice, without) {
        _ if !found.is_empty() => Ok(found),
        (_, Some(without)) => Err(without),
        (Choice::Id(id), None) => Err(OpenByTokenError::NoSuchToken(id)),
        (Choice::OfType(kind), None) => {
            let present = all.values().map(|token| token.kind.clone()).collect();
            Err(OpenByTokenError::NoneOfType { kind, present })
        }
    }
}

/// Opens a keyslot with the tokens that `choices` name, in their order. `source` is read at most
/// once, for all of them, and `label` says to a person what is opened.
///
/// # Errors
/// [`OpenByTokenError`] of the last token; those of the earlier ones are logged as warnings.
pub fn open(
    container: &Container,
    choices: &[Choice],
    which: Which,
    (source, label): (&dyn SecretSource, &str),
    options: &TokenOptions,
    watch: &dyn Watch,
) -> Result<OpenedByToken, OpenByTokenError> {
    let source = Once::of(source);
    let volume = container.volume_name();
    let context = Context::new(&source, label, volume, options, watch.interrupt());
    let mut usable = usable(container, choices, which)?.into_iter().peekable();
    while let Some(one) = usable.next() {
        match open_one(container, &one, &context, watch) {
            Err(error) if usable.peek().is_some() && !error.ends_all() => {
                let reason = super::chain(&error);
                tracing::warn!("{reason}; trying the next token");
            }
            outcome => return outcome,
        }
    }
    // Each choice names one.
    Err(OpenByTokenError::NoChoice)
}

/// The passphrases of all tokens that `choices` name, for work that needs every passphrase of a
/// volume. Whether they open a keyslot is not tried. `source` is read at most once.
///
/// # Errors
/// [`OpenByTokenError`] of the first token that gives none.
pub fn passphrases(
    container: &Container,
    choices: &[Choice],
    (source, label): (&dyn SecretSource, &str),
    options: &TokenOptions,
    watch: &dyn Watch,
) -> Result<Vec<Passphrase>, OpenByTokenError> {
    let source = Once::of(source);
    let volume = container.volume_name();
    let context = Context::new(&source, label, volume, options, watch.interrupt());
    let usable = usable(container, choices, Which::Any)?;
    usable.iter().map(|one| passphrase(one, &context)).collect()
}

fn passphrase(usable: &Usable<'_>, context: &Context<'_>) -> Result<Passphrase, OpenByTokenError> {
    let (token, kind) = (usable.token.id, usable.kind);
    let passphrase = kind.passphrase(&usable.token, context);
    passphrase.map_err(|source| OpenByTokenError::Token {
        token,
        kind,
        source,
    })
}

impl OpenByTokenError {
    /// Whether a person who typed what the token asks for may do better the next time.
    #[must_use]
    pub fn may_be_mistyped(&self) -> bool {
        match self {
            Self::Token { source, .. } => source.may_be_mistyped(),
            Self::WrongPassphrase { kind, .. } => *kind == TokenType::Recovery,
            _ => false,
        }
    }

    /// Whether no other token would do better.
    fn ends_all(&self) -> bool {
        match self {
            Self::Token { source, .. } => source.ends_all(),
            Self::Unlock { source, .. } => matches!(
                source,
                UnlockError::Memory(_)
                    | UnlockError::Kdf {
                        source: crate::kdf::KdfError::Interrupted,
                        ..
                    }
            ),
            _ => false,
        }
    }
}

fn open_one(
    container: &Container,
    usable: &Usable<'_>,
    context: &Context<'_>,
    watch: &dyn Watch,
) -> Result<OpenedByToken, OpenByTokenError> {
    let (token, kind) = (usable.token.id, usable.kind);
    let passphrase = passphrase(usable, context)?;
    let mut outcome = OpenByTokenError::WrongPassphrase { token, kind };
    for &slot in &usable.keyslots {
        let working = Working::begin(watch, Work::Derive, None);
        let opened = container.unlock(&passphrase, Which::Slot(slot), watch.interrupt());
        working.finish();
        match opened {
            Ok(unlocked) => {
                tracing::info!("token {token} ({kind}) opens keyslot {slot}");
                return Ok(OpenedByToken {
                    token,
                    kind,
                    unlocked,
                    passphrase,
                });
            }
            Err(UnlockError::WrongPassphrase) => {}
            Err(source) => {
                outcome = OpenByTokenError::Unlock { token, source };
                if outcome.ends_all() {
                    break;
                }
            }
        }
    }
    Err(outcome)
}

/// A source that is read at most once.
struct Once<'a> {
    source: &'a dyn SecretSource,
    read: OnceLock<Passphrase>,
}

impl<'a> Once<'a> {
    fn of(source: &'a dyn SecretSource) -> Self {
        let read = OnceLock::new();
        Self { source, read }
    }
}

impl SecretSource for Once<'_> {
    fn read(&self, purpose: Purpose<'_>) -> Result<Passphrase, SecretError> {
        if let Some(read) = self.read.get() {
            return read.read(purpose);
        }
        let read = self.source.read(purpose)?;
        self.read.get_or_init(|| read).read(purpose)
    }
}
