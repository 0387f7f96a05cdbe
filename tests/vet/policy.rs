//! Policies: the effect of each member, and texts that are not a policy.

use luksmith::backend::memory::MemoryBackend;
use luksmith::vet::Policy;

use crate::judge::{self, be64};
use crate::{luks, qcow2};

#[track_caller]
fn judged(image: &[u8], format: &str, policy: &str, id: &str) {
    let storage = MemoryBackend::from_bytes(image.to_vec());
    let policy = Policy::parse(policy).expect("a policy");
    judge::one(id, &judge::inspect_on(&storage, format, &policy), id);
}

#[test]
fn every_member_counts() {
    let (plain, volume) = (qcow2::good(), luks::luks2());
    judged(&plain, "qcow2", "", "");
    judged(&plain, "qcow2", "max-size = 4194304", "");
    judged(&plain, "qcow2", "max-size = 4194303", "policy.size");
    judged(&plain, "qcow2", "formats = ['qcow2']", "");
    judged(
        &plain,
        "qcow2",
        "formats = ['raw', 'luks']",
        "policy.format",
    );
    judged(&plain, "qcow2", "encryption = 'forbidden'", "");
    judged(
        &plain,
        "qcow2",
        "encryption = 'required'",
        "policy.encryption",
    );
    judged(&volume, "luks", "encryption = 'required'", "");
    judged(
        &volume,
        "luks",
        "encryption = 'forbidden'",
        "policy.encryption",
    );
    judged(&volume, "luks", "[luks]\nciphers = ['aes-xts-plain64']", "");
    judged(
        &volume,
        "luks",
        "[luks]\nciphers = ['serpent-xts-plain64']",
        "policy.cipher",
    );
    let costs = |name: &str, iterations: u32| {
        format!(
            "[luks.{name}]\npbkdf2-iterations = {iterations}\nargon2-memory-kib = 1\nargon2-work-kib = 1\nargon2-lanes = 1"
        )
    };
    judged(&volume, "luks", &costs("kdf-floor", 1000), "");
    judged(
        &volume,
        "luks",
        &costs("kdf-floor", 1001),
        "policy.kdf-floor",
    );
    judged(&volume, "luks", &costs("kdf-ceiling", 1000), "");
    judged(
        &volume,
        "luks",
        &costs("kdf-ceiling", 999),
        "policy.kdf-ceiling",
    );
    let mut dirty = plain;
    be64(&mut dirty, 72, 1);
    judged(&dirty, "qcow2", "features = ['dirty']", "");
    judged(&dirty, "qcow2", "features = []", "policy.feature");
}

#[test]
fn unknown_members_and_values_are_refused() {
    for text in [
        "max-sise = 1",
        "max-size = -1",
        "max-size = '1G'",
        "formats = ['qcow3']",
        "features = ['magic']",
        "encryption = 'maybe'",
        "[luks]\ncipher = []",
        "[luks.kdf-floor]\npbkdf2-iterations = 1",
        "[",
    ] {
        assert!(Policy::parse(text).is_err(), "{text}");
    }
}
