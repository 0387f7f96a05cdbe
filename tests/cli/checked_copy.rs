//! `inspect --out`: an image is copied first, and only a copy that is accepted is named.

use std::process::Command;

use support::peers;

use crate::session::{Ran, Session};

fn inspect(session: &Session, args: &str) -> Ran {
    session.run(format!("inspect {args}").split(' '))
}

fn qemu_img(session: &Session, args: &str) -> bool {
    let Some(qemu_img) = peers::find("qemu-img") else {
        return false;
    };
    let mut command = Command::new(qemu_img);
    command.current_dir(session.folder()).args(args.split(' '));
    assert!(command.status().unwrap().success(), "{args}");
    true
}

/// The names in the folder, hidden ones too.
fn names(session: &Session) -> Vec<String> {
    let entries = session.folder().read_dir().unwrap();
    let mut names: Vec<_> = entries
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

#[test]
fn the_copy_has_the_bytes_that_were_accepted() {
    let session = Session::new();
    let mut bytes = vec![0; (5 << 20) + 700];
    bytes[2 << 20..3 << 20].fill(7);
    bytes[(5 << 20) + 511] = 9;
    bytes.truncate((5 << 20) + 512);
    session.write("image", &bytes);
    let ran = inspect(&session, "image --format raw --out checked");
    assert_eq!(ran.code(), 0, "{}", ran.stderr());
    assert!(
        ran.stdout().contains("copied to      checked"),
        "{}",
        ran.stdout()
    );
    // What becomes of the image afterwards does not matter.
    session.write("image", b"another");
    assert!(session.read("checked") == bytes);
    let mode = std::fs::metadata(session.path("checked")).unwrap();
    assert_eq!(
        std::os::unix::fs::PermissionsExt::mode(&mode.permissions()) & 0o777,
        0o600
    );
}

#[test]
fn what_is_not_accepted_leaves_nothing_and_replaces_nothing() {
    let session = Session::new();
    let before = names(&session);
    session.write(
        "image",
        &[b"QFI\xfb\0\0\0\x03".as_slice(), &[0; 4088]].concat(),
    );
    inspect(&session, "image --format raw --out checked").fails(10, "is rejected as raw");
    session.write("image", &[0; 4096]);
    let small = "image --format raw --max-size 2K --out checked";
    inspect(&session, small).fails(6, "against the policy");
    assert!(!session.exists("checked"));

    session.write("checked", b"precious");
    inspect(&session, "image --format raw --out checked").fails(5, "checked exists");
    inspect(&session, &format!("{small} --force overwrite")).fails(6, "against the policy");
    assert_eq!(session.read("checked"), b"precious");
    let forced = "image --format raw --out checked --force overwrite";
    assert_eq!(inspect(&session, forced).code(), 0);
    assert_eq!(session.read("checked"), [0; 4096]);
    inspect(&session, "image --format raw --force overwrite").fails(1, "--out");

    let mut after = names(&session);
    after.retain(|name| !before.contains(name));
    assert_eq!(after, ["checked", "image"]);
}

#[test]
fn an_image_that_names_other_files_is_not_copied() {
    let session = Session::new();
    if !qemu_img(
        &session,
        "create -q -f vmdk -o subformat=twoGbMaxExtentSparse parts.vmdk 1M",
    ) {
        return;
    }
    session.write("policy", b"features = [\"extent-files\"]\n");
    let ran = inspect(&session, "parts.vmdk --format vmdk --policy policy");
    assert_eq!(ran.code(), 0, "{}", ran.stderr());
    let ran = inspect(
        &session,
        "parts.vmdk --format vmdk --policy policy --out checked",
    );
    ran.fails(6, "--out takes only an image of one file");
    assert!(!session.exists("checked"));
    // One of a single file is.
    assert!(qemu_img(&session, "convert -O vmdk policy one.vmdk"));
    let ran = inspect(&session, "one.vmdk --format vmdk --out checked");
    assert_eq!(ran.code(), 0, "{}", ran.stderr());
    assert!(session.read("checked") == session.read("one.vmdk"));
}

#[test]
fn a_policy_that_is_missing_or_is_none() {
    let session = Session::new();
    session.write("disk", &[0; 4096]);
    session.write("wrong", b"max-size = 7\n# more\n  sizes = 1\n");
    session.write("text", b"max-size = = 7\n");
    for command in ["inspect disk --format raw", "audit disk"] {
        let policy = |name: &str| {
            let args = format!("{command} --policy {name}");
            session.run(args.split(' '))
        };
        policy("missing").fails(4, "cannot read missing");
        let ran = policy("wrong");
        ran.fails(
            1,
            "the policy cannot be read: line 3, column 3: unknown field `sizes`",
        );
        assert!(!ran.stderr().contains("\\n"), "{}", ran.stderr());
        let ran = policy("text");
        ran.fails(1, "the policy cannot be read: line 1, column ");
        assert!(!ran.stderr().contains("\\n"), "{}", ran.stderr());
    }
}

#[test]
fn a_copy_is_not_written_to_stdout() {
    let session = Session::new();
    session.write("disk", &[0; 4096]);
    let ran = session.run("inspect disk --format raw --out -".split(' '));
    ran.fails(1, "--out -: ");
    ran.fails(1, "--out FILE names a new file");
    assert!(!session.exists("-"));
    session.ok("inspect disk --format raw --out ./-".split(' '));
    assert!(session.read("-") == session.read("disk"));
}
