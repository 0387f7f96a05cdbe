//! The text of a value.

use core::fmt::{self, Display, Formatter, Write};

use super::value::Value;
use crate::text::is_control;

/// The number of spaces by which each level is indented further.
const INDENT: usize = 2;

impl Display for Value {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let indent = f.alternate().then_some(0);
        value(f, self, indent, must_be_escaped)
    }
}

/// A value as text for people and terminals: with `{:#}` on indented lines. Control characters, as
/// [`is_control`] has them, are escaped, which JSON does not demand of all of them.
#[derive(Debug, Clone, Copy)]
pub struct Shown<'a>(&'a Value);

impl Value {
    /// The value as text for people and terminals.
    #[must_use]
    pub fn shown(&self) -> Shown<'_> {
        Shown(self)
    }
}

impl Display for Shown<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let indent = f.alternate().then_some(0);
        value(f, self.0, indent, |c| must_be_escaped(c) || is_control(c))
    }
}

/// Whether JSON demands that a character is escaped (RFC 8259, section 7).
fn must_be_escaped(c: char) -> bool {
    c < ' ' || c == '"' || c == '\\'
}

type Escaped = fn(char) -> bool;

/// Writes a value. Its lines are indented by `indent` spaces; `None` writes all of it in one line.
fn value(
    f: &mut Formatter<'_>,
    value: &Value,
    indent: Option<usize>,
    escaped: Escaped,
) -> fmt::Result {
    match value {
        Value::Null => f.write_str("null"),
        Value::Bool(true) => f.write_str("true"),
        Value::Bool(false) => f.write_str("false"),
        Value::Number(number) => f.write_str(number.as_str()),
        Value::String(text) => string(f, text, escaped),
        Value::Array(elements) => {
            let elements = elements.iter().map(|element| (None, element));
            list(f, '[', elements, ']', (indent, escaped))
        }
        Value::Object(object) => {
            let members = object.iter().map(|(name, value)| (Some(name), value));
            list(f, '{', members, '}', (indent, escaped))
        }
    }
}

fn list<'a>(
    f: &mut Formatter<'_>,
    open: char,
    items: impl ExactSizeIterator<Item = (Option<&'a str>, &'a Value)>,
    close: char,
    (indent, escaped): (Option<usize>, Escaped),
) -> fmt::Result {
    let empty = items.len() == 0;
    let within = indent.map(|spaces| spaces.saturating_add(INDENT));
    f.write_char(open)?;
    for (number, (name, item)) in items.enumerate() {
        if number > 0 {
            f.write_char(',')?;
        }
        line(f, within)?;
        if let Some(name) = name {
            string(f, name, escaped)?;
            f.write_str(if within.is_some() { ": " } else { ":" })?;
        }
        value(f, item, within, escaped)?;
    }
    if !empty {
        line(f, indent)?;
    }
    f.write_char(close)
}

/// Begins a line with `indent` spaces. `None` begins none.
fn line(f: &mut Formatter<'_>, indent: Option<usize>) -> fmt::Result {
    match indent {
        Some(spaces) => write!(f, "\n{:spaces$}", ""),
        None => Ok(()),
    }
}

/// Writes a string in quotes.
fn string(f: &mut Formatter<'_>, text: &str, escaped: Escaped) -> fmt::Result {
    f.write_char('"')?;
    let mut rest = text;
    while let Some(at) = rest.find(escaped) {
        let (plain, after) = rest.split_at(at);
        f.write_str(plain)?;
        let mut after = after.chars();
        match after.next() {
            Some('\u{8}') => f.write_str("\\b")?,
            Some('\t') => f.write_str("\\t")?,
            Some('\n') => f.write_str("\\n")?,
            Some('\u{c}') => f.write_str("\\f")?,
            Some('\r') => f.write_str("\\r")?,
            Some(c @ ('"' | '\\')) => write!(f, "\\{c}")?,
            Some(c) => write!(f, "\\u{:04x}", u32::from(c))?,
            None => {}
        }
        rest = after.as_str();
    }
    f.write_str(rest)?;
    f.write_char('"')
}
