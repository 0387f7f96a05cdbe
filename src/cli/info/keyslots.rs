//! Keyslots as a table and as JSON, for `info` and `key list`.

use comfy_table::{Table, presets};
use luksmith::container::KeyslotInfo;
use luksmith_formats::json::{Value, json};
use luksmith_formats::luks2::{Kdf, Priority};

use crate::cli::size;
use crate::cli::table::trimmed;

/// A table of the keyslots.
pub(crate) fn table(slots: &[KeyslotInfo]) -> String {
    if slots.is_empty() {
        return "no keyslot is in use: no passphrase opens this volume".to_owned();
    }
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
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
            priority(slot.priority).to_owned(),
            kdf,
            cost,
            format!(
                "{} at byte {}",
                size::human(slot.area.end - slot.area.start),
                slot.area.start
            ),
        ]);
    }
    trimmed(&table)
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

fn priority(priority: Priority) -> &'static str {
    match priority {
        Priority::Prefer => "prefer",
        Priority::Normal => "normal",
        Priority::Ignore => "ignore",
    }
}

/// The keyslots as JSON; sizes in bytes.
pub(crate) fn json(slots: &[KeyslotInfo]) -> Value {
    slots
        .iter()
        .map(|slot| {
            let sealing = slot.sealing.as_ref().ok();
            json!({
                "keyslot": slot.slot,
                "bound": slot.bound,
                "priority": priority(slot.priority),
                "key_bits": slot.key_size * 8,
                "kdf": sealing.map(|sealing| match &sealing.kdf {
                    Kdf::Pbkdf2 { hash, iterations, .. } => {
                        json!({ "type": "pbkdf2", "hash": hash.name(), "iterations": iterations })
                    }
                    Kdf::Argon2 { variant, passes, memory_kib, lanes, .. } => json!({
                        "type": variant.name(),
                        "passes": passes,
                        "memory": u64::from(*memory_kib) * 1024,
                        "threads": lanes,
                    }),
                }),
                "area": {
                    "offset": slot.area.start,
                    "size": slot.area.end - slot.area.start,
                    "cipher": sealing.map(|sealing| sealing.cipher.to_string()),
                    "key_bits": sealing.map(|sealing| sealing.cipher_key_size * 8),
                },
                "af": sealing.map(|sealing| {
                    json!({ "hash": sealing.af_hash.name(), "stripes": sealing.stripes })
                }),
                "not_supported": slot.sealing.as_ref().err().map(ToString::to_string),
            })
        })
        .collect()
}
