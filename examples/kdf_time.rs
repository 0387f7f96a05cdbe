//! t
#![allow(clippy::print_stdout, missing_docs)]
use luksmith::{Interrupt, kdf::*};
use luksmith_formats::{Hash, luks2::Argon2Variant};
use std::time::Instant;
fn main() {
    let i = Interrupt::new();
    for _ in 0..2 {
        let t = Instant::now();
        pbkdf2(
            Hash::Sha256,
            b"benchmark",
            &[7; 32],
            2_000_000,
            &mut [0; 32],
            &i,
        )
        .unwrap();
        println!("pbkdf2 sha256 2M 32 bytes: {:?}", t.elapsed());
    }
    for h in Hash::ALL {
        println!("{h}: {} /s", calibrate::pbkdf2_rate(h, 32, &i).unwrap());
    }
    for _ in 0..2 {
        let c = Argon2Cost {
            variant: Argon2Variant::Id,
            passes: 4,
            memory_kib: 1 << 20,
            lanes: 4,
        };
        println!(
            "argon2id 1GiB t4 p4: {:?}",
            calibrate::argon2_time(c, 32, &i).unwrap()
        );
    }
    let t = Instant::now();
    println!(
        "{:?} in {:?}",
        calibrate::calibrate(
            &calibrate::Target::new(calibrate::KdfKind::Argon2id, 32),
            &i
        )
        .unwrap(),
        t.elapsed()
    );
}
