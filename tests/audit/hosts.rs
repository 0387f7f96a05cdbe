//! Faults of a host.

use luksmith::audit::{
    BlockDevice, Document, Holds, Host, Image, Inventory, KeptFile, Policy, Wanted,
};

use crate::judge::{Row, changed, complaint, good, ids, none, table, within_bounds};

const QEMU: &[Row] = &[
    (
        "probing.allowed",
        "nbd_tls = 1",
        "nbd_tls = 1\nallow_disk_format_probing = 1",
        "nbd_tls = 1\nallow_disk_format_probing = 0",
    ),
    (
        "confinement.driver",
        "nbd_tls = 1",
        "nbd_tls = 1; security_driver = \"none\"",
        "nbd_tls = 1; security_driver = [ \"apparmor\" ]",
    ),
    (
        "confinement.default",
        "nbd_tls = 1",
        "nbd_tls = 1; security_default_confined = 0",
        "nbd_tls = 1; security_default_confined = 1",
    ),
    (
        "confinement.require",
        "security_require_confined = 1",
        "",
        "security_require_confined=1",
    ),
    (
        "confinement.seccomp",
        "nbd_tls = 1",
        "nbd_tls = 1; seccomp_sandbox = 0",
        "nbd_tls = 1; seccomp_sandbox = -1",
    ),
    (
        "confinement.root",
        "nbd_tls = 1",
        "nbd_tls = 1; user = \"+0\"",
        "nbd_tls = 1; user = \"+64055\"",
    ),
    (
        "confinement.root",
        "nbd_tls = 1",
        "nbd_tls = 1; group = 'root'",
        "nbd_tls = 1; group = 'kvm'",
    ),
    (
        "confinement.namespaces",
        "nbd_tls = 1",
        "nbd_tls = 1; namespaces = [ ]",
        "nbd_tls = 1; namespaces = [ \"mount\" ]",
    ),
    (
        "confinement.capabilities",
        "nbd_tls = 1",
        "nbd_tls = 1; clear_emulator_capabilities = 0",
        "nbd_tls = 1; clear_emulator_capabilities = 1",
    ),
    (
        "migration.listen",
        "migration_address = \"10.1.0.5\"",
        "migration_address = \"[::]\"",
        "migration_address = \"fd00::5\"",
    ),
    (
        "migration.listen",
        "migration_address = \"10.1.0.5\"",
        "",
        "migration_address = \"127.0.0.1\"",
    ),
    (
        "migration.host",
        "migration_host = ",
        "#migration_host = ",
        "migration_host=",
    ),
    (
        "migration.tls",
        "migrate_tls_force = 1",
        "migrate_tls_force = 0",
        "migrate_tls_force = 1 # always",
    ),
    (
        "migration.verify",
        "nbd_tls = 1",
        "nbd_tls = 1; migrate_tls_x509_verify = 0",
        "nbd_tls = 1; migrate_tls_x509_verify = 1",
    ),
    (
        "migration.verify",
        "nbd_tls = 1",
        "nbd_tls = 1; default_tls_x509_verify = 0",
        "nbd_tls = 1; default_tls_x509_verify = 0; migrate_tls_x509_verify = 1",
    ),
    (
        "migration.tls-verify",
        "nbd_tls = 1",
        "nbd_tls = 1; chardev_tls_x509_verify = 0",
        "nbd_tls = 1; vnc_tls_x509_verify = 0",
    ),
    (
        "migration.nbd-tls",
        "nbd_tls = 1",
        "nbd_tls = 0",
        "\tnbd_tls\t=\t1\t",
    ),
    (
        "console.listen",
        "vnc_listen = \"127.0.0.1\"",
        "vnc_listen = \"0.0.0.0\"",
        "spice_listen = \"10.0.0.1\"",
    ),
    (
        "console.password",
        "nbd_tls = 1",
        "nbd_tls = 1; vnc_password = \"hunter2\"",
        "nbd_tls = 1; #vnc_password = \"hunter2\"",
    ),
    (
        "memory.dump",
        "nbd_tls = 1",
        "nbd_tls = 1; dump_guest_core = 1",
        "nbd_tls = 1; dump_guest_core = 0",
    ),
    (
        "memory.saving",
        "nbd_tls = 1",
        "nbd_tls = 1; auto_shutdown_try_save = \"persistent\"",
        "nbd_tls = 1; auto_shutdown_try_save = \"none\"",
    ),
    (
        "host.invalid-setting",
        "nbd_tls = 1",
        "nbd_tls = 1; dump_guest_core = '0'",
        "nbd_tls = 1; something_new = 1",
    ),
    (
        "host.invalid-setting",
        "nbd_tls = 1",
        "nbd_tls = yes",
        "nbd_tls = +1",
    ),
];

const LIBVIRTD: &[Row] = &[
    (
        "listener.auth-tcp",
        "listen_tls = 0",
        "listen_tls = 0\nauth_tcp = \"none\"",
        "listen_tls = 0\nauth_tcp = \"sasl\"",
    ),
    (
        "listener.no-verify",
        "listen_tls = 0",
        "listen_tls = 0\ntls_no_verify_certificate = 1",
        "listen_tls = 0\ntls_no_verify_certificate = 0",
    ),
    (
        "listener.no-sanity",
        "listen_tls = 0",
        "listen_tls = 0\ntls_no_sanity_certificate = 1",
        "listen_tls = 0\ntls_no_sanity_certificate = 0",
    ),
    (
        "listener.any-certificate",
        "listen_tls = 0",
        "listen_tls = 1\nlisten_addr = \"10.1.0.5\"",
        "listen_tls = 1\nlisten_addr = \"10.1.0.5\"\ntls_allowed_dn_list = [\"CN=host2\"]",
    ),
    (
        "listener.address",
        "listen_tls = 0",
        "listen_tls = 1\ntls_allowed_dn_list = [\"CN=host2\"]",
        "listen_tls = 0\nlisten_addr = \"0.0.0.0\"",
    ),
    (
        "listener.tcp",
        "listen_tls = 0",
        "listen_tls = 0\nlisten_addr = \"10.1.0.5\"\nlisten_tcp = 1",
        "listen_tls = 0\nlisten_tcp = 0",
    ),
    (
        "control.socket",
        "listen_tls = 0",
        "listen_tls = 0\nauth_unix_rw = \"none\"",
        "listen_tls = 0\nauth_unix_rw = \"polkit\"",
    ),
    (
        "control.admin-socket",
        "listen_tls = 0",
        "listen_tls = 0\nunix_sock_admin_perms = \"0770\"",
        "listen_tls = 0\nunix_sock_admin_perms = \"0700\"",
    ),
    (
        "control.access-drivers",
        "access_drivers = [ \"polkit\" ]",
        "access_drivers = [ \"nop\" ]",
        "access_drivers = \"polkit\"",
    ),
];

#[test]
fn each_setting_has_its_finding_and_its_correction_has_none() {
    table("qemu.conf", QEMU);
    table("libvirtd.conf", LIBVIRTD);
}

#[test]
fn arguments_and_units_of_daemons_count_too() {
    table(
        "/libvirtd-admin.socket",
        &[(
            "control.admin-socket",
            "SocketMode=0600",
            "SocketMode=0660",
            "SocketMode=0400",
        )],
    );
    table(
        "libvirt-guests",
        &[("memory.saving", "=shutdown", "=suspend", "=\"shutdown\"")],
    );
    table(
        "50-default.rules",
        &[(
            "control.polkit-rule",
            "org.freedesktop.login1.reboot",
            "org.libvirt.unix.manage",
            "org.libvirt.unix.monitor",
        )],
    );
    table(
        "org.libvirt.unix.policy",
        &[(
            "control.polkit-action",
            "auth_admin_keep",
            "yes",
            "auth_self",
        )],
    );
    table(
        "lvm.conf",
        &[
            (
                "access.lvm-scan",
                "scan_lvs = 0",
                "scan_lvs = 1",
                "# scan_lvs = 1",
            ),
            ("access.lvm-filter", "\"r|.*|\"", "\"a|.*|\"", "\"r#.*#\""),
            ("access.lvm-filter", "devices {", "log {", "devices  {"),
        ],
    );
}

#[test]
fn socket_units_of_systemd_are_listeners() {
    let with = |change: fn(&mut Host)| {
        let mut inventory = good();
        change(inventory.host.as_mut().unwrap());
        inventory
    };
    let enabled = |name: &'static str, stream: &'static str| {
        let mut inventory = good();
        let host = inventory.host.as_mut().unwrap();
        let unit = host
            .sockets
            .iter_mut()
            .find(|unit| unit.name == name)
            .unwrap();
        unit.enabled = true;
        unit.files.push(Document::file(
            "10-drop-in.conf",
            format!("[Socket]\nListenStream=\nListenStream={stream}\n"),
        ));
        host.files[1]
            .text
            .extend(b"tls_allowed_dn_list = [\"CN=host2\"]\n");
        inventory
    };
    none(vec![
        complaint(
            "tcp",
            &enabled("libvirtd-tcp.socket", "10.1.0.5:16509"),
            &["listener.tcp"],
        ),
        complaint(
            "all",
            &enabled("libvirtd-tls.socket", "16514"),
            &["listener.address"],
        ),
        complaint(
            "one",
            &enabled("libvirtd-tls.socket", "10.1.0.5:16514"),
            &[],
        ),
        complaint(
            "v6",
            &enabled("libvirtd-tls.socket", "[::]:16514"),
            &["listener.address"],
        ),
        complaint(
            "by argument",
            &with(|host| {
                host.files[1].text = b"access_drivers = [ 'polkit' ]\n".to_vec();
                host.files[2].text = b"LIBVIRTD_ARGS=\"--listen\"\n".to_vec();
            }),
            &["listener.address", "listener.any-certificate"],
        ),
        complaint(
            "not by argument",
            &with(|host| {
                host.files[1].text = b"access_drivers = [ 'polkit' ]\n".to_vec();
            }),
            &[],
        ),
        // Without polkit, only the mode protects the socket.
        complaint(
            "group",
            &with(|host| {
                host.files[1].text.extend(b"auth_unix_rw = 'none'\n");
                host.sockets[0]
                    .files
                    .push(Document::file("mode.conf", "[Socket]\nSocketMode=0660\n"));
            }),
            &["control.group"],
        ),
        complaint(
            "owner",
            &with(|host| {
                host.files[1].text.extend(b"auth_unix_rw = 'none'\n");
                host.sockets[0]
                    .files
                    .push(Document::file("mode.conf", "[Socket]\nSocketMode=0600\n"));
            }),
            &[],
        ),
        complaint(
            "no unit",
            &with(|host| {
                host.files[1].text =
                    b"access_drivers = [ 'polkit' ]\nauth_unix_rw = 'none'\n".to_vec();
                host.sockets.clear();
            }),
            &["control.socket"],
        ),
    ]);
}

#[test]
fn files_with_secrets_and_memory_are_found() {
    let kept = |mode, holds| {
        let mut inventory = good();
        let path = "/etc/libvirt/secrets/x.base64".to_owned();
        inventory.host.as_mut().unwrap().kept = vec![KeptFile::new(path, mode, holds)];
        inventory
    };
    none(vec![
        complaint("kept", &kept(0o100_600, Holds::Secret), &["secret.stored"]),
        complaint(
            "open",
            &kept(0o100_640, Holds::Secret),
            &["secret.file-mode", "secret.stored"],
        ),
        complaint("saved", &kept(0o100_600, Holds::Memory), &["memory.saved"]),
    ]);
    let mut inventory = good();
    inventory.host.as_mut().unwrap().not_read = vec![("/etc/x".into(), "permission denied".into())];
    none(vec![complaint(
        "unread",
        &inventory,
        &["host.not-looked-at"],
    )]);
}

fn device(name: &str, minor: u32) -> BlockDevice {
    BlockDevice::new(name, (7, minor))
}

/// A host with devices on top of `/dev/vg/vm1`, which is dm-3.
fn used(change: impl FnOnce(&mut Vec<BlockDevice>, &mut String)) -> Inventory {
    let mut inventory = good();
    let host = inventory.host.as_mut().unwrap();
    let mut disk = device("dm-3", 3);
    disk.mapping = Some("vg-vm1".to_owned());
    disk.slaves = vec!["nvme0n1p3".to_owned()];
    host.devices = vec![device("nvme0n1p3", 1), disk];
    let mountinfo = host.mountinfo.as_mut().unwrap();
    let mut text = String::from_utf8(mountinfo.text.clone()).unwrap();
    change(&mut host.devices, &mut text);
    mountinfo.text = text.into_bytes();
    let wanted = Wanted::new("/dev/vg/vm1", "raw");
    let look = luksmith::audit::Look::default();
    let mut image = Image::new(luksmith::audit::Seen::Bytes(look));
    image.device = Some((7, 3));
    inventory.images.insert(wanted, image);
    inventory
}

#[test]
fn disks_that_the_host_itself_uses_are_found() {
    let looped = |file: &str| {
        let mut device = device("loop0", 9);
        device.backing_file = Some(file.to_owned());
        device
    };
    none(vec![
        complaint("only mapped", &used(|_, _| {}), &[]),
        complaint(
            "mounted",
            &used(|_, mounts| *mounts += "50 22 7:3 / /mnt rw - ext4 /dev/mapper/vg-vm1 rw\n"),
            &["access.mounted"],
        ),
        complaint(
            "mounted by name",
            &used(|_, mounts| *mounts += "50 22 0:99 / /mnt rw - btrfs /dev/mapper/vg-vm1 rw\n"),
            &["access.mounted"],
        ),
        complaint(
            "another is mounted",
            &used(|_, mounts| *mounts += "50 22 7:1 / /mnt rw - ext4 /dev/nvme0n1p3 rw\n"),
            &[],
        ),
        complaint(
            "opened",
            &used(|devices, _| {
                let mut over = device("dm-4", 4);
                over.mapping = Some("vm1-open".to_owned());
                over.slaves = vec!["dm-3".to_owned()];
                devices.push(over);
            }),
            &["access.mapped"],
        ),
        complaint(
            "opened and mounted",
            &used(|devices, mounts| {
                let mut over = device("dm-4", 4);
                over.mapping = Some("vm1-open".to_owned());
                over.slaves = vec!["dm-3".to_owned()];
                devices.push(over);
                *mounts += "50 22 7:4 / /mnt rw - ext4 /dev/dm-4 rw\n";
            }),
            &["access.mapped", "access.mounted"],
        ),
        complaint(
            "looped",
            &used(|devices, _| devices.push(looped("/var/lib/libvirt/images/base.img"))),
            &["access.looped"],
        ),
        complaint(
            "looped by another name of the file",
            &{
                let mut inventory = used(|devices, _| {
                    let mut device = looped("/srv/another-name.img");
                    device.backing = Some((1, 2));
                    devices.push(device);
                });
                let wanted = Wanted::new("/var/lib/libvirt/images/base.img", "raw");
                let mut image = Image::new(luksmith::audit::Seen::Bytes(
                    luksmith::audit::Look::default(),
                ));
                image.file = Some((1, 2));
                inventory.images.insert(wanted, image);
                inventory
            },
            &["access.looped"],
        ),
        complaint(
            "looped in a pool",
            &used(|devices, _| devices.push(looped("/srv/images/any.img"))),
            &["access.looped"],
        ),
        complaint(
            "looped elsewhere",
            &used(|devices, _| devices.push(looped("/srv/images2/any.img"))),
            &[],
        ),
        complaint(
            "a partition of it",
            &used(|devices, mounts| {
                devices.push(looped("/srv/images/vm2.luks"));
                let mut part = device("loop0p1", 10);
                part.whole = Some("loop0".to_owned());
                devices.push(part);
                *mounts += "50 22 7:10 / /mnt rw - vfat /dev/loop0p1 rw\n";
            }),
            &["access.looped", "access.mounted"],
        ),
    ]);
}

/// The files of Debian 12's packages (libvirt 9.0), in which all settings have their defaults, and
/// its units and rule of polkit.
#[test]
fn debian_as_installed_has_the_documented_findings() {
    let rule = "polkit.addRule(function(action, subject) {
    if (action.id == \"org.libvirt.unix.manage\" &&
        subject.isInGroup(\"libvirt\")) {
        return polkit.Result.YES;
    }
});
";
    let mut host = crate::good::host();
    host.files[0].text =
        b"# Master configuration file for the QEMU driver.\n#nbd_tls = 1\n".to_vec();
    host.files[1].text = b"# Master libvirt daemon configuration file\n#listen_tls = 0\n".to_vec();
    host.files.retain(|file| !file.origin.ends_with("lvm.conf"));
    host.files.push(Document::file(
        "/usr/share/polkit-1/rules.d/60-libvirt.rules",
        rule,
    ));
    let mut inventory = Inventory::default();
    inventory.host = Some(host);
    let report = within_bounds(&inventory, &Policy::default());
    let expected = [
        "confinement.require",
        "control.access-drivers",
        "control.polkit-rule",
        "migration.host",
        "migration.listen",
        "migration.nbd-tls",
        "migration.tls",
    ];
    assert_eq!(ids(&report), expected);
    let place = report
        .findings
        .iter()
        .find(|one| one.rule.id == "control.polkit-rule");
    assert_eq!(place.unwrap().place.line, Some(2));
}

#[test]
fn passwords_in_settings_are_not_repeated() {
    let inventory = changed(
        "qemu.conf",
        "nbd_tls = 1",
        "nbd_tls = 1; spice_password = \"hunter2\"",
    );
    let report = within_bounds(&inventory, &Policy::default());
    assert_eq!(ids(&report), ["console.password"]);
    assert!(!format!("{:?}", report.findings).contains("hunter2"));
}
