//! Volumes in a bucket of real S3 services: Ceph's gateway, and moto.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use luksmith::Interrupt;
use luksmith::backend::Backend;
use luksmith::backend::conformance::{self, Access, Clause, Opened};
use luksmith::container::{Container, CreateOptions, OpenOptions, Undo, Version, Which};
use luksmith::formats::Hash;
use luksmith::kdf::calibrate::Cost;
use luksmith::objects::s3::{Account, Credentials, S3Store};
use luksmith::objects::{Creation, ObjectsBackend, ObjectsOptions, Store, StoreError};
use luksmith::secret::Passphrase;
use luksmith_formats::objects::uri::Uri;
use luksmith_formats::objects::volume::Volume;
use support::moto::Moto;
use support::rgw::{BUCKET, KEY, Rgw};

fn service() -> Option<&'static Rgw> {
    Rgw::running(Path::new(env!("CARGO_TARGET_TMPDIR")))
}

/// Runs a test on every service that is there.
fn on_each(test: impl Fn(&str)) {
    if let Some(service) = service() {
        test(&service.endpoint);
    }
    if let Some(service) = Moto::running() {
        test(&service.endpoint);
    }
}

fn store_with(endpoint: &str, place: &str, secret: &str) -> Arc<S3Store> {
    let uri = Uri::parse(&format!("s3://{place}?endpoint={endpoint}")).unwrap();
    let account = Account::new(Credentials::new(KEY.0, secret, None), "us-east-1");
    Arc::new(S3Store::new(&uri, account, Duration::from_secs(20)).unwrap())
}

fn store(endpoint: &str, prefix: &str) -> Arc<S3Store> {
    store_with(endpoint, &format!("{BUCKET}/{prefix}"), KEY.1)
}

fn options() -> ObjectsOptions {
    ObjectsOptions::new().write(true)
}

#[test]
fn an_object_is_created_once_and_read_in_parts() {
    on_each(creates_once);
}

fn creates_once(endpoint: &str) {
    let store = store(endpoint, "a%20folder/%2Bplain");
    assert!(store.read("x", 0..10).unwrap().is_none());
    assert_eq!(
        store.create("x", &[b"one ", b"object"]).unwrap(),
        Creation::Created
    );
    assert_eq!(store.create("x", &[b"another"]).unwrap(), Creation::Exists);
    let read = |range| store.read("x", range).unwrap().unwrap();
    assert_eq!(read(0..u64::MAX), b"one object");
    assert_eq!(read(4..7), b"obj");
    assert_eq!(read(8..100), b"ct");
    assert!(read(10..20).is_empty());
    // More than one page of the answer.
    for number in 0..205 {
        store.create(&format!("y/{number:03}"), &[b"12"]).unwrap();
    }
    let mut listed = store.list("y/").unwrap();
    listed.sort_unstable();
    let expected: Vec<_> = (0..205)
        .map(|number| (format!("y/{number:03}"), 2))
        .collect();
    assert_eq!(listed, expected);
    store.remove("x").unwrap();
    store.remove("x").unwrap();
    assert!(store.read("x", 0..1).unwrap().is_none());
}

#[test]
fn a_wrong_key_and_a_bucket_that_is_not_there_have_their_errors() {
    let Some(service) = service() else { return };
    let place = format!("{BUCKET}/v");
    let endpoint = &service.endpoint;
    let denied = store_with(endpoint, &place, "wrong").read("volume", 0..1);
    assert!(matches!(denied, Err(StoreError::Denied(_))), "{denied:?}");
    let absent = store_with(endpoint, "no-such-bucket/v", KEY.1).read("volume", 0..1);
    assert!(matches!(absent, Err(StoreError::NoBucket)), "{absent:?}");
}

#[test]
fn a_volume_in_a_bucket_keeps_the_contract() {
    on_each(keeps_the_contract);
}

fn keeps_the_contract(endpoint: &str) {
    let store = store(endpoint, "contract");
    let volume = Volume::new([7; 16], 2 << 20).with_object_size(256 << 10);
    ObjectsBackend::create(store.clone(), &volume, &options()).unwrap();
    let report = conformance::check(|access| -> Opened<'_> {
        let options = options().write(access == Access::ReadWrite);
        Ok(Box::new(ObjectsBackend::open(
            store.clone(),
            None,
            options,
        )?))
    });
    let report = report.unwrap_or_else(|violation| panic!("{violation:?}"));
    let skipped: Vec<_> = report.skipped().iter().map(|(clause, _)| *clause).collect();
    assert_eq!(skipped, [Clause::WholeBlocks, Clause::Reserve]);
}

#[test]
fn a_luks_volume_comes_back_and_no_object_has_plaintext() {
    on_each(comes_back);
}

fn comes_back(endpoint: &str) {
    let store = store(endpoint, "luks");
    let size = 24 << 20;
    ObjectsBackend::create(store.clone(), &Volume::new([9; 16], size), &options()).unwrap();
    let open = |write| {
        let options = options().write(write);
        Arc::new(ObjectsBackend::open(store.clone(), None, options).unwrap())
    };
    let passphrase = Passphrase::copy_from(b"a passphrase").unwrap();
    let interrupt = Interrupt::new();
    let header = || OpenOptions::new(Undo::NotLookedFor);
    // Every 16 bytes are another text.
    let words = (0..500_000).flat_map(|number| format!("plain {number:>9}.").into_bytes());
    let plain: Vec<u8> = words.collect();
    {
        let storage = open(true);
        let iterations = 1000;
        let cost = Cost::Pbkdf2 {
            hash: Hash::Sha256,
            iterations,
        };
        let options = CreateOptions::new(Version::Luks2, cost);
        Container::create(storage.clone(), options, header(), &passphrase, &interrupt).unwrap();
        let container = Container::open(storage.clone(), header()).unwrap();
        let unlocked = container
            .unlock(&passphrase, Which::Any, &interrupt)
            .unwrap();
        let volume = container.volume(storage.clone(), &unlocked).unwrap();
        volume.write_at(777, &plain).unwrap();
        volume.flush().unwrap();
        drop((volume, container));
        Arc::into_inner(storage)
            .expect("the last owner")
            .close()
            .unwrap();
    }
    let storage = open(false);
    let container = Container::open(storage.clone(), header()).unwrap();
    let unlocked = container
        .unlock(&passphrase, Which::Any, &interrupt)
        .unwrap();
    let volume = container.volume(storage.clone(), &unlocked).unwrap();
    let mut found = vec![0; plain.len()];
    volume.read_at(777, &mut found).unwrap();
    assert!(found == plain);
    storage.verify().unwrap();
    assert_eq!(storage.geometry().size, size);
    let objects = store.list("").unwrap();
    assert!(objects.len() > 5, "{objects:?}");
    let mut stored = 0;
    for (name, _) in objects {
        let bytes = store.read(&name, 0..u64::MAX).unwrap().unwrap();
        stored += bytes.len();
        let shown = bytes
            .windows(8)
            .any(|part| part.starts_with(b"plain ") && part[6..] == *b"  ");
        assert!(!shown, "{name}");
    }
    assert!(stored > plain.len());
}
