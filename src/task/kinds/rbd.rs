//! Errors of Ceph.

use super::kinds;
use crate::backend::rbd::{Problem, RbdError};
use crate::task::Kind;

kinds! {
    RbdError => rbd,
}

fn rbd(error: &RbdError) -> Kind {
    match &error.source {
        Problem::Library(_) => Kind::Unsupported,
        Problem::Key(_) => Kind::Memory,
        Problem::Denied { .. } | Problem::Snapshot => Kind::Permission,
        Problem::Exists => Kind::Exists,
        Problem::Busy(_) => Kind::Busy,
        Problem::NoLock => Kind::Unsupported,
        Problem::Configuration { source, .. }
        | Problem::Unreachable(source)
        | Problem::Failed(_, source)
        | Problem::Option(_, source) => Kind::of_io(source),
        Problem::NoPool | Problem::NoImage | Problem::NoSnapshot => Kind::Storage,
    }
}
