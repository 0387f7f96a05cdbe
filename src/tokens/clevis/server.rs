//! Requests to a Tang server.

use luksmith_formats::json::Value;
use ureq::http::{Request, Response};
use ureq::{AsSendBody, Body};

use super::error::ClevisError;
use super::point::Point;
use crate::http::{Client, body};
use crate::tokens::TokenOptions;

/// The longest answer, in bytes.
const LONGEST: u64 = 64 << 10;

/// A server that the caller has permitted.
pub(super) struct Server<'a> {
    url: &'a str,
    client: Client,
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
        let client = Client::new(url, None, options.timeout, 0)?;
        let url = url.trim_end_matches('/');
        Ok(Self { url, client })
    }

    /// The point of the server's key times this point.
    pub(super) fn recover(&self, kid: &str, point: &Point) -> Result<Point, ClevisError> {
        let mut key = point.jwk();
        if let Some(members) = key.as_object_mut() {
            members.insert("alg", "ECMR");
        }
        let uri = format!("{}/rec/{kid}", self.url);
        let request = Request::post(uri).header("Content-Type", "application/jwk+json");
        let request = request
            .body(key.to_string())
            .map_err(|_| ClevisError::Url)?;
        let answer = self.json(request)?;
        let answer = Point::of_jwk(&answer).filter(|answer| answer.curve() == point.curve());
        answer.ok_or_else(|| self.not_valid("it is no point of the curve"))
    }

    /// What the server says of its keys.
    pub(super) fn advertisement(&self) -> Result<Value, ClevisError> {
        let request = Request::get(format!("{}/adv", self.url));
        self.json(request.body(()).map_err(|_| ClevisError::Url)?)
    }

    pub(super) fn not_valid(&self, cause: &'static str) -> ClevisError {
        let url = self.url.to_owned();
        ClevisError::Answer { url, cause }
    }

    pub(super) fn url(&self) -> &'a str {
        self.url
    }

    fn json(&self, request: Request<impl AsSendBody>) -> Result<Value, ClevisError> {
        let lost = |source| ClevisError::Unreachable {
            url: self.url.to_owned(),
            source,
        };
        let answer: Response<Body> = self.client.send(request, LONGEST).map_err(lost)?;
        let status = answer.status().as_u16();
        if status != 200 {
            let url = self.url.to_owned();
            return Err(ClevisError::Status { url, status });
        }
        let body = body(answer, LONGEST).map_err(lost)?;
        Value::parse(&body).map_err(|_| self.not_valid("it is no JSON"))
    }
}
