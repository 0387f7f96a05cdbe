//! `key-vault`: each secret is a member of a value in the KV store, version 2, of a Vault server.
//!
//! A value has numbered versions, and is written with check-and-set. The members that luksmith does
//! not know stay. A passphrase that is text is the member `passphrase`; other bytes are the member
//! `passphrase_base64`.
//!
//! Settings: `address` (`https://HOST[:PORT]`, `unix:/PATH` of an agent, or `http://` for this
//! machine only), `token-file` (with the token in one line; a Vault agent can write it), `ca-file`
//! (by default the authorities of the system), `mount` (by default `secret`), `namespace`.
//!
//! Reference: the HTTP API of Vault, "KV secrets engine - version 2".

mod address;
mod http;
mod json;

use std::path::PathBuf;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use self::address::Address;
use self::http::{Answer, Body, Call};
use super::failure::Failure;
use super::settings::Settings;
use super::store::{Store, Value};
use crate::Interrupt;
use crate::secret::{LockedBytes, Passphrase, Purpose, SecretSource, Source};

const TEXT: &str = "passphrase";
const BASE64: &str = "passphrase_base64";

pub(super) struct Vault {
    address: Address,
    token_file: PathBuf,
    mount: String,
    namespace: Option<String>,
}

/// The answer to a question for a value.
struct Found {
    answer: Answer,
    /// Whether there is a value, and not only a deleted version of one.
    present: bool,
    version: u64,
}

impl Vault {
    pub(super) fn new(mut settings: Settings) -> Result<Self, Failure> {
        let address = settings.take("address");
        let address = address.ok_or_else(|| settings.wrong("address names the server"))?;
        let authorities = settings.path("ca-file", "/etc/ssl/certs/ca-certificates.crt")?;
        let address = Address::parse(&address, authorities).map_err(|why| settings.wrong(why))?;
        let token_file = settings.path("token-file", "/run/vault/token")?;
        let mount = settings
            .take("mount")
            .unwrap_or_else(|| "secret".to_owned());
        let mount =
            encoded(mount.trim_matches('/')).map_err(|_| settings.wrong("mount is no path"))?;
        let namespace = settings.take("namespace");
        let plain = |text: &String| text.bytes().all(|byte| byte.is_ascii_graphic());
        if !namespace.as_ref().is_none_or(plain) {
            return Err(settings.wrong("namespace has other characters than it may have"));
        }
        settings.finish()?;
        Ok(Self {
            address,
            token_file,
            mount,
            namespace,
        })
    }

    fn call(
        &self,
        method: &'static str,
        kind: &str,
        reference: &str,
        body: Body<'_>,
    ) -> Result<Answer, Failure> {
        let interrupt = Interrupt::new();
        let token = Source::file(&self.token_file)
            .read(Purpose::unlock("the token", &interrupt))
            .map_err(Failure::denied)?;
        let token = token.as_bytes().trim_ascii();
        if token.is_empty() || !token.iter().all(u8::is_ascii_graphic) {
            let path = self.token_file.display();
            return Err(Failure::denied(format!("{path}: no token in one line")));
        }
        let path = format!("/v1/{}/{kind}/{}", self.mount, encoded(reference)?);
        let call = Call {
            method,
            path: &path,
            token,
            namespace: self.namespace.as_deref(),
            body,
        };
        call.send(&self.address)
    }

    fn find(&self, reference: &str) -> Result<Found, Failure> {
        let answer = self.call("GET", "data", reference, Body::None)?;
        if ![200, 404].contains(&answer.status) {
            return Err(refused(&answer));
        }
        let version = json::member(&answer.body, &["data", "metadata", "version"]);
        let version = version.and_then(|number| std::str::from_utf8(number).ok()?.parse().ok());
        let present = answer.status == 200;
        if present && version.is_none() {
            return Err(Failure::other(
                "the answer has no version: is the mount a KV store of version 2?",
            ));
        }
        Ok(Found {
            answer,
            present,
            version: version.unwrap_or(0),
        })
    }
}

impl Store for Vault {
    fn get(&self, reference: &str) -> Result<Value, Failure> {
        let found = self.find(reference)?;
        if !found.present {
            return Err(Failure::no_value());
        }
        let member = |name| json::member(&found.answer.body, &["data", "data", name]);
        let secret = match (member(TEXT), member(BASE64)) {
            (Some(text), _) => json::text(text)?,
            (None, Some(text)) => decoded(&json::text(text)?)?,
            (None, None) => {
                let message = format!("the value has no member {TEXT} or {BASE64}");
                return Err(Failure::other(message));
            }
        };
        Ok(Value {
            secret,
            revision: found.version.to_string(),
        })
    }

    fn store(
        &self,
        reference: &str,
        secret: &LockedBytes,
        new: bool,
        revision: Option<&str>,
    ) -> Result<(), Failure> {
        let found = self.find(reference)?;
        let expected = match revision {
            Some(revision) => found.present && revision == found.version.to_string(),
            None => !(new && found.present),
        };
        if !expected {
            return Err(Failure::conflict());
        }
        let body = written(&found, secret)?;
        let answer = self.call("POST", "data", reference, Body::Secret(&body))?;
        match answer.status {
            200 | 204 => Ok(()),
            400 if answer.says(b"check-and-set") => Err(Failure::conflict()),
            _ => Err(refused(&answer)),
        }
    }

    fn erase(&self, reference: &str) -> Result<(), Failure> {
        let answer = self.call("DELETE", "metadata", reference, Body::None)?;
        match answer.status {
            200 | 204 => Ok(()),
            404 => Err(Failure::no_value()),
            _ => Err(refused(&answer)),
        }
    }

    fn check(&self, reference: &str) -> Result<(), Failure> {
        self.find(reference).map(drop)
    }
}

/// The body of a request that replaces the found version: its other members, and the secret.
fn written(found: &Found, secret: &LockedBytes) -> Result<LockedBytes, Failure> {
    let mut parts: Vec<&[u8]> = Vec::new();
    let head = format!("{{\"options\":{{\"cas\":{}}},\"data\":{{", found.version);
    parts.push(head.as_bytes());
    let data = json::member(&found.answer.body, &["data", "data"]);
    for (name, value) in json::members(data.unwrap_or_default()) {
        let ours = [TEXT, BASE64].iter().any(|ours| name == ours.as_bytes());
        if !ours {
            parts.extend([&b"\""[..], name, b"\":", value, b","]);
        }
    }
    let passphrase = Passphrase::copy_from(secret).map_err(Failure::other)?;
    let (name, value) = match passphrase.is_text() {
        true => (TEXT, json::quoted(secret)?),
        false => {
            let base64 = Passphrase::base64_of(secret).map_err(Failure::other)?;
            (BASE64, json::quoted(base64.as_bytes())?)
        }
    };
    parts.extend([&b"\""[..], name.as_bytes(), b"\":", &value, b"}}"]);
    http::joined(&parts)
}

fn decoded(text: &[u8]) -> Result<LockedBytes, Failure> {
    let mut bytes = LockedBytes::new(text.len()).map_err(Failure::other)?;
    let len = STANDARD
        .decode_slice(text, &mut bytes)
        .map_err(|_| Failure::other(format!("the member {BASE64} is no base64")))?;
    LockedBytes::copy_from(&bytes[..len]).map_err(Failure::other)
}

/// What a status that is not expected means.
fn refused(answer: &Answer) -> Failure {
    let status = answer.status;
    let said = answer.error();
    let message = format!("the server answers {status}{said}");
    match status {
        401 | 403 => Failure::denied(message),
        // Sealed, standby, too many requests, a proxy without its server.
        412 | 429 | 472 | 473 | 500..=599 => Failure::unreachable(message),
        _ => Failure::other(message),
    }
}

/// A path for a URL: segments that are not empty, and neither `.` nor `..`.
fn encoded(path: &str) -> Result<String, Failure> {
    let mut text = String::new();
    for (index, segment) in path.split('/').enumerate() {
        if ["", ".", ".."].contains(&segment) {
            return Err(Failure::not_accepted(
                "the reference is a path below the mount, such as hosts/vm1",
            ));
        }
        if index > 0 {
            text.push('/');
        }
        for byte in segment.bytes() {
            match byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
                true => text.push(char::from(byte)),
                false => text.push_str(&format!("%{byte:02X}")),
            }
        }
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reference_is_a_path() {
        assert_eq!(encoded("hosts/vm 1#a?").unwrap(), "hosts/vm%201%23a%3F");
        for path in ["", "/a", "a/", "a//b", "a/../b", "."] {
            assert_eq!(encoded(path).err().unwrap().code(), 64, "{path}");
        }
    }
}
