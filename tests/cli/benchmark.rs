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
    let expected = ["#", "Algorithm", "Key", "Sector", "Buffer", "Threads"];
    assert_eq!(columns[..6], expected);
    for bits in ["512b", "384b", "256b"] {
        for kernel in Kernel::available() {
            for threads in ["1", "2"] {
                for sector_size in ["512", "4096"] {
                    let line = lines.next().unwrap();
                    let row: Vec<_> = line.split_whitespace().collect();
                    let subject = ["aes-xts-plain64", bits, sector_size, "64K", threads];
                    assert_eq!(row[..5], subject, "{line}");
                    let [encrypt, "±", _, decrypt, "±", _, ..] = row[5..] else {
                        panic!("{line}");
                    };
                    for rate in [encrypt, decrypt] {
                        assert!(rate.parse::<f64>().unwrap() > 0.0, "{line}");
                    }
                    // The crate has no instructions in its name, so they stand beside it.
                    let expected = match kernel {
                        Kernel::Portable => format!("portable ({})", kernel.implementation()),
                        _ => kernel.to_string(),
                    };
                    assert!(line.ends_with(&format!("  {expected}")), "{line}");
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
    assert_eq!(measured["schema"], "luksmith/1");
    assert_eq!(measured["compared"], Value::Null);
    let or_null = |value: &Value| value.is_null() || value.is_string() || value.is_u64();
    for member in ["os", "kernel_version", "mhz", "governor"] {
        assert!(
            measured.get(member).is_some_and(or_null),
            "{member}: {measured}"
        );
    }
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
    check_spread(&kdf[1]["iterations_per_second"]);
    check_spread(&kdf[5]["time_us"]);
    for one in kdf {
        let members = one.as_object().unwrap();
        assert_eq!(members.len(), 10, "null, not absent: {one}");
    }
    for member in ["passes", "memory", "threads", "requested_ms"] {
        assert!(kdf[5][member].is_u64(), "{member}: {}", kdf[5]);
    }
    let ciphers = measured["ciphers"].as_array().unwrap();
    for cipher in ciphers {
        for member in ["key_bits", "sector_size", "buffer_size", "threads"] {
            assert!(cipher[member].as_u64().unwrap() > 0, "{member}: {cipher}");
        }
        check_spread(&cipher["encrypt"]);
        check_spread(&cipher["decrypt"]);
        if let Some(limit) = cipher["limit"].as_u64() {
            for direction in ["encrypt", "decrypt"] {
                let best = cipher[direction]["best"].as_u64().unwrap();
                assert!(best <= limit, "above its limit: {cipher}");
            }
        }
        let kernel = cipher["kernel"].as_str();
        assert_eq!(kernel.is_some(), cipher["cipher"] == "aes-xts-plain64");
        let limited = kernel.is_some_and(|kernel| kernel != "portable");
        assert_eq!(cipher["limit"].is_u64(), limited, "{cipher}");
    }
    let portable = |cipher: &&Value| cipher["kernel"] == "portable" && cipher["key_bits"] == 512;
    assert_eq!(ciphers.iter().filter(portable).count(), 2);
}

fn check_spread(spread: &Value) {
    for member in ["best", "median", "mean", "runs"] {
        assert!(spread[member].as_u64().unwrap() > 0, "{member}: {spread}");
    }
    assert!(spread["sigma"].is_u64(), "{spread}");
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
        "MiB/s",
        "512-byte sectors",
        "4096-byte sectors",
        "aes crate, ",
        "pbkdf2-sha256",
        "argon2id: ",
        "twofish-cbc-plain64, 256 bit",
    ] {
        assert!(svg.contains(words), "{words}");
    }
}

/// A measurement that no machine made.
fn invented(session: &Session, file: &str, cpu: &str, speed: u64) {
    let spread = |best: u64| {
        serde_json::json!({
            "best": best, "median": best, "mean": best, "sigma": best / 100, "runs": 10,
        })
    };
    let measured = serde_json::json!({
        "schema": "luksmith/1", "version": "0.1.0", "date": "2026-11-24", "cpu": cpu,
        "processors": 2, "os": null, "kernel_version": "6.1.0", "mhz": 3700, "governor": null,
        "busy": false,
        "kdf": [{
            "type": "pbkdf2", "hash": "sha512", "key_bits": 512,
            "iterations_per_second": spread(speed / 1000), "passes": null, "memory": null,
            "threads": null, "time_us": null, "requested_ms": null, "busy": false,
        }],
        "ciphers": [{
            "cipher": "aes-xts-plain64", "key_bits": 512, "sector_size": 4096,
            "buffer_size": 65536, "kernel": "aesni", "implementation": "AES-NI", "threads": 2,
            "encrypt": spread(speed), "decrypt": spread(2 * speed), "limit": 4 * speed,
            "busy": false,
        }],
    });
    session.write(file, measured.to_string().as_bytes());
}

#[test]
fn measurements_are_compared_without_measuring_again() {
    let session = Session::new();
    invented(&session, "old.json", "Old CPU", 1_000_000_000);
    invented(&session, "new.json", "New CPU", 2_000_000_000);
    let args = ["benchmark", "--from", "new.json", "--compare", "old.json"];
    let shown = session.ok(args);
    assert!(
        shown.contains("# Measured in memory, without any storage: New CPU"),
        "{shown}"
    );
    assert!(shown.contains("1907.3 ± 19.1"), "{shown}");
    assert!(shown.contains("  25 %  "), "{shown}");
    let row = " 2.000   2.000 ± 0.028  aes-xts-plain64 512 bit, 4096-byte sectors, 64 KiB at once, \
               aesni, 2 threads, encrypt";
    assert!(shown.contains(row), "{shown}");

    let compared = json(&session.ok(args.iter().chain(&["--json"])))["compared"].take();
    assert_eq!(compared["cpu"], "Old CPU");
    assert_eq!(compared["rows"].as_array().unwrap().len(), 3);
    assert_eq!(compared["rows"][0]["name"], "pbkdf2-sha512, 512-bit key");
    assert_eq!(compared["rows"][0]["ratio_of_bests"], 2.0);

    let csv = session.ok(["benchmark", "--from", "new.json", "--csv"]);
    let lines: Vec<_> = csv.lines().collect();
    assert_eq!(lines.len(), 4, "{csv}");
    let columns = lines[0].split(',').count();
    assert!(
        lines.iter().all(|line| line.split(',').count() == columns),
        "{csv}"
    );
    assert_eq!(
        lines[3],
        "aes-xts-plain64,decrypt,512,4096,65536,aesni,AES-NI,2,bytes/s,4000000000,4000000000,\
         4000000000,40000000,10,8000000000,false"
    );
}

#[test]
fn machines_are_compared_in_one_chart() {
    let session = Session::new();
    invented(&session, "a.json", "First CPU", 1_000_000_000);
    invented(&session, "b.json", "Second CPU", 3_000_000_000);
    session.ok([
        "benchmark",
        "--from",
        "a.json,b.json",
        "--plot",
        "machines.svg",
    ]);
    let svg = String::from_utf8(session.read("machines.svg")).unwrap();
    elements(&svg);
    for words in [
        "First CPU, 2026-11-24",
        "Second CPU, 2026-11-24",
        "aes-xts-plain64 512 bit, 4096-byte sectors, 2 threads",
        "pbkdf2-sha512, 512-bit key",
        "Ciphers: MiB/s in memory",
        "2861",
    ] {
        assert!(svg.contains(words), "{words}: {svg}");
    }
}

#[test]
fn only_what_is_selected_is_measured() {
    let session = Session::new();
    let args = ["--hash", "sha512,sha1", "--key-size", "512,256", "--json"];
    let measured = json(&session.ok(SHORT.iter().chain(&args)));
    let kdf = measured["kdf"].as_array().unwrap();
    let names: Vec<_> = kdf
        .iter()
        .map(|kdf| {
            (
                kdf["hash"].as_str().unwrap(),
                kdf["key_bits"].as_u64().unwrap(),
            )
        })
        .collect();
    let expected = [
        ("sha512", 512),
        ("sha1", 512),
        ("sha512", 256),
        ("sha1", 256),
    ];
    assert_eq!(names, expected);
    assert_eq!(measured["ciphers"].as_array().unwrap().len(), 0);

    let args = [
        "--cipher",
        "serpent-cbc-plain64",
        "--key-size",
        "192,256",
        "--json",
    ];
    let more = ["--buffer-size", "4K,1M", "--sector-size", "4096"];
    let measured = json(&session.ok(SHORT.iter().chain(&args).chain(&more)));
    let ciphers = measured["ciphers"].as_array().unwrap();
    assert!(measured["kdf"].as_array().unwrap().is_empty());
    let buffers: Vec<_> = ciphers
        .iter()
        .filter(|cipher| cipher["key_bits"] == 256)
        .map(|cipher| cipher["buffer_size"].as_u64().unwrap())
        .collect();
    assert_eq!(buffers, [4096, 1 << 20]);
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
        (["--key-size", "100"], "whole bytes"),
        (["--buffer-size", "100"], "from 512 bytes"),
        (["--hash", "md5"], "md5"),
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

    session.write(
        "old.json",
        b"{\"version\":\"0.1.0\",\"kdf\":[],\"ciphers\":[]}",
    );
    let ran = session.run(["benchmark", "--from", "old.json"]);
    assert_eq!(ran.code(), 4, "{}", ran.stderr());
    let expected = "old.json: not what this version of benchmark --json prints";
    assert!(ran.stderr().contains(expected), "{}", ran.stderr());
    let ran = session.run([
        "benchmark",
        "--cipher",
        "aes-xts-plain64",
        "--buffer-size",
        "512",
    ]);
    assert_eq!(ran.code(), 1, "{}", ran.stderr());
    assert!(
        ran.stderr().contains("not whole sectors"),
        "{}",
        ran.stderr()
    );
    let ran = session.run(["benchmark", "--from", "old.json", "--threads", "2"]);
    assert_eq!(ran.code(), 1, "{}", ran.stderr());
}
