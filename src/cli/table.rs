//! Tables without borders.

use comfy_table::Table;

/// The lines of a table without borders, with the spaces at both ends of each line removed.
pub(crate) fn trimmed(table: &Table) -> String {
    let lines = table.lines().map(|line| {
        line.trim_end()
            .strip_prefix(' ')
            .map(str::to_owned)
            .unwrap_or_default()
    });
    lines.collect::<Vec<_>>().join("\n")
}
