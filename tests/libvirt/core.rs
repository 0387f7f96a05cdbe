//! The types over libvirt's functions: what is stored is returned, and each failure has its own
//! error.

use std::io::Cursor;

use luksmith::libvirt::xml::{DomainXml, Usage};
use luksmith::libvirt::{Affect, BlockCopy, ConnectOptions, Connection, DomainView, LibvirtError};
use luksmith::secret::Passphrase;
use uuid::Uuid;

use crate::daemon::Daemon;
use support::peers;

fn secret_xml(usage: &str, private: &str) -> String {
    format!(
        "<secret ephemeral='no' private='{private}'><usage type='volume'><volume>{usage}</volume></usage></secret>"
    )
}

#[test]
fn secrets_keep_any_bytes_and_are_found_by_uuid_and_by_use() {
    let Some(daemon) = Daemon::start() else {
        return;
    };
    let connection = daemon.connect();
    assert_eq!(connection.driver().unwrap(), "QEMU");
    assert!(connection.version().unwrap() >= (4, 5, 0));
    assert_eq!(connection.secrets().unwrap().len(), 0);

    let usage = Usage::volume("/pool/ö disk");
    let secret = connection
        .define_secret(&secret_xml(&usage.id, "no"))
        .unwrap();
    assert!(
        matches!(secret.value(), Err(LibvirtError::NoValue(_))),
        "{:?}",
        secret.value()
    );
    for value in [&b"plain"[..], b"\0\xff\n not text", &[7; 65536]] {
        secret
            .set_value(&Passphrase::copy_from(value).unwrap())
            .unwrap();
        assert_eq!(secret.value().unwrap().as_bytes(), value);
    }
    let too_long = Passphrase::copy_from(&[7; 65537]).unwrap();
    assert!(matches!(
        secret.set_value(&too_long),
        Err(LibvirtError::TooLong { len: 65537, .. })
    ));

    let uuid = secret.uuid().unwrap();
    assert_eq!(
        connection.secret(&uuid).unwrap().usage().unwrap(),
        Some(usage.clone())
    );
    assert_eq!(connection.secret_for(&usage).unwrap().uuid().unwrap(), uuid);
    assert!(secret.xml().unwrap().contains("/pool/ö disk"));
    assert_eq!(connection.secrets().unwrap().len(), 1);

    let again = connection.define_secret(&secret_xml(&usage.id, "no"));
    assert!(
        matches!(again, Err(LibvirtError::DuplicateUsage(_))),
        "{again:?}"
    );
    secret.undefine().unwrap();
    assert!(matches!(
        secret.value(),
        Err(LibvirtError::NoValue(_) | LibvirtError::NoSecret(_))
    ));
    assert!(matches!(
        connection.secret(&uuid),
        Err(LibvirtError::NoSecret(_))
    ));
    assert!(matches!(
        connection.secret_for(&usage),
        Err(LibvirtError::NoSecret(_))
    ));
    assert!(matches!(
        connection.secret(&Uuid::nil()),
        Err(LibvirtError::NoSecret(_))
    ));
    assert!(matches!(
        connection.define_secret("<secret>"),
        Err(LibvirtError::Invalid(_))
    ));
}

#[test]
fn the_value_of_a_private_secret_is_not_returned() {
    let Some(daemon) = Daemon::start() else {
        return;
    };
    let connection = daemon.connect();
    let secret = connection.define_secret(&secret_xml("/a", "yes")).unwrap();
    secret
        .set_value(&Passphrase::copy_from(b"hidden").unwrap())
        .unwrap();
    assert!(
        matches!(secret.value(), Err(LibvirtError::Private(_))),
        "{:?}",
        secret.value()
    );
}

#[test]
fn a_read_only_connection_changes_nothing_and_sees_no_value() {
    let Some(daemon) = Daemon::start() else {
        return;
    };
    let secret = daemon
        .connect()
        .define_secret(&secret_xml("/a", "no"))
        .unwrap();
    let value = Passphrase::copy_from(b"value").unwrap();
    secret.set_value(&value).unwrap();
    let socket = daemon.uri().replace("libvirt-sock", "libvirt-sock-ro");
    let options = ConnectOptions::new().uri(socket.clone()).read_only(true);
    let reader = Connection::open(&options).unwrap();
    let seen = reader.secret(&secret.uuid().unwrap()).unwrap();
    assert!(
        matches!(seen.value(), Err(LibvirtError::Denied(_))),
        "{:?}",
        seen.value()
    );
    assert!(matches!(
        seen.set_value(&value),
        Err(LibvirtError::Denied(_))
    ));
    assert!(matches!(seen.undefine(), Err(LibvirtError::Denied(_))));

    // A read-only connection may list the secrets.
    let listed = daemon.ok(&format!("libvirt secret list --json --connect {socket}"));
    let row = &listed.json()["secrets"][0];
    assert_eq!(row["secret"], secret.uuid().unwrap().to_string());
    assert!(row["has_value"].is_null(), "{row}");
}

#[test]
fn a_missing_libvirt_and_a_driver_without_secrets_have_errors_of_their_own() {
    if Daemon::start().is_none() {
        return;
    }
    let open = |uri: &str| Connection::open(&ConnectOptions::new().uri(uri.to_owned()));
    for uri in [
        "qemu:///system?socket=/nonexistent/sock",
        "nosuch:///x",
        "qemu+unix:///nonsense",
    ] {
        assert!(
            matches!(open(uri), Err(LibvirtError::Connection(_))),
            "{uri}: {:?}",
            open(uri)
        );
    }
    assert!(matches!(
        open("test:///def\0ault"),
        Err(LibvirtError::Nul(_))
    ));
    let test = open("test:///default").unwrap();
    assert!(
        matches!(test.secrets(), Err(LibvirtError::Unsupported(_))),
        "{:?}",
        test.secrets()
    );
    let domain = test.domain("test").unwrap();
    assert!(domain.is_active().unwrap());
    assert_eq!(
        test.domain(&domain.uuid().unwrap().to_string())
            .unwrap()
            .name()
            .unwrap(),
        "test"
    );
    assert!(matches!(
        test.domain("nosuch"),
        Err(LibvirtError::NoDomain(_))
    ));
    assert!(matches!(test.pool("nosuch"), Err(LibvirtError::NoPool(_))));
}

#[test]
fn volumes_are_made_filled_read_resized_and_deleted() {
    let Some(daemon) = Daemon::start() else {
        return;
    };
    let connection = daemon.connect();
    let folder = daemon.folder();
    let xml = format!(
        "<pool type='dir'><name>p</name><target><path>{}</path></target></pool>",
        folder.display()
    );
    let pool = connection.define_pool(&xml).unwrap();
    assert!(!pool.is_active().unwrap());
    assert!(matches!(pool.refresh(), Err(LibvirtError::State(_))));
    pool.start().unwrap();
    assert_eq!(connection.pools().unwrap().len(), 1);
    assert!(pool.info().unwrap().capacity > 0);

    let volume = "<volume><name>v</name><capacity unit='bytes'>1048576</capacity><target><format type='raw'/></target></volume>";
    let made = pool.create_volume(volume).unwrap();
    assert!(matches!(
        pool.create_volume(volume),
        Err(LibvirtError::Exists(_))
    ));
    assert_eq!(made.path().unwrap(), folder.join("v").display().to_string());
    assert_eq!(
        connection
            .volume_by_path(&made.path().unwrap())
            .unwrap()
            .name()
            .unwrap(),
        "v"
    );
    assert_eq!(made.pool().unwrap().name().unwrap(), "p");

    let data: Vec<u8> = (0..700_000u32)
        .map(|at| at.to_le_bytes()[0] ^ at.to_le_bytes()[1])
        .collect();
    made.upload(&connection, 4096, &mut Cursor::new(&data))
        .unwrap();
    let mut back = Vec::new();
    made.download(&connection, 4096, Some(700_000), &mut back)
        .unwrap();
    assert_eq!(back, data);
    back.clear();
    made.download(&connection, 0, None, &mut back).unwrap();
    assert_eq!((back.len(), &back[4096..704_096]), (1 << 20, &data[..]));

    made.resize(2 << 20, false).unwrap();
    assert_eq!(made.info().unwrap().capacity, 2 << 20);
    pool.refresh().unwrap();
    assert_eq!(pool.volumes().unwrap().len(), 1);
    made.delete().unwrap();
    assert!(matches!(pool.volume("v"), Err(LibvirtError::NoVolume(_))));
    assert!(matches!(
        connection.volume_by_path("/nonexistent"),
        Err(LibvirtError::NoVolume(_))
    ));
    pool.stop().unwrap();
    pool.undefine().unwrap();
}

#[test]
fn devices_are_attached_to_and_detached_from_running_and_defined_domains() {
    let Some(daemon) = Daemon::start() else {
        return;
    };
    let Some(emulator) = peers::find("qemu-system-x86_64") else {
        return;
    };
    let connection = daemon.connect();
    let image = daemon.folder().join("x.img");
    std::fs::write(&image, vec![0; 1 << 20]).unwrap();
    let xml = format!(
        "<domain type='qemu'><name>d</name><memory unit='MiB'>32</memory><os><type machine='pc'>hvm</type></os><features><acpi/></features>\
         <devices><emulator>{}</emulator></devices></domain>",
        emulator.display()
    );
    let domain = connection.define_domain(&xml).unwrap();
    assert!(
        !domain.is_active().unwrap()
            && domain.is_persistent().unwrap()
            && !domain.autostart().unwrap()
    );
    let disk = format!(
        "<disk type='file'><driver name='qemu' type='raw'/><source file='{}'/><target dev='vda' bus='virtio'/></disk>",
        image.display()
    );
    let described = |inactive| {
        domain
            .xml(DomainView::new().inactive(inactive).secure(true))
            .unwrap()
            .contains("x.img")
    };
    let (now, later) = (Affect::new().live(true), Affect::new().config(true));
    domain.attach(&disk, later).unwrap();
    assert!(described(true));
    domain.detach(&disk, later).unwrap();
    assert!(!described(true));
    assert!(matches!(
        domain.attach(&disk, now),
        Err(LibvirtError::State(_))
    ));

    domain.start().unwrap();
    assert!(domain.is_active().unwrap());
    domain.attach(&disk, now).unwrap();
    assert!(described(false) && !described(true));
    assert_eq!(domain.block_info("vda").unwrap().capacity, 1 << 20);
    let answer = domain
        .monitor_command(c"{\"execute\":\"query-status\"}")
        .unwrap();
    assert!(answer.contains("\"running\":true"), "{answer}");
    domain.destroy().unwrap();
    assert!(matches!(domain.destroy(), Err(LibvirtError::State(_))));
    assert!(matches!(
        domain.monitor_command(c"{}"),
        Err(LibvirtError::State(_))
    ));
    domain.undefine().unwrap();
    assert!(matches!(
        connection.domain("d"),
        Err(LibvirtError::NoDomain(_))
    ));
}

#[test]
fn a_disk_is_copied_while_its_domain_runs() {
    let Some(daemon) = Daemon::start() else {
        return;
    };
    let Some(domain) = crate::domains::define(&daemon, "d") else {
        return;
    };
    let folder = daemon.folder();
    let disk = |name: &str| {
        let path = folder.join(name);
        format!(
            "<disk type='file'><driver name='qemu' type='raw'/><source file='{}'/><target dev='vda' bus='virtio'/></disk>",
            path.display()
        )
    };
    let old: Vec<u8> = (0..251).cycle().take(1 << 20).collect();
    std::fs::write(folder.join("old"), &old).unwrap();
    std::fs::write(folder.join("new"), vec![0; 1 << 20]).unwrap();
    domain
        .attach(&disk("old"), Affect::new().config(true))
        .unwrap();
    assert!(!domain.is_saved().unwrap());
    assert_eq!(
        (domain.snapshots().unwrap(), domain.checkpoints().unwrap()),
        (0, 0)
    );
    let copy = BlockCopy::new().synchronous_writes(true);
    let refused = domain.block_copy("vda", &disk("new"), copy);
    assert!(
        matches!(refused, Err(LibvirtError::State(_))),
        "{refused:?}"
    );

    domain.start().unwrap();
    assert!(!domain.has_job().unwrap());
    assert_eq!(domain.block_job("vda").unwrap(), None);
    let slow = copy.bandwidth(Some(1));
    domain.block_copy("vda", &disk("new"), slow).unwrap();
    assert!(domain.block_job("vda").unwrap().unwrap().is_copy);
    assert!(domain.pivot("vda").is_err(), "the copy is not complete");
    domain.abort_block_job("vda").unwrap();
    assert_eq!(domain.block_job("vda").unwrap(), None);

    domain.block_copy("vda", &disk("new"), copy).unwrap();
    let ready = || {
        let xml = domain.xml(DomainView::new()).unwrap();
        let xml = DomainXml::parse(xml.as_bytes()).unwrap();
        xml.disk("vda").unwrap().mirror_ready
    };
    crate::program::wait_until("the copy is complete", ready);
    let job = domain.block_job("vda").unwrap().unwrap();
    assert_eq!((job.done, job.end), (1 << 20, 1 << 20));
    domain.pivot("vda").unwrap();
    for inactive in [false, true] {
        let xml = domain.xml(DomainView::new().inactive(inactive)).unwrap();
        let xml = DomainXml::parse(xml.as_bytes()).unwrap();
        let source = xml.disk("vda").unwrap().source.clone().unwrap();
        assert_eq!(source.store.path(), folder.join("new").to_str());
    }
    domain.destroy().unwrap();
    assert!(std::fs::read(folder.join("new")).unwrap() == old);

    domain
        .update(&disk("old"), Affect::new().config(true))
        .unwrap();
    let xml = domain.xml(DomainView::new()).unwrap();
    assert!(xml.contains("/old'") && !xml.contains("/new'"), "{xml}");
}
