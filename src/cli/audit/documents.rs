//! Documents that the command line names.

use std::io::{self, Read};
use std::path::Path;

use luksmith::audit::Document;
use luksmith::task::audit::{LARGEST_DOCUMENT, read_document};

use crate::cli::error::{CommandError, Kind};

/// Reads a file, or stdin for `-`.
pub(super) fn read(path: &Path) -> Result<Document, CommandError> {
    if path != Path::new("-") {
        return Ok(read_document(path)?);
    }
    let mut text = Vec::new();
    io::stdin()
        .lock()
        .take(LARGEST_DOCUMENT)
        .read_to_end(&mut text)
        .map_err(|error| CommandError::new(Kind::Storage, error).about("cannot read stdin"))?;
    Ok(Document::file("stdin", text))
}
