//! The memory of the program while it serves contains the key that it needs, and no other secret.

use std::os::unix::fs::FileExt;

use luksmith_formats::nbd::ErrorNumber;

use crate::served::{Folder, Served};
use support::secret_search::SecretSearch;

/// Which of these secrets are in memory that the program can write to.
fn found(served: &Served, secrets: &[(&'static str, &[u8])]) -> Vec<&'static str> {
    let process = format!("/proc/{}", served.child.id());
    let memory = std::fs::File::open(format!("{process}/mem")).unwrap();
    let search = SecretSearch::new(secrets.to_vec());
    let mut all = Vec::new();
    for line in std::fs::read_to_string(format!("{process}/maps"))
        .unwrap()
        .lines()
    {
        let mut words = line.split_whitespace();
        let (start, end) = words.next().unwrap().split_once('-').unwrap();
        if !words.next().unwrap().starts_with("rw") {
            continue;
        }
        let [start, end] = [start, end].map(|text| u64::from_str_radix(text, 16).unwrap());
        // Large mappings have pages that were never touched. A stack that has grown meanwhile is
        // read the next time.
        let mut bytes = vec![0; usize::try_from(end - start).unwrap()];
        if memory.read_exact_at(&mut bytes, start).is_ok() {
            all.extend(search.found_in(&bytes));
        }
    }
    all.sort_unstable();
    all.dedup();
    all
}

#[test]
fn the_passphrase_is_wiped_and_so_is_data_of_clients() {
    // Only root can read the memory of the process.
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let folder = Folder::new();
    let mut random = [0; 40 + 512];
    luksmith::secret::random(&mut random).unwrap();
    let (passphrase, canary) = random.split_at(40);
    folder.write("key", passphrase);
    folder.make_volume("disk.img", &[]);
    let args = "key volume-key disk.img --key-file key --out volume-key --force volume-key";
    support::peers::run(&mut folder.luksmith(args.split(' ')));
    let key = std::fs::read(folder.path("volume-key")).unwrap();
    let secrets = [
        ("the passphrase", passphrase),
        ("the plaintext", canary),
        ("the volume key", &key[..]),
    ];

    let served = folder.serve(&[]);
    let mut client = served.client();
    // Whole sectors, parts of them, and more than one buffer.
    for (offset, bytes) in [
        (0, canary.repeat(8)),
        (99, canary.to_vec()),
        (1 << 20, canary.repeat(4096)),
    ] {
        assert_eq!(client.write(offset, &bytes), ErrorNumber::None);
        assert!(client.read(offset, bytes.len() as u64) == bytes);
    }
    assert_eq!(client.flush(), ErrorNumber::None);
    assert!(!found(&served, &secrets).contains(&"the passphrase"));
    drop(client);
    crate::served::until(
        "the data of the client is gone, and the key is there",
        || found(&served, &secrets) == ["the volume key"],
    );
    served.stop();
}
