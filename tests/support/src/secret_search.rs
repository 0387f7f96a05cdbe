//! Searches bytes for pieces of several secrets at once.
//!
//! A piece is any [`PIECE`] consecutive bytes of a secret.

/// The length of a piece, in bytes.
pub const PIECE: usize = 16;

/// A search for some secrets, each with a name.
pub struct SecretSearch<'a> {
    secrets: Vec<(&'static str, &'a [u8])>,
    /// Whether a piece begins with these two bytes.
    first: Vec<bool>,
}

impl<'a> SecretSearch<'a> {
    /// A search for these secrets, with their names.
    pub fn new(secrets: Vec<(&'static str, &'a [u8])>) -> Self {
        let mut first = vec![false; 1 << 16];
        for (_, secret) in &secrets {
            for piece in secret.windows(PIECE) {
                first[usize::from(piece[0]) << 8 | usize::from(piece[1])] = true;
            }
        }
        Self { secrets, first }
    }

    /// The names of the secrets of which a piece is in `bytes`: one name for each piece.
    pub fn found_in(&self, bytes: &[u8]) -> Vec<&'static str> {
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
