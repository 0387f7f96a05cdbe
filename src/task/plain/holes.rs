//! Runs of zeroes, which a sparse copy leaves out.

/// The parts of `bytes` that are not zeroes, in units of `hole` bytes, adjacent ones joined.
pub(in crate::task) fn runs_of_data(bytes: &[u8], hole: usize) -> Vec<(usize, &[u8])> {
    let mut runs: Vec<(usize, usize)> = Vec::new();
    for (index, piece) in bytes.chunks(hole).enumerate() {
        if is_zero(piece) {
            continue;
        }
        let at = index * hole;
        match runs.last_mut() {
            Some((_, end)) if *end == at => *end = at + piece.len(),
            _ => runs.push((at, at + piece.len())),
        }
    }
    runs.into_iter()
        .filter_map(|(at, end)| bytes.get(at..end).map(|run| (at, run)))
        .collect()
}

/// Whether all bytes are zero. They are looked at in blocks without a branch in between, which
/// compilers turn into vector instructions.
fn is_zero(bytes: &[u8]) -> bool {
    let mut blocks = bytes.chunks(256);
    blocks.all(|block| block.iter().fold(0, |all, byte| all | byte) == 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOLE: usize = 4096;

    #[test]
    fn zeroes_are_left_out_in_whole_pieces() {
        let mut bytes = vec![0; 5 * HOLE];
        bytes[HOLE] = 1;
        bytes[2 * HOLE + 7] = 1;
        bytes[4 * HOLE + 9] = 1;
        let runs = runs_of_data(&bytes, HOLE)
            .iter()
            .map(|(at, run)| (*at, run.len()))
            .collect::<Vec<_>>();
        assert_eq!(runs, [(HOLE, 2 * HOLE), (4 * HOLE, HOLE)]);
        assert!(runs_of_data(&[0; HOLE], HOLE).is_empty());
    }
}
