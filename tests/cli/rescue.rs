//! Headers that another program overwrote, and volumes that were cut: what is said, and what
//! `header repair` does about it.

use std::os::unix::fs::FileExt;

use luksmith_formats::json::Value;

use crate::session::{CHEAP, Ran, Session};

const SECONDARY: usize = 16 << 10;

fn volume(kind: &str) -> Session {
    let session = Session::new();
    let args = [
        "create",
        "disk.img",
        "--size",
        "1M",
        "--key-file",
        "key",
        "--type",
        kind,
    ];
    session.ok(args.iter().chain(&CHEAP));
    session
}

fn write_at(session: &Session, at: usize, bytes: &[u8]) {
    let mut options = std::fs::OpenOptions::new();
    let file = options.write(true).open(session.path("disk.img")).unwrap();
    file.write_all_at(bytes, at as u64).unwrap();
}

fn repair(session: &Session, force: &[&str]) -> Ran {
    let words = force.iter().flat_map(|word| ["--force", word]);
    session.run(["header", "repair", "disk.img"].into_iter().chain(words))
}

/// The header that is left is not searched as data.
#[track_caller]
fn search_refuses(session: &Session) {
    let search = ["verify-ciphertext", "disk.img"];
    session
        .run(search)
        .fails(4, "`luksmith header repair IMAGE`");
    assert_ne!(session.run(search.iter().chain(&["--no-header"])).code(), 4);
}

/// Every other command says what is wrong, and changes nothing.
#[track_caller]
fn all_refuse(session: &Session, what: &str) {
    let before = session.read("disk.img");
    for args in [
        &["info", "disk.img"][..],
        &["key", "list", "disk.img"],
        &["key", "test", "disk.img", "--key-file", "key"],
        &["decrypt", "disk.img", "plain", "--key-file", "key"],
        &["config", "disk.img", "--label", "x"],
        &["header", "backup", "disk.img", "backup"],
        &["header", "erase", "disk.img", "--force", "erase"],
    ] {
        let ran = session.run(args);
        ran.fails(4, what);
        ran.fails(4, "`luksmith header repair IMAGE`");
    }
    assert!(session.read("disk.img") == before);
}

#[track_caller]
fn opens(session: &Session) {
    session.ok(["key", "test", "disk.img", "--key-file", "key"]);
    assert!(
        session
            .ok(["info", "disk.img"])
            .contains("health         good")
    );
    assert_eq!(
        session.ok(["header", "repair", "disk.img"]),
        "nothing to repair\n"
    );
}

#[test]
fn an_image_that_ends_before_its_data_is_named() {
    let session = volume("luks1");
    let mut options = std::fs::OpenOptions::new();
    let file = options.write(true).open(session.path("disk.img")).unwrap();
    // The data begins at 2 MiB.
    file.set_len((2 << 20) - 5000).unwrap();
    let info = session.ok(["info", "disk.img"]);
    let said = "the data begins 5000 bytes behind the end of the storage";
    assert!(info.contains(said), "{info}");
    let decrypt = ["decrypt", "disk.img", "plain", "--key-file", "key"];
    let ran = session.run(decrypt);
    ran.fails(4, "hint: 5000 bytes are missing: the image is cut off");
}

#[test]
fn iterations_over_the_limit_are_named_before_an_unproven_repair() {
    let session = volume("luks1");
    write_at(&session, 0, &[0; 6]);
    // The iterations of the digest, and those of keyslot 0.
    for (at, what) in [(164, "the digest"), (212, "keyslot 0")] {
        let said = format!("{what} asks for 4294967280 iterations, over the limit of 100000000");
        let before = session.read("disk.img");
        assert!(!repair(&session, &[]).stderr().contains(&said));
        write_at(&session, at, &[0xff, 0xff, 0xff, 0xf0]);
        repair(&session, &[]).fails(1, &said);
        write_at(&session, 0, &before);
    }
}

#[test]
fn the_wiped_magic_of_luks2_is_put_back() {
    let session = volume("luks2");
    let good = session.read("disk.img");
    for at in [0, SECONDARY] {
        write_at(&session, at, &[0; 6]);
    }
    all_refuse(
        &session,
        "the magic is wiped, the rest of a LUKS2 header is intact",
    );
    search_refuses(&session);
    let said = repair(&session, &[]);
    assert_eq!(said.code(), 0, "{}", said.stderr());
    assert_eq!(
        said.stdout(),
        "restored the magic of the primary copy; restored the magic of the secondary copy\n"
    );
    assert!(session.read("disk.img") == good);
    opens(&session);
    // One copy proves the other.
    for (at, length) in [(0, 4096), (SECONDARY, 4096)] {
        let other = if at == 0 { SECONDARY } else { 0 };
        write_at(&session, other, &[0; 6]);
        write_at(&session, at, &vec![0; length]);
        let said = repair(&session, &[]);
        assert_eq!(said.code(), 0, "{}", said.stderr());
        assert!(
            said.stdout().contains("restored the magic of the"),
            "{}",
            said.stdout()
        );
        assert!(said.stdout().contains("rewrote the"), "{}", said.stdout());
        opens(&session);
    }
}

#[test]
fn a_magic_is_not_put_back_where_the_checksum_differs() {
    let session = volume("luks2");
    for at in [0, SECONDARY] {
        write_at(&session, at, &[0; 6]);
        write_at(&session, at + 4096 + 3, b"!");
    }
    let before = session.read("disk.img");
    repair(&session, &["unproven", "overwrite"]).fails(
        4,
        "disk.img: cannot open the container: no LUKS header found",
    );
    repair(&session, &[]).fails(4, "`luksmith header restore IMAGE FILE`");
    assert!(session.read("disk.img") == before);
}

#[test]
fn the_wiped_magic_of_luks1_is_put_back_if_the_user_agrees() {
    let session = volume("luks1");
    let good = session.read("disk.img");
    write_at(&session, 0, &[0; 6]);
    all_refuse(
        &session,
        "the magic is wiped, the rest of a LUKS1 header is there",
    );
    search_refuses(&session);
    let said = session.ok(["identify", "disk.img"]);
    assert!(
        said.ends_with("the rest of a LUKS1 header is there (a guess)\n"),
        "{said}"
    );
    let said: Value = session
        .ok(["identify", "disk.img", "--json"])
        .parse()
        .unwrap();
    assert!(said["remains"].as_str().unwrap().contains("LUKS1"));
    let before = session.read("disk.img");
    repair(&session, &[]).fails(1, "no checksum proves");
    repair(&session, &[]).fails(1, "--force unproven goes on");
    assert!(session.read("disk.img") == before);
    assert_eq!(
        repair(&session, &["unproven"]).stdout(),
        "restored the magic\n"
    );
    assert!(session.read("disk.img") == good);
    assert!(!session.exists("disk.img.luksmith-undo"));
    opens(&session);
    // The rest does not agree: an unknown cipher, key material over the data.
    for (at, bytes) in [(8, &b"foo\0"[..]), (104, &[0, 0, 0, 9])] {
        session.write("disk.img", &good);
        write_at(&session, 0, &[0; 6]);
        write_at(&session, at, bytes);
        repair(&session, &["unproven"]).fails(4, "no LUKS header found");
    }
}

#[test]
fn data_over_the_primary_copy_is_overwritten_if_the_user_agrees() {
    let labels: [(usize, &[u8], &str); 4] = [
        (512, b"EFI PART", "a GUID partition table"),
        (510, b"\x55\xaa", "a partition table"),
        (512, b"LABELONE", "an LVM physical volume"),
        (1080, b"\x53\xef", "an ext2, ext3 or ext4 filesystem"),
    ];
    for (at, label, name) in labels {
        let session = volume("luks2");
        write_at(&session, 0, &[0; 4096]);
        write_at(&session, at, label);
        all_refuse(&session, "a secondary LUKS2 header is at byte 16384");
        let before = session.read("disk.img");
        repair(&session, &[]).fails(5, name);
        repair(&session, &["unproven"]).fails(5, "--force overwrite goes on");
        assert!(session.read("disk.img") == before);
        let said = repair(&session, &["overwrite"]).stdout();
        assert_eq!(said, "rewrote the primary copy of the header\n");
        opens(&session);
    }
    // With the magic in place, the volume still opens by the second copy.
    let session = volume("luks2");
    write_at(&session, 446, &[0x80; 66]);
    write_at(&session, 510, b"\x55\xaa");
    session.ok(["key", "test", "disk.img", "--key-file", "key"]);
    repair(&session, &[]).fails(5, "a partition table");
    let said = repair(&session, &["overwrite"]).stdout();
    assert_eq!(said, "rewrote the primary copy of the header\n");
    opens(&session);
}

/// A GPT reaches into the second copy, and leaves its metadata.
#[test]
fn a_header_is_made_anew_from_its_metadata_if_the_user_agrees() {
    let session = volume("luks2");
    let good = session.read("disk.img");
    write_at(&session, 0, &[0; 17408]);
    write_at(&session, 512, b"EFI PART");
    all_refuse(
        &session,
        "only the metadata of the second one is left, at byte 20480",
    );
    search_refuses(&session);
    repair(&session, &[]).fails(1, "the label is lost, and the volume gets a new UUID");
    repair(&session, &[]).fails(1, "a GUID partition table");
    repair(&session, &[]).fails(1, "--force overwrite --force unproven goes on");
    repair(&session, &["unproven"]).fails(5, "--force overwrite goes on");
    let said = repair(&session, &["unproven", "overwrite"]);
    assert_eq!(said.code(), 0, "{}", said.stderr());
    opens(&session);
    let now = session.read("disk.img");
    assert!(now[2 * SECONDARY..] == good[2 * SECONDARY..]);
    assert_ne!(now[168..204], good[168..204]);
}

#[test]
fn damaged_unused_keyslots_of_luks1_are_restored() {
    let entry = |slot: usize| 208 + 48 * slot;
    let good = volume("luks1").read("disk.img");
    type Damage<'a> = &'a [(usize, &'a [u8])];
    let cases: [(&str, Damage<'_>, bool); 7] = [
        (
            "keyslot 5 has stripes 45040 instead of 4000",
            &[(entry(5) + 44, &[0, 0, 0xaf, 0xf0])],
            true,
        ),
        (
            "keyslot 3 has key material at sector 0 instead of",
            &[(entry(3) + 40, &[0; 4])],
            true,
        ),
        (
            "keyslot 3 has key material at sector 8 instead of",
            &[(entry(3) + 40, &[0, 0, 0, 8])],
            true,
        ),
        (
            "keyslot 7 has the unknown state 0x12345678",
            &[(entry(7), &[0x12, 0x34, 0x56, 0x78])],
            true,
        ),
        (
            "keyslot 2 has the unknown state",
            &[(entry(2), &[0xff; 48]), (entry(6), &[0; 48])],
            true,
        ),
        // In use: nothing determines what it was.
        (
            "keyslots.0.stripes",
            &[(entry(0) + 44, &[0, 0, 0, 1])],
            false,
        ),
        (
            "keyslots.0.key_material_offset",
            &[(entry(0) + 40, &[0; 4])],
            false,
        ),
    ];
    for (what, damage, repairable) in cases {
        let session = Session::new();
        session.write("disk.img", &good);
        for (at, bytes) in damage {
            write_at(&session, *at, bytes);
        }
        if !repairable {
            repair(&session, &["unproven"]).fails(4, what);
            continue;
        }
        all_refuse(&session, "damaged entries of keyslots");
        // A keyslot with an unknown state may have been in use. The rest is certain.
        let mut said = repair(&session, &[]);
        if what.contains("the unknown state") {
            said.fails(1, what);
            said = repair(&session, &["unproven"]);
        }
        assert_eq!(said.code(), 0, "{}", said.stderr());
        opens(&session);
        let now = session.read("disk.img");
        for slot in 0..8 {
            let at = entry(slot);
            assert_eq!(now[at + 40..at + 48], good[at + 40..at + 48], "{what}");
            assert_eq!(now[at..at + 4], good[at..at + 4], "{what}");
        }
        assert!(now[592..] == good[592..]);
    }
}

/// Another state would make the keyslot a free one, whose key material the next `key add` replaces.
#[test]
fn a_luks1_keyslot_in_use_with_a_damaged_state_becomes_active() {
    let session = volume("luks1");
    let good = session.read("disk.img");
    // One bit of the state.
    write_at(&session, 208 + 3, &[0xf2]);
    all_refuse(&session, "damaged entries of keyslots: 0");
    let before = session.read("disk.img");
    let refused = repair(&session, &[]);
    refused.fails(1, "keyslot 0 has the unknown state 0xac71f2");
    refused.fails(1, "it is probably in use, and becomes active");
    refused.fails(1, "--force unproven goes on");
    assert!(session.read("disk.img") == before);
    let said = repair(&session, &["unproven"]);
    assert_eq!(said.code(), 0, "{}", said.stderr());
    assert!(session.read("disk.img") == good);
    opens(&session);
}

/// `mkswap` also wipes the magic of the second copy, which is put back first.
#[test]
fn a_header_below_swap_space_is_repaired_in_one_run() {
    let session = volume("luks2");
    write_at(&session, 0, &[0; 4096]);
    write_at(&session, 4086, b"SWAPSPACE2");
    write_at(&session, SECONDARY, &[0; 6]);
    let before = session.read("disk.img");
    repair(&session, &[]).fails(5, "the repair overwrites swap space");
    assert!(session.read("disk.img") == before);
    let said = repair(&session, &["overwrite"]);
    assert_eq!(said.code(), 0, "{}", said.stderr());
    assert_eq!(
        said.stdout(),
        "restored the magic of the secondary copy; rewrote the primary copy of the header\n"
    );
    opens(&session);
}

#[test]
fn where_nothing_is_left_the_backup_is_named() {
    let session = Session::new();
    session.write("disk.img", &[0; 1 << 20]);
    let ran = repair(&session, &["unproven"]);
    ran.fails(
        4,
        "disk.img: cannot open the container: no LUKS header found",
    );
    ran.fails(
        4,
        "`luksmith header restore IMAGE FILE` restores a header backup",
    );
}

#[test]
fn bytes_that_are_no_whole_sector_are_named() {
    for (kind, sector) in [("luks1", 512), ("luks2", 4096)] {
        let session = volume(kind);
        let size = session.read("disk.img").len();
        let image = session.read("disk.img");
        session.write("disk.img", &image[..size - sector + 100]);
        let what = format!("the last 100 bytes are not a whole sector of {sector} bytes");
        let ran = session.run(["info", "disk.img", "--json"]);
        assert!(ran.stderr().contains(&what), "{}", ran.stderr());
        let json: Value = ran.stdout().parse().unwrap();
        assert_eq!(json["data"]["left_out"].as_u64(), Some(100));
        let ran = session.run(["decrypt", "disk.img", "plain", "--key-file", "key"]);
        assert!(
            ran.code() == 0 && ran.stderr().contains(&what),
            "{}",
            ran.stderr()
        );
        assert_eq!(session.read("plain").len(), (1 << 20) - sector);
        let said = session.ok(["verify-ciphertext", "disk.img", "--json"]);
        let json: Value = said.parse().unwrap();
        let areas = json["areas"].as_array().unwrap();
        let size = |area: &Value| area["size"].as_u64().unwrap();
        assert_eq!(
            areas.iter().map(size).sum::<u64>(),
            (size_of_image(&session)) as u64
        );
    }
}

fn size_of_image(session: &Session) -> usize {
    session.read("disk.img").len()
}

#[test]
fn a_volume_that_was_cut_to_its_header_is_named() {
    for (kind, end) in [("luks1", 2 << 20), ("luks2", 16 << 20)] {
        let session = volume(kind);
        let image = session.read("disk.img");
        session.write("disk.img", &image[..end]);
        let ran = session.run(["decrypt", "disk.img", "plain", "--key-file", "key"]);
        let what = format!("disk.img holds no data: it ends at byte {end}, where the data begins");
        assert!(ran.stderr().contains(&what), "{}", ran.stderr());
    }
}

#[test]
fn a_restore_is_checked_before_it_is_asked_for() {
    let session = volume("luks2");
    session.ok(["header", "backup", "disk.img", "backup"]);
    let mut damaged = session.read("backup");
    damaged[5000] ^= 1;
    session.write("damaged", &damaged);
    let restore = |backup| session.run(["header", "restore", "disk.img", backup]);
    restore("key").fails(4, "the backup is not a valid header");
    restore("damaged").fails(4, "the backup does not fit");
    let other = volume("luks2");
    other.ok(["header", "backup", "disk.img", "backup"]);
    session.write("other-backup", &other.read("backup"));
    restore("other-backup").fails(1, "--force restore --force other-uuid goes on");
    restore("other-backup").fails(1, "would be replaced");
    restore("other-backup").fails(1, "its data cannot be read with another volume's keys");
    restore("backup").fails(1, "hint: --force restore goes on");
}

#[test]
fn a_new_keyslot_over_the_limits_is_a_wrong_parameter() {
    let session = volume("luks2");
    let before = session.read("disk.img");
    let add = [
        "key",
        "add",
        "disk.img",
        "--key-file",
        "key",
        "--new-key-file",
        "other",
    ];
    let cost = ["--pbkdf", "argon2id", "--pbkdf-force-iterations", "100000"];
    let ran = session.run(add.iter().chain(&cost));
    ran.fails(1, "the new keyslot would cost too much");
    ran.fails(
        1,
        "--pbkdf-force-iterations of argon2 counts passes over the memory: at least 4",
    );
    assert!(!ran.stderr().contains("trust"), "{}", ran.stderr());
    assert!(session.read("disk.img") == before);
}

#[test]
fn a_search_names_the_damage_of_luks1() {
    let session = volume("luks1");
    write_at(&session, 208 + 44, &[0; 4]);
    let ran = session.run(["verify-ciphertext", "disk.img"]);
    ran.fails(4, "keyslots.0.stripes at byte 252");
}

#[test]
fn a_wiped_header_is_named_by_serve_too() {
    let session = volume("luks2");
    for at in [0, SECONDARY] {
        write_at(&session, at, &[0; 6]);
    }
    let ran = session.run(["serve", "disk.img", "--socket", "s", "--key-file", "key"]);
    ran.fails(4, "the magic is wiped");
}
