//! The repository checks its own shape. Each check is a function from files to complaints; each has a test that it
//! complains about nothing here, and one that it can complain.
//!
//! - `layers`: dependencies between the modules run downward only.
//! - `circles`: no files name items of each other. `names` finds which items a file names.
//! - `source`: where unsafe, printing and the turns between plain and cipher may be; no forgotten or unfinished code.
//! - `house`: files that must be there, that a test names, that say nothing of one machine.
//! - `growth`: public structs that may get another field are `#[non_exhaustive]`.
//! - `dependencies`: licences, duplicates, origins and the oldest Rust of what others wrote.
//! - `tree`: the files that git tracks, and their code without comments and strings.

mod circles;
mod dependencies;
mod growth;
mod house;
mod layers;
mod names;
mod source;
mod tree;

/// Fails with all complaints, one a line.
#[track_caller]
fn assert_none(complaints: &[String]) {
    assert!(complaints.is_empty(), "\n{}\n", complaints.join("\n"));
}
