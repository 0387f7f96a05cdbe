//! Inputs of the fuzz target `tokens`: a letter, and what a stranger sends. `tests/tokens` judges
//! the seeds too.

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use luksmith::Interrupt;
use luksmith::secret::{Passphrase, VolumeName};
use luksmith::tokens::{Context, Token, TokenError, TokenOptions, TokenType};
use luksmith_formats::json::{Value, json};

/// Parsers that need a feature of luksmith.
pub trait Parsers {
    /// A token of type `systemd-tpm2`, written again after it was read.
    ///
    /// # Errors
    /// Why it cannot be read.
    fn tpm2(token: &Value) -> Result<Value, String>;

    /// How many thumbprints an advertisement of a Tang server has.
    ///
    /// # Errors
    /// Why it is not valid.
    fn advertisement(jws: &Value) -> Result<usize, String>;
}

/// What a parser of tokens is given.
enum Input<'a> {
    /// A token of a header.
    Token(TokenType, Value),
    /// The answer of a Tang server that is asked for its keys.
    Advertisement(Value),
    /// What a person gives as a recovery key.
    RecoveryKey(&'a [u8]),
}

/// Gives an input to its parser. A token opens nothing, what is read is written as it was read, and
/// a recovery key that is accepted has one form.
///
/// # Errors
/// Why the parser refuses it.
///
/// # Panics
/// If one of this does not hold.
pub fn judge<P: Parsers>(bytes: &[u8]) -> Result<(), String> {
    match decode(bytes).ok_or("no input")? {
        Input::Token(TokenType::Tpm2, json) => {
            // A key in the TPM and a salt are read, and never written.
            let again = |token| P::tpm2(&token).expect("it was written by us");
            let written = again(P::tpm2(&json)?);
            assert_eq!(written.to_string(), again(written.clone()).to_string());
            Ok(())
        }
        Input::Token(kind, json) => {
            let opened = passphrase(kind, &json, b"1234");
            Err(opened.expect_err("no server is permitted").to_string())
        }
        Input::Advertisement(jws) => {
            let thumbprints = P::advertisement(&jws)?;
            assert!(thumbprints > 0, "no signing key");
            Ok(())
        }
        Input::RecoveryKey(text) => {
            let read = |text: &[u8]| passphrase(TokenType::Recovery, &Value::Null, text);
            let key = read(text).map_err(|error| error.to_string())?;
            assert_eq!(key.as_bytes().len(), 71);
            assert!(read(key.as_bytes()).is_ok_and(|again| again.ct_eq(&key)));
            Ok(())
        }
    }
}

/// The passphrase of a token, where a person has given this text, and no server is permitted.
fn passphrase(kind: TokenType, json: &Value, given: &[u8]) -> Result<Passphrase, TokenError> {
    let source = Passphrase::copy_from(given).expect("locked memory");
    let (options, interrupt) = (TokenOptions::default(), Interrupt::new());
    let volume = VolumeName::new("", "");
    let context = Context::new(&source, "a test", volume, &options, &interrupt);
    kind.passphrase(&Token::new(0, json), &context)
}

/// The input that these bytes stand for; `None` if they are none. After the letter there is
///
/// - `c`: a token of type `clevis`; `h`: only the protected header of its JWE
/// - `t`: a token of type `systemd-tpm2`; `b`: only its blob
/// - `k`: a token of type `luks2-keyring`
/// - `a`: an advertisement; `p`: only its payload
/// - `r`: a recovery key
fn decode(bytes: &[u8]) -> Option<Input<'_>> {
    let (letter, rest) = bytes.split_first()?;
    let parsed = || Value::parse(rest).ok();
    Some(match letter {
        b'c' => Input::Token(TokenType::Clevis, parsed()?),
        b'h' => Input::Token(TokenType::Clevis, with_header(rest)),
        b't' => Input::Token(TokenType::Tpm2, parsed()?),
        b'b' => Input::Token(TokenType::Tpm2, with_blob(rest)),
        b'k' => Input::Token(TokenType::Keyring, parsed()?),
        b'a' => Input::Advertisement(parsed()?),
        b'p' => Input::Advertisement(with_payload(rest)),
        b'r' => Input::RecoveryKey(rest),
        _ => return None,
    })
}

fn with_header(header: &[u8]) -> Value {
    json!({
        "type": "clevis",
        "keyslots": ["1"],
        "jwe": {
            "ciphertext": "AAAA",
            "encrypted_key": "",
            "iv": "AAAAAAAAAAAAAAAA",
            "protected": (URL_SAFE_NO_PAD.encode(header)),
            "tag": "AAAAAAAAAAAAAAAAAAAAAA",
        },
    })
}

fn with_blob(blob: &[u8]) -> Value {
    json!({
        "type": "systemd-tpm2",
        "keyslots": ["1"],
        "tpm2-blob": (STANDARD.encode(blob)),
        "tpm2-pcrs": [7],
        "tpm2-policy-hash": "00ff",
    })
}

fn with_payload(payload: &[u8]) -> Value {
    json!({
        "payload": (URL_SAFE_NO_PAD.encode(payload)),
        "protected": (URL_SAFE_NO_PAD.encode(r#"{"alg":"ES512"}"#)),
        "signature": "AAAA",
    })
}
