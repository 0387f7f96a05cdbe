//! Searches bytes for pieces of several secrets at once.

/// The length of the pieces that are searched for.
pub(crate) const PIECE: usize = 16;

/// Where pieces of secrets begin: by their first two bytes.
pub(crate) struct Pieces<'a> {
    secrets: Vec<(&'static str, &'a [u8])>,
    first: Vec<bool>,
}

impl<'a> Pieces<'a> {
    pub(crate) fn of(secrets: Vec<(&'static str, &'a [u8])>) -> Self {
        let mut first = vec![false; 1 << 16];
        for (_, secret) in &secrets {
            for piece in secret.windows(PIECE) {
                first[usize::from(piece[0]) << 8 | usize::from(piece[1])] = true;
            }
        }
        Self { secrets, first }
    }

    /// The names of the secrets of which there is a piece in these bytes.
    pub(crate) fn found(&self, bytes: &[u8]) -> Vec<&'static str> {
        let mut found = Vec::new();
        for window in bytes.windows(PIECE) {
            if self.first[usize::from(window[0]) << 8 | usize::from(window[1])] {
                let holds = |secret: &[u8]| secret.windows(PIECE).any(|piece| piece == window);
                let names = self.secrets.iter().filter(|(_, secret)| holds(secret));
                found.extend(names.map(|(name, _)| name));
            }
        }
        found
    }
}
