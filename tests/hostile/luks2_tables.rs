//! LUKS2: changes of the binary header and of the text of the JSON area.

use luksmith_formats::luks2::{Header, Position};
use luksmith_formats::{Limits, Version};

use crate::luks2::{SALT, bytes_of, good, json_of, parse, put_text, seal, with_size};
use crate::verdict::{Verdict, judge, malformed, not_understood, over_limit, unsupported};

type Change = fn(&mut Vec<u8>);

fn long(copy: &mut [u8], at: usize, value: u64) {
    copy[at..at + 8].copy_from_slice(&value.to_be_bytes());
}

/// Whether the checksum is corrected after the change.
#[derive(PartialEq)]
enum Then {
    Seal,
    Leave,
}

fn cases() -> Vec<(&'static str, Change, Then, Verdict)> {
    use Then::{Leave, Seal};
    vec![
        (
            "nothing at all",
            |c| c.clear(),
            Leave,
            malformed("magic", "needs 6 bytes"),
        ),
        (
            "cut in the binary header",
            |c| c.truncate(200),
            Leave,
            malformed("label", "needs"),
        ),
        (
            "binary header only",
            |c| c.truncate(4096),
            Leave,
            malformed("header", "needs 16384 bytes, but only 4096"),
        ),
        (
            "cut by one byte",
            |c| c.truncate(16383),
            Leave,
            malformed("header", "only 16383"),
        ),
        (
            "wrong magic",
            |c| c[5] = 0,
            Seal,
            malformed("magic", "not a LUKS header"),
        ),
        (
            "magic of the other copy",
            |c| c[..4].copy_from_slice(b"SKUL"),
            Seal,
            malformed("magic", "not a LUKS header"),
        ),
        (
            "version 1",
            |c| c[7] = 1,
            Seal,
            unsupported("version", "LUKS1"),
        ),
        (
            "version 3",
            |c| c[7] = 3,
            Seal,
            unsupported("version", "version 3"),
        ),
        (
            "size 0",
            |c| long(c, 8, 0),
            Seal,
            malformed("hdr_size", "nine header sizes"),
        ),
        (
            "size 8 KiB",
            |c| long(c, 8, 8192),
            Seal,
            malformed("hdr_size", "8192"),
        ),
        (
            "size off by one",
            |c| long(c, 8, 16385),
            Seal,
            malformed("hdr_size", "16385"),
        ),
        (
            "size 8 MiB",
            |c| long(c, 8, 8 << 20),
            Seal,
            malformed("hdr_size", "8388608"),
        ),
        (
            "size of all bits",
            |c| long(c, 8, u64::MAX),
            Seal,
            malformed("hdr_size", "18446744073709551615"),
        ),
        (
            "a size that is not there",
            |c| long(c, 8, 4 << 20),
            Seal,
            malformed("header", "needs 4194304"),
        ),
        (
            "offset of the secondary",
            |c| long(c, 256, 16384),
            Seal,
            malformed("hdr_offset", "is at byte 0"),
        ),
        (
            "offset 1",
            |c| long(c, 256, 1),
            Seal,
            malformed("hdr_offset", "is 1"),
        ),
        (
            "checksum",
            |c| c[448] ^= 1,
            Leave,
            malformed("checksum", "does not match"),
        ),
        (
            "checksum of zeros",
            |c| c[448..512].fill(0),
            Leave,
            malformed("checksum", "does not match"),
        ),
        (
            "label, not sealed",
            |c| c[24] = b'x',
            Leave,
            malformed("checksum", "does not match"),
        ),
        (
            "text, not sealed",
            |c| c[5000] = b'x',
            Leave,
            malformed("checksum", "does not match"),
        ),
        (
            "padding, not sealed",
            |c| c[16383] = 1,
            Leave,
            malformed("checksum", "does not match"),
        ),
        (
            "checksum hash unknown",
            |c| c[72..76].copy_from_slice(b"md5\0"),
            Seal,
            unsupported("checksum_hash", "unknown hash"),
        ),
        (
            "checksum hash empty",
            |c| c[72] = 0,
            Seal,
            unsupported("checksum_hash", "unknown hash"),
        ),
        (
            "checksum hash without NUL",
            |c| c[72..104].fill(b'a'),
            Seal,
            unsupported("checksum_hash", "unknown hash"),
        ),
        (
            "checksum hash that is for keyslots only",
            |c| c[72..82].copy_from_slice(b"whirlpool\0"),
            Seal,
            unsupported("checksum_hash", "not a header checksum"),
        ),
        (
            "label without NUL",
            |c| c[24..72].fill(b'a'),
            Seal,
            Verdict::Good,
        ),
        ("label not UTF-8", |c| c[24] = 0xff, Seal, Verdict::Good),
        (
            "uuid without NUL",
            |c| c[168..208].fill(b'a'),
            Seal,
            Verdict::Good,
        ),
        (
            "subsystem without NUL",
            |c| c[208..256].fill(b'a'),
            Seal,
            Verdict::Good,
        ),
        (
            "no text",
            |c| c[4096..].fill(0),
            Seal,
            not_understood("json", "first byte"),
        ),
        (
            "white space first",
            |c| put_text(c, b" {}"),
            Seal,
            not_understood("json", "first byte"),
        ),
        (
            "an array",
            |c| put_text(c, b"[]"),
            Seal,
            not_understood("json", "first byte"),
        ),
        (
            "no NUL",
            |c| c[4096..].fill(b'{'),
            Seal,
            not_understood("json", "ended by a NUL"),
        ),
        (
            "text to the last byte",
            |c| {
                let end = c.len();
                c[4096..end].fill(b' ');
                c[4096] = b'{';
                c[end - 1] = b'}';
            },
            Seal,
            not_understood("json", "ended by a NUL"),
        ),
        (
            "a byte behind the NUL",
            |c| c[16000] = b' ',
            Seal,
            not_understood("json", "not NUL"),
        ),
        (
            "the last byte",
            |c| c[16383] = b'}',
            Seal,
            not_understood("json", "not NUL"),
        ),
        (
            "a second text",
            |c| {
                put_text(c, b"{}");
                c[4099..4101].copy_from_slice(b"{}");
            },
            Seal,
            not_understood("json", "not NUL"),
        ),
        (
            "no end",
            |c| put_text(c, b"{"),
            Seal,
            not_understood("json", "is not JSON: unexpected end"),
        ),
        (
            "two values",
            |c| put_text(c, b"{}{}"),
            Seal,
            not_understood("json", "trailing characters"),
        ),
        (
            "a comment",
            |c| put_text(c, b"{/* */}"),
            Seal,
            not_understood("config", "is missing"),
        ),
        (
            "a trailing comma",
            |c| put_text(c, b"{\"a\":1,}"),
            Seal,
            not_understood("config", "is missing"),
        ),
        (
            "a number with a leading zero",
            |c| put_text(c, b"{\"a\":01}"),
            Seal,
            not_understood("config", "is missing"),
        ),
        (
            "not UTF-8",
            |c| put_text(c, b"{\"\xff\":1}"),
            Seal,
            not_understood("config", "is missing"),
        ),
        (
            "half a surrogate pair",
            |c| put_text(c, b"{\"\\ud800\":1}"),
            Seal,
            not_understood("config", "is missing"),
        ),
        (
            "nothing in it",
            |c| put_text(c, b"{}"),
            Seal,
            not_understood("config", "is missing"),
        ),
        (
            "nested deeply",
            |c| {
                let mut text = b"{\"a\":".to_vec();
                text.resize(12000, b'[');
                put_text(c, &text);
            },
            Seal,
            not_understood("json", "nested deeper than 127 levels"),
        ),
        // Similar good headers.
        ("untouched", |_| {}, Leave, Verdict::Good),
        ("sealed again", |_| {}, Seal, Verdict::Good),
        (
            "more bytes after it",
            |c| c.resize(40_000, 0xff),
            Leave,
            Verdict::Good,
        ),
        (
            "behind the checksum in its field",
            |c| c[480..512].fill(0xff),
            Leave,
            Verdict::Good,
        ),
        (
            "sequence number of all bits",
            |c| long(c, 16, u64::MAX),
            Seal,
            Verdict::Good,
        ),
        (
            "no names",
            |c| {
                for at in [24, 168, 208] {
                    c[at] = 0
                }
            },
            Seal,
            Verdict::Good,
        ),
        (
            "longest label",
            |c| {
                c[24..71].fill(b'a');
                c[71] = 0;
            },
            Seal,
            Verdict::Good,
        ),
        (
            "white space in the text",
            |c| {
                let text = format!("{:#}\n", json_of(c));
                put_text(c, text.as_bytes());
            },
            Seal,
            Verdict::Good,
        ),
    ]
}

#[test]
fn each_change_gets_its_verdict() {
    for (name, change, then, expected) in cases() {
        let mut copy = bytes_of(&good());
        change(&mut copy);
        if then == Then::Seal {
            seal(&mut copy);
        }
        if let Ok(header) = judge(name, expected, || parse(&copy)) {
            assert_eq!(parse(&bytes_of(&header)).unwrap(), header, "{name}");
        }
    }
}

/// The largest possible text, filled with values that need the most memory or time for their
/// length.
#[test]
fn large_metadata_stays_in_bounds() {
    type Filling = fn(usize) -> String;
    let fillings: [(&str, Filling, Verdict); 8] = [
        (
            "numbers",
            |n| "0,".repeat(n / 2),
            over_limit("json", "more than 65536 values"),
        ),
        (
            "objects",
            |n| "{},".repeat(n / 3),
            over_limit("json", "more than 65536 values"),
        ),
        (
            "members",
            |n| format!("{{{}\"\":0}},", "\"a\":0,".repeat(n / 6)),
            over_limit("json", "values"),
        ),
        (
            "pairs",
            |n| "[[],[]],".repeat(n / 8),
            over_limit("json", "values"),
        ),
        (
            "one string",
            |n| format!("\"{}\",", "x".repeat(n - 8)),
            Verdict::Good,
        ),
        (
            "escapes",
            |n| format!("\"{}\",", "\\u0001".repeat((n - 8) / 6)),
            Verdict::Good,
        ),
        (
            "one number",
            |n| format!("{},", "9".repeat(n - 8)),
            Verdict::Good,
        ),
        (
            "as many members as there can be",
            |n| "\"0123456789012345678901234567890\",".repeat((n / 34).min(65_000)),
            Verdict::Good,
        ),
    ];
    let base = with_size(4 << 20);
    for (name, filling, expected) in fillings {
        let mut copy = bytes_of(&base);
        let mut json = json_of(&copy).to_string();
        json.truncate(json.len() - 1);
        let room = (4 << 20) - 4096 - json.len() - 100;
        let text = format!("{json},\"filling\":[{}0]}}", filling(room));
        put_text(&mut copy, text.as_bytes());
        seal(&mut copy);
        _ = judge(name, expected, || {
            Header::parse(&copy, Position::Primary, &Limits::default())
        });
    }
}

#[test]
fn a_limit_on_the_size_holds() {
    let copy = bytes_of(&with_size(32 << 10));
    let mut limits = Limits::default();
    limits.metadata_size = 16 << 10;
    let expected = over_limit("hdr_size", "the limit is 16384");
    _ = judge("metadata size", expected, || {
        Header::parse(&copy, Position::Primary, &limits)
    });
    let mut limits = Limits::default();
    limits.keyslots_size = 1 << 20;
    let expected = over_limit("config.keyslots_size", "the limit is 1048576");
    _ = judge("keyslots size", expected, || {
        Header::parse(&copy, Position::Primary, &limits)
    });
}

#[test]
fn the_secondary_must_lie_at_its_own_size() {
    let mut copy = good().to_bytes(Position::Secondary, &SALT).unwrap();
    long(&mut copy, 256, 32768);
    seal(&mut copy);
    let expected = malformed("hdr_offset", "is at byte 16384");
    _ = judge("secondary", expected, || {
        Header::parse(&copy, Position::Secondary, &Limits::default())
    });
}

#[test]
fn versions_are_told_apart() {
    assert_eq!(Version::detect(&bytes_of(&good())), Ok(Version::Luks2));
    _ = judge("short", malformed("magic", "needs 6"), || {
        Version::detect(b"LUKS")
    });
    _ = judge("other", malformed("magic", "not a LUKS header"), || {
        Version::detect(b"QFI\xfb\0\0\0\x03")
    });
    _ = judge("version 9", unsupported("version", "version 9"), || {
        Version::detect(b"LUKS\xba\xbe\0\x09")
    });
}
