//! Memory in pieces, as a guest's requests have it, with bytes around them that may not change.

use std::ops::Range;

use luksmith::volume::Window;

const AROUND: u8 = 0xa5;
/// An odd number, so that pieces have all alignments.
const GAP: usize = 13;

/// Pieces of memory.
#[derive(Debug)]
pub struct Segments {
    memory: Vec<u8>,
    pieces: Vec<Range<usize>>,
}

impl Segments {
    /// Pieces of `len` bytes in all, whose lengths repeat `lens`. They hold `fill`.
    pub fn new(len: usize, lens: &[usize], fill: u8) -> Self {
        let lens = match lens.iter().sum() {
            0_usize => &[len],
            _ => lens,
        };
        let (mut memory, mut pieces, mut left) = (vec![AROUND; GAP], Vec::new(), len);
        for piece in lens.iter().cycle() {
            let start = memory.len();
            memory.resize(start + left.min(*piece), fill);
            left -= memory.len() - start;
            pieces.push(start..memory.len());
            memory.resize(memory.len() + GAP, AROUND);
            if left == 0 {
                break;
            }
        }
        Self { memory, pieces }
    }

    /// Such pieces that hold `bytes`.
    pub fn of(bytes: &[u8], lens: &[usize]) -> Self {
        let mut segments = Self::new(bytes.len(), lens, 0);
        let mut bytes = bytes;
        for piece in &segments.pieces {
            let (now, later) = bytes.split_at(piece.len());
            segments.memory[piece.clone()].copy_from_slice(now);
            bytes = later;
        }
        segments
    }

    /// A window for each piece.
    pub fn windows(&mut self) -> Vec<Window<'_>> {
        let (mut rest, mut at) = (&mut self.memory[..], 0);
        let mut windows = Vec::new();
        for piece in &self.pieces {
            let (before, later) = rest.split_at_mut(piece.end - at);
            windows.push(Window::from(&mut before[piece.start - at..]));
            (rest, at) = (later, piece.end);
        }
        windows
    }

    /// The bytes in all pieces.
    ///
    /// # Panics
    /// Panics if a byte around a piece has changed.
    pub fn content(&self) -> Vec<u8> {
        let mut at = 0;
        let after = self.memory.len()..self.memory.len();
        for piece in self.pieces.iter().chain([&after]) {
            let around = &self.memory[at..piece.start];
            assert!(around.iter().all(|byte| *byte == AROUND), "{piece:?}");
            at = piece.end;
        }
        let pieces = self.pieces.iter().map(|piece| &self.memory[piece.clone()]);
        pieces.flatten().copied().collect()
    }
}
