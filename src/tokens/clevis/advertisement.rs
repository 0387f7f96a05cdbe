//! The keys that a Tang server advertises, and a token that binds a passphrase to one of them.

use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P521_SHA512_FIXED, UnparsedPublicKey, VerificationAlgorithm,
};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use luksmith_formats::json::Value;

use super::error::ClevisError;
use super::jwe::{MOST, seal};
use super::open::prove;
use super::point::{Curve, Point};
use super::server::Server;
use crate::Interrupt;
use crate::secret::{Passphrase, SecretError};
use crate::tokens::TokenOptions;

/// The keys of a Tang server, which it has signed with each of its signing keys.
///
/// The signatures show that the server has the signing keys, and not which server it is: the caller
/// compares a thumbprint with what the admin of the server says.
pub struct Advertisement {
    url: String,
    keys: Value,
    /// The thumbprints of the signing keys.
    signing: Vec<String>,
    exchange: Point,
}

impl Advertisement {
    /// Gets the advertisement of the server at `url`, and verifies its signatures.
    ///
    /// # Errors
    /// [`ClevisError`], for example [`ClevisError::Answer`] if a signature is missing or wrong.
    pub fn fetch(
        url: &str,
        options: &TokenOptions,
        interrupt: &Interrupt,
    ) -> Result<Self, ClevisError> {
        let server = Server::new(url, options)?;
        let jws = server.advertisement(interrupt)?;
        Self::of_jws(server.url(), &jws)
    }

    /// The advertisement that the server at `url` has sent, a JWS, after its signatures were
    /// verified.
    ///
    /// # Errors
    /// [`ClevisError::Answer`] for one that is not valid; no locked memory.
    pub fn of_jws(url: &str, jws: &Value) -> Result<Self, ClevisError> {
        Self::verified(url, jws).map_err(|refused| match refused {
            Refused::Secret(error) => error.into(),
            Refused::Answer(cause) => ClevisError::Answer {
                url: url.to_owned(),
                cause,
            },
        })
    }

    fn verified(url: &str, jws: &Value) -> Result<Self, Refused> {
        let payload = jws.get("payload").and_then(Value::as_str);
        let payload = payload.ok_or("it has no payload")?;
        let keys = URL_SAFE_NO_PAD.decode(payload).ok();
        let keys = keys.and_then(|keys| Value::parse(&keys).ok());
        let keys = keys.and_then(|keys| keys.get("keys").cloned());
        let keys = keys.ok_or("it has no keys")?;
        let list = keys.as_array().filter(|list| list.len() <= MOST);
        let list = list.ok_or("its keys are no list of at most 32")?;

        let one = std::slice::from_ref(jws);
        let signatures = jws.get("signatures").and_then(Value::as_array);
        let signatures = signatures.map_or(one, Vec::as_slice);
        let signatures = signatures.get(..MOST).unwrap_or(signatures);
        let mut signing = Vec::new();
        for key in list.iter().filter(|key| is_for(key, "verify")) {
            let point = Point::of_jwk(key)?.ok_or("a signing key is no point of its curve")?;
            let mut signatures = signatures.iter();
            if !signatures.any(|signature| is_signed(payload, signature, &point)) {
                return Err("it is not signed with each of its signing keys".into());
            }
            signing.extend(point.thumbprints());
        }
        if signing.is_empty() {
            return Err("it has no signing key".into());
        }
        let alg = |key: &Value| key.get("alg").and_then(Value::as_str).map(str::to_owned);
        let is_tang = |key: &&Value| alg(key).is_none_or(|alg| alg == "ECMR");
        let exchange = list.iter().filter(|key| is_for(key, "deriveKey"));
        let mut points = exchange.filter(is_tang).map(Point::of_jwk);
        let exchange = points.find_map(Result::transpose).transpose()?;
        let exchange = exchange.ok_or("it has no key for an exchange")?;
        Ok(Self {
            url: url.to_owned(),
            keys,
            signing,
            exchange,
        })
    }

    /// The thumbprints of the signing keys by SHA-256, for a person.
    pub fn thumbprints(&self) -> impl Iterator<Item = &str> {
        self.signing.iter().step_by(2).map(String::as_str)
    }

    /// Whether a signing key has this thumbprint, by SHA-256 or SHA-1.
    #[must_use]
    pub fn is_signed_by(&self, thumbprint: &str) -> bool {
        self.signing.iter().any(|known| known == thumbprint)
    }

    /// A token from which the server helps to find the passphrase. Its list of keyslots is empty.
    /// The server is asked to help once, so that a token is returned only if it opens.
    ///
    /// # Errors
    /// What the server answers; [`ClevisError::NotDecrypted`] if it has not the key that it
    /// advertises.
    pub fn bind(
        &self,
        passphrase: &Passphrase,
        options: &TokenOptions,
        interrupt: &Interrupt,
    ) -> Result<Value, ClevisError> {
        let [kid, _] = self.exchange.thumbprints();
        let token = seal(passphrase, (&self.url, &kid, &self.exchange), &self.keys)?;
        let mut options = options.clone();
        options.tang_urls = vec![self.url.clone()];
        prove(&token, passphrase, &options, interrupt)?;
        Ok(token)
    }
}

/// Why an advertisement is not valid.
enum Refused {
    Answer(&'static str),
    Secret(SecretError),
}

impl From<&'static str> for Refused {
    fn from(cause: &'static str) -> Self {
        Self::Answer(cause)
    }
}

impl From<SecretError> for Refused {
    fn from(error: SecretError) -> Self {
        Self::Secret(error)
    }
}

fn is_for(key: &Value, operation: &str) -> bool {
    let operations = key.get("key_ops").and_then(Value::as_array);
    operations.is_some_and(|all| all.iter().any(|one| one.as_str() == Some(operation)))
}

/// Whether a signature of a JWS is that of this key over the payload.
fn is_signed(payload: &str, signature: &Value, key: &Point) -> bool {
    let text = |name| signature.get(name).and_then(Value::as_str);
    let (Some(protected), Some(signature)) = (text("protected"), text("signature")) else {
        return false;
    };
    let header = URL_SAFE_NO_PAD.decode(protected).ok();
    let header = header.and_then(|header| Value::parse(&header).ok());
    // What the header declares critical would have to be known (RFC 7515, section 4.1.11).
    if header
        .as_ref()
        .is_some_and(|header| header.get("crit").is_some())
    {
        return false;
    }
    let alg = header.as_ref().and_then(|header| header.get("alg"));
    let (name, algorithm): (_, &dyn VerificationAlgorithm) = match key.curve() {
        Curve::P256 => ("ES256", &ECDSA_P256_SHA256_FIXED),
        Curve::P521 => ("ES512", &ECDSA_P521_SHA512_FIXED),
    };
    if alg.and_then(Value::as_str) != Some(name) {
        return false;
    }
    let Ok(signature) = URL_SAFE_NO_PAD.decode(signature) else {
        return false;
    };
    let message = format!("{protected}.{payload}");
    let key = UnparsedPublicKey::new(algorithm, key.sec1());
    key.verify(message.as_bytes(), &signature).is_ok()
}
