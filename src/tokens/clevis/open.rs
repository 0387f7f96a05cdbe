//! Finds the passphrase of a token: asks the servers that the caller has permitted.

use super::error::ClevisError;
use super::jwe::{Pin, Sealed, Tang, agreed};
use super::server::Server;
use crate::secret::{LockedBytes, Passphrase, SecretError};
use crate::tokens::{Context, Token};

/// The passphrase of the token.
pub(in crate::tokens) fn passphrase(
    token: &Token<'_>,
    context: &Context<'_>,
) -> Result<Passphrase, ClevisError> {
    let jwe = token.json.get("jwe");
    let jwe = jwe.ok_or(ClevisError::malformed("jwe", "is missing"))?;
    let sealed = Sealed::of_json(jwe)?;
    open(&sealed, context).map(Passphrase::from_locked)
}

fn open(sealed: &Sealed, context: &Context<'_>) -> Result<LockedBytes, ClevisError> {
    if context.interrupt.is_set() {
        return Err(SecretError::Interrupted.into());
    }
    let key = match &sealed.pin {
        Pin::Tang(tang) => recover(tang, context)?,
        Pin::Shares {
            field,
            needed,
            shares,
        } => {
            let found = collect(shares, *needed, context)?;
            let key = field.key(&found).ok_or(ClevisError::NotDecrypted)?;
            key?
        }
        Pin::Other(name) => return Err(ClevisError::Pin(name.clone())),
    };
    sealed.decrypt(&key)
}

/// As many shares as are needed.
fn collect(
    shares: &[Sealed],
    needed: usize,
    context: &Context<'_>,
) -> Result<Vec<LockedBytes>, ClevisError> {
    let mut found = Vec::new();
    let mut last = ClevisError::NotDecrypted;
    for share in shares {
        match open(share, context) {
            Ok(share) => found.push(share),
            Err(error @ ClevisError::Secret(_)) => return Err(error),
            Err(error) => {
                tracing::debug!("a share was not found: {error}");
                last = error;
            }
        }
        if found.len() == needed {
            return Ok(found);
        }
    }
    Err(ClevisError::Shares {
        found: found.len(),
        needed,
        source: Box::new(last),
    })
}

/// The key of the content, which neither the server nor who listens learns: it gets the public key
/// of the JWE plus a random point, and that part is subtracted from its answer.
fn recover(tang: &Tang, context: &Context<'_>) -> Result<LockedBytes, ClevisError> {
    let server = Server::permitted(&tang.url, context.options)?;
    let infinity = || ClevisError::malformed("epk", "cancels out");
    let curve = tang.epk.curve();
    let random = curve.random()?;
    let blinding = curve.times(&random).ok_or_else(infinity)?;
    let blinded = tang.epk.plus(&blinding).ok_or_else(infinity)?;
    let answer = server.recover(&tang.kid, &blinded)?;
    let surplus = tang.server.times(&random).ok_or_else(infinity)?;
    let shared = answer.minus(&surplus).ok_or(ClevisError::NotDecrypted)?;
    Ok(agreed(&shared)?)
}
