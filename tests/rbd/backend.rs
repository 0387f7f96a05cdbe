//! The backend keeps the contract, on images of every shape.

use std::sync::Arc;
use std::time::Duration;

use luksmith::backend::conformance::{self, Access, Clause, Opened};
use luksmith::backend::rbd::{AbsentImage, Problem, RbdBackend, RbdError, RbdOptions};
use luksmith::backend::section::Section;
use luksmith::backend::{Allocation, Backend, IoError, Operation};
use luksmith::sectors::{Cipher, Sectors};
use luksmith_formats::rbd::Uri;

use crate::program::{Site, content};

fn uri(site: &Site, image: &str) -> Uri {
    Uri::parse(&site.ceph.uri(image)).unwrap()
}

fn open(site: &Site, image: &str, write: bool) -> Result<RbdBackend, RbdError> {
    RbdBackend::open(&uri(site, image), RbdOptions::new().write(write))
}

fn problem(opened: Result<RbdBackend, RbdError>) -> Problem {
    opened.map(|_| "opened").unwrap_err().source
}

fn skipped<'a>(opened: impl Fn(Access) -> Opened<'a>) -> Vec<Clause> {
    let report = conformance::check(opened).unwrap_or_else(|violation| panic!("{violation:?}"));
    report.skipped().iter().map(|(clause, _)| *clause).collect()
}

#[test]
fn images_of_every_shape_keep_the_contract() {
    let Some(site) = Site::new() else { return };
    site.ceph.rbd("namespace create rbd/tenant");
    for (image, options) in [
        ("conform", ""),
        ("conform-small", "--object-size 4K"),
        (
            "conform-striped",
            "--object-size 64K --stripe-unit 8K --stripe-count 3",
        ),
        ("tenant/conform", ""),
        ("conform-plain", "--image-feature exclusive-lock"),
    ] {
        // Not in whole objects.
        site.ceph
            .rbd(&format!("create rbd/{image} --size 3M {options}"));
        let opened = |access| -> Opened<'_> {
            Ok(Box::new(open(&site, image, access == Access::ReadWrite)?))
        };
        // Any byte can be written, and space is not reserved.
        let expected = [Clause::WholeBlocks, Clause::Reserve];
        assert_eq!(skipped(opened), expected, "{image}");
    }
}

#[test]
fn a_part_of_an_image_keeps_the_contract() {
    let Some(site) = Site::new() else { return };
    site.ceph.rbd("create rbd/part --size 8M");
    let around = content(1, 1 << 20);
    let write = |at| {
        let mut bytes = Sectors::<Cipher>::with_len(around.len());
        bytes.as_mut_slice().copy_from_slice(&around);
        open(&site, "part", true)
            .unwrap()
            .write_at(at, &bytes)
            .unwrap();
    };
    let part = 1 << 20..6 << 20;
    write(0);
    write(part.end);
    let opened = |access| -> Opened<'_> {
        let image = open(&site, "part", access == Access::ReadWrite)?;
        Ok(Box::new(Section::new(image, part.clone())?))
    };
    assert!(!skipped(opened).contains(&Clause::Discard));
    let image = open(&site, "part", false).unwrap();
    for at in [0, part.end] {
        let mut bytes = Sectors::<Cipher>::with_len(around.len());
        image.read_at(at, &mut bytes).unwrap();
        assert!(bytes.as_slice() == around, "at byte {at}");
    }
}

#[test]
fn a_snapshot_is_read_and_never_written() {
    let Some(site) = Site::new() else { return };
    site.ceph.rbd("create rbd/snapped --size 4M");
    let write = |fill: u8| {
        let mut bytes = Sectors::<Cipher>::with_len(4096);
        bytes.as_mut_slice().fill(fill);
        let image = open(&site, "snapped", true).unwrap();
        image.write_at(0, &bytes).unwrap();
        image.flush().unwrap();
    };
    write(1);
    site.ceph.rbd("snap create rbd/snapped@before");
    write(2);
    let snapshot = open(&site, "snapped@before", false).unwrap();
    let mut bytes = Sectors::<Cipher>::with_len(4096);
    snapshot.read_at(0, &mut bytes).unwrap();
    assert!(bytes.as_slice().iter().all(|byte| *byte == 1));
    let refused = snapshot.write_at(0, &bytes);
    assert!(matches!(refused, Err(IoError::ReadOnly(Operation::Write))));
    assert!(matches!(
        problem(open(&site, "snapped@before", true)),
        Problem::Snapshot
    ));
    assert!(matches!(
        problem(open(&site, "snapped@after", false)),
        Problem::NoSnapshot
    ));
}

#[test]
fn holes_are_told_and_zeroed_parts_of_objects_read_as_zeroes() {
    let Some(site) = Site::new() else { return };
    site.ceph.rbd("create rbd/holes --size 64M");
    let image = open(&site, "holes", true).unwrap();
    let mut bytes = Sectors::<Cipher>::with_len(1 << 20);
    bytes.as_mut_slice().fill(7);
    image.write_at(8 << 20, &bytes).unwrap();
    let all = image.extents(0..64 << 20).unwrap();
    let expected = [
        (8 << 20, Allocation::Hole),
        (1 << 20, Allocation::Data),
        (55 << 20, Allocation::Hole),
    ];
    assert_eq!(all, expected);
    // Less than an object, at odd bytes.
    let (start, end) = ((8 << 20) + 101, (8 << 20) + 70_001);
    image.discard(start..end).unwrap();
    let mut read = Sectors::<Cipher>::with_len(70_102);
    image.read_at(8 << 20, &mut read).unwrap();
    let (before, rest) = read.as_slice().split_at(101);
    let (zeroes, after) = rest.split_at(69_900);
    assert!(before.iter().chain(after).all(|byte| *byte == 7));
    assert!(zeroes.iter().all(|byte| *byte == 0));
}

#[test]
fn an_image_has_one_identity_by_all_its_names() {
    let Some(site) = Site::new() else { return };
    site.ceph.rbd("create rbd/named --size 1M");
    let other = format!("{}&id=admin", site.ceph.uri("named"));
    let id = |image: &RbdBackend| image.id().unwrap();
    let one = id(&open(&site, "named", false).unwrap());
    let other = RbdBackend::open(&Uri::parse(&other).unwrap(), RbdOptions::new()).unwrap();
    assert_eq!(one, id(&other));
    assert!(!one.cluster.is_empty() && !one.image.is_empty());
    // The name goes to another image.
    site.ceph.rbd("rename rbd/named rbd/renamed");
    site.ceph.rbd("create rbd/named --size 1M");
    assert_ne!(one, id(&open(&site, "named", false).unwrap()));
    assert_eq!(one, id(&open(&site, "renamed", false).unwrap()));
}

#[test]
fn a_new_image_is_removed_unless_it_is_kept() {
    let Some(site) = Site::new() else { return };
    let look = |name| AbsentImage::look(&uri(&site, name), RbdOptions::new()).unwrap();
    let names = || site.ceph.rbd("ls rbd");
    let (image, made) = look("made").unwrap().make(5 << 20).unwrap();
    assert_eq!((image.geometry().size, image.period()), (5 << 20, 4 << 20));
    assert!(names().contains("made\n"));
    drop(image);
    drop(made);
    assert!(!names().contains("made\n"), "{}", names());
    let twice = [look("made").unwrap(), look("made").unwrap()];
    let [first, second] = twice;
    let (image, made) = first.make(1 << 20).unwrap();
    made.keep();
    drop(image);
    assert!(look("made").is_none());
    let error = second.make(1 << 20).map(|_| ()).unwrap_err();
    assert!(matches!(error.source, Problem::Exists));
    assert!(names().contains("made\n"));
}

#[test]
fn what_is_missing_is_named() {
    let Some(site) = Site::new() else { return };
    let conf = site.ceph.conf();
    let conf = conf.display();
    let open = |text: &str| {
        let options = RbdOptions::new().timeout(Duration::from_secs(2));
        problem(RbdBackend::open(&Uri::parse(text).unwrap(), options))
    };
    let found = open(&format!("rbd://other/x?conf={conf}"));
    assert!(matches!(found, Problem::NoPool), "{found:?}");
    let found = open(&format!("rbd://rbd/absent?conf={conf}"));
    assert!(matches!(found, Problem::NoImage), "{found:?}");
    let found = open("rbd://rbd/x?conf=/nowhere/ceph.conf");
    assert!(matches!(found, Problem::Configuration { .. }), "{found:?}");
    let found = open(&format!("rbd://rbd/x?id=nobody&conf={conf}"));
    assert!(matches!(found, Problem::Denied { .. }), "{found:?}");
    // No monitor listens there.
    site.write(
        "dead.conf",
        b"[global]\nmon host = 127.0.0.1:1\nauth client required = none\n",
    );
    let found = open(&format!(
        "rbd://rbd/x?conf={}",
        site.path("dead.conf").display()
    ));
    assert!(matches!(found, Problem::Unreachable(_)), "{found:?}");
}

#[test]
fn one_writer_has_an_image_and_any_number_read_it() {
    let Some(site) = Site::new() else { return };
    site.ceph.rbd("create rbd/single --size 4M");
    let writer = Arc::new(open(&site, "single", true).unwrap());
    let Problem::Busy(holders) = problem(open(&site, "single", true)) else {
        panic!("a second writer");
    };
    assert!(holders[0].starts_with("127.0.0.1:"), "{holders:?}");
    // A reader sees at once what is written, and takes nothing from the writer.
    let reader = open(&site, "single", false).unwrap();
    for fill in [1, 2] {
        let mut bytes = Sectors::<Cipher>::with_len(512);
        bytes.as_mut_slice().fill(fill);
        writer.write_at(0, &bytes).unwrap();
        let mut read = Sectors::<Cipher>::with_len(512);
        reader.read_at(0, &mut read).unwrap();
        assert!(read.as_slice() == bytes.as_slice());
    }
    drop(writer);
    open(&site, "single", true).unwrap();

    site.ceph
        .rbd("create rbd/unlocked --size 4M --image-feature layering");
    assert!(matches!(
        problem(open(&site, "unlocked", true)),
        Problem::NoLock
    ));
    open(&site, "unlocked", false).unwrap();
}
