//! A monitor that keeps keyslots and objects as QEMU does.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixListener;
use std::sync::{Arc, Mutex};

use luksmith_formats::json::Value;

use super::*;
use crate::task::Silent;

#[derive(Default)]
struct State {
    slots: Vec<u32>,
    /// The objects by their ids, and all objects that existed at any time.
    objects: BTreeMap<String, Value>,
    seen: Vec<Value>,
    /// Refuses to remove keyslots by passphrase.
    keeps_old: bool,
    failure: Option<&'static str>,
}

impl State {
    fn execute(&mut self, command: &str, arguments: &Value) -> Value {
        match command {
            "query-version" => json!({"qemu": {"major": 7, "minor": 2, "micro": 0}}),
            "query-named-block-nodes" => {
                let slots: Vec<_> = (0..8)
                    .map(|slot| json!({"active": self.slots.contains(&slot)}))
                    .collect();
                let data = json!({"format-specific": {"data": {"slots": slots}}});
                json!([{"node-name": "disk", "drv": "luks", "image": data}])
            }
            "object-add" => {
                if let Some(file) = arguments["file"].as_str() {
                    assert_eq!(fs::metadata(file).unwrap().mode() & 0o777, 0o600);
                }
                let id = arguments["id"].as_str().unwrap().to_owned();
                self.seen.push(arguments.clone());
                self.objects.insert(id, arguments.clone());
                json!({})
            }
            "object-del" => {
                let id = arguments["id"].as_str().unwrap();
                assert!(self.objects.remove(id).is_some(), "{id}");
                json!({})
            }
            "x-blockdev-amend" => {
                let options = &arguments["options"];
                self.failure = None;
                if options["state"] == "active" {
                    let free = (0..8).find(|slot| !self.slots.contains(slot)).unwrap();
                    self.slots.push(free);
                } else if let Some(slot) = options["keyslot"].as_u64() {
                    self.slots.retain(|used| u64::from(*used) != slot);
                } else if self.keeps_old {
                    self.failure = Some("the old secret opens no keyslot");
                } else {
                    self.slots.retain(|used| *used != 0);
                }
                json!({})
            }
            "query-jobs" => {
                let id = format!("luksmith-{}", std::process::id());
                match self.failure {
                    Some(error) => json!([{"id": id, "status": "concluded", "error": error}]),
                    None => json!([{"id": id, "status": "concluded"}]),
                }
            }
            _ => json!({}),
        }
    }
}

/// A monitor with keyslot 0 in use, its socket and its state.
fn qemu(keeps_old: bool) -> (tempfile::TempDir, PathBuf, Arc<Mutex<State>>) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("qmp");
    let listener = UnixListener::bind(&path).unwrap();
    let state = Arc::new(Mutex::new(State {
        slots: vec![0],
        keeps_old,
        ..State::default()
    }));
    let here = state.clone();
    std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let greeting = json!({"QMP": {"version": {"qemu": {"major": 7, "minor": 2, "micro": 0}}}});
        writeln!(stream, "{greeting}").unwrap();
        for line in BufReader::new(stream.try_clone().unwrap()).lines() {
            let asked = Value::parse(line.unwrap().as_bytes()).unwrap();
            let command = asked["execute"].as_str().unwrap();
            let answer = here.lock().unwrap().execute(command, &asked["arguments"]);
            writeln!(stream, "{}", json!({"return": answer})).unwrap();
        }
    });
    (folder, path, state)
}

fn connect<'a>(folder: &Path, socket: &Path, watch: &'a Silent) -> Running<'a> {
    let master = Master::Temporary {
        folder: folder.to_owned(),
    };
    Running::connect(socket, Duration::from_secs(10), None, master, watch).unwrap()
}

fn passphrase(text: &str) -> Passphrase {
    Passphrase::copy_from(text.as_bytes()).unwrap()
}

#[test]
fn a_change_leaves_neither_keys_nor_files() {
    let (folder, socket, state) = qemu(false);
    let watch = Silent::default();
    let mut running = connect(folder.path(), &socket, &watch);
    assert_eq!(
        (running.node(), &running.before().active[..]),
        ("disk", &[0][..])
    );
    running
        .change(&passphrase("old"), &passphrase("new"), Some(100))
        .unwrap();
    assert_eq!(running.now().unwrap().active, [1]);
    running.add(&passphrase("another"), None, None).unwrap();
    running.remove(Removal::Keyslot(1), false).unwrap();
    assert_eq!(running.now().unwrap().active, [0]);

    let state = state.lock().unwrap();
    assert!(state.objects.is_empty(), "{:?}", state.objects);
    // The socket is the only file that is left.
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    let told = format!("{:?}", state.seen);
    // In no encoding.
    assert!(
        !told.contains("another") && !told.contains("YW5vdGhlcg"),
        "{told}"
    );
}

#[test]
fn a_change_with_a_wrong_passphrase_is_undone() {
    let (folder, socket, state) = qemu(true);
    let watch = Silent::default();
    let mut running = connect(folder.path(), &socket, &watch);
    let error = running
        .change(&passphrase("old"), &passphrase("new"), None)
        .unwrap_err();
    assert_eq!(error.advice(), [Advice::NothingChanged]);
    assert_eq!(running.now().unwrap().active, [0]);
    let same = running
        .change(&passphrase("x"), &passphrase("x"), None)
        .unwrap_err();
    assert_eq!(same.kind(), Kind::Parameters);
    assert!(state.lock().unwrap().objects.is_empty());
}
