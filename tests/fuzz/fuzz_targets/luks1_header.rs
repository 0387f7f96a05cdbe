//! Any bytes as a LUKS1 header. What parses is written back as the same bytes, and so does what a
//! repair makes of them.
#![no_main]

use libfuzzer_sys::fuzz_target;
use luksmith_formats::Limits;
use luksmith_formats::luks1::{Header, KEYSLOTS};

fuzz_target!(|bytes: &[u8]| {
    let limits = Limits::default();
    if let Ok((repaired, _)) = Header::repaired(bytes, &limits) {
        Header::parse(&repaired, &limits).and_then(|header| header.check_usable()).unwrap();
    }
    let Ok(header) = Header::parse(bytes, &limits) else {
        return;
    };
    assert_eq!(
        Header::parse(&header.to_bytes(), &limits).as_ref(),
        Ok(&header)
    );
    _ = header.check_usable();
    for slot in 0..KEYSLOTS {
        let area = header.area(slot);
        assert!(area.start >= 592 && area.start < area.end);
        assert!(header.payload_offset == 0 || area.end <= header.data_offset());
    }
});
