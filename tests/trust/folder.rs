//! The folder of the pins: who may enter it, and two processes that use it.

use std::fs::{self, Permissions, set_permissions};
use std::os::unix::fs::{PermissionsExt as _, lchown, symlink};
use std::time::{Duration, Instant};

use luksmith_formats::trust::pin::Pin;
use rustix::fs::{FlockOperation, flock};

use crate::site::{CHEAP, Site};

/// A user who is not the one of the tests.
const OTHER: u32 = 65534;

#[test]
fn a_folder_that_other_users_could_enter_is_refused() {
    let site = Site::pinned("luks2");
    let test = "key test disk.img --trust pins --key-file key";
    let mode = |name: &str, mode| {
        set_permissions(site.path(name), Permissions::from_mode(mode)).unwrap();
    };
    for bad in [0o750, 0o701, 0o777] {
        mode("pins", bad);
        let said = site.fails(2, test);
        assert!(said.contains("which admits other users"), "{said}");
        assert!(said.contains("chmod 700"), "{said}");
    }
    mode("pins", 0o700);
    let entry = format!("pins/{}", site.uuid("disk.img"));
    for (name, bad, good) in [
        (entry.clone(), 0o755, 0o700),
        (format!("{entry}/pin"), 0o644, 0o600),
    ] {
        mode(&name, bad);
        site.fails(2, test);
        mode(&name, good);
        site.ok(test);
    }
    let said = site.fails(4, "key test disk.img --trust nothing --key-file key");
    assert!(
        said.contains("`luksmith trust init IMAGE --trust DIR` makes it"),
        "{said}"
    );

    // Links of this user are followed.
    symlink("pins", site.path("link")).unwrap();
    site.ok("key test disk.img --trust link --key-file key");
    fs::rename(site.path(&entry), site.path("moved")).unwrap();
    symlink(site.path("moved"), site.path(&entry)).unwrap();
    site.fails(4, test);
    fs::remove_file(site.path(&entry)).unwrap();
    fs::rename(site.path("moved"), site.path(&entry)).unwrap();
    site.ok(test);

    // Only root can give files away.
    if rustix::process::geteuid().is_root() {
        lchown(site.path("pins"), Some(OTHER), None).unwrap();
        let said = site.fails(2, test);
        assert!(said.contains("it belongs to user 65534"), "{said}");
        lchown(site.path("pins"), Some(0), None).unwrap();
        lchown(site.path("link"), Some(OTHER), None).unwrap();
        site.fails(2, "key test disk.img --trust link --key-file key");
        // A user who can write to the folder above can put another folder in its place.
        fs::create_dir(site.path("above")).unwrap();
        fs::rename(site.path("pins"), site.path("above/pins")).unwrap();
        site.ok("key test disk.img --trust above/pins --key-file key");
        mode("above", 0o777);
        site.fails(2, "key test disk.img --trust above/pins --key-file key");
    }
}

#[test]
fn a_damaged_pin_is_no_pin() {
    let site = Site::pinned("luks2");
    let pin = format!("pins/{}/pin", site.uuid("disk.img"));
    let bytes = site.read(&pin);
    let test = "key test disk.img --trust pins --key-file key";
    for (damaged, why) in [
        (bytes[..bytes.len() - 9].to_vec(), "it is not complete"),
        (
            [&bytes[..20], b"x", &bytes[21..]].concat(),
            "its checksum does not match",
        ),
    ] {
        site.write(&pin, &damaged);
        let said = site.fails(4, test);
        assert!(said.contains(why), "{said}");
        let said = site.fails(4, "trust status pins");
        assert!(said.contains("is damaged"), "{said}");
    }
    site.write(&pin, &bytes);
    site.ok(test);
}

/// While another process changes a pin, a reader accepts both headers, and a writer waits.
#[test]
fn two_processes_take_turns() {
    let site = Site::pinned("luks2");
    let entry = site.path("pins").join(site.uuid("disk.img"));
    let lock = fs::File::open(entry.join("pin.lock")).unwrap();
    flock(&lock, FlockOperation::LockExclusive).unwrap();
    let mut pin = Pin::parse(&fs::read(entry.join("pin")).unwrap()).unwrap();
    pin.next = Some(pin.current.clone());
    fs::write(entry.join("pin"), pin.to_bytes()).unwrap();
    site.ok("key test disk.img --trust pins --key-file key");
    let still = Pin::parse(&fs::read(entry.join("pin")).unwrap()).unwrap();
    assert!(
        still.next.is_some(),
        "the pin of another process was settled"
    );

    let words =
        format!("key add disk.img --trust pins --key-file key --new-key-file other {CHEAP}");
    let began = Instant::now();
    let mut adding = site.command(&words).spawn().unwrap();
    std::thread::sleep(Duration::from_millis(600));
    assert!(
        adding.try_wait().unwrap().is_none(),
        "it did not wait for the lock"
    );
    drop(lock);
    assert!(adding.wait().unwrap().success());
    assert!(began.elapsed() >= Duration::from_millis(600));
    site.ok("trust verify disk.img --trust pins --key-file other");
    let settled = Pin::parse(&fs::read(entry.join("pin")).unwrap()).unwrap();
    assert!(settled.next.is_none());

    // Many processes at once, each with its own volume.
    let names: Vec<_> = (0..4).map(|number| format!("{number}.img")).collect();
    names.iter().for_each(|name| site.create(name, "luks1"));
    let init =
        |name: &String| site.command(&format!("trust init {name} --trust pins --key-file key"));
    let begun: Vec<_> = names
        .iter()
        .map(|name| init(name).spawn().unwrap())
        .collect();
    for mut begun in begun {
        assert!(begun.wait().unwrap().success());
    }
    let said = site.ok("trust status pins --json");
    let value: luksmith_formats::json::Value = said.parse().unwrap();
    assert_eq!(value["volumes"].as_array().unwrap().len(), 5);
}
