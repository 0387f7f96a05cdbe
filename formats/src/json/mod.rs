//! JSON as a tree that loses nothing: the order of members and the digits of numbers stay as they
//! were written (RFC 8259).
//!
//! The metadata of LUKS2 holds members that this crate does not know. They have to survive a
//! rewrite of the header unchanged, so every read and write of it uses this tree.
//!
//! Of members with the same name, the last one counts. It takes the place of the first one.
//!
//! ```
//! use luksmith_formats::json::{Value, json};
//!
//! let text = r#"{"type":"own","keyslots":[],"cost":1.50e3}"#;
//! let mut token: Value = text.parse()?;
//! assert_eq!(token.to_string(), text);
//!
//! token["keyslots"] = json!(["0", "1"]);
//! assert_eq!(token["keyslots"][1], "1");
//! # Ok::<(), luksmith_formats::json::ParseError>(())
//! ```

mod construct;
mod number;
mod parse;
#[cfg(test)]
mod tests;
mod value;
mod write;

pub use crate::__json as json;
#[doc(hidden)]
pub use alloc::vec::Vec as __Vec;
pub use number::Number;
pub use parse::{MAX_DEPTH, ParseError, Problem};
pub use value::{Object, Value};
pub use write::Shown;
