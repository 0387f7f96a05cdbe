//! Disks that a program of the host serves on a Unix socket.

use luksmith::audit::{self, DiskSocket, Document, Inventory};

use crate::judge::{complaint, none};

const NBD: &str = "<disk type='network' device='disk'><driver name='qemu' type='raw'/>\
    <source protocol='nbd'><host transport='unix' socket='/run/v/n.sock'/></source>\
    <target dev='vda' bus='virtio'/></disk>";
const VHOST: &str = "<disk type='vhostuser' device='disk'><driver name='qemu' type='raw'/>\
    <source type='unix' path='/run/v/v.sock'><reconnect enabled='yes' timeout='1'/></source>\
    <target dev='vdb' bus='virtio'/></disk>";
const SHARED: &str = "<memoryBacking><source type='memfd'/><access mode='shared'/></memoryBacking>";

fn domain(inside: &str, disks: &str) -> Inventory {
    let xml = format!(
        "<domain type='kvm'><name>a</name>{inside}<devices>{disks}</devices>\
         <seclabel type='dynamic' model='apparmor' relabel='yes'/></domain>"
    );
    Inventory::new(vec![Document::file("a.xml", xml)])
}

#[test]
fn a_served_disk_is_not_called_unencrypted() {
    let inventory = domain(SHARED, &[NBD, VHOST].concat());
    let sockets: Vec<_> = audit::sockets(&inventory).into_iter().collect();
    assert_eq!(sockets, ["/run/v/n.sock", "/run/v/v.sock"]);
    none(vec![complaint("two served disks", &inventory, &[])]);
}

#[test]
fn a_disk_of_vhost_user_needs_shared_memory() {
    let cells = "<cpu><numa><cell id='0' cpus='0' memory='1' memAccess='shared'/></numa></cpu>";
    let private = "<memoryBacking><access mode='private'/></memoryBacking>";
    const MEMORY: &[&str] = &["served.memory"];
    let rows = [
        ("", VHOST, MEMORY),
        (private, VHOST, MEMORY),
        (cells, VHOST, &[]),
        (SHARED, VHOST, &[]),
        ("", NBD, &[]),
    ];
    let judged =
        rows.map(|(inside, disk, expected)| complaint(inside, &domain(inside, disk), expected));
    none(judged.into());
}

#[test]
fn other_users_may_not_use_the_socket() {
    const SOCKET: &[&str] = &["served.socket"];
    let mut judged = Vec::new();
    for path in ["/run/v/n.sock", "/run/v/v.sock"] {
        for (mode, folder, expected) in [
            (0o660, 0o755, &[][..]),
            (0o666, 0o750, &[]),
            (0o664, 0o755, &[]),
            (0o666, 0o755, SOCKET),
            (0o662, 0o711, SOCKET),
            (0o600, 0o777, SOCKET),
            (0o600, 0o1777, SOCKET),
        ] {
            let mut inventory = domain(SHARED, &[NBD, VHOST].concat());
            let found = DiskSocket::new(0o140_000 | mode, 0o40_000 | folder);
            inventory.sockets.insert(path.to_owned(), found);
            let name = format!("{path} {mode:o} {folder:o}");
            judged.push(complaint(&name, &inventory, expected));
        }
    }
    none(judged);
}
