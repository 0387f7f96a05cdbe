//! Web servers that do not do what they are asked for, or whose file changes.

use std::time::Instant;

use luksmith::backend::conformance::{self, Opened};
use luksmith::backend::http::{HttpBackend, HttpOptions};

use crate::double::{part_of, start};
use crate::program::Site;

#[test]
fn a_file_on_a_web_server_keeps_the_contract_of_storage() {
    let file: Vec<u8> = (0..2_u32 << 18).flat_map(u32::to_be_bytes).collect();
    let url = start(move |asked| part_of(&file, "\"1\"", asked));
    let report = conformance::check(|_| -> Opened<'_> {
        Ok(Box::new(HttpBackend::open(&url, None, HttpOptions::new())?))
    });
    let report = report.unwrap_or_else(|violation| panic!("{violation:?}"));
    let all_read_only = report
        .skipped()
        .iter()
        .all(|(_, why)| !why.contains("not opened for"));
    assert!(all_read_only, "{:?}", report.skipped());
}

#[test]
fn another_file_is_an_error_and_never_mixed() {
    let site = Site::new();
    let (old, mut new) = (site.read("disk.img"), site.read("disk.img"));
    new[17 << 20..].fill(7);
    // A server that knows If-Range sends all of the other file, and one that does not a part of it.
    for knows in [true, false] {
        let (old, new) = (old.clone(), new.clone());
        let url = start(move |asked| {
            let is_late = asked.part.is_some_and(|(first, _)| first >= 18 << 20);
            let is_old = asked.validator.as_deref().is_none_or(|it| it == "\"old\"");
            assert!(is_old, "{:?}", asked.validator);
            match is_late {
                false => part_of(&old, "\"old\"", asked),
                true if knows => {
                    let length = new.len();
                    let headers = format!("etag: \"new\"\r\ncontent-length: {length}\r\n");
                    (200, headers, new.clone())
                }
                true => part_of(&new, "\"new\"", asked),
            }
        });
        let (code, said) = site.refused(&format!("decrypt {url} out --key-file key"));
        assert!(code == 4 && said.contains("has changed"), "{said}");
        assert!(!site.path("out").exists());
    }
}

#[test]
fn a_server_without_ranges_or_versions_is_refused() {
    let site = Site::new();
    let file = site.read("disk.img");
    let whole = file.clone();
    let url = start(move |_| {
        let length = whole.len();
        (
            200,
            format!("etag: \"1\"\r\ncontent-length: {length}\r\nconnection: close\r\n"),
            whole.clone(),
        )
    });
    let (_, said) = site.refused(&format!("info {url}"));
    assert!(said.contains("does not serve parts"), "{said}");
    let url = start(move |asked| part_of(&file, "W/\"1\"", asked));
    let (_, said) = site.refused(&format!("info {url}"));
    assert!(said.contains("does not tell versions"), "{said}");
}

#[test]
fn redirects_without_end_and_other_answers_are_errors() {
    let site = Site::new();
    let again = start(|_| {
        (
            302,
            "location: /disk.img\r\ncontent-length: 0\r\n".to_owned(),
            Vec::new(),
        )
    });
    let denied = start(|_| (403, "content-length: 0\r\n".to_owned(), Vec::new()));
    let strange = start(|asked| {
        let (_, headers, body) = part_of(&[1; 100], "\"1\"", asked);
        (206, headers.replace("content-range", "x-range"), body)
    });
    let began = Instant::now();
    for (url, code, expected) in [
        (again, 4, "no complete answer"),
        (denied, 2, "denies access"),
        (strange, 4, "does not serve parts"),
        ("http://127.0.0.1:1/x".to_owned(), 4, "no complete answer"),
    ] {
        let (found, said) = site.refused(&format!("info {url}"));
        assert!(said.contains(expected), "{said}");
        assert!(
            found == code || expected == "does not serve parts",
            "{found}: {said}"
        );
    }
    assert!(began.elapsed().as_secs() < 10);
}

#[test]
fn a_server_that_fails_now_and_then_delays_only() {
    let site = Site::new();
    let file = site.read("disk.img");
    let url = start(move |asked| match asked.number % 7 {
        3 => (503, "content-length: 0\r\n".to_owned(), Vec::new()),
        5 => {
            // The answer ends too early.
            let (status, headers, mut body) = part_of(&file, "\"1\"", asked);
            body.truncate(body.len() / 2);
            (status, headers + "connection: close\r\n", body)
        }
        _ => part_of(&file, "\"1\"", asked),
    });
    site.luksmith(&format!("decrypt {url} out --key-file key"));
    assert!(site.read("out") == site.read("plain"));
}
