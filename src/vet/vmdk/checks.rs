//! What a VMDK is checked for.

use crate::vet::finding::checks;

checks! {
    KIND: reject, "vmdk.kind", "it is of a kind for one hypervisor's own storage (COWD, seSparse), whose descriptor is another file";
    HEADER: reject, "vmdk.header", "a field of the header is out of its bounds";
    FLAGS: reject, "vmdk.flags", "it has flags that are not known, or that do not agree with the compression";
    CAPACITY: reject, "vmdk.capacity", "the capacity is 0, so that programs take the descriptor's files for the disk, or too large";
    FOOTER: reject, "vmdk.footer", "the footer is missing, or says something else than the header, so that readers of either see different disks";
    DESCRIPTOR: reject, "vmdk.descriptor", "the descriptor is not where every reader looks for it, or is no text of lines that are known";
    TEXT: note, "vmdk.text", "the descriptor has bytes outside of ASCII, which programs read by different encodings";
    CID: reject, "vmdk.cid", "the content ids are not on one line each, the image's own first, where QEMU searches for them";
    CREATE_TYPE: reject, "vmdk.create-type", "the type of the disk is not there exactly once, or is not that of such a file";
    PARENT: reject, "vmdk.parent", "it names a parent: what is not in the image would be read from there";
    REFERENCE: reject, "vmdk.reference", "it names a file for a digest, a filter or the like";
    TRACKING: note, "vmdk.change-tracking", "it names a file for change tracking, which VMware opens and QEMU does not";
    EXTENTS: reject, "vmdk.extents", "the list of extents is not what such a file has, or makes another size, or QEMU reads another one";
    PATH: reject, "vmdk.extent-path", "an extent is named by a path, or by something that is no plain file name";
    EXTENT_FILE: note, "vmdk.extent-file", "its data is in another file beside it, which is not looked at";
    UNKNOWN: note, "vmdk.unknown", "the descriptor has a field that is not known";
    TABLE: reject, "vmdk.table", "a grain directory or table does not lie in the image";
    OVERLAP: reject, "vmdk.overlap", "a table lies on another one, on the header or on the descriptor";
    GRAINS: reject, "vmdk.grains", "a grain is said to lie outside of the image or on its tables";
    SHARED: reject, "vmdk.shared", "one grain serves two parts of the disk";
    MANY: note, "vmdk.grains-not-compared", "there are too many grains to look for one that serves twice";
}
