//! Errors of tags.

use super::{format, io, kinds};
use crate::task::Kind;
use crate::trust::tags::TagsError;

kinds! {
    TagsError => tags,
}

fn tags(error: &TagsError) -> Kind {
    match error {
        TagsError::OtherKey | TagsError::Truncated { .. } => Kind::NotTrusted,
        TagsError::Exists => Kind::Exists,
        TagsError::Busy => Kind::Busy,
        TagsError::Missing => Kind::Parameters,
        TagsError::Unit(_) => Kind::Unsupported,
        TagsError::Head(error) => format(error),
        TagsError::File { source, .. } => Kind::of_io(source),
        TagsError::Io(error) => io(error),
        TagsError::Lock(_) => Kind::Memory,
        TagsError::Failed(_) => Kind::Storage,
    }
}
