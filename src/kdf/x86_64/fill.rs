//! Fills the memory of argon2 (RFC 9106, section 3.2, steps 3 to 6) with the compression function
//! on 512-bit registers.
//!
//! A lane knows which block it reads next only when its last block is done. That block may be
//! anywhere in memory, so loading it takes long. A thread with several lanes therefore interleaves
//! them: it prefetches the block of one lane while it computes another lane.

use ::argon2::Block;
use rayon::ThreadPool;

use super::compress::{Token, compress, prefetch, stored};
use crate::Interrupt;

/// The slices of a pass. At the end of each slice the lanes wait for each other.
const SLICES: usize = 4;
/// The addresses in one block of addresses.
const ADDRESSES: usize = 128;
/// The number of blocks between two checks of the interrupt.
const STRIDE: usize = 1024;

/// The layout of the memory, the variant and the number of passes.
#[derive(Clone, Copy)]
pub(in crate::kdf) struct Shape {
    /// The number of the variant: 1 for argon2i, 2 for argon2id.
    pub(in crate::kdf) variant: u32,
    pub(in crate::kdf) passes: u32,
    pub(in crate::kdf) lanes: usize,
    /// The number of blocks of one lane in one slice.
    pub(in crate::kdf) segment: usize,
}

impl Shape {
    /// The number of blocks of one lane.
    pub(super) fn lane(self) -> usize {
        self.segment * SLICES
    }

    /// The number of blocks of all lanes.
    pub(in crate::kdf) fn blocks(self) -> usize {
        self.lane() * self.lanes
    }
}

/// Fills the memory, using all of `threads`. The first two blocks of each lane are already there.
///
/// Returns early, with the memory only partly filled, if the interrupt is set.
pub(in crate::kdf) fn fill(
    token: Token,
    shape: Shape,
    threads: &ThreadPool,
    memory: &mut [Block],
    interrupt: &Interrupt,
) {
    for pass in 0..shape.passes {
        for slice in 0..SLICES {
            let place = Place { shape, pass, slice };
            // Each lane writes its own segment of this slice. All lanes read all other segments.
            let mut others: Vec<&[Block]> = Vec::new();
            let mut lanes = Vec::new();
            for (n, segment) in memory.chunks_exact_mut(shape.segment).enumerate() {
                if n % SLICES == slice {
                    others.push(&[]);
                    lanes.push(Lane::new(place, n / SLICES, segment));
                } else {
                    others.push(segment);
                }
            }
            let each = lanes.len().div_ceil(threads.current_num_threads());
            let others = &others;
            threads.scope(|scope| {
                for lanes in lanes.chunks_mut(each) {
                    scope.spawn(move |_| {
                        // SAFETY: the token proves that this CPU has the instructions.
                        let () = unsafe { fill_interleaved(place, lanes, others, interrupt) };
                        let _ = token;
                    });
                }
            });
            if interrupt.is_set() {
                return;
            }
        }
    }
}

/// One slice of one pass.
#[derive(Clone, Copy)]
struct Place {
    shape: Shape,
    pass: u32,
    slice: usize,
}

/// A lane, with its segment of the current slice.
struct Lane<'a> {
    number: usize,
    segment: &'a mut [Block],
    addresses: Option<Addresses>,
    /// The block that is read next: the number of its segment in the memory, and its index there.
    next: (usize, usize),
}

/// Addresses that do not depend on the passphrase (section 3.4.1.2), generated one block at a time.
struct Addresses {
    input: Block,
    block: Block,
}

impl<'a> Lane<'a> {
    fn new(place: Place, number: usize, segment: &'a mut [Block]) -> Self {
        let Place { shape, pass, slice } = place;
        let independent = shape.variant == 1 || (pass == 0 && slice < SLICES / 2);
        let addresses = independent.then(|| {
            let mut input = Block::new();
            let numbers = [
                u64::from(pass),
                number as u64,
                slice as u64,
                shape.blocks() as u64,
                u64::from(shape.passes),
                u64::from(shape.variant),
            ];
            for (word, number) in numbers.into_iter().enumerate() {
                input.as_mut()[stored(word)] = number;
            }
            Addresses {
                input,
                block: Block::new(),
            }
        });
        Self {
            number,
            segment,
            addresses,
            next: (0, 0),
        }
    }

    /// The block before block `at` of this lane's segment.
    #[inline]
    fn previous<'b>(&'b self, place: Place, at: usize, others: &[&'b [Block]]) -> &'b Block {
        if at > 0 {
            return &self.segment[at - 1];
        }
        let slice = (place.slice + SLICES - 1) % SLICES;
        &others[self.number * SLICES + slice][place.shape.segment - 1]
    }

    /// Finds and prefetches the reference block of block `at` of this lane's segment (section 3.4).
    #[inline]
    #[target_feature(enable = "avx512f")]
    fn look_ahead(&mut self, place: Place, at: usize, first: usize, others: &[&[Block]]) {
        let random = match &mut self.addresses {
            Some(addresses) => {
                if at == first || at.is_multiple_of(ADDRESSES) {
                    addresses.refill();
                }
                addresses.block.as_ref()[stored(at % ADDRESSES)]
            }
            None => self.previous(place, at, others).as_ref()[0],
        };
        self.next = place.reference(random, self.number, at);
        let (segment, block) = self.next;
        prefetch(if others[segment].is_empty() {
            &self.segment[block]
        } else {
            &others[segment][block]
        });
    }

    /// Computes block `at` of this lane's segment.
    #[inline]
    #[target_feature(enable = "avx512f")]
    fn make(&mut self, place: Place, at: usize, others: &[&[Block]]) {
        let (done, rest) = self.segment.split_at_mut(at);
        let before = || {
            let slice = (place.slice + SLICES - 1) % SLICES;
            others[self.number * SLICES + slice].last()
        };
        let (segment, block) = self.next;
        let reference = others[segment].get(block).or_else(|| done.get(block));
        // All three exist, since `Place::reference` only refers to blocks that are done.
        if let (Some(previous), Some(reference), Some(out)) =
            (done.last().or_else(before), reference, rest.first_mut())
        {
            compress(previous, reference, out, place.pass > 0);
        }
    }
}

impl Addresses {
    #[inline]
    #[target_feature(enable = "avx512f")]
    fn refill(&mut self) {
        let zero = Block::new();
        self.input.as_mut()[stored(6)] += 1;
        let mut half = Block::new();
        compress(&zero, &self.input, &mut half, false);
        compress(&zero, &half, &mut self.block, false);
    }
}

impl Place {
    /// The reference block that `random` selects: the number of its segment, and its index there.
    #[inline]
    fn reference(self, random: u64, lane: usize, at: usize) -> (usize, usize) {
        let Self { shape, pass, slice } = self;
        let first = pass == 0 && slice == 0;
        let of_lane = if first {
            lane
        } else {
            (random >> 32) as usize % shape.lanes
        };
        // The number of blocks to choose from: those of the finished slices, and those of this
        // lane's own segment that are done, except for the last one.
        let slices = if pass == 0 { slice } else { SLICES - 1 };
        let area = if of_lane == lane {
            slices * shape.segment + at - 1
        } else {
            slices * shape.segment - usize::from(at == 0)
        };
        let low = random & 0xffff_ffff;
        let back = (area as u64 * ((low * low) >> 32)) >> 32;
        let from_start = area - 1 - back as usize;
        let start = if pass == 0 { 0 } else { slice + 1 };
        let segment = (start + from_start / shape.segment) % SLICES;
        (of_lane * SLICES + segment, from_start % shape.segment)
    }
}

/// Fills the segments of some lanes, interleaved. Not inlined, so that its copies of secrets are on
/// the part of the stack that is scrubbed later.
#[inline(never)]
#[target_feature(enable = "avx512f")]
fn fill_interleaved(
    place: Place,
    lanes: &mut [Lane<'_>],
    others: &[&[Block]],
    interrupt: &Interrupt,
) {
    let first = if place.pass == 0 && place.slice == 0 {
        2
    } else {
        0
    };
    for lane in &mut *lanes {
        lane.look_ahead(place, first, first, others);
    }
    for at in first..place.shape.segment {
        if at.is_multiple_of(STRIDE) && interrupt.is_set() {
            return;
        }
        for lane in &mut *lanes {
            lane.make(place, at, others);
            if at + 1 < place.shape.segment {
                lane.look_ahead(place, at + 1, first, others);
            }
        }
    }
}
