//! Hostile documents: they are refused or judged within the bounds of time and memory.

use luksmith::audit::{Document, Host, Inventory, Policy, images};

use crate::judge::{ids, within_bounds};

fn document(text: impl Into<Vec<u8>>) -> Inventory {
    Inventory::new(vec![Document::file("x.xml", text)])
}

fn refused(text: impl Into<Vec<u8>>) {
    let report = within_bounds(&document(text), &Policy::default());
    assert_eq!(ids(&report), ["audit.unreadable"]);
}

#[test]
fn entities_and_document_types_are_refused() {
    let mut laughs = String::from("<!DOCTYPE l [<!ENTITY l0 \"ha\">");
    for n in 1..40 {
        let before = format!("&l{};", n - 1).repeat(10);
        laughs += &format!("<!ENTITY l{n} \"{before}\">");
    }
    refused(laughs + "]><domain><name>&l39;</name></domain>");
}

#[test]
fn deep_and_large_documents_are_refused() {
    refused("<domain>".repeat(500_000));
    refused(format!("<domain {}/>", "a='b' ".repeat(600_000)));
    refused(format!(
        "<domain>{}</domain>",
        "<a xmlns:n='u'/>".repeat(200_000)
    ));
    refused(format!("<domain>{}</domain>", "<disk/>".repeat(500_000)));
    refused(vec![b' '; 5 << 20]);
    refused(vec![0xff; 1 << 20]);
}

/// The command reads a file of 100 MB only up to the limit.
#[test]
fn a_file_of_100_megabytes_is_read_only_to_the_limit() {
    let folder = tempfile::tempdir().unwrap();
    let file = std::fs::File::create(folder.path().join("large.xml")).unwrap();
    file.set_len(100_000_000).unwrap();
    crate::command::fails(
        folder.path(),
        &["audit", "large.xml", "--no-images"],
        11,
        "1 finding",
    );
}

/// A document of the largest size with many disks, each of which has many faults.
#[test]
fn many_faults_are_judged_in_time() {
    let disk = "<disk type='network'><source protocol='nbd' name='x'><host/><encryption><secret uuid='u'/></encryption></source>\
                <backingStore type='file'><source file='/x'/></backingStore><target dev='v'/></disk>";
    let disks: String = (0..8000)
        .map(|n| disk.replace("dev='v'", &format!("dev='v{n}'")))
        .collect();
    let text = format!("<domain><name>d</name><devices>{disks}</devices></domain>");
    let inventory = document(text);
    let report = within_bounds(&inventory, &Policy::default());
    assert!(ids(&report).contains(&"secret.shared"));
    assert!(ids(&report).contains(&"audit.more"));
    // The same path is requested only once.
    assert_eq!(images(&inventory).len(), 1);
    let disks: Vec<_> = (0..20_000)
        .map(|n| format!("<disk><source file='/{n}'/></disk>"))
        .collect();
    let text = format!("<domain><devices>{}</devices></domain>", disks.concat());
    assert_eq!(images(&document(text)).len(), 4096);
}

#[test]
fn hostile_settings_are_judged_in_time() {
    let hosts = [
        "a = 1\n".repeat(1_700_000),
        format!("a = [{}", "[".repeat(9 << 20)),
        "[Socket]\nSocketMode=0666\n".repeat(400_000),
        "#".repeat(10 << 20),
    ];
    for text in hosts {
        for name in [
            "/etc/libvirt/qemu.conf",
            "/etc/libvirt/libvirtd.conf",
            "/etc/lvm/lvm.conf",
            "/x.rules",
            "/x.policy",
            "/libvirt-guests",
        ] {
            let mut host = Host::default();
            host.files = vec![Document::file(name, text.as_bytes())];
            host.mountinfo = Some(Document::file("/proc/self/mountinfo", text.as_bytes()));
            let mut inventory = Inventory::default();
            inventory.host = Some(host);
            within_bounds(&inventory, &Policy::default());
        }
    }
}
