//! Finds the passphrase of a token: asks the servers that the caller has permitted.

use luksmith_formats::json::Value;

use super::error::ClevisError;
use super::jwe::{Pin, Sealed, Tang, agreed};
use super::server::Server;
use crate::Interrupt;
use crate::secret::{LockedBytes, Passphrase, SecretError};
use crate::tokens::{Context, Token, TokenOptions};

/// The passphrase of the token.
pub(in crate::tokens) fn passphrase(
    token: &Token<'_>,
    context: &Context<'_>,
) -> Result<Passphrase, ClevisError> {
    let jwe = token.json.get("jwe");
    let jwe = jwe.ok_or(ClevisError::malformed("jwe", "is missing"))?;
    let sealed = Sealed::of_json(jwe)?;
    let opened = open(&sealed, context.options, context.interrupt)?;
    Ok(Passphrase::from_locked(opened))
}

/// Makes sure that the server of a new token helps to find this passphrase.
pub(super) fn prove(
    token: &Value,
    passphrase: &Passphrase,
    options: &TokenOptions,
    interrupt: &Interrupt,
) -> Result<(), ClevisError> {
    let jwe = token.get("jwe");
    let jwe = jwe.ok_or(ClevisError::malformed("jwe", "is missing"))?;
    let opened = open(&Sealed::of_json(jwe)?, options, interrupt)?;
    match opened[..] == *passphrase.as_bytes() {
        true => Ok(()),
        false => Err(ClevisError::NotDecrypted),
    }
}

fn open(
    sealed: &Sealed,
    options: &TokenOptions,
    interrupt: &Interrupt,
) -> Result<LockedBytes, ClevisError> {
    if interrupt.is_set() {
        return Err(SecretError::Interrupted.into());
    }
    let key = match &sealed.pin {
        Pin::Tang(tang) => recover(tang, options, interrupt)?,
        Pin::Shares {
            field,
            needed,
            shares,
        } => {
            let found = collect(shares, *needed, options, interrupt)?;
            field.key(&found)?.ok_or(ClevisError::NotDecrypted)?
        }
        Pin::Other(name) => return Err(ClevisError::Pin(name.clone())),
    };
    sealed.decrypt(&key)
}

/// As many shares as are needed.
fn collect(
    shares: &[Sealed],
    needed: usize,
    options: &TokenOptions,
    interrupt: &Interrupt,
) -> Result<Vec<LockedBytes>, ClevisError> {
    let mut found = Vec::new();
    let mut last = ClevisError::NotDecrypted;
    for share in shares {
        match open(share, options, interrupt) {
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
fn recover(
    tang: &Tang,
    options: &TokenOptions,
    interrupt: &Interrupt,
) -> Result<LockedBytes, ClevisError> {
    let server = Server::permitted(&tang.url, options)?;
    let infinity = || ClevisError::malformed("epk", "cancels out");
    let curve = tang.epk.curve();
    let random = curve.random()?;
    let blinding = curve.times(&random)?.ok_or_else(infinity)?;
    let blinded = tang.epk.plus(&blinding)?.ok_or_else(infinity)?;
    let answer = server.recover(&tang.kid, &blinded, interrupt)?;
    let surplus = tang.server.times(&random)?.ok_or_else(infinity)?;
    let shared = answer.minus(&surplus)?;
    let shared = shared.ok_or(ClevisError::NotDecrypted)?;
    Ok(agreed(&shared)?)
}
