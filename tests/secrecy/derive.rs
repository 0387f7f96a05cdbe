//! After a derivation, no piece of the passphrase or the derived key is left in memory.

use std::time::{Duration, Instant};

use luksmith::Interrupt;
use luksmith::kdf::{Argon2Cost, KdfError, af, derive, pbkdf2};
use luksmith::secret::{LockedBytes, Passphrase, VolumeKey};
use luksmith_formats::luks2::{Argon2Variant, Kdf};
use luksmith_formats::{Hash, Limits};

use crate::scan::{Needle, fresh};

#[test]
fn pbkdf2_leaves_nothing() {
    for hash in Hash::ALL {
        // Shorter and longer than a block of the hash: a longer passphrase is hashed first.
        for len in [24, 200] {
            let passphrase = Passphrase::from_locked(fresh(len));
            let kdf = Kdf::Pbkdf2 {
                hash,
                iterations: 1000,
                salt: vec![7; 32],
            };
            let (limits, interrupt) = (Limits::default(), Interrupt::new());
            let key = derive(&kdf, &passphrase, 64, &limits, &interrupt).unwrap();
            let needles = (Needle::of(passphrase.as_bytes()), Needle::of(&key));
            // As numbers too, since hashes hold their input so.
            let numbers = (of_words(passphrase.as_bytes()), of_words(&key));
            drop((passphrase, key));
            needles
                .0
                .assert_gone(&format!("the {len}-byte passphrase of pbkdf2 with {hash}"));
            needles
                .1
                .assert_gone(&format!("the key of pbkdf2 with {hash}"));
            numbers
                .0
                .assert_gone(&format!("the words of the passphrase, {hash}"));
            numbers
                .1
                .assert_gone(&format!("the words of the key, {hash}"));
        }
    }
}

/// The secret with the bytes of each 4-byte word reversed.
fn of_words(secret: &[u8]) -> Needle {
    let mut words = LockedBytes::copy_from(secret).unwrap();
    words.chunks_mut(4).for_each(<[u8]>::reverse);
    Needle::of(&words)
}

#[test]
fn an_interrupted_pbkdf2_leaves_nothing() {
    let passphrase = fresh(40);
    let needle = Needle::of(&passphrase);
    let interrupt = Interrupt::new();
    let mut out = [0; 32];
    let result = std::thread::scope(|scope| {
        let running = scope.spawn(|| {
            pbkdf2(
                Hash::Sha512,
                &passphrase,
                b"salt",
                u32::MAX,
                &mut out,
                &interrupt,
            )
        });
        std::thread::sleep(Duration::from_millis(20));
        interrupt.trigger();
        running.join().unwrap()
    });
    assert!(matches!(result, Err(KdfError::Interrupted)));
    drop(passphrase);
    needle.assert_gone("the passphrase");
}

#[test]
fn argon2_leaves_nothing() {
    for variant in [Argon2Variant::I, Argon2Variant::Id] {
        let passphrase = Passphrase::from_locked(fresh(100));
        let kdf = Kdf::Argon2 {
            variant,
            passes: 4,
            memory_kib: 8 << 10,
            lanes: 4,
            salt: vec![7; 32],
        };
        let (limits, interrupt) = (Limits::default(), Interrupt::new());
        let key = derive(&kdf, &passphrase, 64, &limits, &interrupt).unwrap();
        let needles = (Needle::of(passphrase.as_bytes()), Needle::of(&key));
        drop((passphrase, key));
        needles.0.assert_gone("the passphrase of argon2");
        needles.1.assert_gone("the key of argon2");
    }
}

/// The last block is as secret as the key, which is its hash.
#[test]
fn argon2_leaves_no_block() {
    let passphrase = fresh(100);
    let cost = Argon2Cost {
        variant: Argon2Variant::Id,
        passes: 2,
        memory_kib: 1 << 10,
        lanes: 1,
    };
    let needles = {
        let params = argon2::Params::new(cost.memory_kib, cost.passes, cost.lanes, None).unwrap();
        let oracle =
            argon2::Argon2::new(argon2::Algorithm::Argon2id, argon2::Version::V0x13, params);
        let mut blocks = vec![argon2::Block::new(); 1 << 10];
        oracle
            .hash_password_into_with_memory(&passphrase, b"saltsalt", &mut [0; 64], &mut blocks)
            .unwrap();
        let last = blocks[blocks.len() - 1].as_ref();
        // In the order of the specification, and in columns of its matrix.
        let mut rows = LockedBytes::new(128).unwrap();
        let mut columns = LockedBytes::new(128).unwrap();
        for n in 0..16 {
            rows[8 * n..8 * n + 8].copy_from_slice(&last[n].to_ne_bytes());
            let column = last[16 * (n % 8) + n / 8];
            columns[8 * n..8 * n + 8].copy_from_slice(&column.to_ne_bytes());
        }
        [Needle::of(&rows), Needle::of(&columns)]
        // The allocator wipes the memory of the reference implementation.
    };
    luksmith::secret::scrub_stack();
    let ours = luksmith::kdf::argon2(cost, &passphrase, b"saltsalt", 64, &Interrupt::new());
    drop((ours.unwrap(), passphrase));
    for needle in needles {
        needle.assert_gone("the last block of argon2");
    }
}

#[test]
fn an_abandoned_argon2_leaves_nothing_once_it_ends() {
    let passphrase = fresh(100);
    let needle = Needle::of(&passphrase);
    let cost = Argon2Cost {
        variant: Argon2Variant::Id,
        passes: 40,
        memory_kib: 32 << 10,
        lanes: 2,
    };
    let interrupt = Interrupt::new();
    let result = std::thread::scope(|scope| {
        let running =
            scope.spawn(|| luksmith::kdf::argon2(cost, &passphrase, b"saltsalt", 64, &interrupt));
        std::thread::sleep(Duration::from_millis(20));
        interrupt.trigger();
        running.join().unwrap()
    });
    assert!(matches!(result, Err(KdfError::Interrupted)));
    drop(passphrase);
    let patience = Instant::now() + Duration::from_secs(60);
    while !needle.find().is_empty() && Instant::now() < patience {
        std::thread::sleep(Duration::from_millis(100));
    }
    needle.assert_gone("the passphrase of an abandoned argon2");
}

#[test]
fn the_splitter_leaves_nothing() {
    for hash in Hash::ALL {
        let key = VolumeKey::random(64).unwrap();
        let material = af::split(key.as_bytes(), 4000, hash).unwrap();
        let merged = VolumeKey::from_locked(af::merge(&material, 64, 4000, hash).unwrap());
        assert!(key.ct_eq(&merged));
        let needles = (Needle::of(key.as_bytes()), Needle::of(&material[..200]));
        drop((key, merged, material));
        needles.0.assert_gone("the volume key");
        needles.1.assert_gone("the key material");
    }
}
