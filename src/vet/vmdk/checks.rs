//! The checks of a VMDK.

use crate::vet::finding::checks;

checks! {
    KIND: reject, "vmdk.kind",
        "it is an extent for VMware ESX (COWD, seSparse), whose descriptor is another file";
    HEADER: reject, "vmdk.header", "a field of the header is out of bounds";
    FLAGS: reject, "vmdk.flags",
        "it has unknown flags, or flags that do not agree with the compression";
    CAPACITY: reject, "vmdk.capacity",
        "the capacity is too large, or 0: then programs read the files that the descriptor names";
    FOOTER: reject, "vmdk.footer",
        "the footer is missing, or differs from the header: programs that use either see different disks";
    DESCRIPTOR: reject, "vmdk.descriptor",
        "the descriptor is not where all programs read it, or has unknown lines";
    TEXT: note, "vmdk.text",
        "the descriptor has bytes outside of ASCII, which programs read in different encodings";
    CID: reject, "vmdk.cid",
        "the content ids are not where QEMU searches for them: each on a line, the image's own first";
    CREATE_TYPE: reject, "vmdk.create-type",
        "the type of the disk is missing, repeated, or not one of such a file";
    PARENT: reject, "vmdk.parent",
        "it names a parent, from which a program reads what the image does not contain";
    REFERENCE: reject, "vmdk.reference", "it names a file for a digest, a filter or the like";
    TRACKING: note, "vmdk.change-tracking",
        "it names a file for change tracking, which VMware opens and QEMU does not";
    EXTENTS: reject, "vmdk.extents",
        "the list of extents is not one of such a file, makes another size, or QEMU reads another list";
    PATH: reject, "vmdk.extent-path", "an extent has a path, or something else that is not a file name";
    EXTENT_FILE: note, "vmdk.extent-file",
        "its data is in another file in the same folder, which is not inspected";
    UNKNOWN: note, "vmdk.unknown", "the descriptor has an unknown field";
    TABLE: reject, "vmdk.table", "a grain directory or table is not within the image";
    OVERLAP: reject, "vmdk.overlap", "a table overlaps another table, the header or the descriptor";
    GRAINS: reject, "vmdk.grains", "a grain is outside of the image, or overlaps a table";
    INFLATE: reject, "vmdk.inflate",
        "a compressed grain does not inflate: a program fails to read it";
    NOT_INFLATED: note, "vmdk.not-inflated",
        "it has more compressed grains than an inspection inflates";
    SHARED: reject, "vmdk.shared", "two parts of the disk use the same grain";
    MANY: note, "vmdk.grains-not-compared",
        "there are too many grains to search for one that is used twice";
}
