//! The names and values that several outcomes share.

use std::fmt::Write as _;
use std::path::Path;

use luksmith_formats::json::{Object, Value, json};
use luksmith_formats::luks2::Priority;

use crate::container::Version;
use crate::layout::Qcow2Header;
use crate::location::Location;
use crate::task::printable;

/// Adds the members `image` and `image_bytes`: the name of an image, with `\xNN` for each byte that
/// is not UTF-8, and then all bytes of its path as hexadecimal digits, else `null`.
pub fn image(members: &mut Object, image: &Location) {
    members.insert("image", image.to_string());
    members.insert("image_bytes", image.path().and_then(bytes_of));
}

/// The bytes of a path that is not UTF-8, as hexadecimal digits.
#[must_use]
pub fn bytes_of(path: &Path) -> Option<String> {
    match path.to_str() {
        Some(_) => None,
        None => Some(hex(path.as_os_str().as_encoded_bytes())),
    }
}

/// Bytes as hexadecimal digits.
#[must_use]
pub fn hex(bytes: &[u8]) -> String {
    let mut digits = String::new();
    for byte in bytes {
        // Writing to a string does not fail.
        let _ = write!(digits, "{byte:02x}");
    }
    digits
}

/// The member `type`: `luks1` or `luks2`.
#[must_use]
pub fn type_name(version: Version) -> &'static str {
    match version {
        Version::Luks1 => "luks1",
        Version::Luks2 => "luks2",
    }
}

/// The member `priority` of a keyslot.
#[must_use]
pub fn priority(priority: Priority) -> &'static str {
    match priority {
        Priority::Prefer => "prefer",
        Priority::Normal => "normal",
        Priority::Ignore => "ignore",
    }
}

/// The member `qcow2`: the image that holds a volume, or `null`.
#[must_use]
pub fn qcow2(image: Option<&Qcow2Header>) -> Value {
    match image {
        None => Value::Null,
        Some(image) => json!({
            "version": image.version(),
            "cluster_size": image.cluster_size(),
            "refcount_bits": image.refcount_bits(),
            "snapshots": image.snapshots(),
            "backing_file": image.backing_file().map(printable),
            "data_file": image.data_file().map(printable),
        }),
    }
}
