//! The numbers of lines.

/// The lines of a text.
pub(super) struct Lines {
    /// The byte offsets at which they begin.
    starts: Vec<usize>,
    /// How many line ends are before the text, if it is a part of another one.
    before: usize,
}

impl Lines {
    pub(super) fn of(text: &str, before: usize) -> Self {
        let after = text.match_indices('\n').map(|(at, _)| at + 1);
        Self {
            starts: std::iter::once(0).chain(after).collect(),
            before,
        }
    }

    /// The number of the line that contains the byte at `offset`, counted from 1.
    pub(super) fn number(&self, offset: usize) -> usize {
        self.before + self.starts.partition_point(|start| *start <= offset)
    }

    /// The number of the line whose number in this text is `row`, counted from 1.
    pub(super) fn of_row(&self, row: u32) -> usize {
        self.before + row as usize
    }

    /// How many line ends are before the end of the text.
    pub(super) fn until_end(&self) -> usize {
        self.before + self.starts.len() - 1
    }
}
