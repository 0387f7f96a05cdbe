//! Is a mounted volume a file like any other, for every program and after every end of its server?

#![allow(missing_docs)]

mod content;
mod filesystem;
mod life;
mod memory;
mod mounted;
mod places;
mod users;
