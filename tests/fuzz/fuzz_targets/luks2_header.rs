//! The first bytes of a LUKS2 header, padded to its size and sealed with a valid checksum, so that
//! the fuzzer reaches the code behind it. What parses is written back as the same bytes, as either
//! copy.
#![no_main]

use libfuzzer_sys::fuzz_target;
use luksmith_formats::Limits;
use luksmith_formats::luks2::{Header, Position};
use sha2::{Digest, Sha256};

fuzz_target!(|bytes: &[u8]| {
    let mut limits = Limits::default();
    limits.metadata_size = 64 << 10;
    for position in Position::ALL {
        let Ok(size) = Header::probe_size(bytes, position) else {
            continue;
        };
        let mut copy = bytes.to_vec();
        if size <= limits.metadata_size {
            copy.resize(usize::try_from(size).unwrap(), 0);
        }
        if copy.len() >= 512 && copy[72..].starts_with(b"sha256\0") {
            copy[448..512].fill(0);
            let checksum = Sha256::digest(&copy);
            copy[448..480].copy_from_slice(&checksum);
        }
        let Ok(header) = Header::parse(&copy, position, &limits) else {
            continue;
        };
        for position in Position::ALL {
            // Only the text can grow: numbers are written with a sign in their exponent.
            let Ok(written) = header.to_bytes(position, &[0; 64]) else {
                continue;
            };
            assert_eq!(
                Header::parse(&written, position, &limits).as_ref(),
                Ok(&header)
            );
        }
    }
});
