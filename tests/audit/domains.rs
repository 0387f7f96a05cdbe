//! Faults in the XML of a domain.

use luksmith::audit::{self, Document, Inventory, Policy};

use crate::good;
use crate::judge::{Row, changed, complaint, good as everything, ids, none, table, within_bounds};

const NBD: &str = "<source protocol='nbd' name='vm1'>\n        <host transport='unix' socket='/run/luksmith/vm1.sock'/>";
const SERIAL: &str = "<serial type='pty'>\n";
const TYPE: &str = "<type arch='x86_64' machine='pc-q35-7.2'>hvm</type>";
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
        "confinement.commandline",
        END,
        "<qemu:override><qemu:device alias='x'><qemu:frontend><qemu:property name='p' type='string' value='v'/></qemu:frontend></qemu:device></qemu:override>",
        "<qemu:override/><override><device alias='x'/></override><qemu:capabilities><qemu:add capability='c'/></qemu:capabilities>",
    ),
    (
        "storage.plain-copy",
        "<source file='/var/lib/libvirt/images/base.img'/>",
        "<source file='/var/lib/libvirt/images/base.img'><encryption format='luks'/></source>",
        "<source file='/var/lib/libvirt/images/base.img'><cookies/></source>",
    ),
    // The image in the middle of a chain has no encryption.
    (
        "storage.plain-copy",
        "<source file='/var/lib/libvirt/images/vm1.qcow2'/>\n      <backingStore type='file'>",
        "<source file='/var/lib/libvirt/images/vm1.qcow2'><encryption format='luks'/></source>
         <backingStore type='file'><format type='qcow2'/><source file='/var/lib/libvirt/m'/>
         <backingStore type='file'><format type='raw'/><source file='/var/lib/libvirt/b'><encryption format='luks'/></source></backingStore></backingStore>
         <backingStore type='file'>",
        // A template under an encrypted overlay.
        "<source file='/var/lib/libvirt/images/vm1.qcow2'><encryption format='luks'/></source>
         <backingStore type='file'>",
    ),
    (
        "storage.plain-copy",
        "</encryption>\n      </source>\n      <target dev='vda'",
        "</encryption></source><mirror type='file' job='copy'><format type='raw'/><source file='/c.raw'/></mirror><target dev='vda'",
        "</encryption></source><mirror type='file' job='copy'><format type='raw'/><source file='/c.raw'><encryption format='luks'/></source></mirror><target dev='vda'",
    ),
    (
        "storage.plain-copy",
        "</encryption>\n      </source>\n      <target dev='vda'",
        "</encryption></source><mirror file='/c.raw' format='raw'/><target dev='vda'",
        "</encryption></source><mirror file='/c.raw' format='raw'><source><encryption format='luks'/></source></mirror><target dev='vda'",
    ),
    (
        "storage.plain-copy",
        "<target dev='vda' bus='virtio'/>",
        "<target dev='vda' bus='virtio'/><transient/>",
        "<target dev='vda' bus='virtio'/><shareable/>",
    ),
    // An image and the file with its data are encrypted together.
    (
        "storage.plain-copy",
        "<source file='/var/lib/libvirt/images/vm1.qcow2'/>\n      <backingStore type='file'>\n        <format type='raw'/>\n        <source file='/var/lib/libvirt/images/base.img'/>",
        "<source file='/var/lib/libvirt/images/vm1.qcow2'/><backingStore type='file'><format type='qcow2'/><source file='/var/lib/libvirt/b'>
         <dataStore type='file'><format type='raw'/><source file='/var/lib/libvirt/d'><encryption format='luks'/></source></dataStore></source>",
        "<source file='/var/lib/libvirt/images/vm1.qcow2'><dataStore type='file'><format type='raw'/><source file='/var/lib/libvirt/d'/></dataStore><encryption format='luks'/></source>
         <backingStore type='file'><format type='raw'/><source file='/var/lib/libvirt/b'><encryption format='luks'/></source>",
    ),
    (
        "storage.tpm-state",
        SERIAL,
        "<tpm model='tpm-crb'><backend type='emulator' version='2.0'/></tpm><serial type='pty'>",
        "<tpm model='tpm-crb'><backend type='emulator' version='2.0'><encryption secret='9d3f2a10-51c2-4f7e-9b11-5a0e0b8f9b02'/></backend></tpm><tpm><backend type='passthrough'/></tpm><serial type='pty'>",
    ),
    (
        "secret.shared",
        SERIAL,
        "<tpm><backend type='emulator'><encryption secret='7d3f2a10-51c2-4f7e-9b11-5a0e0b8f9b02'/></backend></tpm><serial type='pty'>",
        "<tpm><backend type='emulator'><encryption secret='9d3f2a10-51c2-4f7e-9b11-5a0e0b8f9b02'/></backend></tpm><serial type='pty'>",
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
    (
        "audit.unreadable",
        "</domain>",
        "</domain>more",
        "</domain><?xml version='1.0'?><pool/>",
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

/// Storage outside of `<disk>`, local and remote.
#[test]
fn storage_outside_of_disks_has_the_rules_of_disks() {
    let network = |protocol: &str| {
        format!("<source protocol='{protocol}' name='n'><host name='storage.example'/></source>")
    };
    let iscsi = network("iscsi");
    let nbd = network("nbd").replace("name='n'", "name='n' tls='no'");
    let far = "/srv/nfs share/f";
    let os = |more: &str| (TYPE, format!("{TYPE}{more}"));
    let device = |more: &str| (SERIAL, format!("{more}{SERIAL}"));
    let good = [
        os(
            "<loader type='pflash'>/usr/share/OVMF/OVMF_CODE.fd</loader><nvram>/var/lib/libvirt/qemu/nvram/vm1.fd</nvram>",
        ),
        os(&format!(
            "<nvram type='network'>{}</nvram>",
            nbd.replace("</source>", "<encryption format='luks'/></source>")
        )),
        os(
            "<kernel>/boot/vmlinuz</kernel><initrd>/boot/initrd</initrd><acpi><table type='slic'>/s</table></acpi>",
        ),
        device(
            "<hostdev mode='subsystem' type='scsi'><source><adapter name='scsi_host0'/></source></hostdev>",
        ),
        device(
            "<filesystem type='mount'><source dir='/srv/shared'/></filesystem><vsock/><shmem name='s'/>",
        ),
        device(
            "<memory model='dimm'><target><size>1</size></target></memory><rng model='virtio'><backend model='random'>/dev/urandom</backend></rng>",
        ),
        device(
            "<hostdev type='pci'><rom file='/usr/share/rom'/></hostdev><pstore><path>/var/lib/p</path></pstore>",
        ),
    ];
    let remote = [
        os(&format!("<nvram type='network'>{nbd}</nvram>")),
        os(&format!("<loader type='pflash'>{far}</loader>")),
        os(&format!(
            "<nvram type='file'><source file='{far}'/></nvram>"
        )),
        os(&format!("<kernel>{far}</kernel>")),
        os(&format!("<initrd>{far}</initrd>")),
        os(&format!("<acpi><table type='slic'>{far}</table></acpi>")),
        os(&format!("<varstore path='{far}'/>")),
        device(&format!(
            "<hostdev mode='subsystem' type='scsi'>{iscsi}</hostdev>"
        )),
        device(&format!(
            "<memory model='nvdimm'><source><path>{far}</path></source></memory>"
        )),
        device(&format!("<filesystem><source dir='{far}'/></filesystem>")),
        device(&format!(
            "<disk type='dir'><driver type='fat'/><source dir='{far}'/><target dev='vdx'/></disk>"
        )),
        device(&format!(
            "<console type='file'><source path='{far}'/></console>"
        )),
        device(&format!(
            "<channel type='unix'><log file='{far}'/></channel>"
        )),
        device(&format!(
            "<pstore backend='acpi-erst'><path>{far}</path></pstore>"
        )),
        device(&format!(
            "<hostdev type='pci'><rom file='{far}'/></hostdev>"
        )),
        (
            END,
            format!("<sysinfo type='fwcfg'><entry name='n' file='{far}'/></sysinfo>"),
        ),
    ];
    let tpm = device(&format!(
        "<tpm><backend type='emulator'><source type='dir' path='{far}'/></backend></tpm>"
    ));
    let judged = |(from, to): &(&str, String), expected: &[&str]| {
        complaint(to, &changed("vm1.xml", from, to), expected)
    };
    let mut wrong: Vec<_> = good.iter().map(|row| judged(row, &[])).collect();
    let plain = &["storage.remote-plain"][..];
    wrong.extend(remote.iter().map(|row| judged(row, plain)));
    wrong.push(judged(&tpm, &["storage.remote-plain", "storage.tpm-state"]));
    none(wrong);

    // They have names, for the policy.
    for (row, name) in [
        (&remote[0], "vm1:nvram"),
        (&remote[7], "vm1:hostdev0"),
        (&remote[8], "vm1:memory0"),
    ] {
        let inventory = changed("vm1.xml", row.0, &row.1);
        let policy = Policy::parse(&format!("guest-encrypted = ['{name}']")).unwrap();
        assert_eq!(ids(&within_bounds(&inventory, &policy)), [""; 0], "{name}");
    }
    let alias = "<alias name='ua-lun'/></hostdev>";
    let inventory = changed("vm1.xml", SERIAL, &remote[7].1.replace("</hostdev>", alias));
    let report = within_bounds(&inventory, &Policy::default());
    assert_eq!(report.findings[0].place.names(), "vm1:ua-lun");
}

/// The rules are those of libvirt's QEMU driver.
#[test]
fn domains_of_other_hypervisors_have_no_findings() {
    let bad = good::DOMAIN
        .replace("<driver name='qemu' type='raw'/>", "")
        .replace("listen='127.0.0.1'", "listen='0.0.0.0'");
    let of = |kind: &str, text: &str| {
        let text = text.replace("type='kvm'", &format!("type='{kind}'"));
        Inventory::new(vec![Document::file("vm1.xml", text)])
    };
    for kind in ["vmware", "xen", "lxc", "vbox", "hyperv", "bhyve"] {
        none(vec![complaint(kind, &of(kind, &bad), &[])]);
        assert!(audit::images(&of(kind, &bad)).is_empty(), "{kind}");
    }
    for kind in ["qemu", "kvm", "hvf", "new"] {
        let found = ids(&within_bounds(&of(kind, &bad), &Policy::default()));
        assert!(found.contains(&"probing.disk-format"), "{kind}: {found:?}");
    }
    for prefix in ["bhyve", "xen"] {
        let uri = format!("http://libvirt.org/schemas/domain/{prefix}/1.0");
        let text = format!(
            "<domain type='{prefix}' xmlns:x='{uri}'><x:commandline><x:arg value='-s 4,x'/></x:commandline></domain>"
        );
        let inventory = Inventory::new(vec![Document::file("x.xml", text)]);
        none(vec![complaint(
            prefix,
            &inventory,
            &["confinement.commandline"],
        )]);
    }
}

#[test]
fn several_documents_in_one_text_are_all_audited() {
    let unlabelled = |name: &str| {
        format!(
            "<?xml version='1.0'?>\n<domain>\n<name>{name}</name>\n<seclabel type='none'/></domain>\n"
        )
    };
    let text =
        unlabelled("a") + &unlabelled("b") + "<network/>\n" + &unlabelled("c") + "<pool>\n</poo>";
    let inventory = Inventory::new(vec![Document::file("all.xml", text)]);
    let report = within_bounds(&inventory, &Policy::default());
    let found: Vec<_> = report
        .findings
        .iter()
        .map(|one| one.place.to_string())
        .collect();
    let expected = [
        "all.xml:4: domain a",
        "all.xml:8: domain b",
        "all.xml:9",
        "all.xml:13: domain c",
        "all.xml",
    ];
    assert_eq!(found, expected);
    let last = &report.findings[4].detail;
    assert!(last.ends_with("at 15:1"), "{last}");
}

/// A disk without encryption on another machine.
const REMOTE: &str = "<disk type='network' device='disk'><driver name='qemu' type='raw'/>\
     <source protocol='rbd' name='p/i'><host name='h'/></source><target dev='vda'/></disk>";

#[test]
fn domains_in_snapshots_and_disks_by_themselves_are_audited() {
    let domain = |element: &str| {
        format!("<{element} type='kvm'><name>d</name><devices>{REMOTE}</devices></{element}>")
    };
    let one = domain("domain");
    let both = format!("{one}{}", domain("inactiveDomain"));
    for (text, place) in [
        (
            format!("<domainsnapshot><name>s</name>{both}</domainsnapshot>"),
            "x.xml:1: domain d, disk vda",
        ),
        (
            format!("<domaincheckpoint><name>s</name>{one}</domaincheckpoint>"),
            "x.xml:1: domain d, disk vda",
        ),
        (
            format!(
                "<domainsnapshot>{}</domainsnapshot>",
                domain("inactiveDomain")
            ),
            "x.xml:1: domain d, disk vda",
        ),
        (REMOTE.to_owned(), "x.xml:1: disk vda"),
    ] {
        let inventory = Inventory::new(vec![Document::file("x.xml", text.as_str())]);
        let report = within_bounds(&inventory, &Policy::default());
        let found = &report.findings[0];
        assert_eq!(found.rule.id, "storage.remote-plain", "{text}");
        assert_eq!(found.place.to_string(), place, "{text}");
    }
    let text = "<domainsnapshot><name>s</name></domainsnapshot>";
    let inventory = Inventory::new(vec![Document::file("x.xml", text)]);
    let report = within_bounds(&inventory, &Policy::default());
    assert_eq!(ids(&report), ["audit.unreadable"]);
    assert_eq!(report.findings[0].detail, "the snapshot contains no domain");
    // The image of such a disk is looked at.
    let disk = "<disk type='file'><driver type='qcow2'/><source file='/i.qcow2'/></disk>";
    let inventory = Inventory::new(vec![Document::file("x.xml", disk)]);
    assert_eq!(audit::images(&inventory).len(), 1);
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
