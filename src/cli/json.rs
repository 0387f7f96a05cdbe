//! Parts of the JSON that several commands print.

use luksmith::task::storage::Storage;
use luksmith_formats::json::{Value, json};

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
