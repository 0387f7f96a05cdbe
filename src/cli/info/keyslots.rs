//! Keyslots as a table, for `info` and `key list`.

use luksmith::container::KeyslotInfo;
use luksmith::task::outcome;
use luksmith_formats::luks2::Kdf;

use crate::cli::size;
use crate::cli::table;

/// A table of the keyslots.
pub(crate) fn table(slots: &[KeyslotInfo]) -> String {
    if slots.is_empty() {
        return "no keyslot is in use: no passphrase opens this volume".to_owned();
    }
    let mut table = table::table();
    table.set_header(["keyslot", "opens", "priority", "KDF", "cost", "area"]);
    for slot in slots {
        let (kdf, cost) = match &slot.sealing {
            Ok(sealing) => kdf_text(&sealing.kdf),
            Err(_) => ("not supported".to_owned(), String::new()),
        };
        table.add_row([
            slot.slot.to_string(),
            if slot.bound {
                "the volume".to_owned()
            } else {
                format!("unbound {}-bit key", slot.key_size * 8)
            },
            outcome::priority(slot.priority).to_owned(),
            kdf,
            cost,
            format!(
                "{} at byte {}",
                size::human(slot.area.end - slot.area.start),
                slot.area.start
            ),
        ]);
    }
    table::trimmed(&table)
}

fn kdf_text(kdf: &Kdf) -> (String, String) {
    match kdf {
        Kdf::Pbkdf2 {
            hash, iterations, ..
        } => (format!("pbkdf2-{hash}"), format!("{iterations} iterations")),
        Kdf::Argon2 {
            variant,
            passes,
            memory_kib,
            lanes,
            ..
        } => (
            variant.name().to_owned(),
            format!(
                "{}, {passes} passes, {lanes} threads",
                size::human(u64::from(*memory_kib) * 1024)
            ),
        ),
    }
}
