//! Tokens of type `luks2-keyring`: the passphrase is a key of type `user` of the kernel's keyrings.
//!
//! Reference: LUKS2 On-Disk Format 1.1, section 3.5.1. The member `key_description` names the key.
//! The key is only read, and no other program is asked for it.

use luksmith_formats::json::{Value, json};

use super::error::TokenError;
use super::malformed::MalformedToken;
use super::token::Token;
use crate::secret::{LockedBytes, MAX_KEY_FILE, Passphrase, SecretError};
use crate::sys::keyring::UserKey;

/// The member `type`.
pub(super) const TYPE: &str = "luks2-keyring";

/// The longest description of a key that the kernel takes, in bytes, without the zero at its end.
const LONGEST: usize = 4095;

/// The key that the token names, as a passphrase.
pub(super) fn passphrase(token: &Token<'_>) -> Result<Passphrase, TokenError> {
    let description = token.text("key_description")?;
    check(description)?;
    let failed = |source| TokenError::Keyring {
        description: description.to_owned(),
        source,
    };
    let key = UserKey::find(description).map_err(failed)?;
    let size = key.read(&mut []).map_err(failed)?;
    let (from, limit) = (TYPE.to_owned(), MAX_KEY_FILE);
    if size > limit {
        return Err(SecretError::TooLong { from, limit }.into());
    }
    let mut bytes = LockedBytes::new(size).map_err(SecretError::from)?;
    // The key may have been updated since.
    if key.read(&mut bytes).map_err(failed)? != size {
        return Err(failed(std::io::ErrorKind::Interrupted.into()));
    }
    Ok(Passphrase::from_locked(bytes))
}

fn check(description: &str) -> Result<(), MalformedToken> {
    let wrong = |cause| Err(MalformedToken::new("key_description", cause));
    match description {
        "" => wrong("is empty"),
        long if long.len() > LONGEST => wrong("is longer than 4095 bytes"),
        zero if zero.contains('\0') => wrong("has a zero byte"),
        _ => Ok(()),
    }
}

/// A token that names the key with this description. Its list of keyslots is empty.
///
/// # Errors
/// [`MalformedToken`] if the kernel has no key with such a description.
pub fn keyring_token(description: &str) -> Result<Value, MalformedToken> {
    check(description)?;
    Ok(json!({
        "type": TYPE,
        "keyslots": [],
        "key_description": description,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_description_that_no_key_can_have_is_refused() {
        let long = "x".repeat(4096);
        for json in [
            json!({}),
            json!({"key_description": 7}),
            json!({"key_description": ""}),
            json!({"key_description": "a\0b"}),
            json!({ "key_description": long.as_str() }),
        ] {
            let refused = passphrase(&Token::new(0, &json)).unwrap_err();
            assert!(matches!(refused, TokenError::Malformed(_)), "{refused}");
        }
    }

    #[test]
    fn a_key_that_is_not_there_is_named() {
        let json = keyring_token("luksmith:no\u{1b}such").unwrap();
        let error = passphrase(&Token::new(0, &json)).unwrap_err();
        let line = error.to_string();
        assert!(line.contains(r"luksmith:no\u{1b}such"), "{line}");
    }
}
