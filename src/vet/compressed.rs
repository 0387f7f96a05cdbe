//! Compressed data of the disk, inflated as far as the budget of the inspection lasts.

use super::finding::Check;
use super::report::{Report, Verdict};
use super::source::{Source, Stop};

/// The most places that are kept. This bounds the memory.
const MOST: usize = 1 << 19;

/// Where a piece of compressed data is.
pub(super) struct Piece {
    /// The offset of its table entry.
    pub(super) entry: u64,
    pub(super) offset: u64,
    /// Its length, if the entry has it.
    pub(super) len: u64,
}

/// The pieces, in the order of the tables.
#[derive(Default)]
pub(super) struct Compressed {
    pieces: Vec<Piece>,
    count: usize,
}

impl Compressed {
    pub(super) fn take(&mut self, piece: Piece) {
        self.count += 1;
        if self.pieces.len() < MOST {
            self.pieces.push(piece);
        }
    }

    /// Inflates each piece into `unit` bytes. `inflate` tells whether it could. A piece that cannot
    /// be inflated is a finding of `broken`. What is read and what is inflated both count against
    /// the budget; if it is used up, `beyond` says how many pieces were inflated. An image that is
    /// rejected already is not inflated.
    pub(super) fn check(
        self,
        source: &mut Source<'_>,
        report: &mut Report,
        unit: u64,
        (broken, beyond): (&'static Check, &'static Check),
        mut inflate: impl FnMut(&mut Source<'_>, &Piece, &mut [u8]) -> Result<bool, Stop>,
    ) -> Result<(), Stop> {
        if self.pieces.is_empty() || report.verdict() == Verdict::Reject {
            return Ok(());
        }
        let mut output = vec![0; usize::try_from(unit).unwrap_or_default()];
        let mut done = 0;
        for piece in &self.pieces {
            let whole = source.spend(unit);
            match whole.and_then(|()| inflate(source, piece, &mut output)) {
                Ok(good) => {
                    report.require(good, broken, piece.entry, "compressed data", || {
                        format!("at byte {}", piece.offset)
                    });
                }
                Err(Stop::Budget) => break,
                Err(stop) => return Err(stop),
            }
            report.go_on()?;
            done += 1;
        }
        let all = self.count;
        report.require(done == all, beyond, 0, "compressed data", || {
            format!("{done} of {all} pieces were inflated")
        });
        Ok(())
    }
}
