use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use super::*;
use crate::secret::{HelperError, Purpose, Scheme, SecretError};

/// A folder with the helper `key-test`.
struct Place(tempfile::TempDir);

/// Keeps values in files beside itself, with a number as revision.
const GOOD: &str = r#"
request=$(cat)
name=$(printf %s "$request" | sed 's/.*"reference":"\([^"]*\)".*/\1/')
value="$here/value-$name"
case $1 in
get) [ -e "$value" ] || exit 66; cat "$value" >&3; cat "$value.revision" ;;
check) ;;
erase) rm -f "$value" ;;
store)
    case $request in
    *'"new":true'*) [ ! -e "$value" ] || exit 73 ;;
    *'"revision":null'*) ;;
    *) case $request in *"\"revision\":\"$(cat "$value.revision")\""*) ;; *) exit 73 ;; esac ;;
    esac
    cat <&3 >"$value"; echo $(($(cat "$value.revision" 2>/dev/null || echo 0) + 1)) >"$value.revision" ;;
*) exit 64 ;;
esac
"#;

impl Place {
    fn new(script: &str) -> Self {
        let place = Self(tempfile::tempdir().unwrap());
        place.write(script, 0o700);
        place
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// A script sees its folder as `$here`.
    fn write(&self, script: &str, mode: u32) {
        let path = self.path("key-test");
        let here = self.0.path().display();
        fs::write(&path, format!("#!/bin/sh\nhere='{here}'\n{script}\n")).unwrap();
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    }

    fn store(&self, text: &str) -> KeyStore {
        let folders = HelperFolders::new().also(self.0.path());
        KeyStore::new(text.parse().unwrap(), folders).time(Duration::from_secs(20))
    }

    fn get(&self) -> Result<StoredValue, KeyStoreError> {
        self.store("test:x").get(None, &Interrupt::new())
    }

    #[track_caller]
    fn refused(&self, what: &str) {
        match self.get() {
            Err(KeyStoreError::Helper(HelperError::Refused(error))) => {
                assert!(error.to_string().contains(what), "{error}");
            }
            other => panic!("{what}: {other:?}"),
        }
    }

    #[track_caller]
    fn set(&self, name: &str, mode: u32) {
        fs::set_permissions(self.path(name), fs::Permissions::from_mode(mode)).unwrap();
    }
}

fn good() -> Place {
    Place::new(GOOD)
}

fn secret(text: &str) -> Passphrase {
    Passphrase::copy_from(text.as_bytes()).unwrap()
}

#[test]
fn a_value_is_stored_read_replaced_and_erased() {
    let place = good();
    let store = place.store("test:x");
    let interrupt = Interrupt::new();
    let no_value = store.get(None, &interrupt);
    assert!(
        matches!(no_value, Err(KeyStoreError::NoValue)),
        "{no_value:?}"
    );
    store.check(None, &interrupt).unwrap();
    let put = |value, expected| store.store(&secret(value), expected, None, &interrupt);
    let first = put("one\n", Expected::Nothing).unwrap();
    assert_eq!(first.passphrase.as_bytes(), b"one\n");
    assert_eq!(first.revision.as_deref(), Some("1"));
    let again = put("two", Expected::Nothing);
    assert!(matches!(again, Err(KeyStoreError::Conflict)), "{again:?}");
    let second = put("two", Expected::Value(Some("1"))).unwrap();
    assert_eq!(second.revision.as_deref(), Some("2"));
    let late = put("three", Expected::Value(Some("1")));
    assert!(matches!(late, Err(KeyStoreError::Conflict)), "{late:?}");
    put("three", Expected::Value(None)).unwrap();
    let read = store.get(None, &interrupt).unwrap();
    assert_eq!(read.passphrase.as_bytes(), b"three");
    // Another reference is another value.
    let other = store.at(store.reference().with(".more").unwrap());
    assert!(matches!(
        other.get(None, &interrupt),
        Err(KeyStoreError::NoValue)
    ));
    store.erase(None, &interrupt).unwrap();
    store.erase(None, &interrupt).unwrap();
    assert!(matches!(
        store.get(None, &interrupt),
        Err(KeyStoreError::NoValue)
    ));
}

#[test]
fn a_long_value_passes_in_both_directions() {
    let place = good();
    let value: Vec<u8> = (0..700_000_u32).map(|n| n.to_le_bytes()[1]).collect();
    let value = Passphrase::copy_from(&value).unwrap();
    let store = place.store("test:x");
    let stored = store.store(&value, Expected::Nothing, None, &Interrupt::new());
    assert!(stored.unwrap().passphrase.ct_eq(&value));
}

#[test]
fn the_request_says_what_the_secret_is_for() {
    let place = Place::new("cat >&3; printf '\\nverb %s' \"$*\" >&3");
    let said = |store: &KeyStore, volume| {
        let read = store.get(volume, &Interrupt::new()).unwrap();
        String::from_utf8(read.passphrase.as_bytes().to_vec()).unwrap()
    };
    assert_eq!(
        said(&place.store("test"), None),
        "{\"version\":1,\"verb\":\"get\",\"reference\":null,\"uuid\":null,\"label\":null,\
         \"new\":null,\"revision\":null}\n\nverb get"
    );
    let volume = VolumeName::new("a-uuid", "a \"label\"\n");
    let full = said(&place.store("test:a:b/c#d"), Some(volume));
    assert!(
        full.contains("\"reference\":\"a:b/c#d\",\"uuid\":\"a-uuid\""),
        "{full}"
    );
    assert!(full.contains(r#""label":"a \"label\"\n""#), "{full}");
}

#[test]
fn a_helper_has_nothing_of_ours() {
    // Descriptors that this process has without FD_CLOEXEC are not passed on.
    let file = fs::File::open("/dev/null").unwrap();
    let file = rustix::io::fcntl_dupfd_cloexec(&file, 200).unwrap();
    rustix::io::fcntl_setfd(&file, rustix::io::FdFlags::empty()).unwrap();
    let place = Place::new(
        "env | cut -d= -f1 | sort | tr '\\n' ' ' >&3; pwd >&3; ls /proc/self/fd >&3
         tty >/dev/null && echo a terminal >&3; true </dev/tty && echo a terminal >&3; exit 0",
    );
    let read = place.get().unwrap();
    let said = String::from_utf8(read.passphrase.as_bytes().to_vec()).unwrap();
    let mut lines = said.lines();
    let variables = lines.next().unwrap();
    let (variables, folder) = variables.rsplit_once(' ').unwrap();
    assert_eq!(folder, "/");
    // The shell itself sets the last ones.
    for name in variables.split_whitespace() {
        assert!(
            ["PATH", "PWD", "SHLVL", "OLDPWD", "_"].contains(&name),
            "{name}"
        );
    }
    // Besides, `ls` has the folder open, and the script itself is open.
    let mut numbers: Vec<u32> = lines.map(|line| line.parse().unwrap()).collect();
    numbers.sort_unstable();
    assert!(numbers.starts_with(&[0, 1, 2, 3, 4]), "{numbers:?}");
    assert!(
        numbers.len() <= 6 && numbers.iter().all(|it| *it < 200),
        "{numbers:?}"
    );
}

#[test]
fn exit_codes_are_told_apart() {
    let fails = |script: &str| Place::new(script).get().err().unwrap();
    assert!(matches!(
        fails("exit 64"),
        KeyStoreError::NotAccepted { verb: "get" }
    ));
    assert!(matches!(fails("exit 66"), KeyStoreError::NoValue));
    assert!(matches!(fails("exit 73"), KeyStoreError::Conflict));
    assert!(matches!(fails("exit 75"), KeyStoreError::Unreachable));
    assert!(matches!(fails("exit 77"), KeyStoreError::Denied));
    for (script, code) in [
        ("exit 1", 1),
        ("printf secret >&3; exit 2", 2),
        ("no-such-program", 127),
    ] {
        match fails(script) {
            KeyStoreError::Helper(HelperError::Failed(found)) => assert_eq!(found, code),
            other => panic!("{other:?}"),
        }
    }
    assert!(matches!(
        fails("kill -9 $$"),
        KeyStoreError::Helper(HelperError::Killed(9))
    ));
}

#[test]
fn a_helper_that_hangs_is_killed_with_its_children() {
    for script in [
        "sleep 1000",
        "sleep 1000 & echo $! >\"$here/pid\"; wait",
        "printf secret >&3; exec 3>&-; sleep 1000",
        "while :; do echo on and on >&2; done",
    ] {
        let place = Place::new(script);
        let store = place.store("test:x").time(Duration::from_millis(400));
        let slow = store.get(None, &Interrupt::new());
        assert!(
            matches!(slow, Err(KeyStoreError::Helper(HelperError::Slow(_)))),
            "{script}: {slow:?}"
        );
        if let Ok(pid) = fs::read_to_string(place.path("pid")) {
            assert!(is_gone(&pid), "{pid}");
        }
    }
}

/// Waits until a process does not exist or is a zombie.
fn is_gone(pid: &str) -> bool {
    let stat = format!("/proc/{}/stat", pid.trim());
    (0..1000).any(|_| match fs::read_to_string(&stat) {
        Ok(stat) if !stat.contains(") Z ") => {
            std::thread::sleep(Duration::from_millis(10));
            false
        }
        _ => true,
    })
}

#[test]
fn children_that_keep_descriptors_open_are_not_waited_for() {
    let place = Place::new("sleep 1000 & echo $! >\"$here/pid\"; printf secret >&3");
    assert_eq!(place.get().unwrap().passphrase.as_bytes(), b"secret");
    assert!(is_gone(&fs::read_to_string(place.path("pid")).unwrap()));
    // One that has left the process group.
    let place = Place::new(
        "setsid sh -c 'echo $$ >\"$0/pid\"; exec sleep 60' \"$here\" &
         while [ ! -s \"$here/pid\" ]; do sleep 0.01; done; printf secret >&3",
    );
    assert_eq!(place.get().unwrap().passphrase.as_bytes(), b"secret");
    let pid = fs::read_to_string(place.path("pid")).unwrap();
    let pid = pid
        .trim()
        .parse()
        .ok()
        .and_then(rustix::process::Pid::from_raw);
    rustix::process::kill_process(pid.unwrap(), rustix::process::Signal::KILL).unwrap();
}

#[test]
fn too_much_too_little_and_lies_are_errors() {
    let fails = |script: &str| Place::new(script).get().err().unwrap();
    assert!(matches!(
        fails("head -c 8388609 /dev/zero >&3"),
        KeyStoreError::Secret(SecretError::TooLong { .. })
    ));
    assert!(matches!(
        fails("printf secret >&3; yes"),
        KeyStoreError::Secret(SecretError::TooLong { .. })
    ));
    // A value on stdout is not one on descriptor 3.
    assert!(matches!(fails("printf secret"), KeyStoreError::Nothing));
    assert!(matches!(fails("exit 0"), KeyStoreError::Nothing));
    for revision in ["printf 'a\\nb'", "printf '\\033'", "printf '\\303\\244'"] {
        let script = format!("printf secret >&3; {revision}");
        assert!(
            matches!(fails(&script), KeyStoreError::NotRevision),
            "{revision}"
        );
    }
    // It says that it has stored the value.
    let store = |script: &str| {
        let place = Place::new(script);
        let store = place.store("test:x");
        store
            .store(&secret("value"), Expected::Nothing, None, &Interrupt::new())
            .err()
            .unwrap()
    };
    assert!(matches!(
        store("[ $1 = store ] || printf other >&3"),
        KeyStoreError::Altered
    ));
    let KeyStoreError::NotReadBack(error) = store("[ $1 = store ] || exit 66") else {
        panic!("it is not noticed");
    };
    assert!(matches!(*error, KeyStoreError::NoValue));
    // It never reads the secret, which is more than a pipe holds.
    let place = Place::new("exit 0");
    let long = Passphrase::copy_from(&[7; 300_000]).unwrap();
    let lie = place
        .store("test:x")
        .store(&long, Expected::Nothing, None, &Interrupt::new());
    assert!(matches!(lie, Err(KeyStoreError::NotReadBack(_))), "{lie:?}");
}

#[test]
fn a_helper_that_others_could_have_written_is_not_run() {
    let place = Place::new("printf secret >&3");
    assert_eq!(place.get().unwrap().passphrase.as_bytes(), b"secret");
    for mode in [0o720, 0o702] {
        place.set("key-test", mode);
        place.refused("other users can write to");
    }
    place.set("key-test", 0o600);
    place.refused("is not executable");
    place.set("key-test", 0o700);
    for mode in [0o770, 0o707, 0o1777] {
        place.set("", mode);
        place.refused("other users can write to");
    }
    place.set("", 0o700);
    if rustix::process::geteuid().is_root() {
        std::os::unix::fs::chown(place.path("key-test"), Some(65534), None).unwrap();
        place.refused("belongs to user 65534");
        std::os::unix::fs::chown(place.path("key-test"), Some(0), None).unwrap();
        std::os::unix::fs::chown(place.0.path(), Some(65534), None).unwrap();
        place.refused("belongs to user 65534");
    }
    // What is found first counts, although a later folder has a good one.
    let good = Place::new("printf good >&3");
    place.set("", 0o770);
    let folders = HelperFolders::new()
        .also(place.0.path())
        .also(good.0.path());
    let store = KeyStore::new("test:x".parse().unwrap(), folders);
    assert!(store.get(None, &Interrupt::new()).is_err());
}

#[test]
fn a_folder_above_that_others_could_replace_is_refused() {
    let outer = tempfile::tempdir().unwrap();
    let inner = outer.path().join("helpers");
    fs::create_dir(&inner).unwrap();
    fs::set_permissions(&inner, fs::Permissions::from_mode(0o755)).unwrap();
    let path = inner.join("key-test");
    fs::write(&path, "#!/bin/sh\nprintf secret >&3\n").unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    let get = || {
        let folders = HelperFolders::new().also(&inner);
        let store = KeyStore::new("test:x".parse().unwrap(), folders);
        store.get(None, &Interrupt::new())
    };
    get().unwrap();
    fs::set_permissions(outer.path(), fs::Permissions::from_mode(0o777)).unwrap();
    let error = get().err().unwrap();
    assert!(
        matches!(error, KeyStoreError::Helper(HelperError::Refused(_))),
        "{error:?}"
    );
    // No other user can rename a folder of ours in a sticky one.
    fs::set_permissions(outer.path(), fs::Permissions::from_mode(0o1777)).unwrap();
    get().unwrap();
}

#[test]
fn a_link_leads_only_to_a_helper_that_is_trusted_too() {
    let (place, other) = (Place::new(""), Place::new("printf secret >&3"));
    let link = |to: &Path| {
        let _ = fs::remove_file(place.path("key-test"));
        symlink(to, place.path("key-test")).unwrap();
    };
    link(&other.path("key-test"));
    assert_eq!(place.get().unwrap().passphrase.as_bytes(), b"secret");
    other.set("key-test", 0o722);
    place.refused("other users can write to");
    other.set("key-test", 0o700);
    other.set("", 0o777);
    place.refused("other users can write to");
    other.set("", 0o700);
    if rustix::process::geteuid().is_root() {
        std::os::unix::fs::lchown(place.path("key-test"), Some(65534), None).unwrap();
        place.refused("symbolic link of user 65534");
    }
    link(Path::new("/proc/self/exe"));
    assert!(place.get().is_err());
    link(Path::new("key-test"));
    assert!(place.get().is_err());
}

/// The script replaces its own name while it runs. What runs is the file that was checked.
#[test]
fn what_runs_is_what_was_checked() {
    let place = Place::new(
        "printf '#!/bin/sh\\nprintf replaced >&3\\n' >\"$here/new\"; chmod 777 \"$here/new\"
         mv \"$here/new\" \"$here/key-test\"; printf first >&3",
    );
    assert_eq!(place.get().unwrap().passphrase.as_bytes(), b"first");
    place.refused("other users can write to");
}

#[test]
fn an_interrupt_ends_it() {
    let place = Place::new("echo $$ >\"$here/pid\"; exec sleep 1000");
    let store = place.store("test:x");
    let interrupt = Interrupt::new();
    let stopped = std::thread::scope(|scope| {
        let running = scope.spawn(|| store.get(None, &interrupt).map(|_| ()));
        while !fs::read_to_string(place.path("pid")).is_ok_and(|pid| pid.ends_with('\n')) {
            std::thread::sleep(Duration::from_millis(5));
        }
        interrupt.trigger();
        running.join().unwrap()
    });
    assert!(matches!(
        stopped,
        Err(KeyStoreError::Secret(SecretError::Interrupted))
    ));
    assert!(is_gone(&fs::read_to_string(place.path("pid")).unwrap()));
}

#[test]
fn a_generated_passphrase_is_in_the_store_first_and_replaces_nothing() {
    let place = good();
    let folders = HelperFolders::new().also(place.0.path());
    let scheme = HelperScheme::generated(folders.clone());
    let source = scheme.parse("test:x").unwrap();
    let interrupt = Interrupt::new();
    let new = Purpose::new_secret("a volume", &interrupt);
    let made = source.read(new).unwrap();
    assert_eq!(made.as_bytes().len(), 44);
    assert_eq!(fs::read(place.path("value-x")).unwrap(), made.as_bytes());
    let again = source.read(new).err().unwrap();
    assert!(matches!(again, SecretError::Scheme { .. }), "{again}");
    let unlock = Purpose::unlock("a volume", &interrupt);
    assert!(matches!(
        source.read(unlock),
        Err(SecretError::OnlyNew { .. })
    ));
    let source = HelperScheme::existing(folders).parse("test:x").unwrap();
    assert!(source.read(unlock).unwrap().ct_eq(&made));
    assert!(scheme.parse("test").is_err());
}

#[test]
fn references_have_a_form() {
    for text in ["vault", "vault:secret/vm1", "a-1:x y:z", "vault:ä"] {
        let reference: StoreReference = text.parse().unwrap();
        assert_eq!(reference.to_string(), format!("helper:{text}"));
    }
    let long = format!("a:{}", "x".repeat(1025));
    for text in [
        "", ":", ":x", "a:", "../a:x", "a/b:x", "A:x", "a b:x", "a:x\ny", &long,
    ] {
        assert!(text.parse::<StoreReference>().is_err(), "{text}");
    }
    let missing = KeyStore::new("no-such:x".parse().unwrap(), HelperFolders::new());
    let missing = missing.get(None, &Interrupt::new()).err().unwrap();
    assert!(
        matches!(missing, KeyStoreError::NotFound { .. }),
        "{missing:?}"
    );
}
