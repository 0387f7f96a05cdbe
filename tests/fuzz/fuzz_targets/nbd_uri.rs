//! Any text as an NBD URI. What is accepted parses from its displayed form.
#![no_main]

use libfuzzer_sys::fuzz_target;
use luksmith_formats::nbd::uri::Uri;

fuzz_target!(|text: &str| {
    if let Ok(uri) = Uri::parse(text) {
        assert_eq!(Uri::parse(&uri.to_string()), Ok(uri));
    }
});
