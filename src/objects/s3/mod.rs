//! A [`Store`] in a bucket of an S3 service, over HTTP.
//!
//! The client is small and blocking: `ureq` sends requests over connections that it keeps, and
//! `sign.rs` signs them. TLS uses the cryptography of the whole program, and trusts the
//! authorities in one file. No proxy is used, and no redirect is followed.

mod account;
mod credentials;
mod error;
mod sign;

use std::collections::HashSet;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::ops::Range;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime};

use luksmith_formats::objects::uri::Uri;
use ureq::Body;
use ureq::http::{Request, Response};

pub use account::Account;
pub use credentials::Credentials;
pub use error::S3Error;

use super::{Creation, Store, StoreError};
use crate::http::{self, Client};
use crate::xml::{Element, Xml};

/// The most bytes of an answer that is no object.
const LONGEST_ANSWER: u64 = 2 << 20;

/// The most bytes of an object.
const LONGEST_OBJECT: u64 = 1 << 30;

/// How many bytes a whole object is expected to have at most. A longer one has to come faster.
const LARGE_OBJECT: u64 = 64 << 20;

/// How many bytes an answer is expected to have at most that is no object.
const SHORT_ANSWER: u64 = 64 << 10;

/// How many names of objects an answer has.
const PAGE: &str = "200";

/// The most objects in a list. 64 GiB have as many if the guest flushes every 4 KiB.
const MOST_LISTED: usize = 16 << 20;

/// The most bytes of the name of an object, which S3 defines.
const LONGEST_KEY: usize = 1024;

/// The most bytes of what names the rest of a list.
const LONGEST_TOKEN: usize = 8 << 10;

/// How many names per second a slow service lists at least.
const SLOWEST_LIST: u64 = 50;

/// The most answers that a list has: four times those that services need.
const MOST_PAGES: usize = MOST_LISTED / 50;

/// The objects below a prefix of a bucket.
pub struct S3Store {
    client: Client,
    credentials: Credentials,
    region: String,
    /// The URL of the service, without a path.
    base: String,
    host: String,
    /// The path of the bucket, encoded: empty or `/BUCKET`.
    bucket: String,
    prefix: String,
    /// Whether it has ever answered. If not, a request is not sent again.
    has_answered: AtomicBool,
    timeout: Duration,
}

impl S3Store {
    /// The objects of the volume that the URI names, with the account that [`Account::find`] finds.
    ///
    /// # Errors
    /// As [`Account::find`] and [`S3Store::new`].
    pub fn connect(uri: &Uri, timeout: Duration) -> Result<Self, S3Error> {
        Self::new(uri, Account::find(uri)?, timeout)
    }

    /// The objects of the volume that the URI names. Nothing is sent yet. `timeout` is how
    /// long the service may be silent.
    ///
    /// # Errors
    /// [`S3Error`] if the certificates of authorities cannot be read, for `https`;
    /// [`S3Error::TokenInClear`].
    pub fn new(uri: &Uri, account: Account, timeout: Duration) -> Result<Self, S3Error> {
        let Account {
            credentials,
            region,
        } = account;
        let of_bucket = !uri.bucket.contains('.') && uri.endpoint.is_none();
        let base = match &uri.endpoint {
            Some(endpoint) => endpoint.clone(),
            None if of_bucket => format!("https://{}.s3.{region}.amazonaws.com", uri.bucket),
            None => format!("https://s3.{region}.amazonaws.com"),
        };
        let host = base
            .split_once("://")
            .map_or(base.as_str(), |(_, host)| host)
            .to_owned();
        if credentials.token().is_some() && !http::is_encrypted(&base) && !is_loopback(&host) {
            return Err(S3Error::TokenInClear);
        }
        let client = Client::new(&base, uri.ca.as_deref().map(Path::new), timeout, 0)?;
        Ok(Self {
            client,
            credentials,
            region,
            host,
            bucket: match of_bucket {
                true => String::new(),
                false => format!("/{}", uri.bucket),
            },
            prefix: uri.prefix.clone(),
            has_answered: AtomicBool::new(false),
            base,
            timeout,
        })
    }

    fn path(&self, name: &str) -> String {
        let key = format!("{}/{name}", self.prefix);
        format!("{}/{}", self.bucket, sign::encode(&key, true))
    }

    fn send(
        &self,
        method: &str,
        path: &str,
        query: &[(&str, &str)],
        headers: &[(&str, String)],
        body: &[u8],
        answer: u64,
    ) -> Result<Response<Body>, StoreError> {
        let signed = sign::Request {
            method,
            host: &self.host,
            path,
            query,
            headers,
            body,
        };
        let now = SystemTime::now();
        let own = sign::headers(&signed, &self.region, &self.credentials, now);
        let mark = if query.is_empty() { "" } else { "?" };
        let url = format!("{}{path}{mark}{}", self.base, sign::query(query));
        let mut request = Request::builder().method(method).uri(url);
        for (name, value) in headers {
            request = request.header(*name, value);
        }
        for (name, value) in own {
            request = request.header(name, value);
        }
        let refused = |_| StoreError::Answer("no request that can be sent");
        let bytes = (body.len() as u64).saturating_add(answer);
        let answer = match body.is_empty() && method != "PUT" {
            true => self.client.send(request.body(()).map_err(refused)?, bytes),
            false => self
                .client
                .send(request.body(body).map_err(refused)?, bytes),
        };
        match answer {
            Ok(answer) => {
                self.has_answered.store(true, Ordering::Relaxed);
                Ok(answer)
            }
            Err(error)
                if !self.has_answered.load(Ordering::Relaxed) || !http::is_temporary(&error) =>
            {
                Err(StoreError::NoService(error))
            }
            Err(error) => Err(StoreError::Unreachable(error)),
        }
    }
}

impl Store for S3Store {
    fn create(&self, name: &str, parts: &[&[u8]]) -> Result<Creation, StoreError> {
        let body = parts.concat();
        let once = [("if-none-match", "*".to_owned())];
        let answer = self.send("PUT", &self.path(name), &[], &once, &body, SHORT_ANSWER)?;
        match answer.status().as_u16() {
            200 | 201 | 204 => Ok(Creation::Created),
            412 => Ok(Creation::Exists),
            _ => Err(error_of(answer)),
        }
    }

    fn read(&self, name: &str, range: Range<u64>) -> Result<Option<Vec<u8>>, StoreError> {
        let whole = range.start == 0 && range.end == u64::MAX;
        let headers = match whole {
            true => Vec::new(),
            false => {
                let last = range.end.saturating_sub(1);
                vec![("range", format!("bytes={}-{last}", range.start))]
            }
        };
        let length = range.end.saturating_sub(range.start);
        let (longest, expected) = match whole {
            true => (LONGEST_OBJECT, LARGE_OBJECT),
            false => (length.min(LONGEST_OBJECT), length.min(LARGE_OBJECT)),
        };
        let answer = self.send("GET", &self.path(name), &[], &headers, &[], expected)?;
        let bytes = match answer.status().as_u16() {
            206 if !whole => body(answer, longest)?,
            200 if whole => body(answer, longest)?,
            200 => return Err(StoreError::Answer("a whole object in place of a part")),
            416 => return Ok(Some(Vec::new())),
            404 => {
                return match error_of(answer) {
                    StoreError::NoBucket => Err(StoreError::NoBucket),
                    _ => Ok(None),
                };
            }
            _ => return Err(error_of(answer)),
        };
        Ok(Some(bytes))
    }

    fn remove(&self, name: &str) -> Result<(), StoreError> {
        let answer = self.send("DELETE", &self.path(name), &[], &[], &[], SHORT_ANSWER)?;
        match answer.status().as_u16() {
            200 | 202 | 204 => Ok(()),
            404 => match error_of(answer) {
                StoreError::NoBucket => Err(StoreError::NoBucket),
                _ => Ok(()),
            },
            _ => Err(error_of(answer)),
        }
    }

    fn list(&self, prefix: &str) -> Result<Vec<(String, u64)>, StoreError> {
        let below = format!("{}/", self.prefix);
        let prefix = format!("{below}{prefix}");
        let path = match self.bucket.as_str() {
            "" => "/",
            path => path,
        };
        let mut found = Vec::new();
        let mut token: Option<String> = None;
        let mut tokens = HashSet::new();
        let began = Instant::now();
        for _ in 0..MOST_PAGES {
            let names = Duration::from_secs(found.len() as u64 / SLOWEST_LIST);
            if began.elapsed() > self.timeout.saturating_add(names) {
                let slow = io::Error::new(io::ErrorKind::TimedOut, "a list that takes too long");
                return Err(StoreError::Unreachable(slow));
            }
            let mut query = vec![
                ("list-type", "2"),
                ("max-keys", PAGE),
                ("prefix", prefix.as_str()),
            ];
            if let Some(token) = &token {
                query.insert(0, ("continuation-token", token));
            }
            let answer = self.send("GET", path, &query, &[], &[], LONGEST_ANSWER)?;
            if answer.status().as_u16() != 200 {
                return Err(error_of(answer));
            }
            let bytes = body(answer, LONGEST_ANSWER)?;
            let strange = StoreError::Answer("a list that cannot be read");
            let Ok(xml) = Xml::parse(&bytes) else {
                return Err(strange);
            };
            for entry in xml.root().elements().filter(|one| one.name() == "Contents") {
                let name =
                    text(entry, "Key").and_then(|key| Some(key.strip_prefix(&below)?.to_owned()));
                let size = text(entry, "Size").and_then(|size| size.parse().ok());
                let name = name.filter(|name| name.len() <= LONGEST_KEY);
                let (Some(name), Some(size)) = (name, size) else {
                    return Err(strange);
                };
                found.push((name, size));
            }
            if found.len() > MOST_LISTED {
                return Err(StoreError::Answer(ENDLESS));
            }
            // A token is only there if the list goes on. Not every service says so in words.
            let next = text(xml.root(), "NextContinuationToken").filter(|it| !it.is_empty());
            let goes_on = match text(xml.root(), "IsTruncated").as_deref() {
                None => next.is_some(),
                Some("true") => true,
                Some("false") => false,
                Some(_) => return Err(strange),
            };
            match next {
                _ if !goes_on => return Ok(found),
                None => return Err(strange),
                Some(next) if next.len() > LONGEST_TOKEN => return Err(strange),
                Some(next) if !tokens.insert(next.clone()) => {
                    return Err(StoreError::Answer(ENDLESS));
                }
                next => token = next,
            }
        }
        Err(StoreError::Answer(ENDLESS))
    }
}

const ENDLESS: &str = "a list of objects that does not end";

/// Whether a host, with its port if it has one, is this machine.
fn is_loopback(host: &str) -> bool {
    if host == "localhost" || host.starts_with("localhost:") {
        return true;
    }
    let address = host.parse().map(|address: SocketAddr| address.ip());
    let address = address.or_else(|_| host.trim_matches(['[', ']']).parse::<IpAddr>());
    address.is_ok_and(|address| address.is_loopback())
}

fn text(element: Element<'_>, name: &str) -> Option<String> {
    // Services write the namespace in some answers only.
    let mut found = element.elements().filter(|one| one.name() == name);
    found.next().map(Element::text)
}

fn body(answer: Response<Body>, longest: u64) -> Result<Vec<u8>, StoreError> {
    http::body(answer, longest).map_err(|error| match http::is_temporary(&error) {
        true => StoreError::Unreachable(error),
        false => StoreError::Answer("more bytes than were asked for"),
    })
}

/// What an answer says that is no success.
fn error_of(answer: Response<Body>) -> StoreError {
    let status = answer.status().as_u16();
    let bytes = body(answer, LONGEST_ANSWER).unwrap_or_default();
    let code = Xml::parse(&bytes)
        .ok()
        .and_then(|xml| text(xml.root(), "Code"));
    let code = code.unwrap_or_default();
    match status {
        404 if code == "NoSuchBucket" => StoreError::NoBucket,
        408 | 409 | 429 | 500.. => StoreError::Temporary { status, code },
        400 if code == "RequestTimeout" => StoreError::Temporary { status, code },
        401 | 403 => StoreError::Denied(code),
        _ => StoreError::Refused { status, code },
    }
}

#[cfg(test)]
mod tests;
