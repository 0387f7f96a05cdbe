//! Commands on volumes in an object store.

use std::io::Write as _;
use std::os::unix::net::UnixStream;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use luksmith_formats::json::Value;
use rustix::process::{Pid, Signal, kill_process};
use support::peers;
use support::program::{Serving, refused};
use support::s3_double::{Fault, Service};

use crate::program::{CHEAP, Site, content};

const MIB: usize = 1 << 20;

#[test]
fn a_volume_is_made_changed_resized_and_decrypted() {
    let Some(site) = Site::real("commands") else {
        return;
    };
    let made = site.luksmith(&format!("create {{v}} --size 8M --key-file key {CHEAP}"));
    assert!(made.contains("only luksmith"), "{made}");
    let again = format!("create {{v}} --key-file key {CHEAP}");
    let (code, said) = site.refused(&again);
    assert!(code == 5 && said.contains("--force overwrite"), "{said}");
    let plain = content(1, 8 * MIB);
    site.write("plain", &plain);
    site.write("other", b"another passphrase");
    let encrypt = format!("encrypt plain {{v}} --force overwrite --key-file key {CHEAP}");
    site.luksmith(&encrypt);
    site.luksmith(&format!(
        "key add {{v}} --key-file key --new-key-file other {CHEAP}"
    ));
    site.luksmith("key test {v} --key-file other");
    assert!(site.luksmith("info {v}").contains("LUKS2"));
    site.luksmith("resize {v} --size +4M");
    site.luksmith("decrypt {v} out --key-file other");
    assert!(site.read("out")[..plain.len()] == plain && site.read("out").len() == 12 * MIB);
    site.luksmith("resize {v} --size 5M --force shrink");
    site.luksmith("decrypt {v} out --key-file key --force overwrite");
    assert!(site.read("out") == plain[..5 * MIB]);
    site.luksmith("verify-ciphertext {v}");
    for (line, expected) in [
        (
            format!("create {{nosize}} --key-file key {CHEAP}"),
            "needs a size",
        ),
        (
            format!("create {{q}} --size 4M --format qcow2 --key-file key {CHEAP}"),
            "a new volume in an object store is raw",
        ),
        ("info {absent}".to_owned(), "there is no volume"),
        (
            "decrypt {v} {v} --key-file key".to_owned(),
            "plain data is not kept",
        ),
        (
            format!("copy {{v}} {{v}}&region=x --force overwrite --key-file key {CHEAP}"),
            "the source is in",
        ),
    ] {
        let (_, said) = site.refused(&line);
        assert!(said.contains(expected), "{line}: {said}");
    }
}

#[test]
fn a_guest_reads_and_writes_what_is_served() {
    let Some(site) = Site::real("served") else {
        return;
    };
    let Some(nbdcopy) = peers::find("nbdcopy") else {
        return;
    };
    let plain = content(8, 24 * MIB);
    site.write("plain", &plain);
    site.luksmith(&format!("create {{v}} --size 24M --key-file key {CHEAP}"));
    let serving = site.serve("{v}");
    let uri = &serving.uri;
    peers::run(
        Command::new(&nbdcopy)
            .arg("--flush")
            .arg(site.path("plain"))
            .arg(uri),
    );
    peers::run(Command::new(&nbdcopy).arg(uri).arg(site.path("back")));
    assert!(site.read("back") == plain);
    // The header is read and the passphrase is tested beside the server, and nothing is changed.
    site.luksmith("key list {v}");
    let (code, said) = site.refused("config {v} --label x");
    assert!(
        code == 5 && said.contains("was not closed by its writer"),
        "{said}"
    );
    serving.stop();
    site.luksmith("config {v} --label x");
    site.luksmith("decrypt {v} out --key-file key");
    assert!(site.read("out") == plain);
}

#[test]
fn an_interrupted_command_removes_the_objects_that_it_made() {
    let (site, store) = Site::double(Service::default());
    // The source never ends.
    let line = format!("encrypt - {{v}} --size 64M --key-file key {CHEAP}");
    let mut encrypt = site.command(&line);
    let encrypt = encrypt.stdin(Stdio::piped()).stderr(Stdio::null());
    let mut running = encrypt.spawn().unwrap();
    let mut source = running.stdin.take().unwrap();
    source.write_all(&content(2, 20 * MIB)).unwrap();
    let until = Instant::now() + Duration::from_secs(60);
    while store.names("").len() < 4 {
        assert!(Instant::now() < until && running.try_wait().unwrap().is_none());
    }
    kill_process(Pid::from_child(&running), Signal::INT).unwrap();
    assert!(!running.wait().unwrap().success());
    assert_eq!(store.names(""), [] as [&str; 0]);
}

#[test]
fn a_wrong_bucket_and_wrong_keys_are_named() {
    let Some(site) = Site::real("wrong") else {
        return;
    };
    let elsewhere = |name: &str, value: &str| {
        let mut command = site.command("info {v}");
        refused(command.env(name, value))
    };
    let (code, said) = elsewhere("AWS_SECRET_ACCESS_KEY", "not-the-key");
    assert!(code == 2 && said.contains("denies access"), "{said}");
    assert!(!said.contains("not-the-key"), "{said}");
    let mut command = site.command("info {v}");
    command.env_remove("AWS_ACCESS_KEY_ID");
    let (code, said) = refused(&mut command);
    assert!(code == 2 && said.contains("?profile=NAME"), "{said}");
    let (code, said) = site.refused("info {v}&profile=absent");
    assert!(code == 2 && said.contains("no profile 'absent'"), "{said}");
    let profile = "[p]\naws_access_key_id = testkey\naws_secret_access_key = testsecret\n";
    std::fs::create_dir(site.path(".aws")).unwrap();
    site.write(".aws/credentials", profile.as_bytes());
    let (_, said) = site.refused("info {v}&profile=p");
    assert!(said.contains("there is no volume"), "{said}");
    let mut command = site.command("info {v}");
    let volume = command
        .get_args()
        .last()
        .unwrap()
        .to_str()
        .unwrap()
        .to_owned();
    let elsewhere = volume.replace("s3://volumes", "s3://no-such-bucket");
    command = site.command(&format!("info {elsewhere}"));
    let (_, said) = refused(&mut command);
    assert!(said.contains("there is no such bucket"), "{said}");
    let (code, said) = site.refused(&format!(
        "info {}",
        volume.replace("://volumes", "://u:k@volumes")
    ));
    assert!(
        code == 1 && said.contains("a key is never in a uri") && !said.contains("u:k"),
        "{said}"
    );
}

#[test]
fn a_store_that_overwrites_is_only_read() {
    let (site, store) = Site::double(Service {
        overwrites: true,
        ..Service::default()
    });
    let create = format!("create {{v}} --size 1M --key-file key {CHEAP}");
    let (_, said) = site.refused(&create);
    assert!(said.contains("overwrites objects"), "{said}");
    assert!(said.contains("--force unfenced"), "{said}");
    assert_eq!(store.names(""), [] as [&str; 0]);
    // The objects of a service that does not, as after a move of a bucket.
    let (other, made) = Site::double(Service::default());
    other.luksmith(&create);
    store.restore(made.objects());
    site.luksmith("key test {v} --key-file key");
    let (_, said) = site.refused("config {v} --label x");
    assert!(said.contains("overwrites objects"), "{said}");
}

#[test]
fn a_volume_for_one_writer_at_a_time_is_made_where_objects_are_overwritten() {
    let (site, store) = Site::double(Service {
        overwrites: true,
        ..Service::default()
    });
    let create = format!("create {{v}} --size 4M --key-file key {CHEAP} --force unfenced");
    let said = site.luksmith(&create);
    assert!(said.contains("nothing enforces that"), "{said}");
    let (code, said) = site.refused(&create);
    assert!(code == 5 && said.contains("--force overwrite"), "{said}");
    let state = json(&site, "objects status {v}");
    assert_eq!(state["unfenced"].as_bool(), Some(true));
    let plain = content(4, 4 * MIB);
    site.write("plain", &plain);
    site.luksmith(&format!(
        "encrypt plain {{v}} --key-file key {CHEAP} --force overwrite"
    ));
    // What is there is looked for before each creation, so a second writer is still refused, and a
    // stopped one does not go on after another has worked.
    let stopped = site.serve("{v}");
    let (code, said) = site.refused("config {v} --label x");
    assert!(code == 5 && said.contains("was not closed"), "{said}");
    stopped.signal(Signal::STOP);
    site.luksmith("objects take-over {v} --force in-use");
    site.luksmith("config {v} --label taken");
    stopped.signal(Signal::CONT);
    if peers::find("nbdsh").is_some() {
        assert!(!stopped.client("h.pwrite(b'b' * 4096, 0); h.flush()"));
    }
    drop(stopped);
    site.luksmith("decrypt {v} out --key-file key");
    assert!(site.read("out") == plain);
    site.luksmith("objects verify {v}");
    assert!(store.count_of("PUT") > 8);

    // Where creations are refused twice, the volume has no need of it.
    let (site, _) = Site::double(Service::default());
    site.luksmith(&create);
    let state = json(&site, "objects status {v}");
    assert_eq!(state["unfenced"].as_bool(), Some(false));
}

/// A service that gets no segments while this is set.
fn refusing(refuses: &Arc<AtomicBool>) -> Service {
    let refuses = refuses.clone();
    Service {
        fault: Box::new(move |asked| {
            let is_segment = asked.key.contains("/e/") && !asked.key.ends_with("/open");
            match is_segment && asked.method == "PUT" && refuses.load(Ordering::SeqCst) {
                true => Fault::Status(400),
                false => Fault::None,
            }
        }),
        ..Service::default()
    }
}

#[test]
fn each_volume_that_could_not_be_closed_is_named() {
    let Some(nbdsh) = peers::find("nbdsh") else {
        return;
    };
    let refuses = Arc::new(AtomicBool::new(false));
    let (site, _) = Site::double(refusing(&refuses));
    for volume in ["{one}", "{two}"] {
        site.luksmith(&format!("create {volume} --size 4M --key-file key {CHEAP}"));
    }
    let line = "serve --export 1={one} --export 2={two} --socket s --key-file key";
    let mut server = site.command(line);
    let server = server.stdin(Stdio::null()).stderr(Stdio::piped()).spawn();
    let server = server.unwrap();
    let socket = site.path("s");
    while UnixStream::connect(&socket).is_err() {
        std::thread::sleep(Duration::from_millis(20));
    }
    refuses.store(true, Ordering::SeqCst);
    for export in ["1", "2"] {
        let uri = format!("nbd+unix:///{export}?socket={}", socket.display());
        let mut client = Command::new(&nbdsh);
        client.env("PATH", "/usr/bin:/bin");
        peers::run(client.args(["-u", &uri, "-c", "h.pwrite(b'x' * 4096, 0)"]));
    }
    kill_process(Pid::from_child(&server), Signal::TERM).unwrap();
    let output = server.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success(), "{said}");
    for volume in ["one", "two"] {
        let lines = said.lines().filter(|line| line.contains("was not closed"));
        let named = lines
            .filter(|line| line.contains(&format!("/{volume}?")))
            .count();
        assert_eq!(named, 1, "{volume}: {said}");
    }
}

#[test]
fn a_command_fails_if_the_store_does_not_get_what_its_journal_has() {
    let refuses = Arc::new(AtomicBool::new(false));
    let (site, _) = Site::double(refusing(&refuses));
    let journal = site.path("journal").display().to_string();
    let volume = format!("{{v}}&journal={journal}");
    site.luksmith(&format!("create {volume} --size 4M --key-file key {CHEAP}"));
    refuses.store(true, Ordering::SeqCst);
    let (_, said) = site.refused(&format!("config {volume} --label kept"));
    assert!(said.contains("was not closed"), "{said}");
    assert!(said.contains("hint: `luksmith objects take-over"), "{said}");
    refuses.store(false, Ordering::SeqCst);
    let (_, said) = site.refused("objects take-over {v}");
    assert!(
        said.contains("into its journal until its next upload"),
        "{said}"
    );
    site.luksmith(&format!("objects take-over {volume} --force in-use"));
    assert!(site.luksmith("info {v}").contains("kept"));
    let state = json(&site, "objects status {v}");
    assert_eq!(state["journal"].as_bool(), Some(true));
}

#[test]
fn a_snapshot_is_made_of_a_volume_that_is_served() {
    if peers::find("nbdsh").is_none() {
        return;
    }
    let (site, _) = Site::double(Service::default());
    for volume in ["{v}", "{other}"] {
        let line = format!("create {volume} --size 4M --key-file key {CHEAP}");
        site.luksmith(&line);
    }
    let line = "serve {v} --socket s --control c --key-file key";
    let serving = Serving::start(&mut site.command(line), &site.path("s"));
    let begin = Instant::now();
    while !site.path("c").exists() {
        assert!(begin.elapsed() < Duration::from_secs(20));
        std::thread::sleep(Duration::from_millis(20));
    }
    assert!(serving.client("h.pwrite(b'a' * 4096, 0); h.pwrite(b'a' * 4096, 4096)"));
    let (code, said) = site.refused("objects snapshot create {v} monday");
    assert!(code == 5 && said.contains("--served PATH"), "{said}");
    let made = json(&site, "objects snapshot create {v} monday --served c");
    assert_eq!(made["snapshot"].as_str(), Some("monday"));
    assert!(serving.client("h.pwrite(b'b' * 4096, 0); h.flush()"));
    let (code, said) = site.refused("objects snapshot create {v} monday --served c");
    assert!(
        code == 5 && said.contains("a snapshot of this name"),
        "{said}"
    );
    site.luksmith("objects snapshot create {v} tuesday --served c");
    let (_, said) = site.refused("objects snapshot create {other} monday --served c");
    assert!(said.contains("does not serve"), "{said}");

    let first = |volume: &str| {
        let line = format!("decrypt {volume} out --key-file key --force overwrite");
        site.luksmith(&line);
        let out = site.read("out");
        (out[0], out[4096])
    };
    assert_eq!(first("{v@monday}"), (b'a', b'a'));
    assert_eq!(first("{v@tuesday}"), (b'b', b'a'));
    let delete = "objects snapshot delete {v} monday --served c";
    let (_, said) = site.refused(delete);
    assert!(said.contains("--force erase"), "{said}");
    site.luksmith(&format!("{delete} --force erase"));
    assert_eq!(
        site.luksmith("objects snapshot list {v}").lines().count(),
        1
    );
    serving.stop();
    site.luksmith("objects snapshot rollback {v} tuesday --force overwrite");
    assert_eq!(first("{v}"), (b'b', b'a'));
    site.luksmith("objects verify {v}");
}

#[test]
fn a_service_that_fails_now_and_then_delays_only() {
    let (site, _) = Site::double(Service {
        fault: Box::new(|asked| match asked.number % 5 {
            1 => Fault::Status(503),
            3 => Fault::Closed(support::s3_double::Moment::After),
            _ => Fault::None,
        }),
        ..Service::default()
    });
    let plain = content(3, 3 * MIB);
    site.write("plain", &plain);
    site.luksmith(&format!("encrypt plain {{v}} --key-file key {CHEAP}"));
    site.luksmith("decrypt {v} out --key-file key");
    assert!(site.read("out") == plain);
}

/// Runs a command with `--json`, whose document has to be as its schema says.
#[track_caller]
fn json(site: &Site, line: &str) -> Value {
    let document: Value = site.luksmith(&format!("{line} --json")).parse().unwrap();
    support::json_schema::check(&document);
    document
}

#[test]
fn the_upkeep_of_a_volume_is_shown_and_counted() {
    let (site, store) = Site::double(Service::default());
    let encrypt = |seed, force: &str| {
        site.write("plain", &content(seed, 20 * MIB));
        site.luksmith(&format!(
            "encrypt plain {{v}} --key-file key {CHEAP}{force}"
        ));
    };
    encrypt(1, "");
    assert_eq!(
        json(&site, "objects snapshot create {v} monday")["snapshot"].as_str(),
        Some("monday")
    );
    let first = site.read("plain");
    encrypt(2, " --force overwrite");
    let state = json(&site, "objects status {v}");
    assert!(
        state["writer"].is_null() && state["live"].as_u64() >= Some(20 << 20),
        "{state:?}"
    );
    assert_eq!(
        json(&site, "objects snapshot list {v}")["snapshots"][0]["name"].as_str(),
        Some("monday")
    );
    site.luksmith("decrypt {v@monday} out --key-file key");
    assert!(site.read("out") == first);
    let (code, said) = site.refused("config {v@monday} --label x");
    assert!(code == 2 && said.contains("without @SNAPSHOT"), "{said}");

    store.count();
    let verified = json(&site, "objects verify {v}");
    let requests = &verified["requests"];
    let told = requests["reads"].as_u64().unwrap() + requests["lists"].as_u64().unwrap();
    assert_eq!(told, store.count());
    assert!(verified["bytes"].as_u64() >= Some(40 << 20), "{verified:?}");

    let (code, said) = site.refused("objects snapshot delete {v} monday");
    assert!(code == 1 && said.contains("--force erase"), "{said}");
    json(&site, "objects snapshot delete {v} monday --force erase");
    let (_, said) = site.refused("objects snapshot rollback {v} monday --force overwrite");
    assert!(said.contains("no snapshot of this name"), "{said}");
    let collected = json(&site, "objects gc {v}");
    assert!(
        collected["stored"].as_u64() <= Some(45 << 20),
        "{collected:?}"
    );

    // The contents of a snapshot come back.
    let second = site.read("plain");
    json(&site, "objects snapshot create {v} tuesday");
    encrypt(3, " --force overwrite");
    json(
        &site,
        "objects snapshot rollback {v} tuesday --force overwrite",
    );
    site.luksmith("decrypt {v} out --key-file key --force overwrite");
    assert!(site.read("out") == second);
    for line in [
        "objects status {v}",
        "objects snapshot list {v}",
        "objects verify {v}",
        "objects gc {v}",
    ] {
        assert!(!site.luksmith(line).is_empty());
    }
    let (code, said) = site.refused("objects status plain");
    assert!(
        code == 1 && said.contains("no volume in an object store"),
        "{said}"
    );

    // One byte changes.
    let mut objects = store.objects();
    let (_, segment) = objects
        .iter_mut()
        .max_by_key(|(_, object)| object.len())
        .unwrap();
    let mut changed = segment.to_vec();
    *changed.last_mut().unwrap() ^= 1;
    *segment = changed.into();
    store.restore(objects);
    let (code, said) = site.refused("objects verify {v}");
    assert!(code == 4 && said.contains("wrong checksum"), "{said}");
}

#[test]
fn a_killed_writer_is_taken_over_and_a_stopped_one_cannot_go_on() {
    let (site, _) = Site::double(Service::default());
    site.luksmith(&format!("create {{v}} --size 8M --key-file key {CHEAP}"));
    let killed = site.serve("{v}");
    let state = json(&site, "objects status {v}");
    assert!(state["writer"]["time"].as_u64() > Some(0), "{state:?}");
    drop(killed);
    let (code, said) = site.refused("objects take-over {v}");
    assert!(code == 1 && said.contains("--force in-use"), "{said}");
    json(&site, "objects take-over {v} --force in-use");
    assert!(json(&site, "objects take-over {v}")["writer"].is_null());
    if peers::find("nbdsh").is_none() {
        return;
    }
    let stopped = site.serve("{v}");
    assert!(stopped.client("h.pwrite(b'a' * 4096, 0); h.flush()"));
    stopped.signal(Signal::STOP);
    site.luksmith("objects take-over {v} --force in-use");
    site.luksmith("config {v} --label taken");
    site.luksmith("objects gc {v}");
    stopped.signal(Signal::CONT);
    assert!(!stopped.client("h.pwrite(b'b' * 4096, 0); h.flush()"));
    assert!(!stopped.client("h.pread(4096, 0); h.flush()"));
    drop(stopped);
    assert!(site.luksmith("info {v}").contains("taken"));
    site.luksmith("objects verify {v}");
    let serving = site.serve("{v}");
    assert!(serving.client("assert h.pread(4096, 0) == b'a' * 4096"));
    serving.stop();
}
