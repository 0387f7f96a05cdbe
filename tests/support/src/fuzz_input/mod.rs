//! The input formats of fuzz targets (`tests/fuzz`) that tests read or write too.

pub mod audit;
pub mod image;
pub mod qcow2;
pub mod tokens;

use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::path::Path;

/// Saves `input` as a seed if the environment variable `variable` names a folder.
///
/// The file's name is `prefix` and a hash of the input, so that equal inputs are saved once.
///
/// # Panics
///
/// If the file cannot be written.
pub fn save_seed(variable: &str, prefix: &str, input: &[u8]) {
    let Some(folder) = std::env::var_os(variable) else {
        return;
    };
    let mut hash = DefaultHasher::new();
    input.hash(&mut hash);
    let name = format!("{prefix}{:016x}", hash.finish());
    std::fs::write(Path::new(&folder).join(name), input).expect("the seed is written");
}
