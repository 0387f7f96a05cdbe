//! Requests to a Tang server.

use std::io;
use std::sync::Arc;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::Duration;

use luksmith_formats::json::Value;
use ureq::AsSendBody;
use ureq::http::Request;

use super::error::ClevisError;
use super::point::Point;
use crate::Interrupt;
use crate::http::{Client, body};
use crate::secret::SecretError;
use crate::tokens::TokenOptions;

/// The longest answer, in bytes.
const LONGEST: u64 = 64 << 10;

/// The time between two checks of the interrupt.
const LOOK: Duration = Duration::from_millis(50);

/// A server that the caller has permitted.
pub(super) struct Server<'a> {
    url: &'a str,
    client: Arc<Client>,
}

impl<'a> Server<'a> {
    /// The server that has this URL, if the caller has permitted it. No request is sent yet.
    pub(super) fn permitted(url: &str, options: &'a TokenOptions) -> Result<Self, ClevisError> {
        let same =
            |permitted: &&String| permitted.trim_end_matches('/') == url.trim_end_matches('/');
        let permitted = options.tang_urls.iter().find(same);
        let permitted = permitted.ok_or_else(|| ClevisError::ForeignServer {
            url: url.to_owned(),
        })?;
        Self::new(permitted, options)
    }

    /// The server at this URL, which the caller states.
    pub(super) fn new(url: &'a str, options: &TokenOptions) -> Result<Self, ClevisError> {
        let host = url.strip_prefix("http://").or(url.strip_prefix("https://"));
        let is_plain = |host: &&str| {
            let odd = |c: char| c.is_control() || c.is_whitespace() || "?#@".contains(c);
            !host.is_empty() && !host.starts_with(['/', ':']) && !host.contains(odd)
        };
        if url.len() > 2048 || host.filter(is_plain).is_none() {
            return Err(ClevisError::Url);
        }
        let client = Arc::new(Client::new(url, None, options.timeout, 0)?);
        let url = url.trim_end_matches('/');
        Ok(Self { url, client })
    }

    /// The point of the server's key times this point.
    pub(super) fn recover(
        &self,
        kid: &str,
        point: &Point,
        interrupt: &Interrupt,
    ) -> Result<Point, ClevisError> {
        let mut key = point.jwk();
        if let Some(members) = key.as_object_mut() {
            members.insert("alg", "ECMR");
        }
        let uri = format!("{}/rec/{kid}", self.url);
        let request = Request::post(uri).header("Content-Type", "application/jwk+json");
        let request = request
            .body(key.to_string())
            .map_err(|_| ClevisError::Url)?;
        let answer = self.json(request, interrupt)?;
        let answer = Point::of_jwk(&answer)?.filter(|answer| answer.curve() == point.curve());
        answer.ok_or_else(|| self.not_valid("it is no point of the curve"))
    }

    /// What the server says of its keys.
    pub(super) fn advertisement(&self, interrupt: &Interrupt) -> Result<Value, ClevisError> {
        let request = Request::get(format!("{}/adv", self.url));
        let request = request.body(()).map_err(|_| ClevisError::Url)?;
        self.json(request, interrupt)
    }

    pub(super) fn not_valid(&self, cause: &'static str) -> ClevisError {
        let url = self.url.to_owned();
        ClevisError::Answer { url, cause }
    }

    pub(super) fn url(&self) -> &'a str {
        self.url
    }

    /// The answer to a request, which has nothing secret.
    fn json<B>(&self, request: Request<B>, interrupt: &Interrupt) -> Result<Value, ClevisError>
    where
        B: AsSendBody + Send + 'static,
    {
        let client = self.client.clone();
        let exchange = move || {
            let answer = client.send(request, LONGEST)?;
            let status = answer.status().as_u16();
            match status {
                200 => Ok((status, body(answer, LONGEST)?)),
                _ => Ok((status, Vec::new())),
            }
        };
        let answer = unless_interrupted(exchange, interrupt)?;
        let (status, body) = answer.map_err(|source| ClevisError::Unreachable {
            url: self.url.to_owned(),
            source,
        })?;
        if status != 200 {
            let url = self.url.to_owned();
            return Err(ClevisError::Status { url, status });
        }
        Value::parse(&body).map_err(|_| self.not_valid("it is no JSON"))
    }
}

/// Does what may wait for a server on a thread of its own, which is left to itself after an
/// interrupt: it ends when the time of the request is over.
fn unless_interrupted<T: Send + 'static>(
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
    interrupt: &Interrupt,
) -> Result<io::Result<T>, SecretError> {
    let (done, result) = mpsc::channel();
    let thread = thread::Builder::new().name("tang".to_owned());
    // After an interrupt there is no receiver.
    let started = thread.spawn(move || drop(done.send(work())));
    if let Err(error) = started {
        return Ok(Err(error));
    }
    while !interrupt.is_set() {
        match result.recv_timeout(LOOK) {
            Ok(result) => return Ok(result),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => {
                return Ok(Err(io::Error::other("its thread has ended")));
            }
        }
    }
    Err(SecretError::Interrupted)
}
