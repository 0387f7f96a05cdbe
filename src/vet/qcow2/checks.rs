//! What a qcow2 image is checked for.

use crate::vet::finding::checks;

checks! {
    VERSION: reject, "qcow2.version", "it is of a version that is neither 2 nor 3";
    BACKING: reject, "qcow2.backing-file", "it names a backing file: what is not in the image would be read from there";
    DATA_FILE: reject, "qcow2.data-file", "its data lies in another file, which would be read and written";
    CLUSTER: reject, "qcow2.cluster-bits", "clusters are of 512 bytes to 2 MiB";
    LENGTH: reject, "qcow2.header-length", "the header is shorter than its version has it, or longer than a cluster";
    FEATURES: reject, "qcow2.incompatible", "it has incompatible features that are not known";
    CORRUPT: reject, "qcow2.corrupt", "it is marked as damaged";
    REFCOUNTS: reject, "qcow2.refcount-order", "refcounts have at most 64 bits";
    COMPRESSION: reject, "qcow2.compression", "the compression type is not known, or its feature bit does not agree with it";
    SUBCLUSTERS: reject, "qcow2.extended-l2", "subclusters need clusters of at least 16 KiB";
    CRYPT: reject, "qcow2.encryption", "its encryption is broken (method 1), not known, or not described";
    EXTENSIONS: reject, "qcow2.extensions", "the header extensions do not fit, have no end, come twice, or have a wrong length";
    UNKNOWN: note, "qcow2.unknown", "it has optional features or extensions that are not known";
    SIZE: reject, "qcow2.size", "the disk is larger than its L1 table can map";
    TABLE: reject, "qcow2.table", "a table is too large, not aligned, or does not lie in the image";
    RESERVED: reject, "qcow2.reserved", "bits are set that must be zero";
    OVERLAP: reject, "qcow2.overlap", "a table lies on another one, on the header or on the encryption header: a write to one changes the other";
    SNAPSHOTS: reject, "qcow2.snapshots", "the list of snapshots breaks a rule or a limit";
    BITMAPS: reject, "qcow2.bitmaps", "the list of bitmaps breaks a rule or a limit";
    CLUSTERS: reject, "qcow2.clusters", "the guest's data is said to lie outside of the image or on its tables";
    COMPRESSED: reject, "qcow2.compressed", "compressed data is said to lie outside of the image or on its tables";
    SHARED: reject, "qcow2.shared", "a cluster is used for several things, and its refcount does not say so: a write to one changes the other";
    REFCOUNT: reject, "qcow2.refcount", "a cluster is in use and its refcount is 0: a write allocates it again, for data over a table too";
    MANY: note, "qcow2.refcounts-not-counted", "it has more clusters than are counted, so that refcounts were not compared with what uses them";
    SUBCLUSTER: reject, "qcow2.subclusters", "a subcluster is allocated and zero at once, or allocated without a cluster";
}
