//! qcow2 images as plain bytes.

mod check;
mod compress;

pub use check::check;
pub use compress::compress;
