//! Hints for a volume that is not as it is pinned.

use std::error::Error;
use std::io::ErrorKind;

use luksmith::trust::TrustError;
use luksmith::trust::tags::TagsError;

use super::row::{Hint, Row};

fn none(_: &(dyn Error + 'static)) -> Hint {
    None
}

hints! {
    else none;

    TagsError {
        TagsError::Missing => "`luksmith trust init IMAGE --trust DIR --tags` makes them",
        TagsError::Exists =>
            "remove tags, tags.0 and tags.1 from the folder of its UUID in DIR to make them anew",
        TagsError::Busy => "stop the program that has the volume open, and run this again",
        TagsError::OtherKey =>
            "if you gave the volume a new key, remove tags, tags.0 and tags.1 from the folder of its UUID \
             in DIR, and `luksmith trust init IMAGE --trust DIR --tags` makes them anew; else this is \
             another volume",
        TagsError::Truncated { .. } =>
            "do not trust this storage; if you made the volume smaller, remove tags, tags.0 and tags.1 \
             from the folder of its UUID in DIR, and `luksmith trust init IMAGE --trust DIR --tags` \
             makes them anew",
        TagsError::File { source, .. } if source.kind() == ErrorKind::NotFound =>
            "restore DIR from its backup, or remove tags, tags.0 and tags.1 from the folder of its UUID \
             in DIR, and `luksmith trust init IMAGE --trust DIR --tags` makes them anew",
        TagsError::Head(_) => "restore DIR from its backup, or make the tags anew",
    }

    TrustError {
        TrustError::NotKnown { .. } =>
            "`luksmith trust init IMAGE --trust DIR` pins it, if its header is genuine now",
        TrustError::OtherVolume { pinned, .. } =>
            format!(
                "the storage hands out another header; if you have made a new volume there, remove \
                 {pinned} from DIR first"
            ),
        TrustError::Elsewhere { .. } =>
            "name the volume as it was named when it was pinned; `luksmith trust accept IMAGE \
             --trust DIR` pins a new place",
        TrustError::Changed(_) =>
            "if you know who changed it: `luksmith trust accept IMAGE --trust DIR`; else do not \
             trust this storage",
        TrustError::OtherKey =>
            "this is another volume; `luksmith header restore` restores a header backup of yours",
        TrustError::NotKept(_) =>
            "run it without --trust; then remove the UUID from DIR, and `luksmith trust init` pins \
             the volume anew",
        TrustError::Pinned { .. } =>
            "`luksmith trust accept IMAGE --trust DIR` pins what has changed since",
        TrustError::Uuid => "`luksmith config IMAGE --uuid UUID` gives it one",
        TrustError::Busy { .. } => "run the command again when that has ended",
        TrustError::Damaged { uuid, .. } =>
            format!(
                "restore DIR from its backup, or remove {uuid} from it, and `luksmith trust init` \
                 pins the volume anew"
            ),
        TrustError::Dir { source, .. } if source.kind() == ErrorKind::NotFound =>
            "`luksmith trust init IMAGE --trust DIR` makes it",
        TrustError::Dir { source, .. } if source.kind() == ErrorKind::PermissionDenied =>
            "DIR has to be yours, with mode 0700 (`chmod 700`), and no other user may write to the \
             folders above it",
    }
}
