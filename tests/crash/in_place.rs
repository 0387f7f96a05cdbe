//! Plaintext that is encrypted in place by the real program, which is killed at each system call
//! that changes a file.

use luksmith::backend::file::{FileBackend, OpenOptions};
use luksmith::backend::room::Room as _;
use support::peers;

use crate::killed::{CHEAP, Folder, INJECTIONS, chosen, count_calls, said};

/// The room that a header takes.
const ROOM: u64 = 16 << 20;

/// A folder whose `disk.img` is plaintext.
fn plaintext() -> Folder {
    let folder = Folder::on_disk(&[]);
    std::fs::copy(folder.path("plain"), folder.path("disk.img")).unwrap();
    folder
}

/// Checks that the data is there, as plaintext or as a volume, and that the same command ends the
/// encryption.
fn recover(folder: &Folder, args: &[&str], header: &[&str], case: &str) {
    let plain = std::fs::read(folder.path("plain")).unwrap();
    let read = || {
        let decrypt = ["decrypt", "disk.img", "-", "--key-file", "old"];
        folder.luksmith(decrypt.into_iter().chain(header.iter().copied()))
    };
    let output = folder.luksmith(args.iter().copied());
    let finished = said(&output).contains("begins as a LUKS volume");
    assert!(
        output.status.success() || finished,
        "{case}: {}",
        said(&output)
    );
    let now = read();
    assert!(now.stdout == plain, "{case}: lost data: {}", said(&now));
}

fn survives(header: &[&str]) {
    let Some(strace) = peers::find("strace") else {
        return;
    };
    let folder = plaintext();
    let args = "reencrypt --encrypt disk.img --key-file old --zone-size 256K";
    let args: Vec<&str> = args
        .split(' ')
        .chain(CHEAP)
        .chain(header.iter().copied())
        .collect();
    let reset = || {
        for entry in std::fs::read_dir(folder.path(".")).unwrap() {
            let path = entry.unwrap().path();
            let name = path.to_string_lossy();
            if name.contains(".luksmith-") || name.ends_with("disk.header") {
                std::fs::remove_file(path).unwrap();
            }
        }
        std::fs::copy(folder.path("plain"), folder.path("disk.img")).unwrap();
    };
    let counts = count_calls(&strace, &folder, &args);
    let (mut killed, mut failed, mut repaired) = (0, 0, 0);
    for (injection, calls) in INJECTIONS {
        for (call, count) in counts.iter().filter(|(call, _)| calls.contains(call)) {
            for number in chosen(*count) {
                reset();
                let mut command = folder.command(&strace);
                command.args(["-f", "-o", "/dev/null"]);
                command.args(["-e", &format!("trace={call}"), "-e"]);
                command.arg(format!("inject={call}:{injection}:when={number}"));
                command.arg(env!("CARGO_BIN_EXE_luksmith")).args(&args);
                let output = peers::output(&mut command);
                let case = format!("{args:?}, {call} {number}: {injection}");
                match output.status.code() {
                    None => killed += 1,
                    Some(0) => {}
                    Some(code) if code < 6 => failed += 1,
                    Some(code) => panic!("{case}: exit code {code}: {}", said(&output)),
                }
                // A repair alone makes plaintext of it again, or keeps a complete header.
                let undo = folder.path("disk.img.luksmith-undo");
                if undo.exists() && number % 2 == 0 {
                    folder.ok(["header", "repair", "disk.img"]);
                    assert!(!undo.exists(), "{case}");
                    repaired += 1;
                }
                recover(&folder, &args, header, &case);
                assert!(!undo.exists(), "{case}");
            }
        }
    }
    assert!(killed > 3 && failed > 3, "{killed} killed, {failed} failed");
    assert!(repaired > 0 || !header.is_empty(), "no repair");
}

#[test]
fn killed_with_a_detached_header() {
    survives(&["--header", "disk.header"]);
}

#[test]
fn killed_with_room_before_the_data() {
    let folder = plaintext();
    let file = FileBackend::open(folder.path("disk.img"), OpenOptions::new().write(true));
    if file.unwrap().can_insert(ROOM).is_ok() {
        survives(&[]);
    } else {
        peers::skip("a target folder on ext4 or XFS");
    }
}
