//! `luksmith benchmark`, for so short a time that its figures mean nothing.

use luksmith::xts::Kernel;
use serde_json::Value;

use crate::session::Session;

const SHORT: [&str; 5] = ["benchmark", "--seconds", "0.001", "--iter-time", "20"];
const AES: [&str; 2] = ["--cipher", "aes-xts-plain64"];

fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap()
}

#[test]
fn a_cipher_has_a_row_for_each_kernel_and_sector_size() {
    let session = Session::new();
    let shown = session.ok(SHORT.iter().chain(&AES).chain(&["--threads", "1,2"]));
    let mut lines = shown.lines();
    assert!(
        lines
            .next()
            .unwrap()
            .starts_with("# Measured in memory, without any storage: ")
    );
    let columns: Vec<_> = lines.next().unwrap().split_whitespace().collect();
    assert_eq!(columns[..5], ["#", "Algorithm", "Key", "Sector", "Kernel"]);
    for bits in ["512b", "256b"] {
        for kernel in Kernel::available() {
            for threads in ["1", "2"] {
                for sector_size in ["512", "4096"] {
                    let line = lines.next().unwrap();
                    let row: Vec<_> = line.split_whitespace().collect();
                    let subject = ["aes-xts-plain64", bits, sector_size, kernel.name(), threads];
                    assert_eq!(row[..5], subject, "{line}");
                    let [encrypt, "MiB/s", decrypt, "MiB/s", ..] = row[5..] else {
                        panic!("{line}");
                    };
                    for rate in [encrypt, decrypt] {
                        assert!(rate.parse::<f64>().unwrap() > 0.0, "{line}");
                    }
                }
            }
        }
    }
    assert_eq!(lines.next(), None);
}

/// One run for both, since it measures everything.
#[test]
fn json_and_chart_have_what_the_help_says() {
    let session = Session::new();
    let args = SHORT.iter().chain(&["--json", "--plot", "chart.svg"]);
    let measured = json(&session.ok(args));
    check_json(&measured);
    check_chart(
        &String::from_utf8(session.read("chart.svg")).unwrap(),
        &measured,
    );
}

fn check_json(measured: &Value) {
    for (member, holds) in [
        ("version", Value::is_string as fn(&Value) -> bool),
        ("date", Value::is_string),
        ("cpu", Value::is_string),
        ("processors", Value::is_u64),
        ("busy", Value::is_boolean),
    ] {
        assert!(holds(&measured[member]), "{member}: {measured}");
    }
    let kdf = measured["kdf"].as_array().unwrap();
    let types: Vec<_> = kdf
        .iter()
        .map(|kdf| kdf["type"].as_str().unwrap())
        .collect();
    assert_eq!(
        types,
        ["pbkdf2", "pbkdf2", "pbkdf2", "pbkdf2", "pbkdf2", "argon2id"]
    );
    assert!(kdf[1]["iterations_per_second"].as_u64().unwrap() > 0);
    for member in ["passes", "memory", "threads", "time_ms"] {
        assert!(kdf[5][member].is_u64(), "{member}: {}", kdf[5]);
    }
    let ciphers = measured["ciphers"].as_array().unwrap();
    for cipher in ciphers {
        for member in [
            "key_bits",
            "sector_size",
            "threads",
            "encrypt",
            "encrypt_median",
            "decrypt",
            "decrypt_median",
        ] {
            assert!(cipher[member].as_u64().unwrap() > 0, "{member}: {cipher}");
        }
        let kernel = cipher["kernel"].as_str();
        assert_eq!(kernel.is_some(), cipher["cipher"] == "aes-xts-plain64");
        let limited = kernel.is_some_and(|kernel| kernel != "portable");
        assert_eq!(cipher["limit"].is_u64(), limited, "{cipher}");
    }
    let portable = |cipher: &&Value| cipher["kernel"] == "portable" && cipher["key_bits"] == 512;
    assert_eq!(ciphers.iter().filter(portable).count(), 2);
}

/// The name and attributes of every element. Checks that each element is closed in its place.
fn elements(svg: &str) -> Vec<String> {
    let mut open: Vec<String> = Vec::new();
    let mut all = Vec::new();
    for tag in svg.split('<').skip(1) {
        let (tag, _) = tag.split_once('>').expect("a tag ends");
        let name = |tag: &str| tag.split_whitespace().next().unwrap().to_owned();
        if let Some(closed) = tag.strip_prefix('/') {
            assert_eq!(open.pop(), Some(name(closed)));
        } else {
            all.push(tag.to_owned());
            if !tag.ends_with('/') {
                open.push(name(tag));
            }
        }
    }
    assert!(open.is_empty(), "never closed: {open:?}");
    all
}

/// Checks that this is an SVG document that contains the limit.
fn check_chart(svg: &str, measured: &Value) {
    let elements = elements(svg);
    assert!(elements[0].starts_with("svg ") && elements[0].contains("xmlns="));
    assert!(!svg.contains("NaN") && !svg.contains("inf"));

    let ciphers = measured["ciphers"].as_array().unwrap();
    let limits = ciphers.iter().filter(|cipher| cipher["limit"].is_u64());
    let limited = limits.count() > 0;
    let lines = elements
        .iter()
        .filter(|element| element.starts_with("polyline") && element.contains("#D55E00"));
    assert_eq!(
        lines.count() > 1,
        limited,
        "the limit's lines and their key"
    );
    assert_eq!(svg.contains("limit: only the rounds of AES"), limited);
    for words in [
        "luksmith on ",
        measured["date"].as_str().unwrap(),
        "AES-256-XTS, 1 thread",
        "AES-128-XTS, 1 thread",
        "GB/s",
        "512-byte sectors",
        "4096-byte sectors",
        "portable",
        "pbkdf2-sha256",
        "argon2id: ",
        "twofish-cbc-plain64, 256 bit",
    ] {
        assert!(svg.contains(words), "{words}");
    }
}

#[test]
fn a_chart_that_exists_stays_unless_told() {
    let session = Session::new();
    session.write("chart.svg", b"mine");
    let args = || SHORT.iter().chain(&AES).chain(&["--plot", "chart.svg"]);
    let ran = session.run(args());
    assert_eq!(ran.code(), 5, "{}", ran.stderr());
    assert!(
        ran.stderr().contains("--force overwrite"),
        "{}",
        ran.stderr()
    );
    assert_eq!(ran.stdout(), "", "nothing is measured in vain");
    assert_eq!(session.read("chart.svg"), b"mine");
    session.ok(args().chain(&["--force", "overwrite"]));
    assert!(session.read("chart.svg").starts_with(b"<svg "));
}

#[test]
fn what_cannot_be_measured_is_refused() {
    let session = Session::new();
    for (args, expected) in [
        (["--kernel", "fastest"], "unknown xts kernel"),
        (["--sector-size", "100"], "512, 1024, 2048 or 4096"),
        (["--threads", "0"], "1..=1024"),
        (["--seconds", "3601"], "a number of seconds"),
        (["--seconds", "NaN"], "a number of seconds"),
    ] {
        let ran = session.run(["benchmark"].iter().chain(&args));
        assert_eq!(ran.code(), 1, "{args:?}: {}", ran.stderr());
        assert!(
            ran.stderr().contains(expected),
            "{args:?}: {}",
            ran.stderr()
        );
    }
    let ran = session.run([
        "benchmark",
        "--cipher",
        "serpent-xts-plain64",
        "--kernel",
        "portable",
    ]);
    assert_eq!(ran.code(), 1);
    assert!(
        ran.stderr().contains("serpent-xts-plain64 has no kernels"),
        "{}",
        ran.stderr()
    );
}
