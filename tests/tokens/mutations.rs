//! Tokens that a stranger changed: none panics, opens, or sends a request.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use luksmith::Interrupt;
use luksmith::secret::{Passphrase, VolumeName};
use luksmith::tokens::{Context, Token, TokenOptions, TokenType};
use luksmith_formats::json::Value;

/// Changes some bytes of a text, also within base64 that is decoded.
pub(crate) fn mutations(count: usize, seed: &str, mut try_one: impl FnMut(&str)) {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut next = |below: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        usize::try_from(state % below as u64).unwrap()
    };
    for _ in 0..count {
        let mut bytes = seed.as_bytes().to_vec();
        for _ in 0..=next(3) {
            if bytes.is_empty() {
                break;
            }
            let at = next(bytes.len());
            match next(4) {
                0 => bytes[at] = b"\"{}[]:,0aA-_"[next(12)],
                1 => drop(bytes.remove(at)),
                2 => bytes.insert(at, b"\"{}[]:,0aA-_"[next(12)]),
                _ => bytes.truncate(at.max(1)),
            }
        }
        try_one(&String::from_utf8_lossy(&bytes));
    }
}

fn fails(kind: TokenType, json: &Value) {
    let source = Passphrase::copy_from(b"1234").unwrap();
    let (options, interrupt) = (TokenOptions::default(), Interrupt::new());
    let volume = VolumeName::new("", "");
    let context = Context::new(&source, "a test", volume, &options, &interrupt);
    assert!(kind.passphrase(&Token::new(0, json), &context).is_err());
}

#[test]
fn no_changed_token_of_clevis_opens() {
    for token in [include_str!("tang.json"), include_str!("sss.json")] {
        mutations(4000, token, |text| {
            if let Ok(json) = text.parse() {
                fails(TokenType::Clevis, &json);
            }
        });
        let whole: Value = token.parse().unwrap();
        let header = whole["jwe"]["protected"].as_str().unwrap();
        let header = String::from_utf8(URL_SAFE_NO_PAD.decode(header).unwrap()).unwrap();
        mutations(4000, &header, |text| {
            let mut json = whole.clone();
            json["jwe"]["protected"] = URL_SAFE_NO_PAD.encode(text).into();
            fails(TokenType::Clevis, &json);
        });
    }
}

#[test]
fn no_changed_token_of_a_keyring_opens() {
    let token = r#"{"type":"luks2-keyring","keyslots":["0"],"key_description":"luksmith:none"}"#;
    mutations(4000, token, |text| {
        if let Ok(json) = text.parse() {
            fails(TokenType::Keyring, &json);
        }
    });
}
