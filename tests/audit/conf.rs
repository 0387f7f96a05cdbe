//! The reader of libvirt's configuration files accepts the files that libvirt accepts, and no
//! others.

use luksmith::audit::conf::{Conf, ConfError, Value};

fn text(text: &str) -> Value {
    Value::Text(text.to_owned())
}

#[test]
fn values_are_numbers_strings_and_lists() {
    let conf = Conf::parse(
        b"# a comment = 1\n a=1;b = -2 # why\r\nc=\"it's # no comment\"\nd = 'say \"x\"'\ne = \"\"\"two\nlines\"\"\"\n\n\
          f = [ 'a',\n  \"b\" , 3,\n]\ng=[]\na = 7\nh=+5",
    )
    .unwrap();
    let value = |name: &str| conf.get(name).unwrap().value.clone();
    assert_eq!(
        (value("a"), value("b"), value("h")),
        (Value::Number(1), Value::Number(-2), Value::Number(5))
    );
    assert_eq!(value("c"), text("it's # no comment"));
    assert_eq!(value("d"), text("say \"x\""));
    assert_eq!(value("e"), text("two\nlines"));
    assert_eq!(
        value("f"),
        Value::List(vec![text("a"), text("b"), Value::Number(3)])
    );
    assert_eq!(value("g"), Value::List(Vec::new()));
    assert_eq!(
        (conf.get("f").unwrap().line, conf.get("h").unwrap().line),
        (8, 13)
    );
    assert!(conf.get("comment").is_none());
}

#[test]
fn files_that_libvirt_refuses_are_refused_with_the_line() {
    for (bad, line) in [
        ("a", 1),
        ("\n\na 1", 3),
        ("a = ", 1),
        ("a = yes", 1),
        ("a = 'x", 1),
        ("a = 'x\n'", 1),
        ("a = \"\"\"x\n", 1),
        ("a = [1\n 2]", 2),
        ("a = [1,", 1),
        ("a = [#\n1]", 1),
        ("a = 1 b = 2", 1),
        ("\n9a = 1", 2),
        ("a-b = 1", 1),
        ("a = -", 1),
        ("a = 99999999999999999999", 1),
        ("a = 1\n= 2", 2),
    ] {
        let error = Conf::parse(bad.as_bytes()).unwrap_err();
        assert_eq!(error.line, line, "{bad:?}: {error}");
    }
    for good in ["", "\n", "#", "a=1\n  \n", "a = 'x';", ";"] {
        let read = Conf::parse(good.as_bytes());
        assert_eq!(read.is_err(), good == ";", "{good:?}: {read:?}");
    }
}

#[test]
fn hostile_files_are_refused() {
    let refused = |text: String| -> ConfError { Conf::parse(text.as_bytes()).unwrap_err() };
    refused(format!("a = {}", "[".repeat(1_000_000)));
    refused("a=1\n".repeat(20_000));
    refused(format!("a = [{}]", "1,".repeat(20_000)));
    refused(" ".repeat((10 << 20) + 1));
    assert!(Conf::parse(b"\xff = \xff").is_err());
}
