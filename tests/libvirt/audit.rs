//! `luksmith audit --connect`: the rules see the domains, pools and secrets of a libvirt.

use std::fs::File;

use crate::daemon::Daemon;
use crate::host::Ran;
use support::peers;

/// A domain with a fault of each kind: in its XML, in an image, in a volume, and in two disks
/// together.
fn domain(folder: &str, device: &str) -> String {
    let emulator = peers::find("qemu-system-x86_64").expect("QEMU's machine");
    let emulator = emulator.display();
    let secret = "<encryption format='luks'><secret type='passphrase' uuid='0a81f5b2-8403-7b23-c8d6-21ccc2f80d6f'/></encryption>";
    format!(
        "<domain type='qemu' xmlns:qemu='http://libvirt.org/schemas/domain/qemu/1.0'>
  <name>vm1</name><uuid>3c0b8a3e-9d6f-4c57-8e0c-2a1d6fb0c3f1</uuid><memory unit='MiB'>64</memory><os><type arch='x86_64'>hvm</type></os>
  <devices><emulator>{emulator}</emulator>
    <disk type='file' device='disk'><driver name='qemu' type='raw'/><source file='{folder}/luks'/><target dev='vda'/></disk>
    <disk type='volume' device='disk'><driver name='qemu' type='raw'/><source pool='p' volume='qcow2'/><target dev='vdb'/></disk>
    <disk type='network' device='disk'><driver name='qemu' type='raw'/>
      <source protocol='nbd' name='x'><host name='storage'/></source><target dev='vdc'/></disk>
    <disk type='file' device='disk'><driver name='qemu' type='raw'/><source file='{folder}/plain'>{secret}</source><target dev='vdd'/></disk>
    <disk type='file' device='disk'><driver name='qemu' type='raw'/><source file='{folder}/plain2'>{secret}</source><target dev='vde'/></disk>
    {device}
  </devices>
</domain>"
    )
}

/// The findings as `ID OBJECT`.
fn found(ran: &Ran) -> Vec<String> {
    let report = ran.json();
    let findings = report["findings"].as_array().expect("findings").iter();
    let mut found: Vec<_> = findings
        .map(|finding| {
            let objects = finding["object"].as_array().expect("an object").iter();
            let names: Vec<_> = objects.filter_map(|one| one["name"].as_str()).collect();
            format!(
                "{} {}",
                finding["id"].as_str().expect("an id"),
                names.join(":")
            )
        })
        .collect();
    found.sort();
    found
}

#[test]
fn faults_of_domains_pools_and_secrets_are_found() {
    let Some(daemon) = Daemon::start() else {
        return;
    };
    if peers::find("qemu-system-x86_64").is_none() {
        return;
    }
    let folder = daemon.folder();
    let path = folder.display().to_string();
    std::fs::write(folder.join("luks"), b"LUKS\xba\xbe\0\x01").expect("a file");
    std::fs::write(folder.join("qcow2"), b"QFI\xfb\0\0\0\x03").expect("a file");
    for name in ["luks", "qcow2", "plain", "plain2"] {
        let file = File::options()
            .create(true)
            .append(true)
            .open(folder.join(name));
        file.expect("a file").set_len(1 << 20).expect("a size");
    }
    let connection = daemon.connect();
    let pool =
        format!("<pool type='dir'><name>p</name><target><path>{path}</path></target></pool>");
    connection
        .define_pool(&pool)
        .expect("a pool")
        .start()
        .expect("a start");
    let screen = "<graphics type='vnc' listen='0.0.0.0'/>";
    connection
        .define_domain(&domain(&path, screen))
        .expect("a domain");
    let secret = |ephemeral: &str| {
        let usage = format!("<usage type='volume'><volume>/{ephemeral}</volume></usage>");
        let xml = format!("<secret ephemeral='{ephemeral}' private='yes'>{usage}</secret>");
        let secret = connection.define_secret(&xml).expect("a secret");
        secret.uuid().expect("a uuid").to_string()
    };
    let (kept, _forgotten) = (secret("no"), secret("yes"));

    let audit = format!("audit --json --connect {}", daemon.uri());
    let mut expected = vec![
        "console.listen vm1:graphics vnc".to_owned(),
        "probing.other-format vm1:vdb".to_owned(),
        "secret.shared vm1:vde".to_owned(),
        "storage.luks-as-raw vm1:vda".to_owned(),
        "storage.remote-plain vm1:vdc".to_owned(),
    ];
    // libvirt encrypts stored secrets since 12.1.
    if connection.version().expect("a version") < (12, 1, 0) {
        expected.push(format!("secret.stored {kept}"));
    }
    expected.sort();
    let ran = daemon.run(&audit);
    ran.is(11, &["--fail-on"]);
    assert_eq!(found(&ran), expected);
    let origin = ran.json()["findings"][0]["origin"].clone();
    let origin = origin.as_str().expect("an origin");
    assert!(
        origin.starts_with("qemu:///") && !origin.contains('?'),
        "{origin}"
    );

    // The definition with which the domain starts the next time.
    connection
        .define_domain(&domain(&path, ""))
        .expect("a domain");
    expected.retain(|one| !one.starts_with("console.listen"));
    assert_eq!(found(&daemon.run(&audit)), expected);
    let limited = daemon.run(&format!("{audit} --max-size 100K --fail-on never"));
    limited.is(0, &[]);
    assert!(
        found(&limited).contains(&"size.limit p:plain".to_owned()),
        "{limited:?}"
    );
}
