//! Charts of measurements, as SVG documents.

mod canvas;
mod figures;
mod machines;
mod one;

pub use machines::svg as machines;
pub use one::svg;
