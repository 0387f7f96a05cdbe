//! Signatures of requests, version 4, as AWS describes them.

use std::time::{SystemTime, UNIX_EPOCH};

use hmac::{Hmac, KeyInit, Mac};
use secrecy::zeroize::Zeroizing;
use sha2::{Digest, Sha256};

use super::credentials::Credentials;

/// What is signed.
pub(super) struct Request<'a> {
    pub(super) method: &'a str,
    /// The host, with its port if the URL has one.
    pub(super) host: &'a str,
    /// Encoded.
    pub(super) path: &'a str,
    /// The parameters, in the order of their names.
    pub(super) query: &'a [(&'a str, &'a str)],
    /// Further headers: names in lower case, in order.
    pub(super) headers: &'a [(&'a str, String)],
    pub(super) body: &'a [u8],
}

/// The headers that a request needs, with the signature.
pub(super) fn headers(
    request: &Request<'_>,
    region: &str,
    credentials: &Credentials,
    time: SystemTime,
) -> Vec<(&'static str, String)> {
    let (date, time) = date_and_time(time);
    let sum = hex(&Sha256::digest(request.body));
    let mut own = vec![
        ("host", request.host.to_owned()),
        ("x-amz-content-sha256", sum.clone()),
        ("x-amz-date", time.clone()),
    ];
    if let Some(token) = credentials.token() {
        own.push(("x-amz-security-token", token.to_owned()));
    }
    let mut all: Vec<(&str, &str)> = own
        .iter()
        .map(|(name, value)| (*name, value.as_str()))
        .collect();
    all.extend(
        request
            .headers
            .iter()
            .map(|(name, value)| (*name, value.as_str())),
    );
    all.sort_unstable();
    let lines: String = all
        .iter()
        .map(|(name, value)| format!("{name}:{}\n", value.trim()))
        .collect();
    let names: Vec<&str> = all.iter().map(|(name, _)| *name).collect();
    let names = names.join(";");
    let canonical = format!(
        "{}\n{}\n{}\n{lines}\n{names}\n{sum}",
        request.method,
        request.path,
        query(request.query)
    );
    let scope = format!("{date}/{region}/s3/aws4_request");
    let hash = hex(&Sha256::digest(canonical));
    let text = format!("AWS4-HMAC-SHA256\n{time}\n{scope}\n{hash}");
    let key = key_of_day(credentials, &date, region);
    let signature = hex(&mac(&*key, text.as_bytes()));
    let id = credentials.id();
    let value = format!(
        "AWS4-HMAC-SHA256 Credential={id}/{scope}, SignedHeaders={names}, Signature={signature}"
    );
    own.remove(0);
    own.push(("authorization", value));
    own
}

/// The key of one day, region and service.
fn key_of_day(credentials: &Credentials, date: &str, region: &str) -> Zeroizing<[u8; 32]> {
    let first = Zeroizing::new(format!("AWS4{}", credentials.secret()));
    let key = Zeroizing::new(mac(first.as_bytes(), date.as_bytes()));
    let key = Zeroizing::new(mac(&*key, region.as_bytes()));
    let key = Zeroizing::new(mac(&*key, b"s3"));
    Zeroizing::new(mac(&*key, b"aws4_request"))
}

/// The query of a URL.
pub(super) fn query(parameters: &[(&str, &str)]) -> String {
    let encoded: Vec<String> = parameters
        .iter()
        .map(|(name, value)| format!("{}={}", encode(name, false), encode(value, false)))
        .collect();
    encoded.join("&")
}

/// Encodes everything but unreserved characters, and slashes if they are to stay.
pub(super) fn encode(text: &str, slashes: bool) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                encoded.push(byte.into());
            }
            b'/' if slashes => encoded.push('/'),
            _ => encoded.push_str(&format!("%{byte:02X}")),
        }
    }
    encoded
}

fn mac(key: &[u8], text: &[u8]) -> [u8; 32] {
    // A key of any length is accepted.
    let Ok(mac) = Hmac::<Sha256>::new_from_slice(key) else {
        return [0; 32];
    };
    mac.chain_update(text).finalize().into_bytes().into()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// `YYYYMMDD` and `YYYYMMDDTHHMMSSZ`.
fn date_and_time(time: SystemTime) -> (String, String) {
    let since = time
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default()
        .as_secs();
    let (days, of_day) = (since / 86400, since % 86400);
    let (mut year, mut left) = (1970, days);
    let length = |year: u64| {
        let leap =
            year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400));
        (365 + u64::from(leap), leap)
    };
    while left >= length(year).0 {
        left -= length(year).0;
        year += 1;
    }
    let february = if length(year).1 { 29 } else { 28 };
    let mut month = 1;
    for days in [31, february, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31] {
        if left < days {
            break;
        }
        left -= days;
        month += 1;
    }
    let date = format!("{year:04}{month:02}{:02}", left + 1);
    let (hour, minute, second) = (of_day / 3600, of_day / 60 % 60, of_day % 60);
    let time = format!("{date}T{hour:02}{minute:02}{second:02}Z");
    (date, time)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn at(seconds: u64) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(seconds)
    }

    #[test]
    fn dates_are_those_of_the_calendar() {
        for (seconds, expected) in [
            (0, "19700101T000000Z"),
            (951_782_399, "20000228T235959Z"),
            (951_782_400, "20000229T000000Z"),
            (1_369_353_600, "20130524T000000Z"),
            (4_107_542_399, "21000228T235959Z"),
            (4_107_542_400, "21000301T000000Z"),
            (1_735_689_599, "20241231T235959Z"),
        ] {
            assert_eq!(date_and_time(at(seconds)).1, expected);
        }
    }

    /// The examples of AWS's documentation of signature version 4 for S3.
    #[test]
    fn signatures_are_those_of_the_documentation() {
        let credentials = Credentials::new(
            "AKIAIOSFODNN7EXAMPLE",
            "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY",
            None,
        );
        let signature = |request: &Request<'_>| {
            let headers = headers(request, "us-east-1", &credentials, at(1_369_353_600));
            let (_, value) = headers.last().unwrap().clone();
            value.rsplit_once("Signature=").unwrap().1.to_owned()
        };
        let host = "examplebucket.s3.amazonaws.com";
        let request = Request {
            method: "GET",
            host,
            path: "/test.txt",
            query: &[],
            headers: &[("range", "bytes=0-9".to_owned())],
            body: b"",
        };
        let expected = "f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41";
        assert_eq!(signature(&request), expected);
        let request = Request {
            method: "PUT",
            path: "/test%24file.text",
            headers: &[
                ("date", "Fri, 24 May 2013 00:00:00 GMT".to_owned()),
                ("x-amz-storage-class", "REDUCED_REDUNDANCY".to_owned()),
            ],
            body: b"Welcome to Amazon S3.",
            ..request
        };
        let expected = "98ad721746da40c64f1a55b78f14c238d841ea1380cd77a1b5971af0ece108bd";
        assert_eq!(signature(&request), expected);
        let request = Request {
            method: "GET",
            path: "/",
            query: &[("max-keys", "2"), ("prefix", "J")],
            headers: &[],
            body: b"",
            ..request
        };
        let expected = "34b48302e7b5fa45bde8084f4b7868a86f0a534bc59db6670ed5711ef69dc6f7";
        assert_eq!(signature(&request), expected);
    }
}
