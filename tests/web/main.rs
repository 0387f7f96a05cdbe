//! Are volumes in files on web servers read as they are, and never mixed with another file?

#![allow(missing_docs)]
#![allow(clippy::print_stderr)] // what is skipped, and why

mod double;
mod hostile;
mod program;
mod servers;
