//! What helps where an undo record is in the way.

use std::io;

use luksmith::container::UndoError;

/// What helps when an undo record cannot be kept or applied.
pub(super) fn undo(error: &UndoError) -> Option<String> {
    let hint = match error {
        UndoError::NoRecord { name } => return Some(format!("move {name} away")),
        UndoError::Damaged { .. } => {
            "--undo discard removes it, if the header can be read as it is, and keeps a copy of it"
        }
        UndoError::OtherImage { .. } | UndoError::Outside { .. } => {
            "move it to the volume that it belongs to; --undo discard removes it, if the header \
             can be read as it is, and keeps a copy of it"
        }
        UndoError::Changed { keyslots, .. } | UndoError::NoHashes { keyslots, .. } => {
            return Some(choose(keyslots));
        }
        UndoError::NoHeader { .. } => {
            "--undo apply writes a complete record back; otherwise move it away, and `luksmith \
             header restore IMAGE FILE` restores a header backup"
        }
        UndoError::Read(error) | UndoError::Store(error) => return store(error),
        _ => return None,
    };
    Some(hint.to_owned())
}

/// The choice between the present header and the one from before the interrupted change, which was
/// to write the key material of these keyslots.
fn choose(keyslots: &[u32]) -> String {
    let numbers: Vec<String> = keyslots.iter().map(ToString::to_string).collect();
    let loss = match numbers.len() {
        0 => String::new(),
        1 => format!(
            " (keyslot {} may then open with neither passphrase)",
            numbers[0]
        ),
        _ => {
            let numbers = numbers.join(", ");
            format!(" (keyslots {numbers} may then open with neither passphrase)")
        }
    };
    format!(
        "--undo discard keeps the present header{loss}, and a copy of the record; --undo apply \
         restores the header from before the interrupted change, and keeps a copy of the present \
         one"
    )
}

/// Something else in the place of an undo record, or a record that is not trusted.
pub(super) fn store(error: &io::Error) -> Option<String> {
    match error.kind() {
        io::ErrorKind::InvalidData => Some("move it away: luksmith has not written it".to_owned()),
        io::ErrorKind::PermissionDenied => Some(
            "if its owner has changed this volume with luksmith, that user ends the change with \
             `luksmith header repair IMAGE`; otherwise remove the file, or name another place for \
             the record of a change with --undo-file PATH"
                .to_owned(),
        ),
        io::ErrorKind::InvalidFilename => Some(
            "--undo-file PATH keeps the record under another name, for the duration of the change"
                .to_owned(),
        ),
        _ => None,
    }
}
