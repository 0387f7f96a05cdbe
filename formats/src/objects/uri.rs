//! The URI of a volume in an object store.
//!
//! `s3://BUCKET/PREFIX[@SNAPSHOT][?PARAMETER=VALUE[&…]]`. Every part can be percent-encoded. Keys
//! are never in it, since it is visible in the process list: the parser refuses them, and repeats
//! no value in its messages.

use alloc::boxed::Box;
use alloc::string::String;
use core::fmt;

use super::name;
use crate::percent;

/// A volume in an object store, or a snapshot of one.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Uri {
    /// The bucket.
    pub bucket: String,
    /// What the names of the volume's objects begin with, without a slash at the end.
    pub prefix: String,
    /// The snapshot, which is only read.
    pub snapshot: Option<String>,
    /// The URL of the service, without a slash at the end; that of AWS by default.
    pub endpoint: Option<String>,
    /// The region.
    pub region: Option<String>,
    /// The profile with the access key.
    pub profile: Option<String>,
    /// The path of a file with the certificates of the authorities to trust.
    pub ca: Option<String>,
    /// The path of the journal of a volume whose flushes are done there.
    pub journal: Option<String>,
    /// The path of a file for ciphertext that was read.
    pub cache: Option<String>,
    /// The largest size of that file in bytes.
    pub cache_size: Option<u64>,
    text: Box<str>,
}

/// Why a text is not the URI of a volume in an object store. The message repeats no value.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum UriError {
    /// It has not the form of such a URI.
    #[error("a volume in an object store is s3://BUCKET/PREFIX[@SNAPSHOT]")]
    Form,
    /// A user name, or a key, before the bucket, or in a parameter.
    #[error("a key is never in a uri: it comes from the environment, or from ?profile=NAME")]
    Key,
    /// A bucket has no such name.
    #[error("a bucket's name has 3 to 63 lower-case letters, digits, dots and hyphens")]
    Bucket,
    /// A snapshot has no such name.
    #[error("a snapshot's name has at most 64 letters, digits, '.', '_' and '-'")]
    Snapshot,
    /// A percent sign without two hexadecimal digits, or bytes that are not UTF-8, or control
    /// characters.
    #[error("{0} is not percent-encoded UTF-8")]
    Encoding(&'static str),
    /// The URI has a fragment.
    #[error("a fragment (#) has no meaning here; # in a name is %23")]
    Fragment,
    /// A parameter occurs twice.
    #[error("the parameter {0} occurs twice")]
    Repeated(&'static str),
    /// A parameter is unknown.
    #[error(
        "the parameter {0} is unknown: there are endpoint=, region=, profile=, ca=, journal=, \
             cache= and cache-size="
    )]
    Parameter(String),
    /// The endpoint is no URL of a server.
    #[error("endpoint= takes https://HOST[:PORT] or http://HOST[:PORT]")]
    Endpoint,
    /// The file of certificates, of a journal or of a cache has no absolute path.
    #[error("{0}= takes the absolute path of a file")]
    Path(&'static str),
    /// The size of a cache is no number.
    #[error("cache-size= takes a number of bytes, or one with K, M, G or T, with cache=PATH")]
    CacheSize,
}

impl Uri {
    /// Reads a URI.
    ///
    /// # Errors
    /// [`UriError`] says what is wrong with it.
    pub fn parse(text: &str) -> Result<Self, UriError> {
        let (_, rest) = text.split_once("://").ok_or(UriError::Form)?;
        if rest.contains('#') {
            return Err(UriError::Fragment);
        }
        let (place, query) = rest.split_once('?').unwrap_or((rest, ""));
        let (bucket, path) = place.split_once('/').ok_or(UriError::Form)?;
        if bucket.contains(['@', ':']) {
            return Err(UriError::Key);
        }
        let (path, snapshot) = match path.rsplit_once('@') {
            Some((path, snapshot)) => (path, Some(decoded(snapshot, "the snapshot's name")?)),
            None => (path, None),
        };
        let mut uri = Self {
            bucket: decoded(bucket, "the bucket's name")?,
            prefix: decoded(path, "the prefix")?,
            snapshot,
            endpoint: None,
            region: None,
            profile: None,
            ca: None,
            journal: None,
            cache: None,
            cache_size: None,
            text: text.into(),
        };
        let mut cache_size = None;
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (parameter, value) = pair.split_once('=').unwrap_or((pair, ""));
            let (place, what) = match parameter {
                "endpoint" => (&mut uri.endpoint, "endpoint"),
                "region" => (&mut uri.region, "region"),
                "profile" => (&mut uri.profile, "profile"),
                "ca" => (&mut uri.ca, "ca"),
                "journal" => (&mut uri.journal, "journal"),
                "cache" => (&mut uri.cache, "cache"),
                "cache-size" => (&mut cache_size, "cache-size"),
                key if key.to_ascii_lowercase().contains("key") => return Err(UriError::Key),
                other => return Err(UriError::Parameter(other.into())),
            };
            if place.replace(decoded(value, what)?).is_some() {
                return Err(UriError::Repeated(what));
            }
        }
        if let Some(text) = cache_size {
            let size = size(&text).filter(|_| uri.cache.is_some());
            uri.cache_size = Some(size.ok_or(UriError::CacheSize)?);
        }
        uri.check()?;
        Ok(uri)
    }

    fn check(&mut self) -> Result<(), UriError> {
        let letter = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit();
        let usual = |c: u8| letter(c) || b".-".contains(&c);
        let ends = [self.bucket.bytes().next(), self.bucket.bytes().next_back()];
        let bounded = ends.iter().flatten().all(|c| letter(*c));
        if !(3..=63).contains(&self.bucket.len()) || !bounded || !self.bucket.bytes().all(usual) {
            return Err(UriError::Bucket);
        }
        let odd = |part: &str| part.is_empty() || part == "." || part == "..";
        if self.prefix.split('/').any(odd) {
            return Err(UriError::Form);
        }
        if self
            .snapshot
            .as_ref()
            .is_some_and(|name| !name::is_snapshot(name))
        {
            return Err(UriError::Snapshot);
        }
        if let Some(endpoint) = &mut self.endpoint {
            if endpoint.ends_with('/') {
                endpoint.pop();
            }
            let host = endpoint
                .strip_prefix("https://")
                .or_else(|| endpoint.strip_prefix("http://"));
            match host {
                Some(host) if host.contains('@') => return Err(UriError::Key),
                Some(host) if !host.is_empty() && !host.contains(['/', '?', ' ']) => {}
                _ => return Err(UriError::Endpoint),
            }
        }
        let files = [
            (&self.ca, "ca"),
            (&self.journal, "journal"),
            (&self.cache, "cache"),
        ];
        for (path, what) in files {
            if path.as_ref().is_some_and(|path| !path.starts_with('/')) {
                return Err(UriError::Path(what));
            }
        }
        Ok(())
    }
}

/// The text that was parsed.
impl fmt::Display for Uri {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// The bytes in `10G`, `512M` or a plain number.
fn size(text: &str) -> Option<u64> {
    let (digits, shift) = match text.char_indices().next_back()? {
        (at, 'K') => (text.get(..at)?, 10),
        (at, 'M') => (text.get(..at)?, 20),
        (at, 'G') => (text.get(..at)?, 30),
        (at, 'T') => (text.get(..at)?, 40),
        _ => (text, 0),
    };
    digits.parse::<u64>().ok()?.checked_mul(1 << shift)
}

fn decoded(text: &str, what: &'static str) -> Result<String, UriError> {
    let bytes = percent::decode(text).ok_or(UriError::Encoding(what))?;
    match String::from_utf8(bytes) {
        Ok(text) if !text.chars().any(char::is_control) => Ok(text),
        _ => Err(UriError::Encoding(what)),
    }
}
