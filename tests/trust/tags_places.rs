//! Tags on every storage: what its other clients change, move or roll back is an error for exactly
//! these blocks, and is believed where no tags are looked at.

use std::fs;
use std::os::unix::fs::DirBuilderExt as _;

use luksmith_formats::json::Value;
use rustix::process::Signal;
use support::peers;
use support::program::Serving;

use crate::places::{Detached, Device, Nbd, Place, Rbd, S3, SIZE};
use crate::site::{NOT_TRUSTED, Site};
use crate::tags_world::{BLOCK, Random};

/// What a client of the server can do.
const CLIENT: &str = "
def content(name):
    return open(name, 'rb').read()
def write(name, blocks=None, flush=True):
    bytes = content(name)
    step = 64 if blocks is None else 1
    for block in range(0, len(bytes) // 4096, 64) if blocks is None else blocks:
        h.pwrite(bytes[block * 4096:(block + step) * 4096], block * 4096)
    if flush:
        h.flush()
def check(name, damaged, other=None):
    found = []
    expected = content(name)
    others = content(other or name)
    def read(block, count):
        try:
            read = h.pread(count * 4096, block * 4096)
        except nbd.Error as error:
            assert error.errno == 'EIO', error
            return False
        for at in range(0, len(read), 4096):
            here = slice(block * 4096 + at, block * 4096 + at + 4096)
            assert read[at:at + 4096] in (expected[here], others[here]), (block, at)
        return True
    for first in range(0, h.get_size() // 4096, 64):
        # A request fails if one of its blocks does.
        if not read(first, 64):
            bad = [block for block in range(first, first + 64) if not read(block, 1)]
            assert bad, first
            found += bad
    assert found == damaged, found
";

/// A server, with further options.
fn serve(site: &Site, place: &dyn Place, more: &str) -> Serving {
    let folder = fs::DirBuilder::new().mode(0o700).create(site.path("s"));
    assert!(folder.is_ok() || site.path("s").is_dir());
    let socket = site.path("s/nbd.sock");
    let _ = fs::remove_file(&socket);
    let name = place.name();
    let line = format!("serve {name} --key-file key --socket s/nbd.sock{more}");
    Serving::start(&mut site.command(&line), &socket)
}

const TRUST: &str = " --trust pins";

/// A client of the server does this, which has to succeed.
#[track_caller]
fn client(site: &Site, serving: &Serving, program: &str) {
    let mut nbdsh = site.of(&peers::find("nbdsh").unwrap(), "-u");
    // Its binding is for the python3 of the system.
    nbdsh.env("PATH", "/usr/bin:/bin").arg(&serving.uri);
    let output = peers::output(nbdsh.args(["-c", CLIENT, "-c", program]));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program}: {said}");
}

/// One client of a server with tags.
#[track_caller]
fn served(site: &Site, place: &dyn Place, program: &str) {
    let serving = serve(site, place, TRUST);
    client(site, &serving, program);
    serving.stop();
}

/// `trust verify` finds these blocks.
#[track_caller]
fn verify(site: &Site, place: &dyn Place, damaged: &[usize]) {
    let name = place.name();
    let line = format!("trust verify {name} --trust pins --key-file key --json");
    let output = peers::output(&mut site.command(&line));
    let said = String::from_utf8_lossy(&output.stderr);
    let result: Value = String::from_utf8(output.stdout).unwrap().parse().unwrap();
    let tags = &result["tags"];
    assert_eq!(tags["size"].as_u64(), Some(SIZE as u64));
    let found = tags["altered_at"].as_array().unwrap().iter();
    let found = found.map(|at| usize::try_from(at.as_u64().unwrap()).unwrap());
    let found: Vec<_> = found.map(|at| (at - place.data()) / BLOCK).collect();
    assert_eq!(found, damaged);
    assert_eq!(tags["altered"].as_u64(), Some(found.len() as u64));
    let code = if found.is_empty() { 0 } else { NOT_TRUSTED };
    assert_eq!(output.status.code(), Some(code), "{said}");
}

/// The plaintext that a reader without tags gets.
fn believed(site: &Site, place: &dyn Place) -> Vec<u8> {
    let name = place.name();
    site.ok(&format!(
        "decrypt {name} believed --key-file key --force overwrite"
    ));
    site.read("believed")
}

fn payload(seed: u64) -> Vec<u8> {
    let mut random = Random(seed);
    let words = std::iter::repeat_with(|| random.below(u64::MAX).to_le_bytes());
    words.flatten().take(SIZE).collect()
}

fn block(image: &[u8], number: usize) -> &[u8] {
    &image[number * BLOCK..(number + 1) * BLOCK]
}

/// `image` with some blocks of another one.
fn with_blocks(image: &[u8], other: &[u8], blocks: &[usize]) -> Vec<u8> {
    let mut image = image.to_vec();
    for number in blocks {
        let at = number * BLOCK..(number + 1) * BLOCK;
        image[at.clone()].copy_from_slice(&other[at]);
    }
    image
}

/// Blocks that are written a second time.
const CHANGED: [usize; 4] = [7, 100, 101, 511];

fn is_noticed(site: &Site, place: &dyn Place, how: &str) {
    if peers::find("nbdsh").is_none() {
        return;
    }
    let (name, data) = (place.name(), place.data());
    let (old, second) = (payload(1), payload(2));
    let new = with_blocks(&old, &second, &CHANGED);
    site.write("zeroes", &vec![0; SIZE]);
    site.write("old", &old);
    site.write("new", &new);
    site.ok(&format!(
        "trust init {name} --trust pins {how} --key-file key"
    ));
    if how == "--tags=fresh" {
        let mut image = place.load();
        image[data..].copy_from_slice(&second);
        place.store(&image);
        served(site, place, "check('zeroes', [])");
    }
    served(site, place, "write('old'); check('old', [])");
    let (first, before) = (place.keep(), place.load());
    served(
        site,
        place,
        &format!("check('old', []); write('new', {CHANGED:?}); check('new', [])"),
    );
    let (last, honest) = (place.keep(), place.load());
    verify(site, place, &[]);

    // A bit is flipped, a block rolled back, and two blocks are swapped.
    let mut lie = honest.clone();
    lie[data + 3 * BLOCK + 77] ^= 1;
    let lie_of = |lie: &mut Vec<u8>, to: usize, from: &[u8]| {
        lie[data + to * BLOCK..][..BLOCK].copy_from_slice(from);
    };
    lie_of(&mut lie, 7, block(&before[data..], 7));
    lie_of(&mut lie, 20, block(&honest[data..], 21));
    lie_of(&mut lie, 21, block(&honest[data..], 20));
    place.store(&lie);
    verify(site, place, &[3, 7, 20, 21]);
    let decrypt = format!("decrypt {name} plain --trust pins --key-file key");
    let said = site.fails(NOT_TRUSTED, &decrypt);
    let at = format!("byte {}", data + 3 * BLOCK);
    assert!(said.contains(&at), "{said}");
    served(
        site,
        place,
        "check('new', [3, 7, 20, 21]); write('new', [3]); check('new', [7, 20, 21])",
    );
    // The positive control.
    let plain = believed(site, place);
    assert!(block(&plain, 7) == block(&old, 7));
    assert!(block(&plain, 20) != block(&new, 20));
    assert!(block(&plain, 22) == block(&new, 22));

    // All of it is rolled back.
    first();
    verify(site, place, &CHANGED);
    served(site, place, &format!("check('new', {CHANGED:?})"));
    assert!(believed(site, place) == old);

    last();
    verify(site, place, &[]);
    served(site, place, "check('new', [])");
}

/// Blocks that are discarded, and such that are overwritten with zeroes.
const DISCARDED: &str = "\
h.trim(8 * 4096, 40 * 4096)
h.zero(4 * 4096, 60 * 4096)
h.zero(1024, 70 * 4096 + 512)
h.flush()
check('now', [])";

fn is_discarded(site: &Site, place: &dyn Place) {
    if peers::find("nbdsh").is_none() {
        return;
    }
    let (name, data) = (place.name(), place.data());
    let old = payload(1);
    let mut now = old.clone();
    now[40 * BLOCK..48 * BLOCK].fill(0);
    now[60 * BLOCK..64 * BLOCK].fill(0);
    now[70 * BLOCK + 512..70 * BLOCK + 1536].fill(0);
    site.write("old", &old);
    site.write("now", &now);
    site.ok(&format!(
        "trust init {name} --trust pins --tags=fresh --key-file key"
    ));
    for (policy, damaged) in [
        ("pass", &[60, 63, 70][..]),
        // What is discarded has content, whose tag is kept.
        ("zeroes", &[40, 47, 60, 63, 70][..]),
    ] {
        let serving = serve(site, place, &format!("{TRUST} --discard {policy}"));
        client(site, &serving, &format!("write('old')\n{DISCARDED}"));
        serving.stop();
        let last = place.keep();
        served(site, place, "check('now', [])");
        verify(site, place, &[]);
        let mut lie = place.load();
        for number in [40, 47, 60, 63, 70] {
            lie[data + number * BLOCK..][..BLOCK].copy_from_slice(block(&old, number));
        }
        place.store(&lie);
        verify(site, place, damaged);
        served(site, place, &format!("check('now', {damaged:?})"));
        // The positive control.
        assert!(believed(site, place)[40 * BLOCK..41 * BLOCK] != now[40 * BLOCK..41 * BLOCK]);
        last();
        verify(site, place, &[]);
    }
}

/// A server is killed: what it had flushed counts, and of later writes each block has the old or
/// the new content.
fn is_killed(site: &Site, place: &dyn Place, take_over: impl Fn()) {
    if peers::find("nbdsh").is_none() {
        return;
    }
    let name = place.name();
    let (old, second) = (payload(1), payload(2));
    let flushed: Vec<usize> = (10..15).collect();
    let unflushed: Vec<usize> = (30..40).collect();
    let new = with_blocks(&old, &second, &flushed);
    site.write("old", &old);
    site.write("new", &new);
    site.write("newer", &with_blocks(&new, &second, &unflushed));
    site.ok(&format!(
        "trust init {name} --trust pins --tags=fresh --key-file key"
    ));
    served(site, place, "write('old')");
    let first = place.keep();
    let serving = serve(site, place, TRUST);
    client(
        site,
        &serving,
        &format!("write('new', {flushed:?}); write('newer', {unflushed:?}, False)"),
    );
    serving.signal(Signal::KILL);
    drop(serving);
    let last = place.keep();
    verify(site, place, &[]);
    first();
    verify(site, place, &flushed);
    last();
    take_over();
    served(site, place, "check('new', [], 'newer')");
    verify(site, place, &[]);
}

#[test]
fn lies_of_an_nbd_server_are_noticed() {
    for how in ["--tags", "--tags=fresh"] {
        let site = Site::new();
        let Some(place) = Nbd::new(&site) else { return };
        is_noticed(&site, &place, how);
    }
}

#[test]
fn lies_of_a_ceph_cluster_are_noticed() {
    let site = Site::new();
    let Some(place) = Rbd::new(&site, "lies") else {
        return;
    };
    is_noticed(&site, &place, "--tags");
}

#[test]
fn lies_of_an_object_store_are_noticed() {
    for how in ["--tags", "--tags=fresh"] {
        let site = Site::new();
        is_noticed(&site, &S3::new(&site), how);
    }
}

#[test]
fn lies_of_a_block_device_are_noticed() {
    let site = Site::new();
    let Some(place) = Device::new(&site) else {
        return;
    };
    is_noticed(&site, &place, "--tags");
}

#[test]
fn lies_of_a_storage_without_the_header_are_noticed() {
    let site = Site::new();
    is_noticed(&site, &Detached::new(&site), "--tags");
}

#[test]
fn what_is_discarded_on_an_nbd_server_reads_as_zeroes() {
    let site = Site::new();
    let Some(place) = Nbd::new(&site) else { return };
    is_discarded(&site, &place);
}

#[test]
fn what_is_discarded_in_ceph_reads_as_zeroes() {
    let site = Site::new();
    let Some(place) = Rbd::new(&site, "discards") else {
        return;
    };
    is_discarded(&site, &place);
}

#[test]
fn a_server_that_is_killed_with_a_remote_storage_leaves_no_false_alarm() {
    let site = Site::new();
    let store = S3::new(&site);
    let name = store.name();
    let take_over = format!("objects take-over {name} --force in-use");
    is_killed(&site, &store, || {
        site.ok(&take_over);
    });
    let site = Site::new();
    if let Some(place) = Nbd::new(&site) {
        is_killed(&site, &place, || {});
    }
}

/// The storage lies while the volume is served.
#[test]
fn an_nbd_server_that_lies_to_a_running_server_is_noticed() {
    let site = Site::new();
    let Some(place) = Nbd::new(&site) else { return };
    if peers::find("nbdsh").is_none() {
        return;
    }
    let name = place.name();
    site.write("old", &payload(1));
    site.ok(&format!(
        "trust init {name} --trust pins --tags=fresh --key-file key"
    ));
    let serving = serve(&site, &place, TRUST);
    client(&site, &serving, "write('old'); check('old', [])");
    let mut lie = place.load();
    lie[place.data() + 9 * BLOCK] ^= 0x80;
    place.store(&lie);
    // A part of the block cannot be written.
    let program = "\
check('old', [9])
try:
    h.pwrite(bytes(512), 9 * 4096)
    raise SystemExit('a part was written')
except nbd.Error as error:
    assert error.errno == 'EIO', error
write('old', [9])
check('old', [])";
    client(&site, &serving, program);
    serving.stop();
    verify(&site, &place, &[]);
}
