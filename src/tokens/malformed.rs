//! Why the JSON of a token is refused.

/// A token whose JSON is not as its type needs it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the token is malformed: {member} {cause}")]
#[non_exhaustive]
pub struct MalformedToken {
    /// The member that is wrong.
    pub member: &'static str,
    /// What is wrong with it.
    pub cause: &'static str,
}

impl MalformedToken {
    pub(super) fn new(member: &'static str, cause: &'static str) -> Self {
        Self { member, cause }
    }
}
