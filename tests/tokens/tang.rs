//! What clevis binds we open, what we bind clevis opens, and no server is asked that the caller did
//! not permit.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::process::Stdio;
use std::time::{Duration, Instant};

use luksmith_formats::json::Value;
use rustix::process::{Pid, Signal, kill_process};
use support::peers;

use crate::site::{Server, Site, have_clevis};

fn bind(site: &Site, pin: &str, settings: &str) {
    let mut clevis = site.command("clevis", "luks bind -y -k key -d disk.img");
    peers::run(clevis.args([pin, settings]));
}

#[test]
fn what_clevis_binds_opens() {
    if !have_clevis() {
        return;
    }
    for curve in ["P-521", "P-256"] {
        let (site, server) = (Site::new(), Server::tang(curve));
        let url = &server.url;
        bind(&site, "tang", &format!(r#"{{"url":"{url}"}}"#));
        let opened = site.luksmith(&format!(
            "key test disk.img --token-type clevis --tang-url {url}"
        ));
        assert_eq!(
            opened, "keyslot 1 opens the volume, by token 0\n",
            "{curve}"
        );
        // The slash at the end makes no other server.
        site.luksmith(&format!("key test disk.img --token 0 --tang-url {url}/"));
    }
}

#[test]
fn what_we_bind_clevis_opens() {
    if !have_clevis() {
        return;
    }
    for curve in ["P-521", "P-256"] {
        let (site, server) = (Site::new(), Server::tang(curve));
        let (url, thumbprint) = (&server.url, server.thumbprint());
        let add = format!("key add disk.img --key-file key --tang {url}");
        let (code, error) = site.refused(&add);
        assert_eq!(code, 2);
        assert!(error.contains(&thumbprint), "{error}");
        let (code, error) = site.refused(&format!("{add} --tang-thumbprint -{thumbprint}"));
        assert_eq!(code, 2);
        assert!(error.contains("no signing key"), "{error}");
        let added = site.luksmith(&format!("{add} --tang-thumbprint {thumbprint}"));
        assert_eq!(added, "keyslot 1 added, with token 0\n");

        let passphrase = site.run("clevis", "luks pass -d disk.img -s 1");
        site.write("found", passphrase.trim_ascii_end());
        site.luksmith("key test disk.img --keyslot 1 --key-file found");
        site.luksmith(&format!("key test disk.img --token 0 --tang-url {url}"));
        let dump = String::from_utf8(site.run("cryptsetup", "luksDump disk.img")).unwrap();
        assert!(
            dump.contains("sha512") && dump.contains("0: clevis"),
            "{dump}"
        );
    }
}

#[test]
fn shares_open_as_soon_as_there_are_enough() {
    if !have_clevis() {
        return;
    }
    let (site, a, b) = (Site::new(), Server::tang("P-521"), Server::tang("P-256"));
    let pins = format!(
        r#"{{"tang":[{{"url":"{}"}},{{"url":"{}"}}]}}"#,
        a.url, b.url
    );
    for needed in [1, 2] {
        bind(&site, "sss", &format!(r#"{{"t":{needed},"pins":{pins}}}"#));
    }
    let (one, both) = (
        format!("--tang-url {}", b.url),
        format!("--tang-url {} --tang-url {}", a.url, b.url),
    );
    let before = a.connections();
    site.luksmith(&format!("key test disk.img --token 0 {one}"));
    let (_, error) = site.refused(&format!("key test disk.img --token 1 {one}"));
    assert!(error.contains("1 of 2 shares were found"), "{error}");
    assert_eq!(a.connections(), before, "a server that was not permitted");
    site.luksmith(&format!("key test disk.img --token 1 {both}"));
}

/// A token whose server is never asked: its URL is that of a server that counts connections.
#[test]
fn a_foreign_server_gets_no_connection() {
    let site = Site::new();
    let server = Server::start(drop);
    let other = Server::start(drop);
    site.import(&with_url(&format!("{}/\u{1b}[2J", server.url)));
    for permitted in [
        String::new(),
        format!("--tang-url {}", other.url),
        format!("--tang-url {}/sub", server.url),
    ] {
        let line = format!("key test disk.img --token-type clevis {permitted}");
        let (code, error) = site.refused(&line);
        assert_eq!(code, 2, "{error}");
        assert!(error.contains(&server.url), "{error}");
        assert!(error.contains("not permitted"), "{error}");
        assert!(!error.contains('\u{1b}'), "{error:?}");
        assert!(error.contains("hint: --tang-url URL"), "{error}");
    }
    // Without an option no token is used at all.
    site.luksmith("key test disk.img --key-file key");
    assert_eq!((server.connections(), other.connections()), (0, 0));
}

/// A token of clevis for another volume, with this URL.
fn with_url(url: &str) -> Value {
    let mut token: Value = include_str!("tang.json").parse().unwrap();
    let header = token["jwe"]["protected"].as_str().unwrap().to_owned();
    let mut header: Value = decoded(&header).parse().unwrap();
    header["clevis"]["tang"]["url"] = url.into();
    token["jwe"]["protected"] = encoded(&header.to_string()).into();
    token["keyslots"] = "[\"0\"]".parse().unwrap();
    token
}

fn decoded(text: &str) -> String {
    use base64::Engine as _;
    let bytes = base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(text);
    String::from_utf8(bytes.unwrap()).unwrap()
}

fn encoded(text: &str) -> String {
    use base64::Engine as _;
    base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(text)
}

#[test]
fn a_server_that_is_gone_or_lost_its_keys_is_named() {
    if !have_clevis() {
        return;
    }
    let (site, server) = (Site::new(), Server::tang("P-521"));
    bind(&site, "tang", &format!(r#"{{"url":"{}"}}"#, server.url));
    let test = format!("key test disk.img --token 0 --tang-url {}", server.url);
    site.luksmith(&test);
    std::fs::remove_file(server.keys().join("exchange.jwk")).unwrap();
    let (code, error) = site.refused(&test);
    assert_eq!(code, 4);
    assert!(error.contains("answered with status 404"), "{error}");

    // A port that was free a moment ago.
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", free.local_addr().unwrap());
    drop(free);
    let site = Site::new();
    site.import(&with_url(&url));
    let (code, error) = site.refused(&format!("key test disk.img --token 0 --tang-url {url}"));
    assert_eq!(code, 4);
    assert!(error.contains("does not answer"), "{error}");
}

/// A server that accepts a connection and is silent.
#[test]
fn an_interrupt_does_not_wait_for_a_server() {
    let (send, accepted) = std::sync::mpsc::channel();
    let server = Server::start(move |client| send.send(client).unwrap());
    let site = Site::new();
    site.import(&with_url(&server.url));
    for line in [
        format!("key test disk.img --token 0 --tang-url {}", server.url),
        format!("key add disk.img --key-file key --tang {}", server.url),
    ] {
        let mut command = site.command("luksmith", &line);
        let child = command.stderr(Stdio::piped()).spawn().unwrap();
        let _client = accepted.recv_timeout(Duration::from_secs(60)).unwrap();
        let pressed = Instant::now();
        kill_process(Pid::from_child(&child), Signal::INT).unwrap();
        let output = child.wait_with_output().unwrap();
        let took = pressed.elapsed();
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(130), "{said}");
        assert!(took < Duration::from_secs(3), "{took:?}: {said}");
    }
}

/// Reads a request with its body, writes this, and waits until the client closes the connection.
fn respond(mut client: TcpStream, answer: &[u8]) {
    let (mut request, mut part) = (Vec::new(), [0; 4096]);
    while !is_whole(&request) {
        match client.read(&mut part) {
            Ok(n) if n > 0 => request.extend_from_slice(&part[..n]),
            _ => return,
        }
    }
    let _ = client.write_all(answer);
    let _ = client.shutdown(std::net::Shutdown::Write);
    let _ = client.set_read_timeout(Some(std::time::Duration::from_secs(2)));
    let _ = client.read(&mut part);
}

fn is_whole(request: &[u8]) -> bool {
    let text = String::from_utf8_lossy(request).to_ascii_lowercase();
    let Some((head, body)) = text.split_once("\r\n\r\n") else {
        return false;
    };
    let length = head
        .lines()
        .find_map(|line| line.strip_prefix("content-length: "));
    let length = length.map_or(0, |length| length.parse().unwrap());
    body.len() >= length
}

fn ok(body: &str) -> Vec<u8> {
    let len = body.len();
    format!("HTTP/1.1 200 OK\r\nContent-Length: {len}\r\n\r\n{body}").into_bytes()
}

#[test]
fn answers_of_hostile_servers_open_nothing() {
    let other = Server::start(drop);
    let point = r#"{"crv":"P-521","kty":"EC","x":"Aad4TToC3__GpEUcv5vTyekY44tFWbsnhoOsVCFlDqtSB_kkYmA_7UpmEVdvtgnVoBe0FrcoPFFfBcXUJqPXxFkO","y":"Af5ve5BQoNbxLwbok60b9IfqmcM1v7nAVapgMhroz4LFEGtMQXAhZYIBba7cxzvRJl6KkkrLlnMspTsihxFB3poE"}"#;
    let redirect = format!(
        "HTTP/1.1 302 Found\r\nLocation: {}/\r\nContent-Length: 0\r\n\r\n",
        other.url
    );
    let endless = format!("HTTP/1.1 200 OK\r\n\r\n{}", "[".repeat(1 << 20));
    for (answer, expected) in [
        (ok(point), "does not decrypt the token"),
        (ok(&point.replace("Aad4", "Aad5")), "no point of the curve"),
        (ok("{}"), "no point of the curve"),
        (ok("{"), "no JSON"),
        (redirect.into_bytes(), "status 302"),
        (endless.into_bytes(), "does not answer"),
        (Vec::new(), "does not answer"),
    ] {
        let server = Server::start(move |client| respond(client, &answer));
        let site = Site::new();
        site.import(&with_url(&server.url));
        let line = format!("key test disk.img --token 0 --tang-url {}", server.url);
        let (_, error) = site.refused(&line);
        assert!(error.contains(expected), "{expected}: {error}");
    }
    assert_eq!(other.connections(), 0);
}

#[test]
fn an_advertisement_that_is_not_signed_by_its_keys_is_refused() {
    if !have_clevis() {
        return;
    }
    let tang = Server::tang("P-521");
    let address = tang.url.trim_start_matches("http://");
    let mut client = TcpStream::connect(address).unwrap();
    client
        .write_all(b"GET /adv HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        .unwrap();
    client.shutdown(std::net::Shutdown::Write).unwrap();
    let mut answer = String::new();
    client.read_to_string(&mut answer).unwrap();
    let body = &answer[answer.find("\r\n\r\n").unwrap()..];
    let good: Value = body.trim().parse().unwrap();
    let another = Server::tang("P-521");

    let payload = decoded(good["payload"].as_str().unwrap());
    let change = |change: &dyn Fn(&mut Value)| {
        let mut changed = good.clone();
        change(&mut changed);
        changed.to_string()
    };
    let moved = payload.replace("deriveKey", "deriveBit");
    let unsigned = payload.replace("verify", "sign");
    for (body, expected) in [
        (change(&|_| ()), "no signing key with it"),
        (
            change(&|adv| adv["payload"] = encoded(&moved).into()),
            "not signed with each",
        ),
        (
            change(&|adv| adv["payload"] = encoded(&unsigned).into()),
            "no signing key",
        ),
        (
            change(&|adv| adv["protected"] = encoded(r#"{"alg":"none"}"#).into()),
            "not signed with each",
        ),
        (
            change(&|adv| adv["signature"] = "".into()),
            "not signed with each",
        ),
        ("[]".to_owned(), "no payload"),
    ] {
        let body = ok(&body);
        let server = Server::start(move |client| respond(client, &body));
        let (_, error) = Site::new().refused(&format!(
            "key add disk.img --key-file key --tang {} --tang-thumbprint {}",
            server.url,
            another.thumbprint()
        ));
        assert!(error.contains(expected), "{expected}: {error}");
    }
}
