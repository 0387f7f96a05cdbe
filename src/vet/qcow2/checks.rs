//! The checks of a qcow2 image.

use crate::vet::finding::checks;

checks! {
    VERSION: reject, "qcow2.version", "its version is neither 2 nor 3";
    BACKING: reject, "qcow2.backing-file",
        "it names a backing file, from which a program reads what the image does not contain";
    DATA_FILE: reject, "qcow2.data-file",
        "it has an external data file, which a program reads and writes";
    CLUSTER: reject, "qcow2.cluster-bits", "its clusters are not of 512 bytes to 2 MiB";
    LENGTH: reject, "qcow2.header-length",
        "the header is shorter than its version requires, or longer than a cluster";
    FEATURES: reject, "qcow2.incompatible", "it has unknown incompatible features";
    CORRUPT: reject, "qcow2.corrupt", "it is marked as damaged";
    REFCOUNTS: reject, "qcow2.refcount-order", "its refcounts have more than 64 bits";
    COMPRESSION: reject, "qcow2.compression",
        "its compression type is unknown, or does not agree with the feature bit";
    SUBCLUSTERS: reject, "qcow2.extended-l2", "it has subclusters in clusters under 16 KiB";
    CRYPT: reject, "qcow2.encryption",
        "its encryption is insecure (method 1), unknown, or has no LUKS header";
    EXTENSIONS: reject, "qcow2.extensions",
        "the header extensions do not fit, have no end, are repeated, or have a wrong length";
    UNKNOWN: note, "qcow2.unknown", "it has unknown optional features or extensions";
    SIZE: reject, "qcow2.size", "the disk is larger than its L1 table can map";
    PARTIAL: note, "qcow2.partial-sector",
        "its size is not a multiple of 512: QEMU leaves out the last bytes";
    TABLE: reject, "qcow2.table", "a table is too large, not aligned, or not within the image";
    RESERVED: reject, "qcow2.reserved", "reserved bits are set";
    OVERLAP: reject, "qcow2.overlap",
        "a table overlaps another table, the header or the encryption header: a write to one changes the other";
    SNAPSHOTS: reject, "qcow2.snapshots", "the list of snapshots breaks a rule or a limit";
    BITMAPS: reject, "qcow2.bitmaps", "the list of bitmaps breaks a rule or a limit";
    CLUSTERS: reject, "qcow2.clusters",
        "a cluster of the guest's data is outside of the image, or overlaps a table";
    COMPRESSED: reject, "qcow2.compressed",
        "compressed data is outside of the image, or overlaps a table";
    INFLATE: reject, "qcow2.inflate",
        "compressed data does not inflate to one cluster: a program fails to read it";
    NOT_INFLATED: note, "qcow2.not-inflated",
        "it has more compressed data than an inspection inflates";
    SHARED: reject, "qcow2.shared",
        "a cluster is used more often than its refcount: a write to one use changes the other";
    REFCOUNT: reject, "qcow2.refcount",
        "a cluster is in use and its refcount is 0: a write allocates it again, for data over a table too";
    MANY: note, "qcow2.refcounts-not-counted",
        "it has too many clusters to compare their refcounts with their uses";
    SUBCLUSTER: reject, "qcow2.subclusters",
        "a subcluster is both allocated and zero, or allocated in no cluster";
}
