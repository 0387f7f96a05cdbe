//! The memory of the program, while it serves a file, contains the key that it needs, and neither
//! another secret nor what programs have read and written.

use std::fs;
use std::os::unix::fs::FileExt;

use support::secret_search::SecretSearch;

use crate::mounted::{Folder, Mounted, can_mount, until};

/// Which of these secrets are in memory that the program can write to.
fn found(mounted: &Mounted<'_>, secrets: &[(&'static str, &[u8])]) -> Vec<&'static str> {
    let process = format!("/proc/{}", mounted.child.id());
    let memory = fs::File::open(format!("{process}/mem")).unwrap();
    let search = SecretSearch::new(secrets.to_vec());
    let mut all = Vec::new();
    for line in fs::read_to_string(format!("{process}/maps"))
        .unwrap()
        .lines()
    {
        let mut words = line.split_whitespace();
        let (start, end) = words.next().unwrap().split_once('-').unwrap();
        if !words.next().unwrap().starts_with("rw") {
            continue;
        }
        let [start, end] = [start, end].map(|text| u64::from_str_radix(text, 16).unwrap());
        let mut bytes = vec![0; usize::try_from(end - start).unwrap()];
        // A stack that has grown meanwhile is read the next time.
        if memory.read_exact_at(&mut bytes, start).is_ok() {
            all.extend(search.found_in(&bytes));
        }
    }
    all.sort_unstable();
    all.dedup();
    all
}

#[test]
fn what_programs_read_and_write_is_wiped_at_once() {
    // Only root can read the memory of the process.
    if !rustix::process::geteuid().is_root() || !can_mount() {
        return;
    }
    let folder = Folder::new();
    let mut canary = [0; 512];
    luksmith::secret::random(&mut canary).unwrap();
    let args = "key volume-key disk.img --key-file key --out volume-key --force volume-key";
    folder.succeed(args.split(' '));
    let key = fs::read(folder.path("volume-key")).unwrap();
    let secrets = [("the plaintext", &canary[..]), ("the volume key", &key[..])];

    let mounted = folder.mount(&["--direct-io"]);
    let file = mounted.open();
    // Whole sectors, parts of them, and as much as fits into one request.
    for (offset, bytes) in [
        (0, canary.repeat(8)),
        (99, canary.to_vec()),
        (1 << 20, canary.repeat(4096)),
    ] {
        file.write_all_at(&bytes, offset).unwrap();
        let mut back = vec![0; bytes.len()];
        file.read_exact_at(&mut back, offset).unwrap();
        assert!(back == bytes);
    }
    // The file is still open. Only what was asked for last may still be on its way.
    until("the data are gone, and the key is there", || {
        found(&mounted, &secrets) == ["the volume key"]
    });
    file.sync_all().unwrap();
    drop(file);
    mounted.unmount();
}
