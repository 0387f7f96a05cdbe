//! Which volumes and secrets `luksmith libvirt rotate` finds, by whatever names, and what it
//! refuses because a secret would open nothing afterwards, or an image would have no known
//! passphrase.

use std::os::unix::fs::symlink;

use luksmith_formats::json::{Value, json};

use crate::rotate::{CHEAP, Host};
use support::peers;

/// The findings of a check, as (name, volume).
fn findings(host: &Host) -> Vec<(String, String)> {
    let ran = host.daemon.run("libvirt rotate --all --check --json");
    let said = ran.json();
    let found = said["findings"].as_array().unwrap().iter();
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    found
        .map(|row| (text(&row["id"]), text(&row["image"])))
        .collect()
}

/// Checks that the rotation fails with this code and these words, and has changed nothing.
#[track_caller]
fn is_refused(host: &Host, target: &str, code: i32, words: &[&str]) {
    let secrets = host.connection.secrets().unwrap().len();
    host.daemon
        .run(&format!("libvirt rotate {target} {CHEAP} --pbkdf pbkdf2"))
        .is(code, words);
    host.is_finished(&[], secrets);
}

#[test]
fn two_secrets_with_one_passphrase_are_refused_and_found() {
    let Some(host) = Host::new() else { return };
    let first = host.volume("v", "--type luks1");
    host.keep(&first, "old");
    let second = host
        .daemon
        .ok("libvirt secret define --usage volume:second")
        .text();
    host.daemon.ok(&format!(
        "libvirt secret set {second} --key-file old --force overwrite"
    ));
    symlink("v", host.path("link")).unwrap();
    let (Some(_), Some(other)) = (
        host.domain("d", "v", &first),
        host.domain("e", "link", &second),
    ) else {
        return;
    };
    for target in ["d", "e", &host.path("v")] {
        is_refused(
            &host,
            target,
            5,
            &[&first, &second, "with the same passphrase"],
        );
    }
    host.is_finished(&["v"], 2);
    let found = findings(&host);
    assert_eq!(found, [("same-passphrase".to_owned(), host.path("v"))]);

    // A private secret may have the same value.
    let private = host
        .daemon
        .ok("libvirt secret define --usage volume:private --private --generate")
        .text();
    other.undefine().unwrap();
    host.domain("e", "link", &private);
    let refused = host.daemon.run(&format!("libvirt rotate d {CHEAP}"));
    assert!(
        refused.code != Some(0) && refused.stderr.contains(&format!("{private} is private")),
        "{refused:?}"
    );

    // With a passphrase of its own, the second secret is another matter.
    host.connection.domain("e").unwrap().undefine().unwrap();
    host.domain("e", "link", &second);
    std::fs::write(host.daemon.folder().join("own"), "its own passphrase").unwrap();
    host.daemon.ok(&format!(
        "key add {} --key-file old --new-key-file own {CHEAP}",
        host.path("v")
    ));
    host.daemon.ok(&format!(
        "libvirt secret set {second} --key-file own --force overwrite"
    ));
    host.daemon.ok(&format!("libvirt rotate --all {CHEAP}"));
    for secret in [&first, &second] {
        host.whole("v", secret);
    }
    assert_eq!(findings(&host), []);
}

#[test]
fn a_secret_for_the_path_counts_beside_one_that_a_domain_names() {
    let Some(host) = Host::new() else { return };
    let by_path = host.volume("v", "--type luks1");
    host.keep(&by_path, "old");
    let named = host
        .daemon
        .ok("libvirt secret define --usage volume:named")
        .text();
    host.daemon.ok(&format!(
        "libvirt secret set {named} --key-file old --force overwrite"
    ));
    // Outside of the pool, so that only the usage names it.
    let path = host.daemon.folder().join("alone");
    std::fs::rename(host.path("v"), &path).unwrap();
    host.daemon
        .ok(&format!("libvirt secret remove {by_path} --force in-use"));
    let by_path = host
        .daemon
        .ok(&format!(
            "libvirt secret define --usage volume:{}",
            path.display()
        ))
        .text();
    host.daemon.ok(&format!(
        "libvirt secret set {by_path} --key-file old --force overwrite"
    ));
    symlink(&path, host.path("v")).unwrap();
    if host.domain("d", "v", &named).is_none() {
        return;
    }
    is_refused(&host, "d", 5, &[&by_path, "with the same passphrase"]);
}

/// Its disk may be unplugged. The pool still lists it.
#[test]
fn a_volume_whose_file_is_missing_keeps_its_passphrase_and_stops_no_other() {
    let Some(host) = Host::new() else { return };
    let there = host.volume("v", "--type luks1");
    host.keep(&there, "old");
    let missing = host.volume("w", "--type luks1");
    host.keep(&missing, "kept");
    std::fs::rename(host.path("w"), host.path("away")).unwrap();
    assert!(
        host.daemon
            .ok("libvirt secret list")
            .text()
            .contains(&missing)
    );
    host.daemon
        .run(&format!("libvirt secret remove {missing}"))
        .is(5, &["in use", &host.path("w")]);
    let rotate = format!("libvirt rotate --all {CHEAP} --pbkdf pbkdf2");
    let ran = host.daemon.run(&rotate);
    assert!(
        ran.code != Some(0) && ran.stderr.contains(&host.path("w")),
        "{ran:?}"
    );
    host.whole("v", &there);
    host.keep(&missing, "now");
    let value = |name: &str| std::fs::read(host.daemon.folder().join(name)).unwrap();
    assert!(value("now") == value("kept"));
    std::fs::rename(host.path("away"), host.path("w")).unwrap();
    host.daemon.ok(&rotate);
    host.whole("w", &missing);
}

#[test]
fn a_volume_is_one_by_all_its_names() {
    let Some(host) = Host::new() else { return };
    let secret = host.volume("v", "--type luks1");
    symlink("v", host.path("link")).unwrap();
    std::fs::hard_link(host.path("v"), host.path("hard")).unwrap();
    for (domain, name) in [("d", "link"), ("e", "hard"), ("f", "../pool/v")] {
        if host.domain(domain, name, &secret).is_none() {
            return;
        }
    }
    host.daemon.connect().pool("p").unwrap().refresh().unwrap();
    let checked = host.daemon.ok("libvirt rotate --all --check --json");
    assert_eq!(checked.json()["checked"], json!(1), "{checked:?}");
    for target in ["d", "e", "f", &host.path("hard"), "pool/link", "volume:p/v"] {
        let said = host
            .daemon
            .ok(&format!("libvirt rotate {target} {CHEAP} --json"))
            .json();
        assert_eq!(said["rotated"].as_array().unwrap().len(), 1, "{said}");
        host.is_finished(&["v"], 1);
    }
    host.whole("link", &secret);
}

#[test]
fn a_copy_without_a_secret_stops_a_rotation() {
    let Some(host) = Host::new() else { return };
    for (name, copy, options) in [
        ("v", "copy", "--type luks1"),
        ("two", "copy2", "--type luks2"),
        ("q", "copy3", "--format qcow2"),
    ] {
        let secret = host.volume(name, options);
        std::fs::copy(host.path(name), host.path(copy)).unwrap();
        host.connection.pool("p").unwrap().refresh().unwrap();
        let copy = host.path(copy);
        is_refused(
            &host,
            &host.path(name),
            5,
            &[&copy, "no secret", "secret define"],
        );

        // With a secret of its own, the copy keeps the old passphrase.
        host.keep(&secret, "old");
        let own = host
            .daemon
            .ok(&format!("libvirt secret define --usage volume:{copy}"))
            .text();
        host.daemon.ok(&format!(
            "libvirt secret set {own} --key-file old --force overwrite"
        ));
        host.daemon.ok(&format!(
            "libvirt rotate {} {CHEAP} --pbkdf pbkdf2",
            host.path(name)
        ));
        let format = if name == "q" { "--format qcow2" } else { "" };
        host.daemon
            .ok(&format!("key test {copy} --key libvirt:{own} {format}"));
        host.daemon.ok(&format!(
            "key test {} --key libvirt:{secret} {format}",
            host.path(name)
        ));
    }
}

#[test]
fn a_backing_layer_is_a_volume() {
    let Some(host) = Host::new() else { return };
    let Some(emulator) = peers::find("qemu-system-x86_64") else {
        return;
    };
    let Some(qemu_img) = peers::find("qemu-img") else {
        return;
    };
    let secret = host.volume("v", "--type luks1");
    // As an external snapshot leaves it: an overlay that is not encrypted.
    peers::run(
        std::process::Command::new(qemu_img)
            .args(["create", "-q", "-f", "qcow2", "-F", "raw", "-u", "-b"])
            .args([&host.path("v"), &host.path("top"), "1M"]),
    );
    let xml = format!(
        "<domain type='qemu'><name>d</name><memory unit='MiB'>32</memory><os><type machine='pc'>hvm</type></os>\
         <features><acpi/></features><devices><emulator>{}</emulator>\
         <disk type='file'><driver name='qemu' type='qcow2'/><source file='{}'/>\
         <backingStore type='file'><format type='raw'/><source file='{}'><encryption format='luks'>\
         <secret type='passphrase' uuid='{secret}'/></encryption></source><backingStore/></backingStore>\
         <target dev='vda' bus='virtio'/></disk></devices></domain>",
        emulator.display(),
        host.path("top"),
        host.path("v"),
    );
    let domain = host.connection.define_domain(&xml).unwrap();
    host.daemon.ok(&format!("libvirt rotate d {CHEAP}"));
    host.is_finished(&["v"], 1);
    domain.start().unwrap();
    is_refused(&host, "d", 5, &["a backing layer", "shut off"]);
    domain.destroy().unwrap();
    domain.start().unwrap();
    domain.destroy().unwrap();
    host.whole("v", &secret);
}

#[test]
fn luks_inside_of_a_qcow2_image_is_rotated_while_the_image_is_closed() {
    let Some(host) = Host::new() else { return };
    let secret = host.volume("q", "--format qcow2");
    host.keep(&secret, "old");
    host.daemon
        .ok(&format!("libvirt rotate {} {CHEAP}", host.path("q")));
    let test = format!("key test {} --format qcow2", host.path("q"));
    host.daemon.ok(&format!("{test} --key libvirt:{secret}"));
    host.daemon
        .run(&format!("{test} --key-file old"))
        .is(2, &[]);
    assert_eq!(host.journals().len(), 0);
}

#[test]
fn a_passphrase_that_is_given_counts_where_the_secret_has_another() {
    let Some(host) = Host::new() else { return };
    let secret = host.volume("v", "--type luks1");
    host.keep(&secret, "key");
    let folder = host.daemon.folder();
    let mut newline = std::fs::read(folder.join("key")).unwrap();
    newline.push(b'\n');
    std::fs::write(folder.join("newline"), newline).unwrap();
    host.daemon.ok(&format!(
        "libvirt secret set {secret} --key-file newline --force overwrite"
    ));
    let path = host.path("v");
    is_refused(&host, &path, 2, &["does not open", "--key-file"]);
    is_refused(
        &host,
        &format!("{path} --key-file newline"),
        2,
        &["does not open"],
    );
    host.daemon
        .ok(&format!("libvirt rotate {path} {CHEAP} --key-file key"));
    host.is_finished(&["v"], 1);
    host.whole("v", &secret);

    // Nor has a secret without a value.
    host.keep(&secret, "key");
    host.daemon
        .ok(&format!("libvirt secret remove {secret} --force in-use"));
    let secret = host
        .daemon
        .ok(&format!("libvirt secret define --usage volume:{path}"))
        .text();
    host.connection.pool("p").unwrap().refresh().unwrap();
    is_refused(&host, &path, 2, &["no value"]);
    host.daemon
        .ok(&format!("libvirt rotate {path} {CHEAP} --key-file key"));
    host.is_finished(&["v"], 1);
    host.whole("v", &secret);
}
