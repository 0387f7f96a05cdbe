//! Tables without borders, which fit the terminal.

use comfy_table::{ContentArrangement, Table, presets};

use super::terminal;

/// An empty table.
pub(crate) fn table() -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    if let Some(columns) = terminal::columns() {
        // The spaces at both ends of each line are removed.
        table
            .set_content_arrangement(ContentArrangement::Dynamic)
            .set_width(columns.saturating_add(2));
    }
    table
}

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
