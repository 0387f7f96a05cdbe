//! Faults in the XML of a domain.

use luksmith::audit::{Document, Inventory, Policy};

use crate::good;
use crate::judge::{Row, changed, complaint, good as everything, ids, none, table, within_bounds};

const NBD: &str = "<source protocol='nbd' name='vm1'>\n        <host transport='unix' socket='/run/luksmith/vm1.sock'/>";
const SERIAL: &str = "<serial type='pty'>\n";
const END: &str = "  <seclabel type='dynamic' model='apparmor' relabel='yes'/>";

const ROWS: &[Row] = &[
    (
        "probing.disk-format",
        "<driver name='qemu' type='raw' cache='none' discard='unmap'/>",
        "<driver name='qemu' cache='none'/>",
        "<driver name='qemu' type='raw'/>",
    ),
    (
        "probing.disk-format",
        "<driver name='qemu' type='qcow2'/>",
        "<driver name='qemu' type='auto'/>",
        "<driver type='qcow2'/>",
    ),
    (
        "probing.backing-format",
        "<format type='raw'/>",
        "",
        "<format type='qcow2'/>",
    ),
    (
        "probing.backing-format",
        "<source file='/var/lib/libvirt/images/vm1.qcow2'/>",
        "<source file='/var/lib/libvirt/images/vm1.qcow2'><dataStore type='file'><source file='/var/lib/libvirt/images/d'/></dataStore></source>",
        "<source file='/var/lib/libvirt/images/vm1.qcow2'><dataStore type='file'><format type='raw'/><source file='/var/lib/libvirt/images/d'/></dataStore></source>",
    ),
    (
        "chain.untrusted-path",
        "/var/lib/libvirt/images/base.img",
        "/home/guest/base.img",
        "/srv/images/base.img",
    ),
    (
        "chain.untrusted-path",
        "/var/lib/libvirt/images/base.img",
        "/var/lib/libvirt/../../../tmp/base.img",
        "/var/lib/libvirt/./base.img",
    ),
    (
        "storage.remote-plain",
        NBD,
        "<source protocol='iscsi' name='vm1'><host name='storage.example'/>",
        "<source protocol='nbd' name='vm1'><host transport='unix' socket='/run/other.sock'/>",
    ),
    (
        "storage.remote-plain",
        NBD,
        "<source protocol='nbd' name='vm1' tls='no'><host name='storage.example'/>",
        "<source protocol='nbd' name='vm1'><host name='storage.example'/><encryption format='luks'/>",
    ),
    (
        "storage.remote-plain",
        "<source file='/var/lib/libvirt/images/install.iso'/>",
        "<source file='/srv/nfs share/install.iso'/>",
        "<source file='/srv/nfs shared/install.iso'/>",
    ),
    (
        "storage.legacy-encryption",
        "<encryption format='luks'>",
        "<encryption format='qcow'>",
        "<encryption format='luks2'>",
    ),
    (
        "confinement.seclabel",
        "<seclabel type='dynamic' model='apparmor' relabel='yes'/>",
        "<seclabel type='none' model='apparmor'/>",
        "<seclabel type='static' model='apparmor'><label>libvirt-x</label></seclabel>",
    ),
    (
        "confinement.root",
        "<seclabel type='dynamic' model='dac' relabel='yes'/>",
        "<seclabel type='static' model='dac'><label>+0:+0</label></seclabel>",
        "<seclabel type='static' model='dac'><label>+107:+0</label></seclabel>",
    ),
    (
        "confinement.commandline",
        END,
        "<qemu:commandline><qemu:arg value='-s'/></qemu:commandline>",
        "<qemu:commandline/><commandline><arg value='-s'/></commandline>",
    ),
    (
        "console.listen",
        "listen='127.0.0.1'>\n      <listen type='address' address='127.0.0.1'/>",
        "listen='0.0.0.0'><listen type='address' address='0.0.0.0'/>",
        "><listen type='address'/>",
    ),
    (
        "console.listen",
        "<listen type='socket'/>",
        "<listen type='address' address='::'/>",
        "<listen type='address' address='::1'/>",
    ),
    (
        "console.listen",
        SERIAL,
        "<serial type='tcp'><source mode='bind' host='0.0.0.0' service='2445'/>",
        "<serial type='tcp'><source mode='connect' host='0.0.0.0' service='2445'/>",
    ),
    (
        "console.password",
        "<graphics type='spice'>",
        "<graphics type='spice' passwd='hunter2'>",
        "<graphics type='spice' passwd=''>",
    ),
    (
        "memory.dump",
        "<memory unit='KiB'>",
        "<memory unit='KiB' dumpCore='on'>",
        "<memory unit='KiB' dumpCore='off'>",
    ),
    (
        "memory.crash-dump",
        "<on_crash>destroy",
        "<on_crash>coredump-restart",
        "<on_crash>preserve",
    ),
    (
        "memory.crash-dump",
        "action='reset'",
        "action='dump'",
        "action='poweroff'",
    ),
    (
        "memory.file",
        "<source type='memfd'/>",
        "<source type='file'/>",
        "<source type='anonymous'/>",
    ),
    (
        "secret.shared",
        "7d3f2a10-51c2-4f7e-9b11-5a0e0b8f9b02",
        "0a81f5b2-8403-7b23-c8d6-21ccc2f80d6f",
        "0a81f5b2-8403-7b23-c8d6-21ccc2f80d60",
    ),
    (
        "audit.unreadable",
        "<domain type='kvm'",
        "<!DOCTYPE d><domain type='kvm'",
        "<?xml version='1.0'?><domain type='kvm'",
    ),
    (
        "audit.unreadable",
        "</domain>",
        "",
        "</domain><!-- the end -->",
    ),
];

#[test]
fn each_fault_has_its_finding_and_its_correction_has_none() {
    table("vm1.xml", ROWS);
}

#[test]
fn a_document_of_something_else_is_a_finding() {
    let mut inventory = everything();
    let network = "<network><name>default</name></network>";
    inventory.documents.push(Document::file("net.xml", network));
    none(vec![complaint(
        "network",
        &inventory,
        &["audit.unreadable"],
    )]);
    // As libvirt stores it for a running domain.
    let running = format!("<domstatus state='running'>{}</domstatus>", good::DOMAIN);
    let running = running.replace(
        "<listen type='socket'/>",
        "<listen type='address' address='*'/>",
    );
    let mut inventory = everything();
    inventory.documents[0] = Document::file("vm1.xml", running);
    none(vec![complaint("running", &inventory, &["console.listen"])]);
}

#[test]
fn tls_is_enough_only_if_the_policy_says_so() {
    let nbd = |tls: &str| {
        let to = format!("<source protocol='nbd' name='vm1'{tls}><host name='storage'/>");
        changed("vm1.xml", NBD, &to)
    };
    let transport = &["storage.transport-only"][..];
    none(vec![
        complaint("stated", &nbd(" tls='yes'"), transport),
        // nbd_tls = 1 in the host's qemu.conf.
        complaint("by default", &nbd(""), transport),
    ]);
    for protocol in ["https", "ftps", "ssh"] {
        let to = format!("<source protocol='{protocol}' name='vm1'><host name='storage'/>");
        none(vec![complaint(
            protocol,
            &changed("vm1.xml", NBD, &to),
            transport,
        )]);
    }
    let mut alone = nbd("");
    alone.host = None;
    none(vec![complaint("alone", &alone, &["storage.remote-plain"])]);
    for (disk, left) in [
        ("vm1:vdc", &[][..]),
        ("*:*", &[]),
        ("vm1:vda", transport),
        ("vm2:vdc", transport),
    ] {
        let policy = Policy::parse(&format!("transport-is-enough = ['{disk}']")).unwrap();
        assert_eq!(
            ids(&within_bounds(&nbd(" tls='yes'"), &policy)),
            left,
            "{disk}"
        );
        let policy = Policy::parse(&format!("guest-encrypted = ['{disk}']")).unwrap();
        assert_eq!(
            ids(&within_bounds(&nbd(" tls='yes'"), &policy)),
            left,
            "{disk}"
        );
    }
}

#[test]
fn secrets_in_arguments_are_found_and_not_repeated() {
    let found = |argument: &str| {
        let to = format!("<qemu:commandline>{argument}</qemu:commandline>");
        let inventory = changed("vm1.xml", END, &to);
        let report = within_bounds(&inventory, &Policy::default());
        let shown = format!("{report:?}");
        assert!(!shown.contains("hunter2"), "{shown}");
        ids(&report).contains(&"secret.commandline")
    };
    let arg = |value: &str| found(&format!("<qemu:arg value='{value}'/>"));
    let env = |name: &str| found(&format!("<qemu:env name='{name}' value='hunter2'/>"));
    for bad in [
        "secret,id=s0,data=hunter2",
        "{\"qom-type\":\"secret\",\"id\":\"s0\",\"data\":\"hunter2\"}",
        "if=none,driver=ssh,user=u,password=hunter2",
        "spice-password=hunter2",
        "nbd://user:hunter2@host/x",
    ] {
        assert!(arg(bad), "{bad}");
    }
    for good in [
        "secret,id=s0,file=/run/keys/s0",
        "driver=iscsi,password-secret=s0",
        "{\"qom-type\":\"secret\",\"file\":\"/run/keys/s0\"}",
        "spice,password=on",
        "nbd://user@host/x",
        "isa-debugcon,data=7",
    ] {
        assert!(!arg(good), "{good}");
    }
    assert!(env("RBD_PASSWORD") && env("S3_SECRET_KEY") && !env("SDL_VIDEODRIVER"));
}

#[test]
fn a_finding_has_its_place() {
    let mut inventory = changed("vm1.xml", "<format type='raw'/>", "");
    let report = within_bounds(&inventory, &Policy::default());
    let place = &report.findings[0].place;
    assert_eq!(place.to_string(), "vm1.xml:30: domain vm1, disk vdb");
    assert_eq!((place.names().as_str(), place.line), ("vm1:vdb", Some(30)));
    // The same domain twice, with its present and its next definition, has one finding.
    inventory.documents[0] = Document::object(
        "qemu:///system/domain/vm1",
        inventory.documents[0].text.clone(),
    );
    let again = inventory.documents[0].clone();
    inventory.documents.push(again);
    let report = within_bounds(&inventory, &Policy::default());
    assert_eq!(report.findings.len(), 1, "{report:?}");
    let place = report.findings[0].place.to_string();
    assert_eq!(place, "qemu:///system/domain/vm1:30: domain vm1, disk vdb");
}

#[test]
fn names_from_outside_cannot_write_to_the_terminal() {
    let inventory = Inventory::new(vec![Document::file(
        "x\u{1b}[2J.xml",
        "<domain><name>a&#10;b&#9;</name><seclabel type='none' model='&#13;'/></domain>",
    )]);
    let report = within_bounds(&inventory, &Policy::default());
    assert_eq!(ids(&report), ["confinement.seclabel"]);
}
