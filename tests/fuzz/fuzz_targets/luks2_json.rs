//! Any text as the metadata of a 16 KiB header. What parses keeps the rules, and setting what was
//! read changes nothing.
#![no_main]

use libfuzzer_sys::fuzz_target;
use luksmith_formats::luks2::{Keyslot, Metadata};

fuzz_target!(|text: &[u8]| {
    let mut area = text.to_vec();
    area.resize(area.len().max(12288), 0);
    area.push(0);
    let Ok(metadata) = Metadata::parse(&area, 4096, 16384) else {
        return;
    };
    let whole = metadata.keyslots_area();
    for keyslot in metadata.keyslots().values() {
        let area = keyslot.area();
        assert!(whole.start <= area.start && area.start < area.end && area.end <= whole.end);
    }
    if let Some(start) = metadata.free_area(4096, &[]) {
        let free = start..start + 4096;
        assert!(metadata.keyslots().values().all(|keyslot| {
            let area = keyslot.area();
            area.end <= free.start || free.end <= area.start
        }));
    }
    _ = metadata.data_segment();
    _ = metadata.authenticated_segment();
    let mut edited = metadata.clone();
    let done = edited.edit(|draft| {
        for (id, keyslot) in metadata.keyslots() {
            if !matches!(keyslot, Keyslot::Other(_)) {
                draft.set_keyslot(*id, keyslot)?;
            }
        }
        for (id, segment) in metadata.segments() {
            draft.set_segment(*id, segment)?;
        }
        for (id, digest) in metadata.digests() {
            draft.set_digest(*id, digest)?;
        }
        Ok(())
    });
    if done.is_ok() {
        assert_eq!(edited.keyslots(), metadata.keyslots());
        assert_eq!(edited.segments(), metadata.segments());
        assert_eq!(edited.digests(), metadata.digests());
        assert_eq!(edited.tokens(), metadata.tokens());
    }
});
