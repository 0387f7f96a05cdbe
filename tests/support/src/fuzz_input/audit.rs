//! Inputs of the fuzz target `audit`: the first byte says what the text after it is.

/// What a text may be: XML of libvirt, or one of these files of a host.
const KINDS: [&str; 9] = [
    "xml",
    "etc/libvirt/qemu.conf",
    "etc/libvirt/libvirtd.conf",
    "lvm.conf",
    "a.rules",
    "a.policy",
    "libvirt-guests",
    "libvirtd-tcp.socket",
    "mountinfo",
];

/// Splits an input into its kind (`xml` or the name of a file) and the text.
///
/// Returns `None` if the input is empty.
pub fn decode(input: &[u8]) -> Option<(&'static str, &[u8])> {
    let (kind, text) = input.split_first()?;
    Some((KINDS[usize::from(*kind) % KINDS.len()], text))
}

/// The input that says that `text` is XML, or the content of the file `name`.
///
/// Returns `None` if no kind of file has this name or this extension.
pub fn encode(name: &str, text: &[u8]) -> Option<Vec<u8>> {
    let name = name.rsplit('/').next().unwrap_or_default();
    let extension = name.rsplit(['.', '-']).next().unwrap_or_default();
    let kind = |end: &str| KINDS.iter().position(|kind| kind.ends_with(end));
    let kind = u8::try_from(kind(name).or_else(|| kind(extension))?).ok()?;
    Some([&[kind], text].concat())
}

#[test]
fn what_is_encoded_is_decoded() {
    for (name, kind) in [
        ("xml", "xml"),
        ("host/etc/libvirt/qemu.conf", "etc/libvirt/qemu.conf"),
        ("50-libvirt.rules", "a.rules"),
        ("proc/1/mountinfo", "mountinfo"),
    ] {
        let input = encode(name, b"text").unwrap();
        assert_eq!(decode(&input), Some((kind, &b"text"[..])));
    }
    assert_eq!(encode("unknown.format", b"text"), None);
    assert_eq!(decode(&[]), None);
}
