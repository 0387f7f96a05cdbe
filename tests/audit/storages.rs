//! Faults of pools, volumes and secrets, and of domains that use them.

use luksmith::audit::{Document, Inventory, Policy};

use crate::judge::{Row, changed, complaint, good, ids, none, table, within_bounds};

const VOLUME: &[Row] = &[
    (
        "size.pool",
        "<capacity unit='bytes'>10737418240",
        "<capacity unit='GiB'>60",
        "<capacity unit='GiB'>49",
    ),
    (
        "size.pool",
        "<capacity unit='bytes'>10737418240</capacity>\n  <allocation unit='bytes'>0",
        "<capacity unit='GB'>108</capacity><allocation unit='GB'>108",
        "<capacity unit='G'>100</capacity><allocation unit='KiB'>62914560",
    ),
    (
        "probing.backing-format",
        "<target>",
        "<backingStore><path>/srv/images/base.img</path><format type='auto'/></backingStore><target>",
        "<backingStore><path>/srv/images/base.img</path><format type='raw'/></backingStore><target>",
    ),
];

const SECRET: &[Row] = &[(
    "secret.stored",
    "ephemeral='yes'",
    "ephemeral='no'",
    "ephemeral=\"yes\"",
)];

#[test]
fn each_fault_has_its_finding_and_its_correction_has_none() {
    table("volume.xml", VOLUME);
    table("secret.xml", SECRET);
}

#[test]
fn a_newer_libvirt_encrypts_stored_secrets() {
    let stored = |version| {
        let mut inventory = changed("secret.xml", "ephemeral='yes'", "ephemeral='no'");
        inventory.libvirt_version = version;
        inventory
    };
    let old = &["secret.stored"][..];
    none(vec![
        complaint("unknown", &stored(None), old),
        complaint("12.0.9", &stored(Some(12_000_009)), old),
        complaint("12.1.0", &stored(Some(12_001_000)), &[]),
    ]);
}

#[test]
fn storage_on_another_machine_has_to_be_encrypted() {
    let pool = |kind: &str, encryption: &str| {
        let mut inventory = changed("pool.xml", "type='dir'", &format!("type='{kind}'"));
        let volume = String::from_utf8(inventory.documents[2].text.clone()).unwrap();
        let volume = volume.replace("<encryption format='luks'/>", encryption);
        inventory.documents[2].text = volume.into_bytes();
        inventory
    };
    for kind in ["netfs", "rbd", "iscsi", "iscsi-direct", "gluster"] {
        none(vec![
            complaint(kind, &pool(kind, ""), &["storage.remote-plain"]),
            complaint(kind, &pool(kind, "<encryption format='luks'/>"), &[]),
        ]);
    }
    for kind in ["dir", "fs", "logical", "zfs"] {
        none(vec![complaint(kind, &pool(kind, ""), &[])]);
    }
    // A disk that is a volume of such a pool.
    let disk = |kind: &str, within: &str| {
        let mut inventory = pool(kind, "<encryption format='luks'/>");
        let text = String::from_utf8(inventory.documents[0].text.clone()).unwrap();
        let to = format!(
            "<disk type='volume' device='disk'><driver name='qemu' type='raw'/>
             <source pool='images' volume='vm2.luks'>{within}</source><target dev='vde'/></disk><serial type='pty'>"
        );
        inventory.documents[0].text = text.replace("<serial type='pty'>", &to).into_bytes();
        inventory
    };
    none(vec![
        complaint("plain", &disk("netfs", ""), &["storage.remote-plain"]),
        complaint("luks", &disk("netfs", "<encryption format='luks'/>"), &[]),
        complaint("local", &disk("dir", ""), &[]),
    ]);
}

#[test]
fn sizes_have_a_limit() {
    let inventory = good();
    let policy = |size: u64| Policy::parse(&format!("max-size = {size}")).unwrap();
    let capacity = 10_737_418_240;
    assert_eq!(ids(&within_bounds(&inventory, &policy(capacity))), [""; 0]);
    let report = within_bounds(&inventory, &policy(capacity - 1));
    assert_eq!(ids(&report), ["size.limit"]);
    assert_eq!(report.findings[0].place.names(), "images:vm2.luks");
}

/// After 100 findings of a rule, further ones are not listed.
#[test]
fn the_findings_of_one_rule_are_bounded() {
    let secret = "<secret ephemeral='no'><uuid>u</uuid></secret>";
    let documents = (0..250).map(|n| Document::file(format!("{n}.xml"), secret));
    let inventory = Inventory::new(documents.collect());
    let report = within_bounds(&inventory, &Policy::default());
    assert_eq!(ids(&report), ["audit.more", "secret.stored"]);
    assert_eq!(report.findings.len(), 101);
}
