//! Random histories over a storage that is honest, and over one that lies: a reader gets what was
//! written last, or an error, and an error only if the storage has lied.

use luksmith::backend::IoError;

use crate::tags_world::{BLOCK, Fate, Opened, Random, World, short_logs};

const BLOCKS: usize = 24;

/// What each block can have.
struct Model {
    /// The contents that a read can return: one, except after a write that failed or a crash.
    now: Vec<Vec<Vec<u8>>>,
    /// The contents that a block can have after a crash: what was flushed, and what was written
    /// since.
    possible: Vec<Vec<Vec<u8>>>,
    stamp: u64,
}

/// The power has failed.
struct Off;

fn add(contents: &mut Vec<Vec<u8>>, content: &[u8]) {
    if !contents.iter().any(|there| there == content) {
        contents.push(content.to_vec());
    }
}

impl Model {
    fn new() -> Self {
        let zeroes = vec![vec![vec![0; BLOCK]]; BLOCKS];
        Self {
            now: zeroes.clone(),
            possible: zeroes,
            stamp: 0,
        }
    }

    /// Reads a block, which has to be right.
    #[track_caller]
    fn read(
        &mut self,
        world: &World,
        (volume, _): &Opened,
        block: usize,
        seed: u64,
    ) -> Result<(), Off> {
        let mut content = vec![0; BLOCK];
        match volume.read_at((block * BLOCK) as u64, &mut content) {
            Ok(()) => {}
            Err(_) if world.power.is_off() => return Err(Off),
            Err(error) => panic!("history {seed}: block {block}: a false alarm: {error}"),
        }
        assert!(
            self.now[block].contains(&content),
            "history {seed}: block {block} is wrong"
        );
        self.now[block] = vec![content];
        Ok(())
    }

    /// One write, discard, flush or checkpoint.
    fn step(
        &mut self,
        world: &World,
        opened: &Opened,
        random: &mut Random,
        seed: u64,
    ) -> Result<(), Off> {
        let (volume, tagged) = opened;
        let block = random.index(BLOCKS);
        let outcome = match random.below(20) {
            0..=10 => {
                let count = random.index(4).min(BLOCKS - block - 1) + 1;
                let (mut from, mut to) = (block * BLOCK, (block + count) * BLOCK);
                if random.one_in(3) {
                    from += random.index(8) * 512;
                    to -= random.index(8) * 512;
                    to = to.max(from + 512);
                }
                if random.one_in(10) {
                    let fates = [Fate::Nothing, Fate::Everything, Fate::Half];
                    *world.disk.failing.lock().unwrap() = Some(fates[random.index(3)]);
                }
                let (first, last) = (from / BLOCK, to.div_ceil(BLOCK));
                // A part of a block is written to a content that is known.
                for block in first..last {
                    self.read(world, opened, block, seed)?;
                }
                self.stamp += 1;
                let bytes: Vec<u8> = self
                    .stamp
                    .to_le_bytes()
                    .into_iter()
                    .cycle()
                    .take(to - from)
                    .collect();
                let before: Vec<_> = (first..last)
                    .map(|block| self.now[block][0].clone())
                    .collect();
                for block in first..last {
                    let mut content = self.now[block][0].clone();
                    let start = block * BLOCK;
                    let (a, b) = (from.max(start), to.min(start + BLOCK));
                    content[a - start..b - start].copy_from_slice(&bytes[a - from..b - from]);
                    add(&mut self.possible[block], &content);
                    self.now[block] = vec![content];
                }
                let written = volume.write_at(from as u64, &bytes);
                let failing = world.disk.failing.lock().unwrap().take();
                if written.is_err() && !world.power.is_off() {
                    assert!(failing.is_none(), "history {seed}: {written:?}");
                    for (block, before) in (first..last).zip(&before) {
                        add(&mut self.now[block], before);
                    }
                    return Ok(());
                }
                written
            }
            11..=12 => {
                let end = (block + 1 + random.index(5)).min(BLOCKS);
                for block in block..end {
                    let zeroes = vec![0; BLOCK];
                    add(&mut self.possible[block], &zeroes);
                    self.now[block] = vec![zeroes];
                }
                volume.discard((block * BLOCK) as u64..(end * BLOCK) as u64)
            }
            13..=15 => {
                let flushed = volume.flush();
                if flushed.is_ok() {
                    self.possible.clone_from(&self.now);
                }
                flushed
            }
            16 => tagged
                .checkpoint()
                .map_err(|_| IoError::Unsupported(luksmith::backend::Operation::Flush)),
            _ => return self.read(world, opened, block, seed),
        };
        match outcome {
            Ok(()) => Ok(()),
            Err(_) if world.power.is_off() => Err(Off),
            Err(error) => panic!("history {seed}: {error}"),
        }
    }

    /// Opens the volume after a crash.
    #[track_caller]
    fn reopen(&mut self, world: &World, seed: u64) -> Result<Opened, Off> {
        self.now.clone_from(&self.possible);
        match world.open(short_logs()) {
            Ok(opened) => {
                assert_eq!(opened.1.recovery().lost, 0, "history {seed}: a false alarm");
                Ok(opened)
            }
            Err(_) if world.power.is_off() => Err(Off),
            Err(error) => panic!("history {seed}: {error}"),
        }
    }
}

/// Opens a volume after crashes, of which one may be in the recovery from another one.
fn reopened(model: &mut Model, world: &World, random: &mut Random, seed: u64) -> Opened {
    loop {
        match random.below(3) {
            0 => world.kill(),
            _ => world.restart(random),
        }
        if random.one_in(3) {
            world.fail_after(random.below(12));
        }
        let Ok(opened) = model.reopen(world, seed) else {
            continue;
        };
        world.kill();
        if random.one_in(2) {
            for block in 0..BLOCKS {
                assert!(model.read(world, &opened, block, seed).is_ok());
                // Nothing else counts from then on.
                model.possible[block].clone_from(&model.now[block]);
            }
        }
        return opened;
    }
}

/// A history that ends at a crash, and goes on several times.
fn honest(seed: u64) {
    let mut random = Random(seed);
    let (world, mut model) = (World::new(BLOCKS), Model::new());
    let mut opened = world.open(short_logs()).unwrap();
    for _ in 0..3 {
        world.fail_after(random.below(120));
        while model.step(&world, &opened, &mut random, seed).is_ok() {}
        drop(opened);
        opened = reopened(&mut model, &world, &mut random, seed);
    }
    for block in 0..BLOCKS {
        assert!(model.read(&world, &opened, block, seed).is_ok());
    }
}

#[test]
fn an_honest_storage_gives_no_alarm_wherever_the_power_fails() {
    for seed in 0..150 {
        honest(seed);
    }
}

/// The same history, with a failure at each of its calls.
#[test]
fn a_failure_at_every_call_loses_nothing_that_was_flushed() {
    let run = |fails_after: u64, tear: u64| {
        let mut random = Random(77);
        let (world, mut model) = (World::new(BLOCKS), Model::new());
        let opened = world.open(short_logs()).unwrap();
        world.fail_after(fails_after);
        let first = world.calls();
        let ended = (0..60).find(|_| model.step(&world, &opened, &mut random, 77).is_err());
        drop(opened);
        let mut torn = Random(tear);
        world.restart(&mut torn);
        let Ok(opened) = model.reopen(&world, fails_after) else {
            panic!("the power is on");
        };
        for block in 0..BLOCKS {
            assert!(model.read(&world, &opened, block, fails_after).is_ok());
        }
        ended.map(|_| world.calls() - first)
    };
    let mut calls = 0;
    while run(calls, 3 * calls).is_some() {
        calls += 1;
    }
    assert!(calls > 150, "{calls} calls");
}

/// What a storage can do to a volume.
#[derive(Clone, Copy, Debug)]
enum Lie {
    FlipsABit,
    ReplaysABlock,
    ReplaysTheImage,
    SwapsBlocks,
    DropsFlushedWrites,
    Zeroes,
}

const LIES: [Lie; 6] = [
    Lie::FlipsABit,
    Lie::ReplaysABlock,
    Lie::ReplaysTheImage,
    Lie::SwapsBlocks,
    Lie::DropsFlushedWrites,
    Lie::Zeroes,
];

/// Tells a lie, and returns whether the storage has other bytes now.
fn tell(lie: Lie, world: &World, older: &[Vec<u8>], random: &mut Random) -> bool {
    let before = world.disk.image();
    let mut image = before.clone();
    let (one, other) = (random.index(BLOCKS), random.index(BLOCKS));
    let at = |block: usize| block * BLOCK..(block + 1) * BLOCK;
    match lie {
        Lie::FlipsABit => image[one * BLOCK + random.index(BLOCK)] ^= 1 << random.below(8),
        Lie::ReplaysABlock => {
            let history = world.disk.history(one);
            image[at(one)].copy_from_slice(&history[random.index(history.len())]);
        }
        Lie::ReplaysTheImage => image.clone_from(&older[random.index(older.len())]),
        Lie::SwapsBlocks => {
            let content = image[at(one)].to_vec();
            image.copy_within(at(other), one * BLOCK);
            image[at(other)].copy_from_slice(&content);
        }
        Lie::Zeroes => image[at(one)].fill(0),
        Lie::DropsFlushedWrites => {}
    }
    world.disk.replace(image.clone());
    image != before
}

/// A history with lies, some of them while the volume is not open. Returns how many blocks would
/// have been read wrongly without tags.
fn lying(lie: Lie, seed: u64) -> (u64, u64) {
    let mut random = Random(seed);
    let (world, mut model) = (World::new(BLOCKS), Model::new());
    let mut opened = world.open(short_logs()).unwrap();
    let mut older = vec![world.disk.image()];
    for _ in 0..2 {
        for _ in 0..random.below(30) {
            assert!(model.step(&world, &opened, &mut random, seed).is_ok());
            older.push(world.disk.image());
        }
    }
    if matches!(lie, Lie::DropsFlushedWrites) {
        *world.disk.drops_writes.lock().unwrap() = true;
        let (volume, _) = &opened;
        for _ in 0..3 {
            let block = random.index(BLOCKS);
            let bytes = vec![0xc3; BLOCK];
            volume.write_at((block * BLOCK) as u64, &bytes).unwrap();
            model.now[block] = vec![bytes.clone()];
            add(&mut model.possible[block], &bytes);
        }
        volume.flush().unwrap();
        model.possible.clone_from(&model.now);
        *world.disk.drops_writes.lock().unwrap() = false;
    }
    let after_a_crash = random.one_in(2);
    if after_a_crash {
        drop(opened);
        if random.one_in(2) {
            world.kill();
        } else {
            world.restart(&mut random);
        }
        model.now.clone_from(&model.possible);
        // Whatever the storage showed when the volume was opened is all that counts then.
        if random.one_in(2) {
            let opened = world.open(short_logs()).unwrap();
            for block in 0..BLOCKS {
                let mut content = vec![0; BLOCK];
                if opened
                    .0
                    .read_at((block * BLOCK) as u64, &mut content)
                    .is_ok()
                {
                    assert!(model.now[block].contains(&content));
                    model.now[block] = vec![content];
                }
            }
        }
        tell(lie, &world, &older, &mut random);
        opened = world.open(short_logs()).unwrap();
    } else {
        tell(lie, &world, &older, &mut random);
    }
    let bare = world.open_without();
    let (mut believed, mut noticed) = (0, 0);
    for block in 0..BLOCKS {
        let offset = (block * BLOCK) as u64;
        let mut content = vec![0; BLOCK];
        match opened.0.read_at(offset, &mut content) {
            Ok(()) => assert!(
                model.now[block].contains(&content),
                "{lie:?} {seed}: block {block}: a wrong byte"
            ),
            Err(IoError::Altered { .. }) => noticed += 1,
            Err(error) => panic!("{lie:?} {seed}: block {block}: {error}"),
        }
        bare.read_at(offset, &mut content).unwrap();
        // Without tags, a block that was never written has other bytes even on an honest storage.
        let is_zero = model.now[block]
            .iter()
            .any(|content| content.iter().all(|byte| *byte == 0));
        if !model.now[block].contains(&content) && !is_zero {
            believed += 1;
        }
    }
    assert!(opened.1.altered() >= noticed);
    assert!(
        noticed >= believed,
        "{lie:?} {seed}: {believed} lies, {noticed} noticed"
    );
    (believed, noticed)
}

#[test]
fn no_lie_is_believed() {
    for lie in LIES {
        let (mut believed, mut noticed) = (0, 0);
        for seed in 0..50 {
            let (without, with) = lying(lie, seed);
            believed += without;
            noticed += with;
        }
        // The positive control: without tags, readers get wrong bytes.
        assert!(believed > 10, "{lie:?}: {believed}");
        assert!(noticed >= believed, "{lie:?}: {noticed} of {believed}");
    }
}
