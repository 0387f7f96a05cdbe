//! A volume that is reencrypted while clients use it, by a server that is killed.

use std::collections::BTreeSet;
use std::io::{Read as _, Write as _};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::os::unix::net::UnixStream;
use std::process::{Output, Stdio};
use std::time::{Duration, Instant};

use luksmith_formats::nbd::{Command, CommandFlags, ErrorNumber, Request};

use support::peers::{find, run};

use crate::served::{Folder, until};
use crate::wire::Client;

const SIZE: u64 = 24 << 20;
const BLOCK: u64 = 4096;
const COUNT: u64 = SIZE / BLOCK;

/// The passphrase, and cheap keyslots.
const CHEAP: &str = "--key-file key --pbkdf pbkdf2 --pbkdf-force-iterations 1000";

/// A folder with `disk.img`, which is ready to be reencrypted, and its content.
pub(crate) fn pending(resilience: &str) -> (Folder, Vec<u8>) {
    let (folder, content) = volume();
    begin(&folder, resilience);
    (folder, content)
}

/// A folder with the volume `disk.img`, and its content.
fn volume() -> (Folder, Vec<u8>) {
    let folder = Folder::new();
    let words = (0..SIZE / 8).map(|n| n.wrapping_mul(0x2545_f491_4f6c_dd1d) ^ n);
    let content: Vec<u8> = words.flat_map(u64::to_le_bytes).collect();
    folder.write("plain", &content);
    let encrypt = format!("encrypt plain disk.img {CHEAP}");
    run(&mut folder.luksmith(encrypt.split(' ')));
    (folder, content)
}

/// Begins a reencryption of `disk.img` that converts nothing yet.
fn begin(folder: &Folder, resilience: &str) {
    let begin = format!("reencrypt disk.img --init-only --resilience {resilience} {CHEAP}");
    run(&mut folder.luksmith(begin.split(' ')));
}

pub(crate) fn is_pending(folder: &Folder) -> bool {
    let info = run(&mut folder.luksmith(["info", "disk.img", "--json"]));
    let info: serde_json::Value = serde_json::from_slice(&info).unwrap();
    !info["reencryption"].is_null()
}

/// What a client writes to a block.
fn block(round: u64, number: u64) -> Vec<u8> {
    let word = (round << 40 | number) ^ 0x9e37_79b9_7f4a_7c15;
    word.to_le_bytes().repeat(512)
}

/// When a reencryption begins: before the volume is served, or meanwhile.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Begin {
    Before,
    Meanwhile,
}

/// Each write has FUA, so a replied one is on stable storage. After each kill the volume is read as
/// it is, and then served again, which goes on. A fast machine may finish a reencryption before the
/// kill; the next one begins then.
#[allow(clippy::print_stdout, reason = "the result of a long run is recorded")]
fn killed_at_random_points(resilience: &str, when: Begin, rounds: u64) {
    let (folder, mut expected) = volume();
    let mut random = 0x1234_5678_9abc_def1_u64;
    let mut next = move || {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        random
    };
    let mut killed_while_pending = 0;
    for round in 0..rounds {
        if when == Begin::Before && !is_pending(&folder) {
            begin(&folder, resilience);
        }
        let mut served = folder.serve(&["--control", "control.sock"]);
        let mut client = served.client();
        let mut writer = client.stream.try_clone().unwrap();
        let numbers: BTreeSet<u64> = (0..300).map(|_| next() % COUNT).collect();
        let numbers: Vec<u64> = numbers.into_iter().map(|n| n * 2_731 % COUNT).collect();
        let to_send = numbers.clone();
        let sending = std::thread::spawn(move || {
            for n in to_send {
                let write = Request {
                    flags: CommandFlags::FUA,
                    command: Command::Write,
                    cookie: n,
                    offset: n * BLOCK,
                    len: BLOCK,
                };
                let message = [&write.to_compact()[..], &block(round, n)].concat();
                if writer.write_all(&message).is_err() {
                    return;
                }
            }
        });
        let mut starting = (when == Begin::Meanwhile).then(|| {
            let start = format!(
                "reencrypt --served control.sock --rate 20M --resilience {resilience} {CHEAP}"
            );
            let mut start = folder.luksmith(start.split(' '));
            start.stderr(Stdio::null()).spawn().unwrap()
        });
        if let Some(starting) = starting.as_mut().filter(|_| round % 4 > 0) {
            // On a busy machine it may have ended before it is looked at.
            let mut ended = || starting.try_wait().unwrap();
            until("it has begun", || ended().is_some() || is_pending(&folder));
            assert!(ended().is_none_or(|status| status.success()));
        }
        let end = Instant::now() + Duration::from_millis(next() % 60);
        let mut answered = BTreeSet::new();
        while Instant::now() < end && answered.len() < numbers.len() {
            let (cookie, error) = client.next_simple().unwrap();
            assert_eq!(error, ErrorNumber::None);
            answered.insert(cookie);
        }
        served.child.kill().unwrap();
        served.child.wait().unwrap();
        if let Some(starting) = &mut starting {
            starting.wait().unwrap();
        }
        // Replies that were sent before the kill count too.
        while let Ok((cookie, ErrorNumber::None)) = client.next_simple() {
            answered.insert(cookie);
        }
        sending.join().unwrap();
        killed_while_pending += u64::from(is_pending(&folder));
        let decrypted = folder.decrypted();
        for n in numbers {
            let place =
                usize::try_from(n * BLOCK).unwrap()..usize::try_from((n + 1) * BLOCK).unwrap();
            let written = block(round, n);
            // A write without a reply has happened, or not.
            if answered.contains(&n) || decrypted[place.clone()] == written {
                expected[place].copy_from_slice(&written);
            }
        }
        assert!(decrypted == expected, "{resilience}, round {round}");
    }
    println!("{resilience}: killed {rounds} times, {killed_while_pending} in a reencryption");
    assert!(killed_while_pending > 0, "{resilience}: never killed in it");
    if !is_pending(&folder) {
        begin(&folder, resilience);
    }
    let served = folder.serve(&[]);
    until("it is finished", || !is_pending(&folder));
    assert!(served.client().read(0, SIZE) == expected);
    let said = served.stop();
    assert!(said.contains("is finished"), "{said}");
    assert!(folder.decrypted() == expected);
}

#[test]
fn a_server_that_is_killed_in_it_loses_nothing_beside_a_client() {
    let rounds = if support::is_long() { 50 } else { 4 };
    for resilience in ["checksum", "journal"] {
        killed_at_random_points(resilience, Begin::Before, rounds);
    }
}

#[test]
fn a_server_that_is_killed_after_one_begins_meanwhile_loses_nothing() {
    let rounds = if support::is_long() { 50 } else { 4 };
    for resilience in ["checksum", "journal"] {
        killed_at_random_points(resilience, Begin::Meanwhile, rounds);
    }
}

fn start(folder: &Folder, more: &str) -> Output {
    let args = format!("reencrypt --served control.sock {CHEAP} {more}");
    folder.luksmith(args.split_whitespace()).output().unwrap()
}

/// One reencryption after the other, to another cipher and to larger sectors, beside a client.
#[test]
fn reencryptions_begin_while_a_client_writes() {
    let (folder, mut expected) = volume();
    let served = folder.serve(&["--control", "control.sock"]);
    let mut client = served.client();
    let changes = [
        "--resilience checksum --sector-size 512",
        "--resilience journal --cipher aes-cbc-essiv:sha256",
        "--resilience checksum --sector-size 4096 --force sector-size --zone-size 1M",
    ];
    for (round, change) in (1_u64..).zip(changes) {
        let done = std::thread::scope(|scope| {
            let done = scope.spawn(|| start(&folder, change));
            for n in (0..).map(|n: u64| n * 2_731 % COUNT) {
                let bytes = block(round, n);
                // Not a whole number of blocks.
                let at = n * BLOCK + 512 * (n % 7);
                let bytes = &bytes[..usize::try_from((SIZE - at).min(BLOCK)).unwrap()];
                assert_eq!(client.write(at, bytes), ErrorNumber::None);
                let at = usize::try_from(at).unwrap();
                expected[at..at + bytes.len()].copy_from_slice(bytes);
                if done.is_finished() {
                    break;
                }
            }
            done.join().unwrap()
        });
        let said = String::from_utf8_lossy(&done.stderr).into_owned();
        assert!(done.status.success(), "{change}: {said}");
        assert!(!is_pending(&folder), "{change}");
        assert!(client.read(0, SIZE) == expected, "{change}");
    }
    drop(client);
    let said = served.stop();
    assert_eq!(said.matches("is finished").count(), 3, "{said}");
    assert!(folder.decrypted() == expected);
    let info = run(&mut folder.luksmith(["info", "disk.img", "--json"]));
    let info: serde_json::Value = serde_json::from_slice(&info).unwrap();
    assert_eq!(info["sector_size"], 4096, "{info}");
    assert_eq!(info["cipher"], "aes-cbc-essiv:sha256", "{info}");
}

/// What is refused changes no byte of the image, and clients go on.
#[test]
fn a_start_that_is_refused_changes_nothing() {
    let (folder, content) = volume();
    folder.write("other", b"another passphrase");
    folder.write("wrong", b"a wrong passphrase");
    let cheap = "--pbkdf pbkdf2 --pbkdf-force-iterations 1000";
    let add = format!("key add disk.img --key-file key --new-key-file other {cheap}");
    run(&mut folder.luksmith(add.split(' ')));
    let before = std::fs::read(folder.path("disk.img")).unwrap();
    let served = folder.serve(&["--control", "control.sock"]);
    for (more, code, expected) in [
        ("", 1, "--drop-other-keyslots"),
        ("--key-file wrong", 1, "--drop-other-keyslots"),
        ("--resume", 1, "no reencryption is in progress"),
        ("--cipher aes-ecb", 1, "aes-ecb"),
        ("--key-size 128", 1, "128"),
        ("--pbkdf-memory 64", 1, "argon2"),
        ("--zone-size 512 --drop-other-keyslots", 1, "zone-size"),
        ("--zone-size 100M --drop-other-keyslots", 1, "zone-size"),
        ("--export other", 1, "other"),
    ] {
        let refused = start(&folder, more);
        let said = String::from_utf8_lossy(&refused.stderr).into_owned();
        assert_eq!(refused.status.code(), Some(code), "{more}: {said}");
        assert!(said.contains(expected), "{more}: {said}");
    }
    let wrong = "reencrypt --served control.sock --key-file wrong";
    let wrong = folder.luksmith(wrong.split(' ')).output().unwrap();
    assert_eq!(wrong.status.code(), Some(2), "{wrong:?}");
    assert!(std::fs::read(folder.path("disk.img")).unwrap() == before);
    let mut client = served.client();
    assert_eq!(client.write(0, &content[..4096]), ErrorNumber::None);
    assert!(client.read(0, SIZE) == content);
    drop(client);
    served.stop();
    assert!(folder.decrypted() == content);
}

/// Without a reencryption discards reach the storage. During one, and after a failed attempt, the
/// file keeps its size on the disk or can lose some of it again.
#[test]
fn discards_have_their_effect_while_nothing_is_reencrypted() {
    let (folder, _) = volume();
    let blocks = || folder.path("disk.img").metadata().unwrap().blocks();
    let served = folder.serve(&["--control", "control.sock", "--discard", "pass"]);
    let mut client = served.client();
    let discard = |client: &mut Client| {
        let none = CommandFlags::NONE;
        client.ask(Command::Trim, none, 0, 8 << 20, &[]).error
    };
    let whole = blocks();
    assert_eq!(discard(&mut client), ErrorNumber::None);
    assert!(blocks() < whole - 8000, "{} of {whole}", blocks());
    let done = start(&folder, "");
    assert!(done.status.success(), "{done:?}");
    let filled = blocks();
    assert!(filled >= whole, "{filled} of {whole}");
    assert_eq!(discard(&mut client), ErrorNumber::None);
    assert!(blocks() < filled - 8000, "{} of {filled}", blocks());
    drop(client);
    served.stop();
}

#[test]
fn fio_verifies_what_it_wrote_meanwhile() {
    let Some(fio) = find("fio") else {
        return;
    };
    for resilience in ["checksum", "journal"] {
        let (folder, _) = pending(resilience);
        let served = folder.serve(&[]);
        let uri = format!("--uri={}", served.uri());
        let args = [
            "--name=verify",
            "--ioengine=nbd",
            &uri,
            "--rw=randwrite",
            "--bsrange=512-65536",
            "--blockalign=512",
            "--size=24M",
            "--iodepth=32",
            "--verify=crc32c",
            "--verify_state_save=0",
            "--do_verify=1",
            "--verify_fatal=1",
            "--randseed=7",
        ];
        run(&mut folder.program(&fio, args));
        until("it is finished", || !is_pending(&folder));
        served.stop();
    }
}

/// `--no-reencrypt` serves both sides as they are, also for writing.
#[test]
fn it_goes_on_only_if_it_is_wanted() {
    let (folder, mut content) = pending("checksum");
    let served = folder.serve(&["--no-reencrypt"]);
    assert_eq!(served.client().write(5000, &[7; 10_000]), ErrorNumber::None);
    content[5000..15_000].fill(7);
    let said = served.stop();
    assert!(said.contains("does not go on"), "{said}");
    assert!(is_pending(&folder) && folder.decrypted() == content);
    let served = folder.serve(&["--read-only"]);
    assert!(served.client().read(0, SIZE) == content);
    served.stop();
    assert!(is_pending(&folder));
}

/// The socket of `--control` says how far it is, pauses it and lets it go on. `reencrypt --served`
/// waits for its end.
#[test]
fn a_control_socket_steers_it() {
    let (folder, content) = pending("journal");
    let served = folder.serve(&["--control", "control.sock", "--no-reencrypt"]);
    let ask = |request: &str| -> serde_json::Value {
        let mut stream = UnixStream::connect(folder.path("control.sock")).unwrap();
        stream.write_all(format!("{request}\n").as_bytes()).unwrap();
        let mut reply = String::new();
        stream.read_to_string(&mut reply).unwrap();
        serde_json::from_str(&reply).unwrap()
    };
    let mode = folder
        .path("control.sock")
        .metadata()
        .unwrap()
        .permissions();
    assert_eq!(mode.mode() & 0o777, 0o600);
    let status = ask(r#"{"command": "status"}"#);
    assert_eq!(status["state"], "paused", "{status}");
    assert_eq!(status["converted"], 0, "{status}");
    assert_eq!(status["size"], SIZE, "{status}");
    for wrong in [
        "no JSON",
        "{}",
        r#"{"command": "stop"}"#,
        r#"{"command": "status", "export": "other"}"#,
        r#"{"command": "rate", "bytes_per_second": "much"}"#,
    ] {
        let reply = ask(wrong);
        assert_eq!(reply["ok"], false, "{wrong}: {reply}");
        assert!(reply["error"].is_string(), "{wrong}: {reply}");
    }
    let slow = ask(r#"{"command": "rate", "bytes_per_second": 1000}"#);
    assert_eq!(slow["bytes_per_second"], 1000, "{slow}");
    ask(r#"{"command": "resume"}"#);
    // One zone needs no wait, and the next one has to.
    let converted = || {
        ask(r#"{"command": "status"}"#)["converted"]
            .as_u64()
            .unwrap()
    };
    until("a zone is converted", || converted() > 0);
    let paused = ask(r#"{"command": "pause"}"#);
    assert_eq!(paused["state"], "paused", "{paused}");
    assert!(converted() < SIZE / 2);
    ask(r#"{"command": "rate", "bytes_per_second": null}"#);
    let args = ["reencrypt", "--served", "control.sock", "--json"];
    let done = run(&mut folder.luksmith(args));
    let done: serde_json::Value = serde_json::from_slice(&done).unwrap();
    assert_eq!(done["finished"], true, "{done}");
    assert_eq!(done["keyslots"].as_array().unwrap().len(), 1, "{done}");
    assert!(!is_pending(&folder));
    assert!(served.client().read(0, SIZE) == content);
    served.stop();
    assert!(!folder.path("control.sock").exists());
    let refused = folder.luksmith(args).output().unwrap();
    assert!(!refused.status.success());
}
