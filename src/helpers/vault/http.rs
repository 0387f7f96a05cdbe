//! One request and its answer in HTTP/1.1 (RFC 9112), in locked memory: both carry secrets.
//!
//! Each request has a connection of its own (`Connection: close`). Redirections are not followed:
//! the token would go to another server.

use std::io::IoSlice;

use super::address::Address;
use super::json;
use crate::helpers::failure::Failure;
use crate::secret::{Growing, LockedBytes, MAX_KEY_FILE};

/// The longest answer, in bytes: a secret in JSON, whose bytes may be six each, is longer only if
/// it is of more than 2 MiB.
const LONGEST: usize = MAX_KEY_FILE * 2;

/// The most bytes of a message of the server that are shown.
const SHOWN: usize = 200;

/// The body of a request.
#[derive(Clone, Copy)]
pub(super) enum Body<'a> {
    None,
    Secret(&'a [u8]),
}

/// A request.
pub(super) struct Call<'a> {
    pub(super) method: &'static str,
    /// The path, percent-encoded.
    pub(super) path: &'a str,
    pub(super) token: &'a [u8],
    pub(super) namespace: Option<&'a str>,
    pub(super) body: Body<'a>,
}

/// The answer of the server.
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) body: LockedBytes,
}

impl Answer {
    /// Whether the body has these bytes.
    pub(super) fn says(&self, words: &[u8]) -> bool {
        self.body.windows(words.len()).any(|found| found == words)
    }

    /// The first error that the body states, after a colon.
    pub(super) fn error(&self) -> String {
        let errors = json::member(&self.body, &["errors"]).unwrap_or_default();
        let text = errors.strip_prefix(b"[").unwrap_or_default().trim_ascii();
        let first = json::text(json::value(text).0).ok();
        let first = first.filter(|text| !text.is_empty());
        first.map_or_else(String::new, |text| {
            let text = String::from_utf8_lossy(&text[..text.len().min(SHOWN)]).into_owned();
            format!(": {}", text.replace(char::is_control, " "))
        })
    }
}

impl Call<'_> {
    pub(super) fn send(&self, address: &Address) -> Result<Answer, Failure> {
        let body = match self.body {
            Body::None => &[],
            Body::Secret(body) => body,
        };
        let head = format!(
            "{} {} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\nAccept: application/json\r\n\
             Content-Type: application/json\r\nContent-Length: {}\r\nX-Vault-Request: true\r\n",
            self.method,
            self.path,
            address.host(),
            body.len()
        );
        let namespace = self.namespace.map_or_else(String::new, |namespace| {
            format!("X-Vault-Namespace: {namespace}\r\n")
        });
        let request = joined(&[
            head.as_bytes(),
            namespace.as_bytes(),
            b"X-Vault-Token: ",
            self.token,
            b"\r\n\r\n",
            body,
        ])?;
        let lost =
            |error: std::io::Error| Failure::unreachable(format!("{}: {error}", address.host()));
        let channel = address.connect()?;
        channel.send(&mut [IoSlice::new(&request)]).map_err(lost)?;
        let mut read = Growing::default();
        loop {
            let free = read.free(LONGEST, "the server").map_err(Failure::other)?;
            match channel.recv(free).map_err(lost)? {
                0 => break,
                n => read.used += n,
            }
            if is_whole(read.bytes()) {
                break;
            }
        }
        let read = read.finish().map_err(Failure::other)?;
        answer(&read).ok_or_else(|| Failure::other("the answer is not HTTP/1.1, or is cut off"))
    }
}

/// The parts behind each other, in locked memory.
pub(super) fn joined(parts: &[&[u8]]) -> Result<LockedBytes, Failure> {
    let len = parts.iter().map(|part| part.len()).sum();
    let bytes = LockedBytes::from_fill(len, |mut into| {
        for part in parts {
            let (begin, rest) = into.split_at_mut(part.len());
            begin.copy_from_slice(part);
            into = rest;
        }
    });
    bytes.map_err(Failure::other)
}

/// The head and the rest, if the head is whole.
fn split(answer: &[u8]) -> Option<(&[u8], &[u8])> {
    let end = answer.windows(4).position(|found| found == b"\r\n\r\n")?;
    Some((answer.get(..end)?, answer.get(end + 4..)?))
}

/// The value of a header field.
fn field<'a>(head: &'a [u8], name: &str) -> Option<&'a str> {
    let head = std::str::from_utf8(head).ok()?;
    let mut lines = head
        .split("\r\n")
        .skip(1)
        .filter_map(|line| line.split_once(':'));
    let found = lines.find(|(field, _)| field.eq_ignore_ascii_case(name))?;
    Some(found.1.trim())
}

fn is_chunked(head: &[u8]) -> bool {
    field(head, "transfer-encoding").is_some_and(|coding| coding.eq_ignore_ascii_case("chunked"))
}

/// Whether no more bytes belong to the answer. Without a length its end is that of the connection.
fn is_whole(read: &[u8]) -> bool {
    let Some((head, rest)) = split(read) else {
        return false;
    };
    if is_chunked(head) {
        return chunks(rest).is_some();
    }
    let length = field(head, "content-length").and_then(|length| length.parse().ok());
    length.is_some_and(|length: usize| rest.len() >= length)
}

fn answer(read: &[u8]) -> Option<Answer> {
    let (head, rest) = split(read)?;
    let line = head.split(|byte| *byte == b'\r').next()?;
    let line = std::str::from_utf8(line).ok()?.strip_prefix("HTTP/1.")?;
    let status = line.split(' ').nth(1)?.parse().ok()?;
    let body = if is_chunked(head) {
        joined(&chunks(rest)?).ok()?
    } else if let Some(length) = field(head, "content-length") {
        LockedBytes::copy_from(rest.get(..length.parse().ok()?)?).ok()?
    } else {
        LockedBytes::copy_from(rest).ok()?
    };
    Some(Answer { status, body })
}

/// The chunks of a body, if the last one is there.
fn chunks(mut rest: &[u8]) -> Option<Vec<&[u8]>> {
    let mut chunks = Vec::new();
    loop {
        let end = rest.windows(2).position(|found| found == b"\r\n")?;
        let line = std::str::from_utf8(rest.get(..end)?).ok()?;
        let size = line.split(';').next()?.trim();
        let size = usize::from_str_radix(size, 16).ok()?;
        rest = rest.get(end + 2..)?;
        if size == 0 {
            return Some(chunks);
        }
        chunks.push(rest.get(..size)?);
        rest = rest.get(size..)?.strip_prefix(b"\r\n")?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_with_a_length_with_chunks_and_up_to_the_end() {
        let read = |text: &str| answer(text.as_bytes()).map(|it| (it.status, it.body.to_vec()));
        let length = "HTTP/1.1 200 OK\r\ncontent-LENGTH: 2\r\n\r\nab";
        assert_eq!(read(length), Some((200, b"ab".to_vec())));
        assert!(is_whole(length.as_bytes()));
        let chunked = "HTTP/1.1 404 Not Found\r\nTransfer-Encoding: chunked\r\n\r\n\
                       2\r\nab\r\nA;x=y\r\n0123456789\r\n0\r\n\r\n";
        assert_eq!(read(chunked), Some((404, b"ab0123456789".to_vec())));
        let open = "HTTP/1.0 204 No Content\r\nA: b\r\n\r\n";
        assert_eq!(read(open), Some((204, Vec::new())));
        assert!(!is_whole(open.as_bytes()));
        // Every part that is cut off is no whole answer.
        for text in [length, chunked] {
            for end in 0..text.len() - 2 {
                assert!(!is_whole(&text.as_bytes()[..end]), "{end}");
                assert_eq!(read(&text[..end]), None, "{end}");
            }
        }
        for text in ["", "HTTP/2 200\r\n\r\n", "x\r\n\r\n", "HTTP/1.1 x\r\n\r\n"] {
            assert_eq!(read(text), None, "{text}");
        }
    }

    #[test]
    fn errors_of_the_server_are_shown_without_control_characters() {
        let said = |body: &[u8]| {
            let body = LockedBytes::copy_from(body).unwrap();
            Answer { status: 403, body }.error()
        };
        assert_eq!(
            said(br#"{"errors":["permission\u001b denied","b"]}"#),
            ": permission  denied"
        );
        for body in [
            &b"{}"[..],
            b"",
            b"{\"errors\":[]}",
            b"{\"errors\":7}",
            b"{\"errors\":[",
        ] {
            assert_eq!(said(body), "");
        }
    }
}
