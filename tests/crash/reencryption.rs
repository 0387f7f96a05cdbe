//! A reencryption that is cut: each state that a power failure can leave is taken up again, and the
//! payload is compared as a whole. A part of the states is given to cryptsetup.
//!
//! Data is written in pieces that reach the disk in any order: 512 bytes with a journal, and the
//! blocks that checksums need with checksums.

use std::ops::Range;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use luksmith::Interrupt;
use luksmith::backend::Backend;
use luksmith::backend::memory::MemoryBackend;
use luksmith::container::{
    BeginEncryption, BeginReencryption, Container, CreateOptions, OpenOptions,
    PreparedReencryption, ReencryptionKeys, Undo, Version, Which,
};
use luksmith::reencrypt::{self, Reencrypt, ReencryptError, Resume};
use luksmith::sectors::{Cipher, Sectors};
use luksmith_formats::luks2::{self, Position, Progress, Resilience, Segment, SegmentSize};
use luksmith_formats::{CipherSpec, Hash, Limits};
use support::peers;

use crate::disk::{Disk, Event, State};
use crate::part::Part;
use crate::states;
use crate::volume::{cost, passphrase};

pub(crate) const ZONE: u64 = 16384;
const AREA: u64 = 131_072;

/// A volume and how it is reencrypted.
#[derive(Clone)]
pub(crate) struct Case {
    pub(crate) name: &'static str,
    pub(crate) sectors: (u32, u32),
    cipher: &'static str,
    key_size: usize,
    keep_key: bool,
    resilience: Resilience,
    /// The size of the data in bytes.
    size: u64,
    fixed: bool,
    pub(crate) detached: bool,
    /// Whether plaintext is encrypted in place.
    encrypt: bool,
}

pub(crate) fn checksum(sector_size: u32) -> Resilience {
    let hash = Hash::Sha256;
    Resilience::Checksum { hash, sector_size }
}

pub(crate) fn case(name: &'static str, resilience: Resilience) -> Case {
    Case {
        name,
        sectors: (4096, 4096),
        cipher: "aes-xts-plain64",
        key_size: 32,
        keep_key: false,
        resilience,
        size: 2 * ZONE + 8192,
        fixed: false,
        detached: false,
        encrypt: false,
    }
}

fn cases() -> Vec<Case> {
    let journal = Resilience::Journal;
    let mut cases = vec![
        case("checksum", checksum(4096)),
        case("journal", journal.clone()),
    ];
    let mut add = |name, resilience, change: fn(&mut Case)| {
        let mut case = case(name, resilience);
        change(&mut case);
        cases.push(case);
    };
    add("checksum 512 to 4096", checksum(4096), |case| {
        case.sectors = (512, 4096);
    });
    add("journal 4096 to 512", journal.clone(), |case| {
        case.sectors = (4096, 512);
    });
    add("another cipher, the same key", journal.clone(), |case| {
        (case.cipher, case.keep_key) = ("aes-cbc-essiv:sha256", true);
    });
    add("another cipher, checksum", checksum(512), |case| {
        (case.cipher, case.sectors) = ("aes-cbc-essiv:sha256", (512, 512));
        case.size = ZONE;
    });
    add("exactly one zone, journal", journal.clone(), |case| {
        case.size = ZONE
    });
    add("fixed size", checksum(4096), |case| case.fixed = true);
    add("detached, checksum", checksum(4096), |case| {
        case.detached = true
    });
    add("detached, journal", journal, |case| case.detached = true);
    add("encrypt", checksum(4096), |case| case.encrypt = true);
    add("encrypt, detached", checksum(512), |case| {
        (case.encrypt, case.detached, case.sectors) = (true, true, (512, 512));
        (case.cipher, case.size) = ("aes-cbc-essiv:sha256", ZONE + 4096);
    });
    cases
}

impl Case {
    fn header_size(&self) -> u64 {
        let room = match self.resilience {
            Resilience::Journal => ZONE,
            _ => 4096,
        };
        32768 + 2 * AREA + room.max(4096)
    }

    /// Where the data is on the one disk that holds the header and the data.
    fn data_offset(&self) -> usize {
        usize::try_from(self.header_size()).unwrap()
    }

    pub(crate) fn payload(&self) -> Vec<u8> {
        let bytes = (0..self.size).map(|at| (at * at / 7 + at / 512 + at).to_le_bytes()[0]);
        bytes.collect()
    }

    /// The unit in which writes of data reach the disk.
    pub(crate) fn unit(&self) -> usize {
        match self.resilience {
            Resilience::Checksum { sector_size, .. } => sector_size as usize,
            _ => 512,
        }
    }

    fn options(&self) -> CreateOptions {
        let mut options = CreateOptions::new(Version::Luks2, cost());
        options.key_size = self.key_size;
        options.keyslots_size = Some(self.header_size() - 32768);
        options.data_offset = Some(if self.detached { 0 } else { self.header_size() });
        options.detached = self.detached;
        options.blank = true;
        options
    }

    /// The volume before the reencryption, or plaintext with the header of an encryption in place.
    pub(crate) fn before(&self) -> State {
        let size = self.data_offset() + usize::try_from(self.size).unwrap();
        let mut bytes = vec![0; size];
        if self.encrypt {
            bytes[self.data_offset()..].copy_from_slice(&self.payload());
        }
        let shared = Arc::new(MemoryBackend::from_bytes(bytes));
        let disk: Arc<dyn Backend> = shared.clone();
        if self.encrypt {
            self.begin_encryption(&disk);
            let disk = shared.to_bytes();
            return State::new(disk);
        }
        let (header, data) = self.parts(&disk);
        let mut options = self.options();
        options.key_size = 32;
        options.sector_size = self.sectors.0;
        let open = OpenOptions::new(Undo::NotLookedFor);
        let text = passphrase("old");
        let (container, unlocked) =
            Container::create(header, options, open, &text, &Interrupt::new()).unwrap();
        let volume = container.volume(data, &unlocked).unwrap();
        volume.write_at(0, &self.payload()).unwrap();
        drop((volume, container));
        let mut bytes = Sectors::<Cipher>::with_len(size);
        disk.read_at(0, &mut bytes).unwrap();
        let mut disk = bytes.as_slice().to_vec();
        if self.fixed {
            self.fix_size(&mut disk);
        }
        State::new(disk)
    }

    /// Makes the header of an encryption in place.
    fn begin_encryption(&self, disk: &Arc<dyn Backend>) {
        let mut options = self.options();
        options.cipher = CipherSpec::parse(self.cipher).unwrap();
        options.sector_size = self.sectors.1;
        let area = reencrypt::area_size(&self.resilience, ZONE);
        let begin = BeginEncryption::new(&options, self.resilience.clone(), area);
        let open = OpenOptions::new(Undo::NotLookedFor);
        let (header, _) = self.parts(disk);
        let (text, interrupt) = (passphrase("old"), Interrupt::new());
        Container::begin_encryption(header, &begin, open, &text, &interrupt).unwrap();
    }

    /// Makes the size of the segment fixed.
    fn fix_size(&self, disk: &mut [u8]) {
        let parsed = luks2::Header::parse(&disk[..16384], Position::Primary, &Limits::default());
        let mut header = parsed.unwrap();
        let Segment::Crypt(mut segment) = header.metadata.segments()[&0].clone() else {
            panic!("not encrypted")
        };
        segment.size = SegmentSize::Fixed(self.size);
        header
            .metadata
            .set_segment(0, &Segment::Crypt(segment))
            .unwrap();
        for (position, at) in [(Position::Primary, 0), (Position::Secondary, 16384)] {
            let bytes = header.to_bytes(position, &[7; 64]).unwrap();
            disk[at..at + bytes.len()].copy_from_slice(&bytes);
        }
    }

    /// The storage of the header and that of the data.
    pub(crate) fn parts(&self, disk: &Arc<dyn Backend>) -> (Arc<dyn Backend>, Arc<dyn Backend>) {
        if !self.detached {
            return (disk.clone(), disk.clone());
        }
        let end = disk.geometry().size;
        let part = |range: Range<u64>| Arc::new(Part(disk.clone(), range));
        (part(0..self.header_size()), part(self.header_size()..end))
    }

    /// Begins the reencryption or takes it up.
    pub(crate) fn begin(
        &self,
        disk: &Arc<dyn Backend>,
    ) -> Result<(Container, ReencryptionKeys), ReencryptError> {
        let (header, _) = self.parts(disk);
        let open = OpenOptions::new(Undo::NotLookedFor);
        let mut container = Container::open(header, open).unwrap();
        let passphrases = [passphrase("old")];
        let interrupt = Interrupt::new();
        let keys = if container.reencryption().unwrap().is_some() {
            container.unlock_reencryption(&passphrases, &interrupt)?
        } else {
            let prepared = self.prepared(&container, false)?;
            container.commit_reencryption(prepared)?
        };
        Ok((container, keys))
    }

    /// What begins the reencryption, which is not written yet.
    pub(crate) fn prepared(
        &self,
        container: &Container,
        online: bool,
    ) -> Result<PreparedReencryption, ReencryptError> {
        let passphrases = [passphrase("old")];
        let interrupt = Interrupt::new();
        let matched = container.match_keyslots(&passphrases, &interrupt).unwrap();
        let mut begin = BeginReencryption::new(
            CipherSpec::parse(self.cipher).unwrap(),
            self.key_size,
            self.sectors.1,
            cost(),
            self.resilience.clone(),
            reencrypt::area_size(&self.resilience, ZONE),
        );
        begin.keep_key = self.keep_key;
        begin.keyslots = vec![(0, &passphrases[0])];
        begin.online = online;
        Ok(container.prepare_reencryption(&matched.unlocked, &begin, &interrupt)?)
    }

    /// Begins the reencryption or takes it up, and goes on to the end.
    pub(crate) fn run(
        &self,
        disk: &Arc<dyn Backend>,
        force: bool,
    ) -> Result<Container, ReencryptError> {
        let (container, keys) = self.begin(disk)?;
        let (_, data) = self.parts(disk);
        let mut resume = Resume::default();
        resume.zone = Some(ZONE);
        resume.unverified_blocks = force;
        let mut engine = Reencrypt::resume(container, data, &keys, resume)?;
        while engine.step()? > 0 {}
        engine.finish()
    }

    /// Checks that the disk holds a volume with the payload, after it was taken up if a
    /// reencryption is in progress.
    fn check(&self, disk: Arc<dyn Backend>, what: &str) {
        let (header, data) = self.parts(&disk);
        let open = OpenOptions::new(Undo::NotLookedFor);
        let mut container = Container::open(header, open)
            .unwrap_or_else(|error| panic!("{}, {what}: {error:?}", self.name));
        if container.reencryption().unwrap().is_some() {
            self.check_as_it_is(&container, &data, what);
            container = self
                .run(&disk, false)
                .unwrap_or_else(|error| panic!("{}, {what}: {error:?}", self.name));
        }
        let unlocked = container
            .unlock(&passphrase("old"), Which::Any, &Interrupt::new())
            .unwrap_or_else(|error| panic!("{}, {what}: {error:?}", self.name));
        let volume = container.volume(data, &unlocked).unwrap();
        assert_eq!(volume.size(), self.size, "{}, {what}", self.name);
        let mut payload = vec![0; usize::try_from(self.size).unwrap()];
        volume.read_at(0, &mut payload).unwrap();
        assert!(
            payload == self.payload(),
            "{}, {what}: lost data",
            self.name
        );
    }

    /// Checks that the volume can be read without going on, if the old key is there.
    fn check_as_it_is(&self, container: &Container, data: &Arc<dyn Backend>, what: &str) {
        let keys = container.unlock_reencryption(&[passphrase("old")], &Interrupt::new());
        let volume = reencrypt::open_to_read(container, data.clone(), &keys.unwrap())
            .unwrap_or_else(|error| panic!("{}, {what}: {error:?}", self.name));
        let mut payload = vec![0; usize::try_from(self.size).unwrap()];
        volume.read_at(0, &mut payload).unwrap();
        let same = payload == self.payload();
        assert!(same, "{}, {what}: read as it is, it differs", self.name);
    }

    /// The events of a whole reencryption, with data in pieces of the unit.
    fn record(&self, before: &State) -> Vec<Event> {
        let (disk, _, log) = before.start();
        let shared: Arc<dyn Backend> = disk.clone();
        let container = self.run(&shared, false).unwrap();
        let luksmith::container::Header::Luks2(header) = container.header() else {
            panic!("not LUKS2")
        };
        assert!(header.metadata.requirements().is_empty(), "{}", self.name);
        assert_eq!(header.metadata.digests().len(), 1, "{}", self.name);
        let (_, segment) = header.metadata.data_segment().unwrap();
        assert_eq!(segment.encryption.to_string(), self.cipher);
        assert_eq!(segment.sector_size, self.sectors.1);
        let events = log.lock().unwrap().clone();
        self.split(events)
    }

    fn split(&self, events: Vec<Event>) -> Vec<Event> {
        self.split_and_place(events).0
    }

    /// The events with data in pieces of the unit, and the place of each former event among them.
    pub(crate) fn split_and_place(&self, events: Vec<Event>) -> (Vec<Event>, Vec<usize>) {
        let (mut split, mut places) = (Vec::new(), Vec::new());
        for event in events {
            places.push(split.len());
            match event {
                Event::Write { offset, bytes } if offset >= self.data_offset() => {
                    for (index, piece) in bytes.chunks(self.unit()).enumerate() {
                        split.push(Event::Write {
                            offset: offset + index * self.unit(),
                            bytes: piece.to_vec(),
                        });
                    }
                }
                other => split.push(other),
            }
        }
        places.push(split.len());
        (split, places)
    }

    /// The unit in which a write at this place is torn: 512 bytes for headers and the area, pieces
    /// of data are whole already, and keyslots are torn in few places.
    pub(crate) fn tear(&self, offset: usize) -> usize {
        match offset {
            0..32768 => 512,
            _ if offset >= self.data_offset() => self.unit(),
            _ if offset >= 32768 + 2 * 131_072 => 512,
            _ => 32768,
        }
    }
}

fn recording(state: &State) -> (Arc<Disk>, Arc<dyn Backend>, crate::disk::Log) {
    let (disk, _, log) = state.start();
    let shared: Arc<dyn Backend> = disk.clone();
    (disk, shared, log)
}

/// How many states there are between two whose recovery is cut too.
const RECOVERIES: usize = 40;

#[test]
fn no_cut_loses_data() {
    let mut states = 0;
    let cases = cases();
    std::thread::scope(|scope| {
        let (one, other) = cases.split_at(cases.len() / 2);
        let cut_all = |cases: &[Case]| cases.iter().map(cut).sum::<usize>();
        let thread = scope.spawn(move || cut_all(one));
        states = cut_all(other) + thread.join().unwrap();
    });
    assert!(states > 3000, "{states}");
}

/// Checks each state that a cut in the reencryption can leave, and for some of them each state that
/// a cut in their recovery can leave.
fn cut(case: &Case) -> usize {
    let before = case.before();
    let events = case.record(&before);
    // A short run tries every second state.
    let every = if support::is_long() { 1 } else { 2 };
    let mut count = 0;
    states::for_each_torn(
        &before,
        &events,
        |offset| case.tear(offset),
        |state, what| {
            count += 1;
            if count % every != 0 {
                return;
            }
            let (_, disk, log) = recording(state);
            case.check(disk, what);
            if count % RECOVERIES != 0 {
                return;
            }
            let again = case.split(log.lock().unwrap().clone());
            let mut number = 0;
            let tear = |offset: usize| case.tear(offset).max(4096);
            states::for_each_torn(state, &again, tear, |state, then| {
                number += 1;
                if number % 7 == 0 {
                    let (_, disk, _) = recording(state);
                    case.check(disk, &format!("{what}, then {then}"));
                }
            });
        },
    );
    count
}

/// cryptsetup takes up what luksmith leaves, and luksmith opens the result.
#[test]
fn cryptsetup_recovers_the_states_that_a_cut_leaves() {
    let Some(cryptsetup) = peers::find("cryptsetup") else {
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    for case in cases() {
        let before = case.before();
        let events = case.record(&before);
        let mut number = 0;
        let tear = |offset: usize| case.tear(offset).max(4096);
        let mut tried = 0;
        states::for_each_torn(&before, &events, tear, |state, what| {
            number += 1;
            let (_, disk, _) = recording(state);
            let (header, _) = case.parts(&disk);
            let open = OpenOptions::new(Undo::NotLookedFor);
            let container = Container::open(header, open).unwrap();
            let Some(found) = container.reencryption().unwrap() else {
                return;
            };
            // Of the states in a hot zone more are tried.
            let every = match found.progress {
                Progress::Hot { .. } => 13,
                _ => 29,
            };
            if number % every != 0 {
                return;
            }
            tried += 1;
            let state = resumed(&cryptsetup, folder.path(), &case, state);
            let (_, disk, _) = recording(&state);
            let (header, _) = case.parts(&disk);
            let open = OpenOptions::new(Undo::NotLookedFor);
            let container = Container::open(header, open).unwrap();
            let pending = container.reencryption().unwrap();
            assert!(pending.is_none(), "{}, {what}: {pending:?}", case.name);
            case.check(disk, what);
        });
        assert!(tried > 3, "{}: {tried}", case.name);
    }
}

/// The state after cryptsetup has repaired and finished it.
pub(crate) fn resumed(cryptsetup: &Path, folder: &Path, case: &Case, state: &State) -> State {
    let (image, header) = (folder.join("image"), folder.join("header"));
    let key = folder.join("key");
    std::fs::write(&key, "old").unwrap();
    let split = if case.detached { case.data_offset() } else { 0 };
    std::fs::write(&image, &state.disk[split..]).unwrap();
    std::fs::write(&header, &state.disk[..split]).unwrap();
    for args in [
        &["repair"][..],
        &["reencrypt", "--resume-only", "--force-offline-reencrypt"],
    ] {
        let mut command = Command::new(cryptsetup);
        command.args(["-q", "--disable-locks"]).args(args);
        command.arg("--key-file").arg(&key);
        if case.detached {
            command.arg("--header").arg(&header);
        }
        let output = command.arg(&image).output().unwrap();
        // A repair of the last zone can be all that is left to do.
        let done = String::from_utf8_lossy(&output.stderr).contains("not in progress");
        assert!(output.status.success() || done, "{}: {output:?}", case.name);
    }
    let mut disk = std::fs::read(&header).unwrap();
    disk.extend(std::fs::read(&image).unwrap());
    State::new(disk)
}

/// Another program may write its checksums together with the header. If only a part of them reached
/// the disk, the others are those of the zone before, of which no block is converted twice.
#[test]
fn checksums_of_another_program_that_are_torn_are_recognised() {
    let case = case("torn checksums", checksum(4096));
    let before = case.before();
    let events = case.record(&before);
    let (mut state, mut first) = (before, None);
    for event in &events {
        state.apply(event);
        let (_, disk, _) = recording(&state);
        let open = OpenOptions::new(Undo::NotLookedFor);
        let found = Container::open(case.parts(&disk).0, open).map(|found| found.reencryption());
        let Ok(Ok(Some(found))) = found else {
            continue;
        };
        let area = found.state.area;
        let area = usize::try_from(area.start).unwrap()..usize::try_from(area.end).unwrap();
        match (found.progress, &first) {
            (Progress::Hot { start: 0, .. }, _) => first = Some(state.disk[area].to_vec()),
            (Progress::Hot { start: ZONE, .. }, Some(first)) => {
                // The first two of four checksums are new.
                state.disk[area.clone()][64..].copy_from_slice(&first[64..]);
                state.disk[area.end - 512..area.end].fill(0);
                let (_, disk, _) = recording(&state);
                case.check(disk, "two of four checksums");
                state.disk[area.clone()][100] ^= 1;
                let (_, disk, _) = recording(&state);
                let error = case.run(&disk, false).err();
                let Some(ReencryptError::Unverified { at, count: 1, .. }) = error else {
                    panic!("{error:?}")
                };
                assert_eq!(at, ZONE + 3 * 4096);
                return;
            }
            _ => {}
        }
    }
    panic!("no second zone");
}

/// A block of the hot zone that is neither old nor converted is not taken for either.
#[test]
fn a_damaged_block_of_the_hot_zone_is_refused() {
    for case in [
        case("checksum", checksum(4096)),
        case("journal", Resilience::Journal),
    ] {
        let before = case.before();
        let events = case.record(&before);
        let at = case.data_offset() + 8192;
        let first = events.iter().position(
            |event| matches!(event, Event::Write { offset, .. } if *offset == case.data_offset()),
        );
        // The first block is converted, the second one is old, and the third one is damaged.
        let mut state = before.clone();
        events[..first.unwrap() + 4096 / case.unit()]
            .iter()
            .for_each(|event| state.apply(event));
        state.disk[at..at + 4096].fill(0x55);
        let (_, disk, _) = recording(&state);
        let Err(ReencryptError::Unverified {
            at: place, count, ..
        }) = case.run(&disk, false)
        else {
            panic!("{}: not refused", case.name)
        };
        assert_eq!(place, 8192, "{}", case.name);
        assert_eq!(count, 4096 / case.unit() as u64, "{}", case.name);
        let (disk, shared, _) = recording(&state);
        assert!(case.run(&shared, false).is_err(), "{}", case.name);
        assert!(disk.bytes() == state.disk, "{}: written", case.name);
        case.run(&shared, true).unwrap();
        let (_, data) = case.parts(&shared);
        let (header, _) = case.parts(&shared);
        let open = OpenOptions::new(Undo::NotLookedFor);
        let container = Container::open(header, open).unwrap();
        let unlocked = container.unlock(&passphrase("old"), Which::Any, &Interrupt::new());
        let volume = container.volume(data, &unlocked.unwrap()).unwrap();
        let mut payload = vec![0; usize::try_from(case.size).unwrap()];
        volume.read_at(0, &mut payload).unwrap();
        let expected = case.payload();
        assert!(payload[..8192] == expected[..8192], "{}", case.name);
        assert!(payload[12288..] == expected[12288..], "{}", case.name);
        // The journal has the block as it was.
        let restored = case.resilience == Resilience::Journal;
        assert_eq!(
            payload[8192..12288] == expected[8192..12288],
            restored,
            "{}",
            case.name
        );
    }
}
