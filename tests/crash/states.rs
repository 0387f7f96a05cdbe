//! Builds all states that a crash can leave of a recorded change, and checks each.

use std::ops::Range;

use proptest::prelude::RngExt;
use proptest::test_runner::{RngAlgorithm, TestRng};

use crate::disk::{Event, State};

const SECTOR: usize = 512;
/// The number of writes between two flushes up to which all subsets are tried. For more writes, a
/// sample of the subsets is tried.
const ALL_SUBSETS: usize = 8;
const SAMPLED_SUBSETS: usize = 64;

/// The size of writes up to which a write is torn after every sector. Larger ones (random bytes
/// over whole keyslots areas) are torn near both ends, and after every sixteenth sector between.
const ALL_TEARS: usize = 256 << 10;
const EDGE: usize = 32 << 10;

/// Calls `check` with every state that a crash can leave, and returns the number of states:
///
/// * every prefix of the events;
/// * every subset of the writes between two flushes, since a disk may reorder them (all for up to
///   eight);
/// * each last write torn after every 512 bytes ([`ALL_TEARS`]).
pub(crate) fn for_each(
    before: &State,
    events: &[Event],
    mut check: impl FnMut(&State, &str),
) -> usize {
    for_each_cut(before, events, |state, _, what| check(state, what))
}

/// The same for a storage that writes more than 512 bytes atomically: `tear` gives the unit in
/// which a write at an offset is torn.
pub(crate) fn for_each_torn(
    before: &State,
    events: &[Event],
    tear: impl Fn(usize) -> usize,
    mut check: impl FnMut(&State, &str),
) -> usize {
    all(before, events, tear, |state, _, what| check(state, what))
}

/// The same as both [`for_each_torn`] and [`for_each_cut`].
pub(crate) fn for_each_torn_cut(
    before: &State,
    events: &[Event],
    tear: impl Fn(usize) -> usize,
    check: impl FnMut(&State, Range<usize>, &str),
) -> usize {
    all(before, events, tear, check)
}

/// The same, also passing a range: the events before its start certainly happened, and those before
/// its end may have.
pub(crate) fn for_each_cut(
    before: &State,
    events: &[Event],
    check: impl FnMut(&State, Range<usize>, &str),
) -> usize {
    all(before, events, |_| SECTOR, check)
}

fn all(
    before: &State,
    events: &[Event],
    tear: impl Fn(usize) -> usize,
    mut check: impl FnMut(&State, Range<usize>, &str),
) -> usize {
    let mut rng = TestRng::deterministic_rng(RngAlgorithm::ChaCha);
    let mut count = 0;
    let mut visit = |state: &State, cut: Range<usize>, what: String| {
        count += 1;
        check(state, cut, &what);
    };
    let mut durable = before.clone();
    let mut epoch_start = 0;
    for end in 0..=events.len() {
        let at_barrier = end == events.len() || !matches!(events[end], Event::Write { .. });
        if !at_barrier {
            continue;
        }
        let writes = &events[epoch_start..end];
        for (number, write) in writes.iter().enumerate() {
            let mut prefix = durable.clone();
            writes[..number]
                .iter()
                .for_each(|earlier| prefix.apply(earlier));
            visit(
                &prefix,
                epoch_start..epoch_start + number,
                format!("before event {}", epoch_start + number),
            );
            let Event::Write { offset, bytes } = write else {
                unreachable!()
            };
            let unit = tear(*offset);
            for length in (unit..bytes.len()).step_by(unit) {
                let in_the_middle = length > EDGE && length + EDGE < bytes.len();
                if bytes.len() > ALL_TEARS && in_the_middle && length % 8192 != 0 {
                    continue;
                }
                // Unchanged sectors give no new state.
                if prefix.disk[offset + length - unit..offset + length]
                    != bytes[length - unit..length]
                {
                    prefix.apply_torn(write, length);
                    visit(
                        &prefix,
                        epoch_start..epoch_start + number + 1,
                        format!("event {} torn at {length}", epoch_start + number),
                    );
                }
            }
        }
        for subset in subsets(writes.len(), &mut rng) {
            let mut state = durable.clone();
            for (number, write) in writes.iter().enumerate() {
                if subset[number] {
                    state.apply(write);
                }
            }
            visit(
                &state,
                epoch_start..end,
                format!("events {epoch_start}..{end}, only {subset:?}"),
            );
        }
        writes.iter().for_each(|write| durable.apply(write));
        visit(&durable, epoch_start..end, format!("before event {end}"));
        if let Some(barrier) = events.get(end) {
            durable.apply(barrier);
            visit(&durable, end + 1..end + 1, format!("after event {end}"));
        }
        epoch_start = end + 1;
    }
    count
}

/// Sets of an epoch's writes: whether each write is in the set.
fn subsets(writes: usize, rng: &mut TestRng) -> Vec<Vec<bool>> {
    if writes <= ALL_SUBSETS {
        let bits = |set: usize| (0..writes).map(|number| set >> number & 1 != 0).collect();
        return (0..1 << writes).map(bits).collect();
    }
    let sample = |_| (0..writes).map(|_| rng.random::<bool>()).collect();
    (0..SAMPLED_SUBSETS).map(sample).collect()
}
