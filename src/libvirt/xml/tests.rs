//! This module parses its own output and the XML of libvirt, and its errors name the line.

use super::*;
use luksmith_formats::text::is_control;

const UUID: &str = "55f4c1ec-1111-4222-8333-123456789abc";

fn by_uuid() -> SecretRef {
    SecretRef::Uuid(UUID.to_owned())
}

fn target(dev: &str) -> Target {
    Target {
        dev: dev.to_owned(),
        bus: Some("virtio".to_owned()),
    }
}

/// One disk of each kind of storage, with every option on one of them.
fn disks() -> Vec<Disk> {
    let tcp = |name: &str, port| Host::Tcp {
        name: name.to_owned(),
        port,
    };
    let mut tls = Network::new(
        "nbd",
        Some("a b".to_owned()),
        vec![tcp("host", Some(10810))],
    );
    tls.tls = true;
    tls.tls_hostname = Some("other".to_owned());
    let mut rbd = Network::new(
        "rbd",
        Some("pool/image".to_owned()),
        vec![tcp("mon1", None), tcp("mon2", None)],
    );
    rbd.snapshot = Some("s1".to_owned());
    rbd.config = Some("/etc/ceph/ceph.conf".to_owned());
    let mut http = Network::new("https", Some("/a/b.img".to_owned()), vec![tcp("::1", None)]);
    http.query = Some("x=1&y=<2>".to_owned());
    let stores = [
        Store::File("/vm/a \"quoted\" & <odd> 'name'.img".to_owned()),
        Store::Block("/dev/vg/lv".to_owned()),
        Store::Volume {
            pool: "default".to_owned(),
            volume: "v é.luks".to_owned(),
        },
        Store::Network(Network::new(
            "nbd",
            None,
            vec![Host::Unix("/run/n.sock".to_owned())],
        )),
        Store::Network(tls),
        Store::Network(rbd),
        Store::Network(http),
        Store::VhostUser(VhostUser::new("/run/a b.sock", Some(1))),
        Store::VhostUser(VhostUser::new("/run/v.sock", None)),
    ];
    let mut disks: Vec<Disk> = stores
        .into_iter()
        .map(|store| {
            let mut source = Source::plain(store);
            source.encryption = Some(Encryption::luks1(by_uuid()));
            Disk::raw(source, target("vda"))
        })
        .collect();
    let rbd = disks[5].source.as_mut().unwrap();
    rbd.encryption = Some(Encryption {
        format: Format::Luks2,
        engine: Some(Engine::Librbd),
        secrets: vec![
            by_uuid(),
            SecretRef::Usage(Usage {
                kind: UsageType::Volume,
                id: "/layer".to_owned(),
            }),
        ],
    });
    rbd.auth = Some(Auth {
        username: "libvirt".to_owned(),
        kind: "ceph".to_owned(),
        secret: SecretRef::Usage(Usage {
            kind: UsageType::Ceph,
            id: "client.libvirt".to_owned(),
        }),
    });
    let file = &mut disks[0];
    file.serial = Some("S-1".to_owned());
    file.read_only = true;
    file.shareable = true;
    file.driver.cache = Some("none".to_owned());
    file.driver.io = Some("native".to_owned());
    file.driver.discard = Some("unmap".to_owned());
    file.driver.detect_zeroes = Some("off".to_owned());
    file.source.as_mut().unwrap().labels = vec![
        Label::untouched(),
        Label {
            model: None,
            relabel: true,
            label: Some("a:b".to_owned()),
        },
    ];
    disks
}

#[test]
fn a_disk_is_read_as_it_was_written() {
    for disk in disks() {
        let xml = disk.to_xml().unwrap();
        assert_eq!(Disk::parse(xml.as_bytes()).unwrap(), disk, "{xml}");
    }
}

#[test]
fn a_disk_looks_like_libvirts() {
    let mut source = Source::plain(Store::Network(Network::new(
        "nbd",
        None,
        vec![Host::Unix("/run/n.sock".to_owned())],
    )));
    source.encryption = Some(Encryption::luks1(by_uuid()));
    let mut disk = Disk::raw(source, target("vda"));
    disk.driver.discard = Some("unmap".to_owned());
    let expected = "\
<disk type=\"network\" device=\"disk\">
  <driver name=\"qemu\" type=\"raw\" discard=\"unmap\"/>
  <source protocol=\"nbd\">
    <host transport=\"unix\" socket=\"/run/n.sock\"/>
    <encryption format=\"luks\">
      <secret type=\"passphrase\" uuid=\"55f4c1ec-1111-4222-8333-123456789abc\"/>
    </encryption>
  </source>
  <target dev=\"vda\" bus=\"virtio\"/>
</disk>";
    assert_eq!(disk.to_xml().unwrap(), expected);
}

#[test]
fn a_secret_is_read_as_it_was_written() {
    for kind in UsageType::ALL {
        let secret = SecretXml {
            uuid: Some(UUID.to_owned()),
            usage: Some(Usage {
                kind,
                id: "/vm/<a>&b".to_owned(),
            }),
            description: Some("of 'a' & \"b\"".to_owned()),
            ephemeral: kind == UsageType::Tls,
            private: kind == UsageType::Volume,
        };
        let xml = secret.to_xml().unwrap();
        assert_eq!(SecretXml::parse(xml.as_bytes()).unwrap(), secret, "{xml}");
    }
    let bare = SecretXml::parse(b"<secret/>").unwrap();
    assert_eq!(bare, SecretXml::default());
}

#[test]
fn a_volume_is_read_as_it_was_written_and_in_all_units() {
    let volume = VolumeXml {
        name: "a.luks".to_owned(),
        kind: None,
        capacity: Some(1 << 30),
        allocation: Some(0),
        path: None,
        format: Some("raw".to_owned()),
        encryption: Some(Encryption::luks1(by_uuid())),
        backing: None,
    };
    let xml = volume.to_xml().unwrap();
    assert_eq!(VolumeXml::parse(xml.as_bytes()).unwrap(), volume, "{xml}");

    let capacity = |text: &str| {
        let xml = format!("<volume><name>a</name>{text}</volume>");
        VolumeXml::parse(xml.as_bytes()).map(|volume| volume.capacity)
    };
    for (text, bytes) in [
        ("<capacity>7</capacity>", 7),
        ("<capacity unit='bytes'> 7 </capacity>", 7),
        ("<capacity unit='KiB'>7</capacity>", 7 << 10),
        ("<capacity unit='m'>7</capacity>", 7 << 20),
        ("<capacity unit='GB'>7</capacity>", 7_000_000_000),
        ("<capacity unit='EiB'>15</capacity>", 15 << 60),
    ] {
        assert_eq!(capacity(text).unwrap(), Some(bytes), "{text}");
    }
    assert_eq!(capacity("").unwrap(), None);
    for text in [
        "<capacity unit='EiB'>16</capacity>",
        "<capacity unit='Kib7'>1</capacity>",
        "<capacity unit='é'>1</capacity>",
        "<capacity unit=''>1</capacity>",
        "<capacity>-1</capacity>",
    ] {
        assert!(
            matches!(capacity(text), Err(ReadError::Value { .. })),
            "{text}"
        );
    }
}

/// An excerpt of what libvirt 9.0 writes for a defined domain, with the old place of
/// `<encryption>` and every place in which a secret may be named.
const DOMAIN: &str = "\
<domain type='qemu'>
  <name>vm1</name>
  <uuid>c7a5fdbd-edaf-9455-926a-d65c16db1809</uuid>
  <os>
    <nvram type='network'><source protocol='iscsi' name='iqn:x/0'><host name='h' port='3260'/>
      <auth username='u'><secret type='iscsi' usage='boot'/></auth></source></nvram>
  </os>
  <devices>
    <disk type='file' device='disk'>
      <driver name='qemu' type='qcow2' discard='unmap'/>
      <source file='/vm/top.qcow2'/>
      <backingStore type='block'>
        <format type='raw'/>
        <source dev='/dev/base'>
          <encryption format='luks'><secret type='passphrase' uuid='00000000-0000-0000-0000-00000000000b'/></encryption>
        </source>
        <backingStore/>
      </backingStore>
      <target dev='vda' bus='virtio'/>
    </disk>
    <disk type='volume' device='disk'>
      <driver name='qemu' type='raw'/>
      <source pool='default' volume='v1'/>
      <target dev='vdb'/>
      <encryption format='luks'><secret type='passphrase' usage='/vm/v1'/></encryption>
    </disk>
    <disk type='file' device='cdrom'><target dev='sda' bus='sata'/><readonly/></disk>
    <disk type='vhostuser' device='disk'><source type='unix' path='/run/v'/><target dev='vdc'/></disk>
    <tpm model='tpm-tis'><backend type='emulator' version='2.0'>
      <encryption secret='00000000-0000-0000-0000-00000000000c'/></backend></tpm>
  </devices>
</domain>";

#[test]
fn the_copy_that_a_block_job_makes_is_read() {
    let disk = "<disk type='file'><source file='/vm/a'/><mirror type='block' job='copy' ready='yes'>\
                <format type='raw'/><source dev='/dev/copy'><encryption format='luks'>\
                <secret type='passphrase' usage='/dev/copy'/></encryption></source></mirror>\
                <target dev='vda'/></disk>";
    let mirror = Disk::parse(disk.as_bytes()).unwrap().mirror.unwrap();
    assert_eq!(mirror.format.as_deref(), Some("raw"));
    assert_eq!(mirror.source.store, Store::Block("/dev/copy".to_owned()));
    assert!(mirror.source.encryption.is_some());
    let without = disk.replace("mirror", "other");
    assert_eq!(Disk::parse(without.as_bytes()).unwrap().mirror, None);
}

#[test]
fn the_disks_and_secrets_of_a_domain() {
    let domain = DomainXml::parse(DOMAIN.as_bytes()).unwrap();
    assert_eq!(domain.name, "vm1");
    let devs: Vec<_> = domain
        .disks
        .iter()
        .map(|disk| disk.target.dev.as_str())
        .collect();
    assert_eq!(devs, ["vda", "vdb", "sda", "vdc"]);

    let top = domain.disk("/vm/top.qcow2").unwrap();
    assert_eq!(top.target.dev, "vda");
    assert_eq!(top.driver.format.as_deref(), Some("qcow2"));
    assert_eq!(top.backing.len(), 1);
    assert_eq!(top.backing[0].format.as_deref(), Some("raw"));
    assert_eq!(
        top.backing[0].source.store,
        Store::Block("/dev/base".to_owned())
    );

    let volume = domain.disk("vdb").unwrap().source.as_ref().unwrap();
    let usage = SecretRef::Usage(Usage {
        kind: UsageType::Volume,
        id: "/vm/v1".to_owned(),
    });
    assert_eq!(volume.encryption, Some(Encryption::luks1(usage.clone())));

    let empty = domain.disk("sda").unwrap();
    assert_eq!(
        (empty.device, &empty.source, empty.read_only),
        (Device::Cdrom, &None, true)
    );
    let other = domain.disk("vdc").unwrap().source.as_ref().unwrap();
    let served = VhostUser::new("/run/v", None);
    assert_eq!(other.store, Store::VhostUser(served));
    assert!(!domain.shares_memory);

    let secrets: Vec<_> = domain
        .secrets
        .iter()
        .map(|found| (found.secret.to_string(), found.by.as_str()))
        .collect();
    let expected = [
        ("usage=iscsi:boot".to_owned(), "os"),
        (
            "00000000-0000-0000-0000-00000000000b".to_owned(),
            "disk vda",
        ),
        (usage.to_string(), "disk vdb"),
        ("00000000-0000-0000-0000-00000000000c".to_owned(), "tpm"),
    ];
    assert_eq!(secrets, expected);
}

#[test]
fn an_error_names_its_line() {
    let cases: [(&str, &str); 7] = [
        ("<secret/>", "the XML is of a <secret>, not of a <domain>"),
        ("<domain>\n</domain>", "line 1: <domain> has no name"),
        (
            "<domain><name>a</name><devices>\n<disk><source file='/a'/></disk></devices></domain>",
            "line 2: <disk> has no target",
        ),
        (
            "<domain><name>a</name><devices><disk type='network'>\n<source/><target dev='a'/></disk></devices></domain>",
            "line 2: <source> has no protocol",
        ),
        (
            "<domain><name>a</name><devices><disk><target dev='a'/><source file='/a'>\n<encryption format='new'/></source></disk></devices></domain>",
            "line 2: the format of encryption is \"new\", which is not known",
        ),
        (
            "<domain><name>a</name><devices><disk type='network'><target dev='a'/><source protocol='nbd'><host name='a' port='x'/></source></disk></devices></domain>",
            "line 1: the port is \"x\", which is not known",
        ),
        (
            "<domain><name>a</name><devices><hostdev>\n\n<secret type='iscsi'/></hostdev></devices></domain>",
            "line 3: <secret> has no uuid or usage",
        ),
    ];
    for (text, expected) in cases {
        let error = DomainXml::parse(text.as_bytes()).unwrap_err();
        assert_eq!(error.to_string(), expected, "{text}");
    }
}

#[test]
fn characters_that_turn_the_text_are_references() {
    let path = "/a\u{202e}\u{2066}<&'\"\u{feff}é".to_owned();
    let disk = Disk::raw(Source::plain(Store::File(path.clone())), target("vda"));
    let xml = disk.to_xml().unwrap();
    assert!(!xml.chars().any(|c| c != '\n' && is_control(c)), "{xml}");
    assert!(xml.contains("/a&#x202E;&#x2066;&lt;&amp;"), "{xml}");
    assert_eq!(Disk::parse(xml.as_bytes()).unwrap(), disk);
    let mut secret = SecretXml::new(Some(Usage::volume(path)));
    secret.description = Some("\u{200f}x".to_owned());
    let xml = secret.to_xml().unwrap();
    assert!(!xml.chars().any(|c| c != '\n' && is_control(c)), "{xml}");
    assert_eq!(SecretXml::parse(xml.as_bytes()).unwrap(), secret);
}

#[test]
fn a_character_that_xml_does_not_carry_is_refused() {
    for (path, bad) in [
        ("/a\nb", '\n'),
        ("/a\u{1}", '\u{1}'),
        ("/\u{fffe}", '\u{fffe}'),
    ] {
        let disk = Disk::raw(Source::plain(Store::File(path.to_owned())), target("vda"));
        let expected = WriteError::Character {
            what: "file".to_owned(),
            character: bad,
        };
        assert_eq!(disk.to_xml(), Err(expected));
    }
    let secret = SecretXml {
        description: Some("two\tcolumns".to_owned()),
        ..SecretXml::default()
    };
    assert!(secret.to_xml().is_err());
}

#[test]
fn another_source_leaves_all_else_of_the_disk_as_it_is() {
    let domain = "<domain type='kvm'><name>vm</name><devices>\n\
        <disk type='file'><source file='/other'/><target dev='vda'/></disk>\n\
        <disk device='disk' type='volume' unknown='1'>\n\
          <driver name='qemu' type='raw' queues='4'><more/></driver>\n\
          <auth username='u'><secret type='ceph' uuid='x'/></auth>\n\
          <source pool='p' volume='é'><slices/></source>\n\
          <target dev='vdb' bus='virtio'/>\n\
          <encryption format='luks'><secret type='passphrase' uuid='old'/></encryption>\n\
          <address type='pci'/>\n\
        </disk></devices></domain>";
    let mut source = Source::plain(Store::File("/new & \"".to_owned()));
    source.encryption = Some(Encryption::luks1(by_uuid()));
    let text = with_source(domain, "vdb", &source).unwrap().unwrap();
    let expected = format!(
        "<disk device='disk' type='file' unknown='1'>\n\
          <driver name='qemu' type='raw' queues='4'><more/></driver>\n\
          \n\
          <source file=\"/new &amp; &quot;\">\n  <encryption format=\"luks\">\n    \
          <secret type=\"passphrase\" uuid=\"{UUID}\"/>\n  </encryption>\n</source>\n\
          <target dev='vdb' bus='virtio'/>\n\
          \n\
          <address type='pci'/>\n\
        </disk>"
    );
    assert_eq!(text, expected);
    assert_eq!(
        Disk::parse(text.as_bytes()).unwrap().source,
        Some(source.clone())
    );
    assert!(with_source(domain, "vdc", &source).unwrap().is_none());
    source.store = Store::File("a\u{1}".to_owned());
    assert!(matches!(
        with_source(domain, "vdb", &source),
        Err(SpliceError::Write(_))
    ));
    assert!(matches!(
        with_source("<disk/>", "vdb", &source),
        Err(SpliceError::Read(_))
    ));
}

#[test]
fn a_copy_of_a_disk_is_ready_when_libvirt_says_so() {
    for (ready, is_ready) in [
        ("", false),
        (" ready='abort'", false),
        (" ready='yes'", true),
    ] {
        let disk = format!(
            "<disk type='file'><source file='/a'/><mirror type='file'{ready}><format type='raw'/>\
             <source file='/b'/></mirror><target dev='vda'/></disk>"
        );
        let disk = Disk::parse(disk.as_bytes()).unwrap();
        assert_eq!(disk.mirror_ready, is_ready);
        assert_eq!(disk.mirror.unwrap().source.store.path(), Some("/b"));
    }
}

#[test]
fn memory_is_shared_as_a_whole_or_in_every_cell() {
    let shares = |inside: &str| {
        let xml = format!("<domain type='kvm'><name>a</name>{inside}</domain>");
        DomainXml::parse(xml.as_bytes()).unwrap().shares_memory
    };
    let access = "<memoryBacking><access mode='shared'/></memoryBacking>";
    let numa = |cells: &str| format!("<cpu><numa>{cells}</numa></cpu>");
    assert!(!shares(""));
    assert!(!shares(
        "<memoryBacking><access mode='private'/></memoryBacking>"
    ));
    assert!(shares(access));
    assert!(shares(&numa(
        "<cell memAccess='shared'/><cell memAccess='shared'/>"
    )));
    assert!(!shares(&numa("<cell memAccess='shared'/><cell/>")));
    assert!(shares(
        &[access, &numa("<cell memAccess='shared'/><cell/>")].concat()
    ));
    assert!(!shares(
        &[access, &numa("<cell/><cell memAccess='private'/>")].concat()
    ));
}
