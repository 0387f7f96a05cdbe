//! Checks of the shape of the repository. Each check is a function from files to complaints. One
//! test shows that the check has no complaint about this repository, and another that it finds
//! faults.
//!
//! - `layers`: dependencies between the modules run downward only.
//! - `circles`: no files name items of each other. `names` finds which items a file names.
//! - `source`: the places of unsafe code, of printing, and of converting between plaintext and
//!   ciphertext; no skipped tests, no unfinished code.
//! - `house`: required files, test files that are compiled, no path or host of one machine.
//! - `growth`: public structs that may get another field are `#[non_exhaustive]`.
//! - `debug`: no text of the library or the program contains Rust's debug output.
//! - `words`: the width and some words of comments.
//! - `dependencies`: licences, duplicates, origins and the oldest Rust of other packages.
//! - `headlines`: the figures that `benches/headlines` repeats are those of the documents.
//! - `tree`: the files that git tracks, and their code without comments and strings.

mod circles;
mod debug;
mod dependencies;
mod growth;
mod headlines;
mod house;
mod layers;
mod names;
mod source;
mod tree;
mod words;

/// Fails with all complaints, one in each line.
#[track_caller]
fn assert_none(complaints: &[String]) {
    assert!(complaints.is_empty(), "\n{}\n", complaints.join("\n"));
}
