//! Inputs of the fuzz target `audit`: the first byte says what the text after it is.

use luksmith::audit::{Document, Host, Inventory, SocketUnit};

/// What a text is taken for: XML of libvirt, then files of a host.
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

/// What an input says.
#[allow(dead_code, reason = "the fuzz target reads")]
pub(crate) fn parse(bytes: &[u8]) -> Option<Inventory> {
    let (kind, text) = bytes.split_first()?;
    let kind = KINDS[usize::from(*kind) % KINDS.len()];
    let document = Document::file(kind, text);
    let mut inventory = Inventory::default();
    let mut host = Host::default();
    match kind {
        "xml" => inventory.documents.push(document),
        "mountinfo" => host.mountinfo = Some(document),
        "libvirtd-tcp.socket" => host.sockets.push(SocketUnit {
            name: kind.to_owned(),
            files: vec![document],
            enabled: true,
        }),
        _ => host.files.push(document),
    }
    inventory.host = Some(host);
    Some(inventory)
}

/// With `AUDIT_SEEDS=FOLDER`, the texts of every inventory that is judged here become seeds.
#[allow(dead_code, reason = "the tests write")]
pub(crate) fn keep(inventory: &Inventory) {
    use std::hash::{Hash as _, Hasher as _};

    const LARGEST: usize = 64 << 10;
    let Some(folder) = std::env::var_os("AUDIT_SEEDS") else {
        return;
    };
    let host = inventory.host.iter();
    let files = host.clone().flat_map(|host| host.files.iter());
    let units = host.clone().flat_map(|host| &host.sockets);
    let files = files.chain(units.flat_map(|unit| &unit.files));
    let files = files.chain(host.flat_map(|host| &host.mountinfo));
    let xml = inventory.documents.iter().map(|one| (0, one));
    let files = files.filter_map(|file| {
        let name = file.origin.rsplit('/').next().unwrap_or_default();
        let end = name.rsplit(['.', '-']).next().unwrap_or_default();
        let like = |end: &str| KINDS.iter().position(|kind| kind.ends_with(end));
        Some((like(name).or_else(|| like(end))?, file))
    });
    for (kind, document) in xml.chain(files).filter(|(_, one)| one.text.len() < LARGEST) {
        let kind = u8::try_from(kind).expect("a small number");
        let seed = [&[kind], document.text.as_slice()].concat();
        let mut hash = std::hash::DefaultHasher::new();
        seed.hash(&mut hash);
        let path = std::path::Path::new(&folder).join(format!("{:016x}", hash.finish()));
        std::fs::write(path, seed).expect("a seed");
    }
}
