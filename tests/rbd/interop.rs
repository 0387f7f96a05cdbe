//! librbd's encryption and ours open each other's volumes, whole payloads.

use crate::program::{CHEAP, PASSPHRASE, Site, content};

const MIB: usize = 1 << 20;

/// Fills what librbd decrypts with the bytes of a file: image, version, passphrase, file.
const WRITE: &str = "\
image.encryption_load({'luks1': 0, 'luks2': 1}[sys.argv[1]], sys.argv[2])
data = open(sys.argv[3], 'rb').read()
assert image.size() == len(data), image.size()
image.write(data, 0)
image.flush()";

/// Copies what librbd decrypts into a file.
const READ: &str = "\
image.encryption_load({'luks1': 0, 'luks2': 1}[sys.argv[1]], sys.argv[2])
open(sys.argv[3], 'wb').write(image.read(0, image.size()))";

#[test]
fn what_librbd_encrypts_opens_here() {
    let Some(site) = Site::new() else { return };
    let key = site.path("key");
    let out = site.path("plain");
    for (image, version, options, header) in [
        ("theirs-1", "luks1", "", 4 * MIB),
        ("theirs-2", "luks2", "", 16 * MIB),
        ("theirs-32", "luks2", "--object-size 32M", 32 * MIB),
    ] {
        site.ceph
            .rbd(&format!("create rbd/{image} --size 48M {options}"));
        let format = format!("encryption format rbd/{image} {version} {}", key.display());
        site.ceph.rbd(&format);
        let plain = content(header as u64, 48 * MIB - header);
        site.write("plain", &plain);
        let arguments = [version, PASSPHRASE, out.to_str().unwrap()];
        site.ceph.python(image, WRITE, &arguments);

        site.luksmith(&format!("decrypt {{{image}}} decrypted --key-file key"));
        assert!(site.read("decrypted") == plain, "{image}");
        std::fs::remove_file(site.path("decrypted")).unwrap();

        // What is changed here, librbd opens with the new passphrase.
        site.write("other", b"another passphrase");
        let add = format!("key add {{{image}}} --key-file key --new-key-file other");
        site.luksmith(&format!("{add} {}", CHEAP.join(" ")));
        let arguments = [version, "another passphrase", out.to_str().unwrap()];
        site.ceph.python(image, READ, &arguments);
        assert!(site.read("plain") == plain, "{image}");
    }
}

#[test]
fn what_is_encrypted_here_librbd_opens() {
    let Some(site) = Site::new() else { return };
    let plain = content(3, 12 * MIB + 512);
    site.write("plain", &plain);
    let cheap = CHEAP.join(" ");
    let out = site.path("read");
    for (image, version, object, header) in [
        ("ours-1", "luks1", "", 4),
        ("ours-2", "luks2", "", 16),
        ("ours-1-32", "luks1", "--object-size 32M", 32),
        ("ours-2-32", "luks2", "--object-size 32M", 32),
    ] {
        let mut force = "";
        if !object.is_empty() {
            let size = header * MIB + plain.len();
            site.ceph
                .rbd(&format!("create rbd/{image} --size {size}B {object}"));
            force = " --force overwrite";
        }
        let line = format!("encrypt plain {{{image}}} --type {version} --key-file key {cheap}");
        let said = site.luksmith(&(line + force));
        assert!(said.contains("librbd"), "{said}");
        let info = site.luksmith(&format!("info {{{image}}} --json"));
        let offset = format!("\"offset\":{}", header * MIB);
        assert!(info.replace([' ', '\n'], "").contains(&offset), "{info}");

        let arguments = [version, PASSPHRASE, out.to_str().unwrap()];
        site.ceph.python(image, READ, &arguments);
        assert!(site.read("read") == plain, "{image}");
        // What librbd writes is read here.
        site.write("read", &content(9, plain.len()));
        site.ceph.python(image, WRITE, &arguments);
        site.luksmith(&format!("decrypt {{{image}}} decrypted --key-file key"));
        assert!(site.read("decrypted") == content(9, plain.len()), "{image}");
        std::fs::remove_file(site.path("decrypted")).unwrap();
    }
}

#[test]
fn a_volume_that_librbd_does_not_open_is_announced() {
    let Some(site) = Site::new() else { return };
    let cheap = CHEAP.join(" ");
    for (image, options) in [
        ("odd-cipher", "--cipher serpent-xts-plain64"),
        ("odd-place", "--offset 34816"),
    ] {
        let line = format!("create {{{image}}} --size 4M --key-file key {cheap} {options}");
        let said = site.luksmith(&line);
        assert!(said.contains("opens only aes-xts-plain64"), "{said}");
        assert!(
            said.contains("cryptsetup and luksmith serve open"),
            "{said}"
        );
    }
}

/// Ceph 16 cannot make one, so the mark is written by hand.
#[test]
fn the_header_of_a_clone_with_its_own_key_is_recognised() {
    let Some(site) = Site::new() else { return };
    site.create("clone-mark", "4M", "");
    site.ceph
        .python("clone-mark", "image.write(b'RBDL', 0)", &[]);
    for command in ["info", "key list", "header repair"] {
        let (code, said) = site.refused(&format!("{command} {{clone-mark}}"));
        assert!(said.contains("cloned image in ceph"), "{said}");
        assert!(said.contains("rbd flatten"), "{said}");
        assert_eq!(code, 4, "{said}");
    }
}

#[test]
fn a_clone_has_the_volume_key_of_its_parent_which_is_said() {
    let Some(site) = Site::new() else { return };
    site.create("parent", "4M", "");
    for line in [
        "snap create rbd/parent@s",
        "snap protect rbd/parent@s",
        "clone rbd/parent@s rbd/child",
    ] {
        site.ceph.rbd(line);
    }
    let said = site.luksmith("info {child}");
    assert!(said.contains("is a clone of rbd/parent@s"), "{said}");
    assert!(!site.luksmith("info {parent}").contains("clone"));
    site.ceph.rbd("flatten --no-progress rbd/child");
    assert!(!site.luksmith("info {child}").contains("clone"));
}
