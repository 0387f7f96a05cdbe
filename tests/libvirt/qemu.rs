//! QEMU without libvirt: it starts with the output of `qemu args`, and `qemu amend` changes the
//! keyslots of a running one.

use luksmith::qemu::Monitor as _;
use luksmith_formats::json::{Value, json};

use crate::program::{Folder, PATIENCE, Running, said, wait_until};
use support::{json_schema, peers};

/// QEMU's exit code when the guest writes 0x10 to the debug port: twice that, plus one.
const DONE: i32 = 0x21;

/// Runs a machine with arguments from a shell, until the guest ends it.
pub(crate) fn boot(folder: &Folder, qemu: &std::path::Path, arguments: &str) {
    let line = format!(
        "exec timeout -k 1 {} {} -accel tcg -m 32 -nodefaults -display none -no-reboot \
         -device isa-debug-exit,iobase=0xf4,iosize=1 {arguments} -device virtio-blk-pci,drive=disk",
        PATIENCE.as_secs(),
        qemu.display(),
        // `$(…)` joins the lines like this.
        arguments = arguments.trim_end()
    );
    let output = folder.program("sh", ["-c", &line]).output().unwrap();
    assert_eq!(
        output.status.code(),
        Some(DONE),
        "{line}: {}",
        said(&output)
    );
}

#[test]
fn a_guest_boots_by_the_arguments() {
    let Some(qemu) = peers::find("qemu-system-x86_64") else {
        return;
    };
    let folder = Folder::new();
    // Characters that have a meaning in a shell, in a comma-separated list or in JSON.
    let name = "it's a \"disk\", $(no) more";
    folder.make_bootable(name, "luks1");
    let args = folder.luksmith(["qemu", "args", name, "--key-file", "key"]);
    boot(&folder, &qemu, &args);
    folder.assert_guest_ran(name, "key");

    folder.make_bootable("wrapped", "luks1");
    folder.write("other,name", b"a secret");
    let wrapped = [
        "qemu",
        "args",
        "wrapped",
        "--key-file",
        "other,name",
        "--master-key",
        "m,k",
    ];
    let args = folder.luksmith(wrapped.iter().chain(&["--cache", "none", "--discard"]));
    assert!(
        !args.contains("a secret") && args.contains("keyid=disk-master"),
        "{args}"
    );
    boot(&folder, &qemu, &args);
    folder.assert_guest_ran("wrapped", "key");
    // The master key is kept, and encrypts the passphrase differently each time.
    let again = folder.luksmith(wrapped);
    assert_ne!(again.lines().nth(1), args.lines().nth(1));
    assert_eq!(again.lines().next(), args.lines().next());
}

#[test]
fn a_guest_boots_from_an_export_and_from_what_luksmith_serves() {
    let (Some(qemu), Some(nbdkit)) = (peers::find("qemu-system-x86_64"), peers::find("nbdkit"))
    else {
        return;
    };
    let folder = Folder::new();
    folder.make_bootable("remote.img", "luks1");
    let serve = folder.program(nbdkit, ["-f", "-U", "r.sock", "file", "remote.img"]);
    let server = Running::with_socket(serve, &folder.path("r.sock"));
    let uri = "nbd+unix:///?socket=r.sock";
    let args = folder.luksmith(["qemu", "args", uri, "--key-file", "key"]);
    boot(&folder, &qemu, &args);
    drop(server);
    folder.assert_guest_ran("remote.img", "key");

    folder.make_bootable("two.img", "luks2");
    let refused = folder.fails(1, ["qemu", "args", "two.img", "--key-file", "key"]);
    assert!(
        refused.contains("knows only LUKS1") && refused.contains("--served"),
        "{refused}"
    );
    let command = folder.command([
        "qemu", "args", "two.img", "--served", "s/x.sock", "--export", "a b",
    ]);
    let output = { command }.output().unwrap();
    let hint = said(&output);
    let (_, serve) = hint.split_once("before QEMU starts: luksmith ").unwrap();
    let line = format!(
        "exec {} {} --key-file key",
        env!("CARGO_BIN_EXE_luksmith"),
        serve.trim()
    );
    let _server = Running::with_socket(
        folder.program("sh", ["-c", &line]),
        &folder.path("s/x.sock"),
    );
    boot(&folder, &qemu, &String::from_utf8(output.stdout).unwrap());
    drop(_server);
    folder.assert_guest_ran("two.img", "key");
}

#[test]
fn a_passphrase_that_qemu_cannot_take_is_refused() {
    let folder = Folder::new();
    folder.make_bootable("a.img", "luks1");
    folder.write("bytes", b"\xff\0");
    let base = ["qemu", "args", "a.img"];
    let binary = folder.fails(1, base.iter().chain(&["--key-file", "bytes"]));
    assert!(binary.contains("UTF-8 without a NUL"), "{binary}");
    let typed = folder.fails(1, base.iter().chain(&["--key", "fd:0"]));
    assert!(typed.contains("--master-key FILE"), "{typed}");
    folder.write("m", b"no key");
    let bad = folder.fails(
        1,
        base.iter()
            .chain(&["--key-file", "key", "--master-key", "m"]),
    );
    assert!(bad.contains("32 bytes, or those in base64"), "{bad}");
    let node = folder.fails(1, base.iter().chain(&["--key-file", "key", "--node", "1x"]));
    assert!(node.contains("a name is a letter"), "{node}");
}

/// Whether the storage daemon is of a version that can change keyslots. Others would abort.
fn is_trusted_to_amend(folder: &Folder) -> bool {
    let program = peers::find("qemu-storage-daemon").unwrap();
    let said = folder.program(program, ["--version"]).output().unwrap();
    let said = String::from_utf8(said.stdout).unwrap();
    let version = said.split_once(" version ").unwrap().1;
    let version = version.split_whitespace().next().unwrap();
    let numbers: Vec<u32> = version.split('.').map(|n| n.parse().unwrap()).collect();
    let aborting = [[8, 2, 0]..[10, 0, 7], [10, 1, 0]..[10, 1, 3]];
    if !aborting
        .iter()
        .any(|range| range.contains(&[numbers[0], numbers[1], numbers[2]]))
    {
        return true;
    }
    let add = ["qemu", "amend", "add", "qmp", "--new-key-file", "new"];
    let refused = folder.fails(4, add);
    assert!(
        refused.contains("aborts when it is told to change keyslots"),
        "{refused}"
    );
    assert!(refused.contains("shut it down"), "{refused}");
    // QEMU is still running.
    luksmith::qemu::Qmp::connect(&folder.path("qmp"), PATIENCE).unwrap();
    false
}

/// A storage daemon that opens a volume with the output of `qemu args --json`, with a monitor
/// `qmp`.
fn daemon(folder: &Folder, image: &str) -> Option<Running> {
    let program = peers::find("qemu-storage-daemon")?;
    let args = [
        "qemu",
        "args",
        image,
        "--key-file",
        "key",
        "--master-key",
        "master",
        "--json",
    ];
    let described: Value = folder.luksmith(args).parse().unwrap();
    let words = described["arguments"].as_array().unwrap();
    let words = words.iter().map(|word| {
        let word = word.as_str().unwrap();
        // The options of the storage daemon have two dashes.
        if word == "-object" || word == "-blockdev" {
            format!("-{word}")
        } else {
            word.to_owned()
        }
    });
    let monitor = [
        "--chardev",
        "socket,path=qmp,server=on,wait=off,id=c",
        "--monitor",
        "chardev=c",
    ];
    let words: Vec<String> = monitor
        .map(str::to_owned)
        .into_iter()
        .chain(words)
        .collect();
    let daemon = folder.program(program, words);
    Some(Running::with_socket(daemon, &folder.path("qmp")))
}

#[test]
fn the_keyslots_of_a_running_qemu_change() {
    let folder = Folder::new();
    folder.make_bootable("a.img", "luks1");
    for (name, key) in [
        ("new", "the new one"),
        ("third", "a third"),
        ("bad", "a wrong one"),
    ] {
        folder.write(name, key.as_bytes());
    }
    let Some(running) = daemon(&folder, "a.img") else {
        return;
    };
    if !is_trusted_to_amend(&folder) {
        return;
    }
    let amend = |what: &str, more: &[&str]| {
        let args = ["qemu", "amend", what, "qmp", "--json"];
        let text = folder.luksmith(args.iter().chain(more));
        let mut document = text.parse::<Value>().unwrap();
        json_schema::check(&document);
        let members = document.as_object_mut().unwrap();
        members.remove("schema");
        members.remove("command");
        document
    };
    let quick = ["--iter-time", "1"];
    let opens = |key: &str| {
        let args = ["key", "test", "a.img", "--force-share", "--key-file", key];
        folder.command(args).output().unwrap().status.success()
    };

    let added = amend("add", &[&["--new-key-file", "new"][..], &quick].concat());
    assert_eq!(
        added,
        json!({"node": "disk", "added": [1], "removed": [], "keyslots": [0, 1]})
    );
    assert!(opens("key") && opens("new"));

    let wrong = [
        "qemu",
        "amend",
        "change",
        "qmp",
        "--key-file",
        "bad",
        "--new-key-file",
        "third",
    ];
    let wrong = folder.fails(1, wrong);
    assert!(wrong.contains("Invalid password"), "{wrong}");
    assert!(!opens("third"));

    let changed = ["--key-file", "key", "--new-key-file", "third"];
    let changed = amend("change", &[&changed[..], &quick].concat());
    assert_eq!(
        changed,
        json!({"node": "disk", "added": [2], "removed": [0], "keyslots": [1, 2]})
    );
    assert!(!opens("key") && opens("new") && opens("third"));

    // The secret with which QEMU was started no longer opens the volume.
    let stale = ["qemu", "amend", "add", "qmp", "--new-key-file", "key"];
    let stale = folder.fails(1, stale);
    assert!(stale.contains("--key SOURCE gives a passphrase"), "{stale}");
    let known = [
        "--key-file",
        "new",
        "--new-key-file",
        "key",
        "--master-key",
        "master",
        "--master-key-id",
        "disk-master",
    ];
    let again = amend("add", &[&known[..], &quick].concat());
    assert_eq!(again["keyslots"], json!([0, 1, 2]));

    let removed = amend("remove", &["--key-file", "new"]);
    assert_eq!(removed["removed"], json!([1]));
    let unproven = folder.fails(1, ["qemu", "amend", "remove", "qmp", "--keyslot", "2"]);
    assert!(unproven.contains("--force unproven"), "{unproven}");
    amend("remove", &["--keyslot", "2", "--force", "unproven"]);
    assert!(opens("key") && !opens("new") && !opens("third"));
    let last = folder.fails(1, ["qemu", "amend", "remove", "qmp", "--key-file", "key"]);
    assert!(last.contains("--force last-keyslot"), "{last}");
    let free = folder.fails(1, ["qemu", "amend", "remove", "qmp", "--keyslot", "5"]);
    assert!(free.contains("in use: 0"), "{free}");
    amend("remove", &["--key-file", "key", "--force", "last-keyslot"]);
    assert!(!opens("key"));
    drop(running);
}

#[test]
fn a_monitor_has_one_client_and_keeps_no_secret_of_ours() {
    let folder = Folder::new();
    folder.make_bootable("a.img", "luks1");
    folder.write("new", b"the new one");
    let Some(_running) = daemon(&folder, "a.img") else {
        return;
    };
    if !is_trusted_to_amend(&folder) {
        return;
    }
    let add = [
        "qemu",
        "amend",
        "add",
        "qmp",
        "--new-key-file",
        "new",
        "--iter-time",
        "1",
    ];
    {
        let _other = std::os::unix::net::UnixStream::connect(folder.path("qmp")).unwrap();
        let busy = folder.fails(5, add.iter().chain(&["--timeout", "1"]));
        assert!(busy.contains("one client at a time"), "{busy}");
    }
    // The monitor notices a moment later that its other client has disconnected.
    wait_until("the monitor is free", || {
        folder.command(add).output().unwrap().status.success()
    });
    let mut qmp = luksmith::qemu::Qmp::connect(&folder.path("qmp"), PATIENCE).unwrap();
    let objects = qmp
        .execute("qom-list", &json!({"path": "/objects"}))
        .unwrap();
    let names: Vec<&str> = objects
        .as_array()
        .unwrap()
        .iter()
        .filter_map(|one| one["name"].as_str())
        .collect();
    assert!(
        names.contains(&"disk-master") && !names.iter().any(|name| name.starts_with("luksmith")),
        "{names:?}"
    );

    let absent = folder.fails(
        4,
        ["qemu", "amend", "add", "nowhere", "--new-key-file", "new"],
    );
    assert!(
        absent.contains("cannot connect to the monitor nowhere"),
        "{absent}"
    );
    drop(qmp);
    let mut unknown = String::new();
    wait_until("the monitor is free again", || {
        let node = ["--node", "x", "--timeout", "5"];
        unknown = said(&folder.command(add.iter().chain(&node)).output().unwrap());
        !unknown.contains("one client at a time")
    });
    assert!(unknown.contains("no block node x"), "{unknown}");
}
