//! Does a program that uses the library keep the meaning of its own code? Cargo unites the features
//! of a dependency for the whole program, so a feature that luksmith turned on would change that
//! code too.

use luksmith_formats::json::Value;
use serde::Deserialize;

#[derive(Debug, PartialEq, Deserialize)]
#[serde(tag = "shape", rename_all = "lowercase")]
enum Shape {
    Circle { radius: f64 },
}

/// This fails in a program that has `serde_json/arbitrary_precision`.
#[test]
fn a_tagged_enum_takes_a_float() {
    let text = r#"{"shape": "circle", "radius": 1.50}"#;
    let circle: Shape = serde_json::from_str(text).unwrap();
    assert_eq!(circle, Shape::Circle { radius: 1.5 });
}

/// This fails in a program that has `serde_json/preserve_order`.
#[test]
fn a_map_is_sorted() {
    let map: serde_json::Value = serde_json::from_str(r#"{"b": 1, "a": 2}"#).unwrap();
    assert_eq!(map.to_string(), r#"{"a":2,"b":1}"#);
}

/// The library nevertheless keeps the order and the digits of what it reads.
#[test]
fn the_library_keeps_order_and_digits() {
    let text = r#"{"b":1.50,"a":2}"#;
    assert_eq!(text.parse::<Value>().unwrap().to_string(), text);
}
