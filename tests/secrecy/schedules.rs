//! Key schedules are only in locked memory, and vanish with their owner, for every kernel.

use std::process::Command;

use luksmith::crypt::{CryptError, IvSector, SectorCrypt, Window, Windows};
use luksmith::secret::{LockError, LockedBytes, VolumeKey};
use luksmith::sectors::{Plain, Sectors};
use luksmith::xts::Kernel;
use luksmith_formats::CipherSpec;
use rustix::process::{Resource, Rlimit, setrlimit};
use rustix::thread::{CapabilitySet, capabilities, set_capabilities};

use crate::process::flags_of;
use crate::scan::{KERNEL, Needle, fresh};

fn aes() -> CipherSpec {
    CipherSpec::parse("aes-xts-plain64").unwrap()
}

/// The first round key is the key itself, so a search for the key finds schedules.
#[test]
fn key_schedules_lie_in_locked_pages() {
    for key_size in [32, 48, 64] {
        let key = fresh(key_size);
        let needle = Needle::of(&key);
        let key = VolumeKey::from_locked(key);
        let crypt = SectorCrypt::new(aes(), 512, &key).unwrap();
        drop(key);
        for sectors in [1, 100] {
            let plain = Sectors::<Plain>::zeroed(512 * sectors);
            let cipher = crypt.encrypt(IvSector(7), plain);
            crypt.decrypt(IvSector(7), cipher);
        }
        let hits = needle.find();
        assert!(!hits.is_empty());
        for hit in &hits {
            let flags = flags_of(hit.address);
            let locked = flags.iter().any(|flag| flag == "lo");
            assert!(locked, "a round key where {flags:?}: {hit:x?}");
        }
        drop(crypt);
        needle.assert_gone("a key schedule");
    }
}

/// Some sectors straddle windows, and some ciphers only work in place, so plaintext passes through
/// other memory on its way.
#[test]
fn plaintext_is_left_only_in_the_windows() {
    for cipher in [
        "aes-xts-plain64",
        "aes-cbc-essiv:sha256",
        "serpent-xts-plain64",
        "twofish-xts-plain64",
        "camellia-cbc-essiv:sha256",
    ] {
        let spec = CipherSpec::parse(cipher).unwrap();
        let key = fresh(spec.default_key_size());
        let of_key = Needle::of(&key);
        let key = VolumeKey::from_locked(key);
        for (sector_size, piece) in [(512, 8192), (512, 100), (4096, 512 + 4096)] {
            let crypt = SectorCrypt::new(spec, sector_size, &key).unwrap();
            let secret = fresh(512);
            let needle = Needle::of(&secret);
            let mut memory = LockedBytes::new(8192).unwrap();
            for sector in memory.chunks_mut(512) {
                sector.copy_from_slice(&secret);
            }
            drop(secret);
            let windows: Vec<_> = memory.chunks_mut(piece).map(Window::from).collect();
            let sectors = crypt.encrypt_from(IvSector(1), Windows::new(&windows));
            drop(windows);
            memory.fill(0);
            needle.assert_gone("what was encrypted");
            let windows: Vec<_> = memory.chunks_mut(piece).map(Window::from).collect();
            crypt.decrypt_into(IvSector(1), &sectors, Windows::new(&windows));
            drop(windows);
            let own = memory.as_ptr() as u64..memory.as_ptr() as u64 + memory.len() as u64;
            let hits = needle.find();
            assert!(hits.len() >= 16, "{cipher}: {} pieces", hits.len());
            let outside: Vec<_> = hits
                .iter()
                .filter(|hit| !own.contains(&hit.address))
                .collect();
            assert!(
                outside.is_empty(),
                "{cipher} {sector_size} {piece}: {outside:#x?}"
            );
            memory.fill(0);
            needle.assert_gone("what was decrypted");
        }
        drop(key);
        of_key.assert_gone("a key");
    }
}

/// Runs some tests of this binary in a process of their own.
fn child(tests: &[&str]) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "--nocapture"]).args(tests);
    command
}

#[test]
fn every_kernel_leaves_nothing() {
    const TESTS: [&str; 4] = [
        "schedules::key_schedules_lie_in_locked_pages",
        "schedules::plaintext_is_left_only_in_the_windows",
        "unlock::nothing_is_left_of_a_luks2_volume_with_pbkdf2",
        "unlock::nothing_is_left_of_a_luks1_volume",
    ];
    for kernel in Kernel::available() {
        let ran = child(&TESTS).env(KERNEL, kernel.name()).output();
        let ran = ran.unwrap();
        let said = String::from_utf8_lossy(&ran.stdout);
        assert!(ran.status.success(), "{kernel}: {said}");
        assert!(said.contains("4 passed"), "{kernel}: {said}");
    }
}

/// Limits cannot be raised again, so this is done in a child process. As root it first has to drop
/// a capability.
#[test]
fn without_locked_memory_there_is_no_schedule() {
    const CHILD: &str = "LUKSMITH_TEST_MEMLOCK";
    if std::env::var_os(CHILD).is_none() {
        let mut child = child(&["schedules::without_locked_memory_there_is_no_schedule"]);
        assert!(child.env(CHILD, "1").status().unwrap().success());
        return;
    }
    let mut mine = capabilities(None).unwrap();
    mine.effective.remove(CapabilitySet::IPC_LOCK);
    set_capabilities(None, mine).unwrap();
    let key = VolumeKey::from_locked(fresh(64));
    // Fills the rest of the page that holds the key.
    let _rest = LockedBytes::new(4096 - 64).unwrap();
    let none = Rlimit {
        current: Some(4096),
        maximum: Some(4096),
    };
    setrlimit(Resource::Memlock, none).unwrap();
    for cipher in [
        "aes-xts-plain64",
        "serpent-xts-plain64",
        "twofish-xts-plain64",
    ] {
        let spec = CipherSpec::parse(cipher).unwrap();
        let refused = SectorCrypt::new(spec, 512, &key).unwrap_err();
        assert!(
            matches!(
                refused,
                CryptError::Lock(LockError::Limit {
                    limit: Some(4096),
                    ..
                })
            ),
            "{refused:?}"
        );
        assert!(refused.to_string().contains("cannot be locked in memory"));
    }
}
