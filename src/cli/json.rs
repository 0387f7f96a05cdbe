//! Parts of the JSON that several commands print.

use std::fmt::Write as _;

use luksmith::location::Location;
use luksmith::task::storage::Storage;
use luksmith_formats::json::{Value, json};

/// The same object with the name of an image as `image`. A path that is not UTF-8 has `\xNN` there
/// for each byte that is not, and all of its bytes as hexadecimal digits in `image_bytes`.
pub(crate) fn with_image(mut value: Value, image: &Location) -> Value {
    value["image"] = json!(image.to_string());
    if let Location::Path(path) = image
        && path.to_str().is_none()
    {
        value["image_bytes"] = json!(hex(path.as_os_str().as_encoded_bytes()));
    }
    value
}

/// Bytes as hexadecimal digits.
pub(crate) fn hex(bytes: &[u8]) -> String {
    let mut digits = String::new();
    for byte in bytes {
        // Writing to a string does not fail.
        let _ = write!(digits, "{byte:02x}");
    }
    digits
}

/// The qcow2 image that a storage holds.
pub(crate) fn qcow2(storage: &Storage) -> Option<Value> {
    storage.qcow2.as_ref().map(|image| {
        json!({
            "version": image.version(),
            "cluster_size": image.cluster_size(),
            "refcount_bits": image.refcount_bits(),
            "snapshots": image.snapshots(),
        })
    })
}
