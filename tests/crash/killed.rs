//! Does a volume survive if the program is killed, or its storage fails, at any system call that
//! changes a file?
//!
//! The other tests of this folder simulate power failures. This one runs the real program under
//! `strace`, which kills it, or makes the call fail, at the first call of a kind, at the second,
//! and so on. After each run, the old or the new passphrase must read the whole payload. If there
//! is an undo record, `header repair` runs first. If there is none, cryptsetup must open the volume
//! too.

use std::ops::Range;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use support::{partitions, peers};

/// The system calls that change files.
const CALLS: [&str; 10] = [
    "pwrite64",
    "write",
    "fdatasync",
    "fsync",
    "ftruncate",
    "fallocate",
    "rename",
    "renameat",
    "renameat2",
    "unlink",
];

/// What `strace` does with a call.
pub(crate) const INJECTIONS: [(&str, &[&str]); 3] = [
    ("signal=SIGKILL", &CALLS),
    (
        "error=EIO",
        &["pwrite64", "fdatasync", "fsync", "renameat2"],
    ),
    ("error=ENOSPC", &["pwrite64", "write", "fallocate"]),
];

pub(crate) const CHEAP: [&str; 4] = ["--pbkdf", "pbkdf2", "--pbkdf-force-iterations", "1000"];

/// The size of the payload, and the number of bytes that every change keeps.
const PAYLOAD: usize = 1 << 20;
const LEFT: usize = PAYLOAD / 2;

/// A folder with the payload `plain`, the keys `old`, `new` and `other`, and the volume `disk.img`,
/// which contains the payload, or is the second partition of it.
pub(crate) struct Folder {
    folder: tempfile::TempDir,
    /// Where the volume is, if it is a partition.
    partition: Option<Range<usize>>,
}

/// What is around a partition: bytes with which no program writes over it.
const AROUND: u8 = 0x5a;

impl Folder {
    pub(crate) fn new(format: &[&str]) -> Self {
        Self::within(tempfile::tempdir().unwrap(), format)
    }

    /// One on the file system of the target folder, where the one for temporary files is in memory.
    pub(crate) fn on_disk(format: &[&str]) -> Self {
        let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        Self::within(folder, format)
    }

    fn within(folder: tempfile::TempDir, format: &[&str]) -> Self {
        let folder = Self {
            folder,
            partition: None,
        };
        for key in ["old", "new", "other"] {
            std::fs::write(folder.path(key), format!("the {key} passphrase")).unwrap();
        }
        let payload: Vec<u8> = (0..251).cycle().take(PAYLOAD).collect();
        std::fs::write(folder.path("plain"), payload).unwrap();
        let encrypt = ["encrypt", "plain", "disk.img", "--key-file", "old"];
        folder.ok(encrypt.iter().chain(&CHEAP).chain(format));
        folder
    }

    /// The volume as a partition of a disk.
    fn in_partition(self) -> Self {
        let volume = std::fs::read(self.path("disk.img")).unwrap();
        let range = 128 << 10..(128 << 10) + volume.len();
        let mut disk = vec![AROUND; range.end + (128 << 10)];
        disk[..64 << 10].fill(0);
        disk[range.end + (64 << 10)..].fill(0);
        disk[range.clone()].copy_from_slice(&volume);
        let sectors = range.start as u64 / 512..range.end as u64 / 512;
        partitions::gpt(&mut disk, 512, &[(1, 140..150), (2, sectors)]);
        std::fs::write(self.path("disk.img"), disk).unwrap();
        Self {
            partition: Some(range),
            ..self
        }
    }

    /// The name of the volume among the arguments.
    fn volume(&self) -> &'static str {
        match &self.partition {
            Some(_) => "disk.img,partition=2",
            None => "disk.img",
        }
    }

    /// The undo record of the volume.
    fn undo(&self) -> PathBuf {
        self.path(match &self.partition {
            Some(_) => "disk.img,offset=131072.luksmith-undo",
            None => "disk.img.luksmith-undo",
        })
    }

    /// Whether nothing around the volume differs from what it was.
    fn is_untouched_around(&self, before: &[u8]) -> bool {
        let Some(Range { start, end }) = self.partition.clone() else {
            return true;
        };
        let now = std::fs::read(self.path("disk.img")).unwrap();
        now.len() == before.len() && now[..start] == before[..start] && now[end..] == before[end..]
    }

    /// A volume with further keyslots, which `other` opens, up to this total number.
    fn with_keyslots(self, count: usize) -> Self {
        let add = "key add disk.img --key-file old --new-key-file other";
        for _ in 1..count {
            self.ok(add.split(' ').chain(CHEAP));
        }
        self
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(crate) fn luksmith<'a>(&self, args: impl IntoIterator<Item = &'a str>) -> Output {
        let mut command = self.command(env!("CARGO_BIN_EXE_luksmith"));
        peers::output(command.args(self.named(args)))
    }

    /// The arguments, with the name of the volume.
    fn named<'a>(&self, args: impl IntoIterator<Item = &'a str>) -> impl Iterator<Item = &'a str> {
        let volume = self.volume();
        let named = move |arg| if arg == "disk.img" { volume } else { arg };
        args.into_iter().map(named)
    }

    pub(crate) fn ok<'a>(&self, args: impl IntoIterator<Item = impl AsRef<str> + 'a>) {
        let args: Vec<String> = args.into_iter().map(|arg| arg.as_ref().into()).collect();
        let output = self.luksmith(args.iter().map(String::as_str));
        assert!(output.status.success(), "{args:?}: {}", said(&output));
    }

    pub(crate) fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new(program);
        command
            .current_dir(self.folder.path())
            .env_remove("LUKSMITH_LOG");
        command
    }

    /// Whether one of the keys reads the part of the payload that every change keeps.
    fn is_whole(&self) -> bool {
        let payload = std::fs::read(self.path("plain")).unwrap();
        ["old", "new"].iter().any(|key| {
            let read = self.luksmith(["decrypt", "disk.img", "-", "--key-file", key]);
            let length = read.stdout.len().min(PAYLOAD);
            length >= LEFT && read.stdout[..length] == payload[..length]
        })
    }

    /// Goes on with a reencryption, if one is in progress.
    fn finish_reencryption(&self, case: &str) {
        let args = ["reencrypt", "disk.img", "--resume", "--key-file", "old"];
        let output = self.luksmith(args);
        let said = said(&output);
        let none = said.contains("no reencryption is in progress")
            || said.contains("only a LUKS2 volume is reencrypted");
        assert!(output.status.success() || none, "{case}: {said}");
    }

    fn opens_with(&self, cryptsetup: &Path) -> bool {
        let image = match self.partition.clone() {
            Some(range) => {
                let disk = std::fs::read(self.path("disk.img")).unwrap();
                std::fs::write(self.path("volume.img"), &disk[range]).unwrap();
                "volume.img"
            }
            None => "disk.img",
        };
        ["old", "new"].iter().any(|key| {
            let mut command = self.command(cryptsetup);
            command.args(["open", "--test-passphrase", image, "--key-file", key]);
            peers::output(&mut command).status.success()
        })
    }
}

pub(crate) fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// The number of calls of each kind in the busiest thread, since `strace` counts each thread
/// separately.
pub(crate) fn count_calls(
    strace: &Path,
    folder: &Folder,
    args: &[&str],
) -> Vec<(&'static str, usize)> {
    let mut command = folder.command(strace);
    command.args(["-f", "-o", "calls", "-e"]);
    command.arg(format!("trace={}", CALLS.join(",")));
    command.arg(env!("CARGO_BIN_EXE_luksmith"));
    peers::run(command.args(folder.named(args.iter().copied())));
    let calls = std::fs::read_to_string(folder.path("calls")).unwrap();
    let of_thread = |thread: &str, call: &str| {
        let made = calls.lines().filter_map(|line| line.split_once(' '));
        made.filter(|(by, what)| {
            *by == thread && what.trim_start().starts_with(&format!("{call}("))
        })
        .count()
    };
    let threads: std::collections::BTreeSet<&str> = calls
        .lines()
        .filter_map(|line| line.split(' ').next())
        .collect();
    CALLS
        .into_iter()
        .map(|call| {
            let counts = threads.iter().map(|thread| of_thread(thread, call));
            (call, counts.max().unwrap_or(0))
        })
        .collect()
}

/// The numbers of the calls to try, of `count` calls of a kind: the first and last ones, and a
/// sample of the others. A long run tries all of them.
pub(crate) fn chosen(count: usize) -> impl Iterator<Item = usize> {
    const EDGE: usize = 6;
    let step = if support::is_long() {
        1
    } else {
        count.div_ceil(16)
    };
    (1..=count).filter(move |n| *n <= EDGE || n + EDGE > count || n.is_multiple_of(step))
}

/// Runs the command many times from the same state, each time with another call that kills it or
/// fails.
fn survives(folder: Folder, args: &[&str]) {
    let Some(strace) = peers::find("strace") else {
        return;
    };
    let Some(cryptsetup) = peers::find("cryptsetup") else {
        return;
    };
    assert!(folder.is_whole() && folder.opens_with(&cryptsetup));
    let before = std::fs::read(folder.path("disk.img")).unwrap();
    let reset = || {
        for entry in std::fs::read_dir(folder.folder.path()).unwrap() {
            let path = entry.unwrap().path();
            if path.to_string_lossy().contains(".luksmith-") {
                std::fs::remove_file(path).unwrap();
            }
        }
        std::fs::write(folder.path("disk.img"), &before).unwrap();
    };
    let counts = count_calls(&strace, &folder, args);
    assert!(folder.is_whole(), "after {args:?}, undisturbed");
    let (mut killed, mut failed) = (0, 0);
    // strace kills itself with the same signal as the program.
    for (injection, calls) in INJECTIONS {
        for (call, count) in counts.iter().filter(|(call, _)| calls.contains(call)) {
            for number in chosen(*count) {
                reset();
                let mut command = folder.command(&strace);
                command.args(["-f", "-o", "/dev/null"]);
                command.args(["-e", &format!("trace={call}"), "-e"]);
                command.arg(format!("inject={call}:{injection}:when={number}"));
                command.arg(env!("CARGO_BIN_EXE_luksmith"));
                command.args(folder.named(args.iter().copied()));
                let output = peers::output(&mut command);
                let case = format!("{args:?}, {call} {number}: {injection}");
                match output.status.code() {
                    None => killed += 1,
                    Some(0) => {}
                    Some(code) if code < 6 => failed += 1,
                    Some(code) => panic!("{case}: exit code {code}: {}", said(&output)),
                }
                assert!(folder.is_untouched_around(&before), "{case}");
                let undo = folder.undo();
                if undo.exists() {
                    folder.ok(["header", "repair", "disk.img"]);
                    assert!(!undo.exists(), "{case}");
                }
                folder.finish_reencryption(&case);
                assert!(folder.is_whole(), "{case}: {}", said(&output));
                assert!(folder.opens_with(&cryptsetup), "{case}: cryptsetup");
                assert!(folder.is_untouched_around(&before), "{case}: repair");
            }
        }
    }
    // Otherwise no run was disturbed, and the test would show nothing.
    assert!(
        killed > 3 && failed > 3,
        "{args:?}: {killed} killed, {failed} failed"
    );
}

/// Options for small headers, so that copying the volume many times is quick.
const LUKS1: [&str; 2] = ["--type", "luks1"];
const LUKS2: [&str; 4] = ["--offset", "4096", "--sector-size", "512"];

fn change() -> Vec<&'static str> {
    let change = "key change disk.img --key-file old --new-key-file new";
    change.split(' ').chain(CHEAP).collect()
}

#[test]
fn the_check_sees_what_an_unsafe_change_leaves() {
    let folder = Folder::new(&LUKS1);
    assert!(folder.is_whole());
    let mut image = std::fs::read(folder.path("disk.img")).unwrap();
    // Overwrite half of the key material of keyslot 0.
    image[4096..70_000].fill(0);
    std::fs::write(folder.path("disk.img"), image).unwrap();
    assert!(!folder.is_whole());
}

#[test]
fn change_luks1_with_all_slots_full() {
    survives(Folder::new(&LUKS1).with_keyslots(8), &change());
}

#[test]
fn change_luks2() {
    survives(Folder::new(&LUKS2), &change());
}

#[test]
fn add_and_remove() {
    let add = "key add disk.img --key-file old --new-key-file new";
    let add: Vec<&str> = add.split(' ').chain(CHEAP).collect();
    survives(Folder::new(&LUKS1), &add);
    let remove = "key remove disk.img --keyslot 1 --key-file old";
    let remove: Vec<&str> = remove.split(' ').collect();
    survives(Folder::new(&LUKS2).with_keyslots(2), &remove);
}

#[test]
fn restore() {
    let folder = Folder::new(&LUKS2);
    folder.ok(["header", "backup", "disk.img", "backup"]);
    folder.ok(change());
    let restore = "header restore disk.img backup --force restore";
    survives(folder, &restore.split(' ').collect::<Vec<_>>());
}

#[test]
fn convert() {
    for (format, to) in [(&LUKS1[..], "luks2"), (&LUKS2[..], "luks1")] {
        let convert = ["convert", "disk.img", "--to", to, "--force", "convert"];
        survives(Folder::new(format), &convert);
    }
}

const REENCRYPT: &str = "reencrypt disk.img --key-file old --zone-size 256K";

#[test]
fn reencrypt() {
    for resilience in ["journal", "checksum"] {
        let reencrypt = REENCRYPT.split(' ').chain(["--resilience", resilience]);
        survives(
            Folder::new(&LUKS2),
            &reencrypt.chain(CHEAP).collect::<Vec<_>>(),
        );
    }
}

/// cryptsetup is killed at a system call, and luksmith finishes what it began: also where it was
/// killed between its last zone and its end, which it cannot finish itself.
#[test]
fn a_reencryption_that_cryptsetup_began() {
    let (Some(strace), Some(cryptsetup)) = (peers::find("strace"), peers::find("cryptsetup"))
    else {
        return;
    };
    const CALLS: [&str; 4] = ["write", "pwrite64", "fsync", "fdatasync"];
    let folder = Folder::new(&LUKS2);
    let before = std::fs::read(folder.path("disk.img")).unwrap();
    for resilience in ["journal", "checksum"] {
        let args = "-q --disable-locks reencrypt --force-offline-reencrypt --hotzone-size 256K \
                    --key-file old disk.img --resilience";
        let args: Vec<&str> = args.split(' ').chain([resilience]).chain(CHEAP).collect();
        let run = |options: &[&str]| {
            std::fs::write(folder.path("disk.img"), &before).unwrap();
            let mut command = folder.command(&strace);
            command.args(["-f", "-o", "calls"]).args(options);
            peers::output(command.arg(&cryptsetup).args(&args))
        };
        let trace = format!("trace={}", CALLS.join(","));
        let output = run(&["-e", &trace, "-P", "disk.img"]);
        assert!(output.status.success(), "{}", said(&output));
        let calls = std::fs::read_to_string(folder.path("calls")).unwrap();
        let mut pending = 0;
        for call in CALLS {
            let count = calls
                .lines()
                .filter(|line| line.contains(&format!(" {call}(")))
                .count();
            for number in chosen(count) {
                let kill = format!("inject={call}:signal=SIGKILL:when={number}");
                let trace = format!("trace={call}");
                run(&["-e", &trace, "-e", &kill, "-P", "disk.img"]);
                let case = format!("{resilience}, {call} {number}");
                let info = folder.luksmith(["info", "disk.img"]);
                pending += usize::from(String::from_utf8_lossy(&info.stdout).contains("converted"));
                folder.finish_reencryption(&case);
                assert!(folder.is_whole(), "{case}");
                assert!(folder.opens_with(&cryptsetup), "{case}: cryptsetup");
            }
        }
        assert!(pending > 5, "{resilience}: {pending}");
    }
}

/// A volume in a partition: whatever the cut is, nothing around it changes.
#[test]
fn in_a_partition() {
    let folder = Folder::new(&LUKS1).with_keyslots(8).in_partition();
    survives(folder, &change());
    let convert = "convert disk.img --to luks1 --force convert";
    let folder = Folder::new(&LUKS2).in_partition();
    survives(folder, &convert.split(' ').collect::<Vec<_>>());
    let reencrypt: Vec<_> = REENCRYPT.split(' ').chain(CHEAP).collect();
    survives(Folder::new(&LUKS2).in_partition(), &reencrypt);
}

#[test]
fn replace() {
    let replace = "encrypt plain disk.img --key-file new --force overwrite --offset 4096";
    let replace: Vec<&str> = replace.split(' ').chain(CHEAP).collect();
    survives(Folder::new(&LUKS2), &replace);
}
