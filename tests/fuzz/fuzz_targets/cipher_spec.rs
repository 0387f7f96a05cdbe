//! Any text as a cipher. What is accepted parses from both spellings that it is written as.
#![no_main]

use libfuzzer_sys::fuzz_target;
use luksmith_formats::{CipherSpec, Hash};

fuzz_target!(|text: &str| {
    if let Ok(spec) = CipherSpec::parse(text) {
        assert_eq!(CipherSpec::parse(&spec.to_string()), Ok(spec));
        let (name, mode) = spec.luks1_names();
        assert_eq!(CipherSpec::from_luks1(&name, &mode), Ok(spec));
    }
    if let Ok(hash) = Hash::parse(text) {
        assert!(hash.name().eq_ignore_ascii_case(text));
    }
});
