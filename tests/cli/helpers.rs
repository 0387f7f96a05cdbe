//! Key stores behind helpers, as the command line uses them.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use luksmith_formats::json::Value;
use support::json_schema::check;

use crate::session::{CHEAP, Ran, Session};

/// Keeps each value in a file of its folder. Before or after the call whose number is in the file
/// `kill`, it kills luksmith. Each call is a line of `calls`.
const STORE: &str = r#"
request=$(cat)
value="$here/$(printf %s "$request" | sed 's/.*"reference":"\([^"]*\)".*/\1/').value"
echo "$1 ${value##*/}" >>"$here/calls"
when=$(cat "$here/kill" 2>/dev/null || :)
number=$(wc -l <"$here/calls")
if [ "$when" = "before $number" ]; then kill -9 $PPID; exit 1; fi
code=0
case $1 in
get) if [ -e "$value" ]; then cat "$value" >&3; else code=66; fi ;;
store)
    case $request in
    *'"new":true'*) if [ -e "$value" ]; then exit 73; fi ;;
    esac
    cat <&3 >"$value" ;;
erase) rm -f "$value" ;;
check) ;;
*) code=64 ;;
esac
if [ "$when" = "after $number" ]; then kill -9 $PPID; fi
exit $code
"#;

/// A session with a folder of helpers, in which `key-test` is a script.
struct Helpers {
    session: Session,
}

impl Helpers {
    fn new(script: &str) -> Self {
        let session = Session::new();
        fs::create_dir(session.path("helpers")).unwrap();
        let helpers = Self { session };
        helpers.write(script);
        helpers
    }

    /// With `disk.img`, whose passphrase the store has under the reference `vm`.
    fn with_volume() -> Self {
        let helpers = Self::new(STORE);
        let make = "create disk.img --size 1M --label a-label --key generate:helper:test:vm";
        helpers.cheap(make);
        helpers
    }

    fn path(&self, name: &str) -> PathBuf {
        self.session.path("helpers").join(name)
    }

    fn write(&self, script: &str) {
        let path = self.path("key-test");
        let here = self.path("");
        let text = format!("#!/bin/sh\nhere='{}'\n{script}", here.display());
        fs::write(&path, text).unwrap();
        fs::set_permissions(path, fs::Permissions::from_mode(0o700)).unwrap();
        fs::set_permissions(here, fs::Permissions::from_mode(0o755)).unwrap();
    }

    fn run(&self, args: &str) -> Ran {
        let args = args.split(' ').chain(["--helper-dir", "helpers"]);
        self.session.run(args)
    }

    fn run_cheap(&self, args: &str) -> Ran {
        let args = args.split(' ').chain(["--helper-dir", "helpers"]);
        self.session.run(args.chain(CHEAP))
    }

    #[track_caller]
    fn ok(&self, args: &str) -> String {
        let ran = self.run(args);
        assert_eq!(ran.code(), 0, "{args}: {}", ran.stderr());
        ran.stdout()
    }

    #[track_caller]
    fn cheap(&self, args: &str) -> String {
        let ran = self.run_cheap(args);
        assert_eq!(ran.code(), 0, "{args}: {}", ran.stderr());
        ran.stdout()
    }

    /// The value of a reference.
    fn value(&self, reference: &str) -> Option<Vec<u8>> {
        fs::read(self.path(&format!("{reference}.value"))).ok()
    }

    fn set(&self, reference: &str, value: &[u8]) {
        fs::write(self.path(&format!("{reference}.value")), value).unwrap();
    }

    /// Whether this opens the volume.
    fn opens(&self, passphrase: &[u8]) -> bool {
        self.session.write("tried", passphrase);
        let ran = self.run("key test disk.img --key-file tried");
        assert!([0, 2].contains(&ran.code()), "{}", ran.stderr());
        ran.code() == 0
    }

    fn keyslots(&self) -> usize {
        let listed = self.ok("key list disk.img --json");
        listed.matches("\"bound\"").count()
    }

    fn calls(&self) -> String {
        fs::read_to_string(self.path("calls")).unwrap_or_default()
    }
}

const ROTATE: &str = "key rotate disk.img --secret helper:test:vm";

#[test]
fn a_helper_is_a_source_everywhere() {
    let helpers = Helpers::with_volume();
    let first = helpers.value("vm").unwrap();
    assert_eq!(first.len(), 44);
    let said = helpers.ok("key test disk.img --key helper:test:vm");
    assert_eq!(said, "keyslot 0 opens the volume\n");
    helpers.cheap("key add disk.img --key helper:test:vm --new-key generate:helper:test:second");
    helpers.ok("key test disk.img --key helper:test:second --keyslot 1");
    helpers.ok("decrypt disk.img plain.img --key helper:test:second");
    helpers.ok("key remove disk.img --key helper:test:second");
    // It is not found without the option, and a value is never replaced by generate:.
    let args = ["key", "test", "disk.img", "--key", "helper:test:vm"];
    let missing = helpers.session.run(args);
    missing.fails(
        1,
        "there is no helper key-test in /etc/luksmith/helpers, /usr/libexec/luksmith",
    );
    missing.fails(1, "--helper-dir DIR");
    let again = "key add disk.img --key helper:test:vm --new-key generate:helper:test:vm";
    helpers
        .run_cheap(again)
        .fails(5, "has a value under this reference already");
    assert_eq!(helpers.value("vm").unwrap(), first);
    let unlock = helpers.run("key test disk.img --key generate:helper:test:vm");
    unlock.fails(1, "makes a new passphrase");
    let nothing = helpers.run("key test disk.img --key helper:test:none");
    nothing.fails(
        4,
        "helper:test:none: the key store has no value under this reference",
    );
    helpers
        .run("key test disk.img --key helper:../test:vm")
        .fails(1, "the name of a helper");
    helpers
        .run("key test disk.img --key generate:helper:test")
        .fails(1, "generate:helper:NAME:REFERENCE");
}

#[test]
fn a_helper_knows_the_volume_and_what_it_says_is_shown_with_its_name() {
    let helpers = Helpers::with_volume();
    let passphrase = String::from_utf8(helpers.value("vm").unwrap()).unwrap();
    helpers.write(&format!(
        "cat >\"$here/request\"; printf '\\033[31mone\\ntwo' >&2; printf %s '{passphrase}' >&3"
    ));
    let ran = helpers.run("key test disk.img --key helper:test:vm");
    assert_eq!(ran.code(), 0, "{}", ran.stderr());
    let said = ran.stderr();
    assert!(
        said.contains("warning: helper test: \\u{1b}[31mone\n"),
        "{said}"
    );
    assert!(
        said.contains("helper test: two\n") && !said.contains(&passphrase),
        "{said}"
    );
    let request = fs::read_to_string(helpers.path("request")).unwrap();
    let info = helpers.ok("info disk.img");
    let uuid = request
        .split("\"uuid\":\"")
        .nth(1)
        .unwrap()
        .get(..36)
        .unwrap();
    assert!(info.contains(uuid), "{request}");
    assert!(request.contains("\"label\":\"a-label\""), "{request}");
    assert!(
        request.starts_with("{\"version\":1,\"verb\":\"get\",\"reference\":\"vm\""),
        "{request}"
    );
}

#[test]
fn helpers_that_fail_or_are_not_trusted_are_said_so() {
    let helpers = Helpers::with_volume();
    let test = || helpers.run("key test disk.img --key helper:test:vm");
    for (script, code, said) in [
        ("exit 1", 4, "it failed with exit code 1"),
        (
            "exit 64",
            1,
            "does not accept this reference, or cannot get",
        ),
        ("exit 75", 4, "cannot be reached at present"),
        ("exit 77", 2, "does not permit it"),
        ("exit 0", 4, "gave no secret on descriptor 3"),
        ("printf secret", 4, "gave no secret on descriptor 3"),
        (
            "printf wrong >&3",
            2,
            "no keyslot opens with this passphrase",
        ),
    ] {
        helpers.write(script);
        test().fails(code, said);
    }
    helpers.write("printf wrong >&3");
    let set = |name: &str, mode| {
        fs::set_permissions(helpers.path(name), fs::Permissions::from_mode(mode)).unwrap();
    };
    set("key-test", 0o722);
    test().fails(2, "other users can write to");
    test().fails(2, "chmod go-w");
    set("key-test", 0o700);
    set("", 0o777);
    test().fails(2, "other users can write to");
}

#[test]
fn a_rotation_leaves_one_keyslot_and_one_value() {
    let helpers = Helpers::with_volume();
    let old = helpers.value("vm").unwrap();
    let said = helpers.cheap(ROTATE);
    assert_eq!(
        said,
        "disk.img: helper:test:vm has a new passphrase, in keyslot 1; keyslots removed: 0\n"
    );
    let new = helpers.value("vm").unwrap();
    assert!(new != old && helpers.opens(&new) && !helpers.opens(&old));
    assert_eq!(helpers.keyslots(), 1);
    assert_eq!(helpers.value("vm.luksmith-new"), None);
    assert_eq!(helpers.value("vm.luksmith-old"), None);
    // The order of the contract: both passphrases are kept, the value is set, read, read again.
    let calls = helpers.calls();
    let calls: Vec<_> = calls
        .lines()
        .skip(3)
        .filter(|call| !call.starts_with("check"))
        .collect();
    let (new, old) = ("vm.luksmith-new.value", "vm.luksmith-old.value");
    let expected = [
        ("get", "vm.value"),
        ("get", new),
        ("get", old),
        ("store", new),
        ("get", new),
        ("store", old),
        ("get", old),
        ("store", "vm.value"),
        ("get", "vm.value"),
        ("get", "vm.value"),
        ("get", "vm.value"),
        ("erase", old),
        ("erase", new),
    ];
    let expected: Vec<_> = expected
        .iter()
        .map(|(verb, at)| format!("{verb} {at}"))
        .collect();
    assert_eq!(calls[calls.len() - expected.len()..], expected, "{calls:?}");
}

#[test]
fn the_json_of_a_rotation_is_as_its_schema_says() {
    let helpers = Helpers::with_volume();
    let ran = helpers.run_cheap(&format!("{ROTATE} --json"));
    assert_eq!(ran.code(), 0, "{}", ran.stderr());
    let document: Value = ran.stdout().parse().unwrap();
    check(&document);
    assert_eq!(document["command"].as_str(), Some("key rotate"));
    assert_eq!(document["key_store"].as_str(), Some("helper:test:vm"));
}

/// Kills luksmith before and after each call of the helper. Between two calls there is at most one
/// change of the header, and `tests/crash` cuts those at each write.
#[test]
fn a_rotation_that_is_killed_loses_nothing_and_the_next_one_completes_it() {
    let mut number = 0;
    'calls: loop {
        number += 1;
        for when in ["before", "after"] {
            let helpers = Helpers::with_volume();
            let original = helpers.value("vm").unwrap();
            let at = format!("{when} {number}");
            fs::remove_file(helpers.path("calls")).unwrap();
            fs::write(helpers.path("kill"), &at).unwrap();
            let killed = helpers.run_cheap(ROTATE);
            fs::remove_file(helpers.path("kill")).unwrap();
            if killed.code() == 0 {
                break 'calls;
            }
            assert_eq!(killed.code(), -1, "{at}: {}", killed.stderr());
            // The value opens the volume, and what opened it before is known.
            let value = helpers.value("vm").unwrap();
            assert!(helpers.opens(&value), "{at}");
            let kept = [
                helpers.value("vm.luksmith-new"),
                helpers.value("vm.luksmith-old"),
            ];
            let known: Vec<_> = kept.iter().flatten().chain([&value]).collect();
            assert!(
                !helpers.opens(&original) || known.contains(&&original),
                "{at}"
            );
            let mut opened = known.clone();
            opened.sort();
            opened.dedup();
            opened.retain(|passphrase| helpers.opens(passphrase));
            assert_eq!(
                opened.len(),
                helpers.keyslots(),
                "{at}: a keyslot that nothing opens"
            );

            let completed = helpers.run_cheap(ROTATE);
            assert_eq!(completed.code(), 0, "{at}: {}", completed.stderr());
            let new = helpers.value("vm").unwrap();
            assert!(new != original, "{at}");
            assert!(helpers.opens(&new) && !helpers.opens(&original), "{at}");
            assert_eq!(helpers.keyslots(), 1, "{at}");
            let left = ["vm.luksmith-new", "vm.luksmith-old"].map(|kept| helpers.value(kept));
            assert_eq!(left, [None, None], "{at}");
        }
    }
    assert!(number >= 14, "{number} calls");
}

#[test]
fn a_store_that_lies_or_loses_keeps_the_old_keyslot() {
    // It says that it has stored the value, and has not.
    let helpers = Helpers::with_volume();
    let old = helpers.value("vm").unwrap();
    let good = STORE.to_owned();
    let liar = |condition: &str| {
        let lie = format!("store)\n    if {condition}; then exit 0; fi\n");
        helpers.write(&good.replacen("store)\n", &lie, 1));
    };
    liar("true");
    helpers
        .run_cheap(ROTATE)
        .fails(4, "the value was stored, and cannot be read back");
    assert_eq!(helpers.keyslots(), 1);
    liar("[ \"${value##*/}\" = vm.value ]");
    helpers
        .run_cheap(ROTATE)
        .fails(4, "returns another value than it was given");
    assert!(helpers.opens(&old) && helpers.keyslots() == 2);
    // Another program replaces the value between the two readings of the last step.
    helpers.write(&good.replacen(
        "get) ",
        "get) if [ \"$(grep -c '^get vm.value' \"$here/calls\")\" = 4 ]; then printf x >\"$value\"; fi; ",
        1,
    ));
    fs::remove_file(helpers.path("calls")).unwrap();
    let replaced = helpers.run_cheap(ROTATE);
    replaced.fails(5, "helper:test:vm got another value meanwhile");
    replaced.fails(5, "no old keyslot was removed");
    assert!(helpers.opens(&old) && helpers.keyslots() == 2);
    // Now the value opens nothing, but what is kept does.
    helpers.write(&good);
    let lost = helpers.run_cheap(ROTATE);
    lost.fails(
        2,
        "does not open the volume, and that of helper:test:vm.luksmith-new does",
    );
    lost.fails(
        2,
        "luksmith key test IMAGE --key helper:test:vm.luksmith-new",
    );
    let new = helpers.value("vm.luksmith-new").unwrap();
    helpers.set("vm", &new);
    helpers.cheap(ROTATE);
    assert!(helpers.opens(&new) && !helpers.opens(&old) && helpers.keyslots() == 1);
}

#[test]
fn another_passphrase_that_was_put_there_meanwhile_is_what_is_rotated() {
    let helpers = Helpers::with_volume();
    let old = helpers.value("vm").unwrap();
    fs::remove_file(helpers.path("calls")).unwrap();
    // Killed when the new keyslot is there and the value is not set.
    fs::write(helpers.path("kill"), "before 9").unwrap();
    assert_eq!(helpers.run_cheap(ROTATE).code(), -1);
    fs::remove_file(helpers.path("kill")).unwrap();
    assert_eq!(helpers.keyslots(), 2);
    let orphan = helpers.value("vm.luksmith-new").unwrap();
    helpers.cheap("key add disk.img --key helper:test:vm --new-key-file other");
    helpers.set("vm", b"other");
    helpers.cheap(ROTATE);
    let new = helpers.value("vm").unwrap();
    assert!(helpers.opens(&new) && !helpers.opens(b"other") && !helpers.opens(&orphan));
    // That passphrase was no longer the one of the store: it is another person's.
    assert!(helpers.opens(&old) && helpers.keyslots() == 2);
    assert_eq!(helpers.value("vm.luksmith-new"), None);
}

#[test]
fn luks1_is_rotated_too_and_a_full_header_is_refused_first() {
    let helpers = Helpers::new(STORE);
    helpers.cheap("create disk.img --size 1M --type luks1 --key generate:helper:test:vm");
    let old = helpers.value("vm").unwrap();
    helpers.cheap(ROTATE);
    let new = helpers.value("vm").unwrap();
    assert!(helpers.opens(&new) && !helpers.opens(&old) && helpers.keyslots() == 1);
    for _ in 0..7 {
        helpers.cheap("key add disk.img --key helper:test:vm --new-key-file other");
    }
    helpers
        .run_cheap(ROTATE)
        .fails(5, "all 8 keyslots are in use");
    assert_eq!(helpers.value("vm").unwrap(), new);
    assert_eq!(helpers.value("vm.luksmith-new"), None);
}

#[test]
fn a_rotation_needs_a_reference_and_a_value_that_opens() {
    let helpers = Helpers::with_volume();
    for (secret, code, said) in [
        ("helper:test", 1, "helper:test has no reference"),
        ("secret", 1, "not a reference of a key store"),
        (
            "libvirt:usage=volume:/a",
            1,
            "not a reference of a key store",
        ),
        ("helper:test:none", 4, "has no value under this reference"),
    ] {
        helpers
            .run_cheap(&format!("key rotate disk.img --secret {secret}"))
            .fails(code, said);
    }
    helpers.set("vm", b"wrong");
    helpers
        .run_cheap(ROTATE)
        .fails(2, "does not open the volume");
    assert_eq!(helpers.value("vm").unwrap(), b"wrong");
    assert_eq!(helpers.value("vm.luksmith-new"), None);
}
