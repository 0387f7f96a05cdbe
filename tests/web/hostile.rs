//! Web servers that do not do what they are asked for, or whose file changes.

use std::time::{Duration, Instant};

use luksmith::backend::Backend;
use luksmith::backend::conformance::{self, Opened};
use luksmith::backend::http::{HttpBackend, HttpOptions};
use luksmith::sectors::Sectors;

use crate::double::{part_of, part_with, start};
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

const DAY: &str = "last-modified: Sun, 06 Nov 1994 08:49:37 GMT\r\n";
const SAME: &str = "date: Sun, 06 Nov 1994 08:49:37 GMT\r\n";
const LATER: &str = "date: Sun, 06 Nov 1994 08:50:37 GMT\r\n";

#[test]
fn every_answer_has_the_validator_of_the_first() {
    let site = Site::new();
    let (tag, weak) = ("etag: \"1\"\r\n", "etag: W/\"1\"\r\n");
    let dated = format!("{DAY}{LATER}");
    let other_day = dated.replace("37 GMT", "38 GMT");
    for (first, later, is_same) in [
        (tag, tag, true),
        (tag, "", false),
        (tag, weak, false),
        (tag, &dated, false),
        (&dated, &dated, true),
        (&dated, DAY, true),
        (&dated, "", false),
        (&dated, &other_day, false),
        (&dated, LATER, false),
    ] {
        let file = site.read("disk.img");
        let (first, then) = (first.to_owned(), later.to_owned());
        let url = start(move |asked| {
            let lines = if asked.number == 1 { &first } else { &then };
            part_with(&file, lines, asked)
        });
        let line = format!("key test {url} --key-file key");
        if is_same {
            site.luksmith(&line);
        } else {
            let (code, said) = site.refused(&line);
            assert!(code == 4 && said.contains("has changed"), "{later}: {said}");
        }
    }
    // The file may change again in the second of its last change.
    let file = site.read("disk.img");
    let fresh = format!("{DAY}{SAME}");
    let url = start(move |asked| part_with(&file, &fresh, asked));
    let (_, said) = site.refused(&format!("info {url}"));
    assert!(said.contains("does not tell versions"), "{said}");
}

#[test]
fn a_size_that_no_file_has_is_refused() {
    let site = Site::new();
    for size in [1_u64 << 63, u64::MAX] {
        let url = start(move |_| {
            let headers =
                format!("content-range: bytes 0-0/{size}\r\netag: \"1\"\r\ncontent-length: 1\r\n");
            (206, headers, vec![0])
        });
        let (code, said) = site.refused(&format!("info {url}"));
        assert!(
            code == 4 && said.contains("a size that no file has"),
            "{said}"
        );
    }
}

#[test]
fn the_longest_timeout_is_one() {
    let url = start(|asked| part_of(&[1; 1000], "\"1\"", asked));
    let options = HttpOptions::new().timeout(Duration::MAX);
    let storage = HttpBackend::open(&url, None, options).unwrap();
    let mut read = Sectors::zeroed(512);
    storage.read_at(0, &mut read).unwrap();
}

#[test]
fn no_message_has_the_query_of_a_url() {
    let site = Site::new();
    let moved = start(|_| {
        let headers = "location: http://127.0.0.1:1/x?signature=moved\r\ncontent-length: 0\r\n";
        (302, headers.to_owned(), Vec::new())
    });
    let odd = start(|_| {
        let headers = "location: ht tp://x?signature=odd\r\ncontent-length: 0\r\n";
        (302, headers.to_owned(), Vec::new())
    });
    let denied = start(|_| (403, "content-length: 0\r\n".to_owned(), Vec::new()));
    for url in [moved, odd, denied] {
        for command in ["info", "key test --key-file key", "verify-ciphertext"] {
            for more in ["", " --json", " --verbose"] {
                let (_, said) = site.refused(&format!("{command} {url}?signature=own{more}"));
                assert!(said.contains("disk.img?\u{2026}"), "{said}");
                assert!(!said.contains("signature"), "{said}");
            }
        }
    }
    let file = site.read("disk.img");
    let url = start(move |asked| part_of(&file, "\"1\"", asked));
    for command in ["info", "info --json", "key test --key-file key --verbose"] {
        let said = site.luksmith(&format!("{command} {url}?signature=own"));
        assert!(!said.contains("signature"), "{said}");
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
