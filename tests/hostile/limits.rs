//! Costs that a header asks for: too high ones are refused before a derivation, even if the header
//! is otherwise valid.

use luksmith_formats::luks2::{Argon2Variant, Kdf};
use luksmith_formats::{Hash, Limits};

use crate::verdict::{Verdict, judge, over_limit};

fn argon2(passes: u32, memory_kib: u32, lanes: u32) -> Kdf {
    Kdf::Argon2 {
        variant: Argon2Variant::Id,
        passes,
        memory_kib,
        lanes,
        salt: vec![0; 32],
    }
}

fn pbkdf2(iterations: u32) -> Kdf {
    Kdf::Pbkdf2 {
        hash: Hash::Sha256,
        iterations,
        salt: vec![0; 32],
    }
}

#[test]
fn each_cost_has_its_cap() {
    let cases = [
        (argon2(4, 1 << 20, 4), Verdict::Good),
        (argon2(16, 4 << 20, 16), Verdict::Good),
        (
            argon2(17, 4 << 20, 16),
            over_limit("kdf.time", "the limit is 67108864"),
        ),
        (
            argon2(1, (4 << 20) + 1, 1),
            over_limit("kdf.memory", "asks for 4194305 KiB"),
        ),
        (
            argon2(1, 1 << 20, 17),
            over_limit("kdf.cpus", "asks for 17"),
        ),
        (
            argon2(u32::MAX, u32::MAX, u32::MAX),
            over_limit("kdf.memory", "4294967295"),
        ),
        (
            argon2(u32::MAX, 4 << 20, 1),
            over_limit("kdf.time", "limit"),
        ),
        (pbkdf2(100_000_000), Verdict::Good),
        (
            pbkdf2(100_000_001),
            over_limit("kdf.iterations", "the limit is 100000000"),
        ),
        (
            pbkdf2(u32::MAX),
            over_limit("kdf.iterations", "asks for 4294967295"),
        ),
    ];
    for (kdf, expected) in cases {
        let name = format!("{kdf:?}");
        _ = judge(&name, expected, || Limits::default().check_kdf(&kdf));
    }
}

#[test]
fn caps_can_be_raised() {
    let mut limits = Limits::default();
    limits.pbkdf2_iterations = u32::MAX;
    limits.argon2_memory_kib = u32::MAX;
    limits.check_kdf(&pbkdf2(u32::MAX)).unwrap();
    limits.check_kdf(&argon2(1, 64 << 20, 1)).unwrap();
}
