//! Programs in C: the test of the whole interface under valgrind, the example, and the code of
//! docs/library.md.

use std::path::{Path, PathBuf};
use std::process::Command;

use support::peers;
use tempfile::TempDir;

use crate::{compiled, flags, here};

const PASSPHRASE: &str = "correct horse battery staple";

/// A folder with two key files and an image that is none.
fn folder() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, bytes: &[u8]| std::fs::write(folder.path().join(name), bytes).unwrap();
    write("key", PASSPHRASE.as_bytes());
    write("other", b"another passphrase");
    // The magic of LUKS2 and a size of the header that no storage has.
    let mut hostile = vec![0xff; 1 << 16];
    hostile[..8].copy_from_slice(b"LUKS\xba\xbe\0\x02");
    write("hostile.img", &hostile);
    folder
}

/// Whether cryptsetup opens an image with a key file.
fn opens(folder: &Path, image: &str, key: &str) -> Option<bool> {
    let mut command = Command::new(peers::find("cryptsetup")?);
    command
        .args(["open", "--test-passphrase", image, "--key-file", key])
        .current_dir(folder);
    Some(peers::output(&mut command).status.success())
}

#[test]
fn the_interface_works_under_valgrind() {
    let folder = folder();
    let program = folder.path().join("test");
    let (Some(()), Some(valgrind)) = (
        compiled(&here().join("tests/c/test.c"), &program),
        peers::find("valgrind"),
    ) else {
        return;
    };
    let mut command = Command::new(valgrind);
    command
        .args(["--quiet", "--error-exitcode=9", "--leak-check=full"])
        .args(["--errors-for-leak-kinds=definite", "--num-callers=30"])
        .arg(&program)
        .arg(folder.path());
    let output = peers::output(&mut command);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{}: {said}", output.status);
    for (image, key, expected) in [
        ("one.img", "key", true),
        ("one.img", "other", false),
        ("two.img", "key", true),
        ("two.img", "other", true),
    ] {
        let Some(opens) = opens(folder.path(), image, key) else {
            return;
        };
        assert_eq!(opens, expected, "{image} with {key}");
    }
}

/// Makes the volume of a program, with the library in Rust.
fn volume(folder: &Path, name: &str, content: &[u8]) -> PathBuf {
    use luksmith::location::Location;
    use luksmith::secret::Passphrase;
    use luksmith::task::Silent;
    use luksmith::task::new_volume::{Extent, NewVolume, Plan};

    let image = folder.join(name);
    let mut new = NewVolume::default();
    new.cost.iterations = Some(4);
    new.cost.memory_kib = Some(32);
    let location = Location::Path(image.clone());
    let plan = Plan::look(new, &location, Extent::Exactly(1 << 20)).unwrap();
    let passphrase = Passphrase::copy_from(PASSPHRASE.as_bytes()).unwrap();
    let watch = Silent::default();
    let made = plan.make(&passphrase, &watch).unwrap();
    made.volume().unwrap().write_at(0, content).unwrap();
    made.keep().unwrap();
    image
}

#[test]
fn the_example_reads_a_volume() {
    let folder = folder();
    let image = volume(folder.path(), "disk.img", b"0123456789");
    let program = folder.path().join("read");
    if compiled(&here().join("examples/read.c"), &program).is_none() {
        return;
    }
    let read = |key: &str| {
        let mut command = Command::new(&program);
        command.arg(&image).arg(key).args(["3", "100000"]);
        peers::output(command.current_dir(folder.path()))
    };
    let output = read("file:key");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    assert_eq!(output.stdout.len(), 100_000);
    assert!(output.stdout.starts_with(b"3456789"));
    let output = read("file:other");
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("no keyslot opens"), "{said}");
}

/// The same program with the static library, which needs no library of luksmith at run time.
#[test]
fn the_example_links_statically() {
    let folder = folder();
    let image = volume(folder.path(), "disk.img", b"0123456789");
    let (Some(cc), Some(flags)) = (
        peers::find("cc"),
        flags(&["--cflags", "--libs", "--static"]),
    ) else {
        return;
    };
    let flags = flags.into_iter().map(|flag| match flag.as_str() {
        "-lluksmith" => "-l:libluksmith.a".to_owned(),
        _ => flag,
    });
    let program = folder.path().join("read");
    let mut command = Command::new(cc);
    command
        .arg(here().join("examples/read.c"))
        .arg("-o")
        .arg(&program)
        .args(flags);
    peers::run(&mut command);
    let mut command = Command::new(&program);
    command.arg(&image).args(["file:key", "0", "10"]);
    assert_eq!(
        peers::run(command.current_dir(folder.path())),
        b"0123456789"
    );
}

/// Each block of C in docs/library.md is a program, which works in a folder with a volume
/// `disk.img` and its key file `disk.key`.
#[test]
fn the_code_of_the_page_works() {
    let page = std::fs::read_to_string(here().join("../../docs/library.md")).unwrap();
    let blocks: Vec<&str> = page
        .split("```c\n")
        .skip(1)
        .map(|rest| rest.split_once("```").expect("a block ends").0)
        .collect();
    assert!(!blocks.is_empty());
    for block in blocks {
        let folder = folder();
        volume(folder.path(), "disk.img", b"");
        std::fs::write(folder.path().join("disk.key"), PASSPHRASE).unwrap();
        let source = folder.path().join("page.c");
        std::fs::write(&source, block).unwrap();
        let program = folder.path().join("page");
        if compiled(&source, &program).is_none() {
            return;
        }
        peers::run(Command::new(&program).current_dir(folder.path()));
    }
}
