//! The tokens of a header, as a table.

use luksmith::container::{Container, Header};
use luksmith::task::printable;

use crate::cli::table;

/// A table of the tokens, if there are any.
pub(crate) fn table(container: &Container) -> Option<String> {
    let Header::Luks2(header) = container.header() else {
        return None;
    };
    let tokens = header.metadata.tokens();
    if tokens.is_empty() {
        return None;
    }
    let mut table = table::table();
    table.set_header(["token", "type", "keyslots"]);
    for (id, token) in tokens {
        let slots = token
            .keyslots
            .iter()
            .map(ToString::to_string)
            .collect::<Vec<_>>()
            .join(", ");
        table.add_row([id.to_string(), printable(&token.kind), slots]);
    }
    Some(table::trimmed(&table))
}
