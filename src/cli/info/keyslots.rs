//! Keyslots as a table, for `info` and `key list`.

use luksmith::container::KeyslotInfo;
use luksmith::task::outcome;

use crate::cli::table;

/// A table of the keyslots.
pub(crate) fn table(slots: &[KeyslotInfo]) -> String {
    if slots.is_empty() {
        return "no keyslot is in use: no passphrase opens this volume".to_owned();
    }
    let mut table = table::table();
    table.set_header(["keyslot", "opens", "priority", "KDF", "cost", "area"]);
    for slot in slots {
        table.add_row(outcome::keyslot_cells(slot));
    }
    table::trimmed(&table)
}
