//! What helps where an undo record is in the way.

use std::io;

use luksmith::container::UndoError;

/// What helps when an undo record cannot be kept or applied.
pub(super) fn undo(error: &UndoError) -> Option<String> {
    let hint = match error {
        UndoError::NoRecord { name } => return Some(format!("move {name} away")),
        UndoError::Damaged { .. } => {
            "--undo discard removes it, if the header can be read as it is"
        }
        UndoError::OtherImage { .. } | UndoError::Outside { .. } => {
            "move it to the volume that it belongs to; --undo discard removes it, if the header \
             can be read as it is"
        }
        UndoError::Changed { .. } | UndoError::NoHashes { .. } => {
            "--undo discard keeps the present header, and removes the record; --undo apply \
             restores the header from before the interrupted change, and keeps a copy of the \
             present one"
        }
        UndoError::NoHeader { .. } => {
            "--undo apply writes a complete record back; otherwise move it away, and `luksmith \
             header restore IMAGE FILE` restores a header backup"
        }
        UndoError::Store(error) => return store(error),
        _ => return None,
    };
    Some(hint.to_owned())
}

/// Something else in the place of an undo record.
pub(super) fn store(error: &io::Error) -> Option<String> {
    (error.kind() == io::ErrorKind::InvalidData)
        .then(|| "move it away: luksmith has not written it".to_owned())
}
