//! Tests the promises of the tree, and compares the parser with serde_json, which decides what is
//! JSON.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)] // tests

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use proptest::prelude::*;

use super::{MAX_DEPTH, ParseError, Problem, Value, json};
use crate::json::Object;

fn parse(text: &str) -> Value {
    Value::parse(text.as_bytes()).unwrap_or_else(|error| panic!("{text}: {error}"))
}

fn refused(text: &[u8]) -> (usize, Problem) {
    let ParseError { offset, problem } = Value::parse(text).unwrap_err();
    (offset, problem)
}

#[test]
fn shown_text_has_no_control_characters_and_is_the_same_value() {
    let text = "\u{9b}2J\u{7f} \u{202e}\u{2069}\u{200f}\u{61c}\u{2028}\u{feff} é\u{1b}";
    let mut value = Value::Object(Object::new());
    value[text] = Value::from(text);
    for shown in [format!("{}", value.shown()), format!("{:#}", value.shown())] {
        assert!(
            !shown
                .chars()
                .any(|c| c != '\n' && crate::text::is_control(c)),
            "{shown}"
        );
        assert_eq!(parse(&shown), value);
    }
    assert!(value.shown().to_string().contains(r"\u009b2J\u007f \u202e"));
    // A header is written with as few escapes as it was.
    assert!(value.to_string().contains('\u{9b}'));
}

#[test]
fn order_and_digits_survive() {
    for text in [
        r#"{"z":1,"a":{"y":[],"b":{}},"m":null}"#,
        "[0,-0,1.0,1.50e3,2E+7,1e-400,123456789012345678901234567890,0.1000]",
        r#""é\u0000 \"\\\b\f\n\r\t /😀""#,
        "true",
        "18446744073709551616",
    ] {
        assert_eq!(parse(text).to_string(), text);
    }
}

#[test]
fn the_last_of_equal_members_counts_in_the_place_of_the_first() {
    assert_eq!(
        parse(r#"{"b":1,"a":2,"b":3,"c":4,"a":5,"b":6}"#).to_string(),
        r#"{"b":6,"a":5,"c":4}"#
    );
}

#[test]
fn indented_text() {
    let value = parse(r#"{"a":[1,{"b":[]}],"c":{},"d":"e"}"#);
    let oracle: serde_json::Value = serde_json::from_str(&value.to_string()).unwrap();
    assert_eq!(format!("{value:#}"), format!("{oracle:#}"));
}

#[test]
fn each_problem_is_named_and_placed() {
    use Problem as P;
    let cases: &[(&[u8], usize, Problem)] = &[
        (b"", 0, P::End),
        (b"{\"a\":", 5, P::End),
        (b"[1", 2, P::End),
        (b"\"a", 2, P::End),
        (b"\"\\", 2, P::End),
        (b"-", 1, P::End),
        (b"tru", 3, P::End),
        (b"[1,]", 3, P::NoValue),
        (b"trux", 3, P::NoValue),
        (b"+1", 0, P::NoValue),
        (b"\xef\xbb\xbf1", 0, P::NoValue),
        (b"/**/1", 0, P::NoValue),
        (b"{1:2}", 1, P::NoName),
        (b"{\"a\":1,}", 7, P::NoName),
        (b"{\"a\" 1}", 5, P::NoColon),
        (b"[1 2]", 3, P::InArray),
        (b"{\"a\":1 \"b\":2}", 7, P::InObject),
        (b"01", 1, P::Number),
        (b"-a", 1, P::Number),
        (b"1.", 2, P::End),
        (b"1.e3", 2, P::Number),
        (b"1e+x", 3, P::Number),
        (b"\"a\nb\"", 2, P::Control),
        (b"\"\\x\"", 2, P::Escape),
        (b"\"\\u12g4\"", 3, P::Escape),
        (b"\"\\u+123\"", 3, P::Escape),
        (b"\"\\ud800\"", 7, P::Surrogate),
        (b"\"\\ud800\\u0041\"", 13, P::Surrogate),
        (b"\"\\udc00\"", 7, P::Surrogate),
        (b"[\"\xff\"]", 2, P::Utf8),
        (b"1 x", 2, P::Trailing),
    ];
    for (text, offset, problem) in cases {
        let shown = String::from_utf8_lossy(text);
        assert_eq!(refused(text), (*offset, *problem), "{shown}");
    }
}

#[test]
fn depth_is_bounded() {
    for (open, close) in [("[", "]"), ("{\"a\":", "}")] {
        let nested =
            |depth: usize| format!("{}1{}", open.repeat(depth), close.repeat(depth)).into_bytes();
        assert!(Value::parse(&nested(MAX_DEPTH)).is_ok());
        let deeper = nested(MAX_DEPTH.saturating_add(1));
        assert_eq!(refused(&deeper).1, Problem::TooDeep);
        assert_eq!(refused(&nested(1_000_000)).1, Problem::TooDeep);
    }
    // Siblings are not nested.
    assert!(Value::parse(format!("[{}1]", "[],".repeat(1000)).as_bytes()).is_ok());
}

#[test]
fn the_number_of_values_is_bounded() {
    // The array, its elements and the member.
    let text = br#"[1,[],{"a":"b"}]"#;
    assert!(Value::parse_lenient(text, 5).is_ok());
    let error = Value::parse_lenient(text, 4).unwrap_err();
    assert_eq!((error.offset, error.problem), (11, Problem::TooManyValues));
}

#[test]
fn what_json_c_takes_by_default_is_read() {
    let lenient = |text: &[u8]| Value::parse_lenient(text, 1000);
    let cases: [(&[u8], &str); 16] = [
        (
            b"[NaN, nan, Infinity, -infinity]",
            "[NaN,NaN,Infinity,-Infinity]",
        ),
        (b"[tRUE, False, NULL]", "[true,false,null]"),
        (b"/* a */ [ // b\n 1 /**/ ] // end", "[1]"),
        (b"[1,]", "[1]"),
        (b"{'a':'b\"',}", r#"{"a":"b\""}"#),
        (b"\"a\x01\tb\"", r#""a\u0001\tb""#),
        (b"[01, -007, 1., 1.e, 1e+]", "[01,-007,1.,1.e,1e+]"),
        (br#""\ud800""#, "\"\u{fffd}\""),
        (br#""\ud800\u0041""#, "\"\u{fffd}A\""),
        (br#""\udc00z""#, "\"\u{fffd}z\""),
        (br#""\ud83d\ude00""#, "\"\u{1f600}\""),
        (b"\"a\xffb\"", "\"a\u{10ffff}b\""),
        (b"{\"\x80\":1}", "{\"\u{10ff80}\":1}"),
        (b"[]", "[]"),
        (b"{}", "{}"),
        (b"{\"a\":{},}", "{\"a\":{}}"),
    ];
    for (text, expected) in cases {
        let shown = String::from_utf8_lossy(text);
        let value = lenient(text).unwrap_or_else(|error| panic!("{shown}: {error}"));
        assert_eq!(value.to_string(), expected, "{shown}");
    }
    assert_eq!(lenient(b"010").unwrap().as_u64(), Some(10));
    assert_eq!(lenient(b"NaN").unwrap().as_u64(), None);
    for text in [
        "[,]", "[1,,2]", "{,}", "+1", ".5", "-", "0x1", "/", "\"\\z\"", "1 2", "'a\"", "\u{b}1",
    ] {
        assert!(lenient(text.as_bytes()).is_err(), "{text}");
    }
    // An offset is that of the stored byte.
    let error = lenient(b"[\"\xff\xff\", x]").unwrap_err();
    assert_eq!(error.offset, 7);
}

#[test]
fn integers_are_those_without_sign_fraction_and_exponent() {
    assert_eq!(parse("18446744073709551615").as_u64(), Some(u64::MAX));
    for text in ["18446744073709551616", "-1", "-0", "1.0", "1e0", "\"1\""] {
        assert_eq!(parse(text).as_u64(), None, "{text}");
    }
}

#[test]
fn rust_values_become_json() {
    let (name, list, none) = ("key", [1_u8, 2], None::<u32>);
    let value = json!({
        (name): {"nested": [null, {}, [], list.len(), {"x": 1.0}], "list": &list[..]},
        "none": none, "some": Some("text"), "text": String::from("owned"),
        "numbers": [i64::MIN, u64::MAX, 0.1 + 0.2, 1e300, f64::NAN],
        "all": list.iter().map(|n| json!({"n": n})).collect::<Value>(),
        "last": null,
    });
    assert_eq!(
        value.to_string(),
        concat!(
            r#"{"key":{"nested":[null,{},[],2,{"x":1.0}],"list":[1,2]},"none":null,"some":"text","text":"owned","#,
            r#""numbers":[-9223372036854775808,18446744073709551615,0.30000000000000004,1e300,null],"#,
            r#""all":[{"n":1},{"n":2}],"last":null}"#
        )
    );
    assert_eq!(json!(null), Value::Null);
}

#[test]
fn members_are_set_replaced_and_removed() {
    let mut value = json!({"a": 1, "b": 2, "c": 3});
    value["b"] = json!("new");
    value["d"] = json!([]);
    assert_eq!(value.as_object_mut().unwrap().remove("a"), Some(json!(1)));
    assert_eq!(value.to_string(), r#"{"b":"new","c":3,"d":[]}"#);
    assert_eq!(value["b"], "new");
    assert!(value["missing"]["too"][3].is_null());
    let mut other = json!(7);
    other["a"]["b"] = json!(true);
    assert_eq!(other, json!({"a": {"b": true}}));
}

#[test]
fn pointers_lead_to_values() {
    let mut value = json!({"a": [{"b/~": 1}, "x"], "": 2});
    let found = |pointer: &str| value.pointer(pointer).map(Value::to_string);
    assert_eq!(found("/a/0/b~1~0"), Some("1".to_string()));
    assert_eq!(found("/"), Some("2".to_string()));
    assert_eq!(found(""), Some(value.to_string()));
    for nowhere in ["a", "/b", "/a/2", "/a/01", "/a/+1", "/a/1/0"] {
        assert_eq!(found(nowhere), None, "{nowhere}");
    }
    *value.pointer_mut("/a/1").unwrap() = json!(null);
    assert_eq!(value["a"][1], Value::Null);
}

/// The value that serde_json reads from a text, with its own numbers and order.
fn oracle(text: &[u8]) -> Option<serde_json::Value> {
    serde_json::from_slice(text).ok()
}

fn valid() -> impl Strategy<Value = String> {
    let leaf = prop_oneof![
        Just("null".to_string()),
        any::<bool>().prop_map(|value| value.to_string()),
        any::<i64>().prop_map(|value| value.to_string()),
        r#"-?(0|[1-9][0-9]{0,3})(\.[0-9]{1,3})?([eE][+-]?[0-9]{1,2})?"#,
        any::<String>().prop_map(|text| serde_json::to_string(&text).unwrap()),
    ];
    leaf.prop_recursive(5, 40, 6, |inner| {
        let name = prop_oneof!["[a-c]{0,2}", any::<String>()];
        let member = (name, inner.clone()).prop_map(|(name, value)| {
            format!(" {} :\t{value}", serde_json::to_string(&name).unwrap())
        });
        prop_oneof![
            prop::collection::vec(inner, 0..6).prop_map(|all| format!("[{}\n]", all.join(","))),
            prop::collection::vec(member, 0..6).prop_map(|all| format!("{{{}}}", all.join("\r,"))),
        ]
    })
}

proptest! {
    #[test]
    fn what_is_json_is_read_as_serde_json_reads_it(text in valid()) {
        let ours = parse(&text).to_string();
        prop_assert_eq!(oracle(ours.as_bytes()), oracle(text.as_bytes()));
        prop_assert!(oracle(text.as_bytes()).is_some());
        prop_assert_eq!(parse(&ours).to_string(), ours);
    }

    #[test]
    fn what_is_no_json_is_refused(
        text in valid(),
        changes in prop::collection::vec((any::<prop::sample::Index>(), prop_oneof![
            prop::sample::select(br#"{}[]",:\u-+.eE01nt /"#.to_vec()), any::<u8>()
        ]), 1..4),
    ) {
        let mut text: Vec<u8> = text.into_bytes();
        for (place, byte) in changes {
            let place = place.index(text.len());
            if let Some(old) = text.get_mut(place) {
                *old = byte;
            }
        }
        // Without arbitrary_precision, serde_json refuses numbers that are too large for its types.
        let oracle = match serde_json::from_slice::<serde_json::Value>(&text) {
            Err(error) if error.to_string().starts_with("number out of range") => return Ok(()),
            oracle => oracle.is_ok(),
        };
        let shown = String::from_utf8_lossy(&text).into_owned();
        prop_assert_eq!(Value::parse(&text).is_ok(), oracle, "{}", shown);
    }
}
