//! What the cluster stores is the header and ciphertext, in every object.

use std::collections::HashSet;

use support::ceph::POOL;
use support::peers;

use crate::program::{Site, content};

const MIB: usize = 1 << 20;

/// The size of a block of the cipher, in bytes.
const BLOCK: usize = 16;

#[test]
fn every_stored_object_is_ciphertext() {
    let Some(site) = Site::new() else { return };
    if peers::find("nbdsh").is_none() {
        return;
    }
    site.ceph.rbd("namespace create rbd/stored");
    let plain = content(5, 20 * MIB);
    site.write("plain", &plain);
    site.create("stored/volume", "32M", " --sector-size 512");
    // By a guest that writes here and there, also parts of sectors.
    let serving = site.serve("stored/volume");
    let program = format!(
        "data = open('{}', 'rb').read()\n\
         for at in range(0, len(data), {MIB}): h.pwrite(data[at:at + {MIB}], at)\n\
         h.pwrite(data[:333], 30 * {MIB} + 101)\n\
         h.flush()",
        site.path("plain").display()
    );
    assert!(serving.client(&program));
    serving.stop();

    let known: HashSet<&[u8]> = plain.chunks_exact(BLOCK).collect();
    let mut rados = site.ceph.client("rados");
    let list = peers::run(rados.args(["-p", POOL, "-N", "stored", "ls"]));
    let (mut objects, mut bytes) = (0, 0);
    for name in String::from_utf8(list).unwrap().lines() {
        let mut rados = site.ceph.client("rados");
        let object = site.path("object");
        peers::run(
            rados
                .args(["-p", POOL, "-N", "stored", "get", name])
                .arg(&object),
        );
        let stored = std::fs::read(object).unwrap();
        // The plaintext at any distance from the start of the object.
        for at in 0..stored.len().saturating_sub(BLOCK - 1) {
            assert!(
                !known.contains(&stored[at..at + BLOCK]),
                "{name} at byte {at}"
            );
        }
        objects += 1;
        bytes += stored.len();
    }
    assert!(
        objects > 10 && bytes > 20 * MIB,
        "{objects} objects, {bytes} bytes"
    );
    // The search would have found it.
    assert!(
        plain[7 * BLOCK..]
            .windows(BLOCK)
            .any(|block| known.contains(block))
    );

    // The search for plaintext reads what is stored and skips the holes.
    let found = site
        .output("verify-ciphertext {stored/volume} --json")
        .stdout;
    let found: serde_json::Value = serde_json::from_slice(&found).unwrap();
    assert_eq!(found["verdict"], "accept", "{found}");
    // Two objects of the data were never written.
    assert!(found["hole"]["bytes"].as_u64() >= Some(8 << 20), "{found}");
}
