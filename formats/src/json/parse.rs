//! The parser: RFC 8259, and nothing beyond it, or what json-c takes by default.
//!
//! cryptsetup reads and writes metadata with json-c, whose grammar is wider: `NaN` and `Infinity`,
//! words in any case, comments, commas before a closing bracket, single quotes, control characters
//! and bytes that are not UTF-8 in strings, leading zeros, and a number that ends with a point or
//! an `e`.

use alloc::string::String;
use alloc::vec::Vec;
use core::str::{self, FromStr};

use super::number::Number;
use super::value::{Object, Value};
use crate::raw_text;

/// How deep arrays and objects may be nested: a value may be inside of this many of them.
pub const MAX_DEPTH: usize = 127;

/// Why a text is not a value, and where.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{problem} at byte {offset}")]
#[non_exhaustive]
pub struct ParseError {
    /// The offset of the first byte that cannot be part of a value.
    pub offset: usize,
    /// What is wrong there.
    pub problem: Problem,
}

/// What is wrong with a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Problem {
    /// The text ends in the middle of a value, or before it.
    #[error("unexpected end")]
    End,
    /// Something other than a value.
    #[error("expected a value")]
    NoValue,
    /// Something other than the name of a member.
    #[error("expected a name in quotes")]
    NoName,
    /// Something other than the colon behind a name.
    #[error("expected a colon")]
    NoColon,
    /// Something other than a comma or the end of an array.
    #[error("expected a comma or the end of the array")]
    InArray,
    /// Something other than a comma or the end of an object.
    #[error("expected a comma or the end of the object")]
    InObject,
    /// A number that breaks the grammar.
    #[error("invalid number")]
    Number,
    /// A control character in a string, which would have to be escaped.
    #[error("control character in a string")]
    Control,
    /// An escape that does not exist.
    #[error("invalid escape")]
    Escape,
    /// An escape for half of a surrogate pair.
    #[error("half of a surrogate pair")]
    Surrogate,
    /// Bytes that are not UTF-8.
    #[error("invalid UTF-8")]
    Utf8,
    /// More than one value.
    #[error("trailing characters")]
    Trailing,
    /// Nested deeper than [`MAX_DEPTH`].
    #[error("nested deeper than {MAX_DEPTH} levels")]
    TooDeep,
    /// More values than the caller allows.
    #[error("too many values")]
    TooManyValues,
}

impl Value {
    /// Parses a text, which may have white space around the value.
    ///
    /// # Errors
    /// [`ParseError`], also for a value nested deeper than [`MAX_DEPTH`].
    pub fn parse(text: &[u8]) -> Result<Self, ParseError> {
        let text = str::from_utf8(text).map_err(|error| ParseError {
            offset: error.valid_up_to(),
            problem: Problem::Utf8,
        })?;
        parse(text, usize::MAX, Grammar::Strict)
    }

    /// Parses a text as json-c does by default, which takes more than JSON. Bytes that are not
    /// UTF-8 have the form of [`raw_text`].
    ///
    /// The text is from a stranger: it may hold at most `most` values, members and elements of all
    /// depths. This bounds the memory, which can otherwise be many times the length of the text.
    ///
    /// # Errors
    /// [`ParseError`]; [`Problem::TooManyValues`] as soon as there are more.
    pub fn parse_lenient(text: &[u8], most: usize) -> Result<Self, ParseError> {
        let text = raw_text::decode(text);
        parse(&text, most, Grammar::Lenient).map_err(|error| ParseError {
            offset: raw_text::encode(text.get(..error.offset).unwrap_or_default()).len(),
            ..error
        })
    }
}

impl FromStr for Value {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        Self::parse(text.as_bytes())
    }
}

/// What is taken beyond RFC 8259.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Grammar {
    /// Only what RFC 8259 allows.
    Strict,
    /// What json-c takes by default.
    Lenient,
}

fn parse(text: &str, most_values: usize, grammar: Grammar) -> Result<Value, ParseError> {
    let mut parser = Parser {
        text,
        lenient: grammar == Grammar::Lenient,
        at: 0,
        depth_left: MAX_DEPTH,
        values_left: most_values,
    };
    let value = parser.value()?;
    match parser.next() {
        Some(_) => Err(parser.error(Problem::Trailing)),
        None => Ok(value),
    }
}

struct Parser<'a> {
    text: &'a str,
    lenient: bool,
    at: usize,
    depth_left: usize,
    values_left: usize,
}

impl Parser<'_> {
    fn error(&self, problem: Problem) -> ParseError {
        ParseError {
            offset: self.at,
            problem,
        }
    }

    /// The error for a byte that is not `wanted`, or for the end.
    fn unexpected(&self, wanted: Problem) -> ParseError {
        let end = self.byte().is_none();
        self.error(if end { Problem::End } else { wanted })
    }

    fn byte(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    fn step(&mut self) {
        self.at = self.at.saturating_add(1);
    }

    /// The next byte that is not white space, nor in a comment.
    fn next(&mut self) -> Option<u8> {
        loop {
            while let Some(b' ' | b'\t' | b'\n' | b'\r') = self.byte() {
                self.step();
            }
            if !self.lenient || !self.skip_comment() {
                return self.byte();
            }
        }
    }

    fn skip_comment(&mut self) -> bool {
        let rest = self.text.get(self.at..).unwrap_or_default();
        let (body, end) = match rest.split_at_checked(2) {
            Some(("/*", body)) => (body, "*/"),
            Some(("//", body)) => (body, "\n"),
            _ => return false,
        };
        let length = match body.find(end) {
            Some(at) => at.saturating_add(end.len()),
            None => body.len(),
        };
        self.at = self.at.saturating_add(length).saturating_add(2);
        true
    }

    fn value(&mut self) -> Result<Value, ParseError> {
        let first = self.next();
        match self.values_left.checked_sub(1) {
            Some(left) => self.values_left = left,
            None => return Err(self.error(Problem::TooManyValues)),
        }
        match first {
            Some(b'{') => self.nested(Self::object),
            Some(b'[') => self.nested(Self::array),
            Some(quote) if self.is_quote(quote) => Ok(Value::String(self.string()?)),
            Some(_) if self.lenient && self.skip_word("NaN") => Ok(not_finite("NaN")),
            Some(_) if self.lenient && self.skip_word("Infinity") => Ok(not_finite("Infinity")),
            Some(_) if self.lenient && self.skip_word("-Infinity") => Ok(not_finite("-Infinity")),
            Some(b'-' | b'0'..=b'9') => self.number(),
            Some(b'n' | b'N') => self.word("null", Value::Null),
            Some(b't' | b'T') => self.word("true", Value::Bool(true)),
            Some(b'f' | b'F') => self.word("false", Value::Bool(false)),
            _ => Err(self.unexpected(Problem::NoValue)),
        }
    }

    fn is_quote(&self, byte: u8) -> bool {
        byte == b'"' || byte == b'\'' && self.lenient
    }

    /// Whether this word is next, in any case. It is skipped then.
    fn skip_word(&mut self, word: &str) -> bool {
        let end = self.at.saturating_add(word.len());
        let next = self.text.get(self.at..end).unwrap_or_default();
        let there = next.eq_ignore_ascii_case(word);
        if there {
            self.at = end;
        }
        there
    }

    fn word(&mut self, word: &str, value: Value) -> Result<Value, ParseError> {
        for byte in word.bytes() {
            let found = self.byte().map(|found| match self.lenient {
                true => found.to_ascii_lowercase(),
                false => found,
            });
            if found != Some(byte) {
                return Err(self.unexpected(Problem::NoValue));
            }
            self.step();
        }
        Ok(value)
    }

    fn nested(
        &mut self,
        read: impl FnOnce(&mut Self) -> Result<Value, ParseError>,
    ) -> Result<Value, ParseError> {
        let left = self.depth_left;
        self.depth_left = left
            .checked_sub(1)
            .ok_or_else(|| self.error(Problem::TooDeep))?;
        self.step();
        let value = read(self)?;
        self.depth_left = left;
        Ok(value)
    }

    fn array(&mut self) -> Result<Value, ParseError> {
        let mut elements = Vec::new();
        if self.next() == Some(b']') {
            self.step();
            return Ok(Value::Array(elements));
        }
        loop {
            elements.push(self.value()?);
            match self.next() {
                Some(b',') => self.step(),
                Some(b']') => break self.step(),
                _ => return Err(self.unexpected(Problem::InArray)),
            }
            if self.lenient && self.next() == Some(b']') {
                break self.step();
            }
        }
        Ok(Value::Array(elements))
    }

    fn object(&mut self) -> Result<Value, ParseError> {
        let mut members = Vec::new();
        if self.next() == Some(b'}') {
            self.step();
            return Ok(Value::Object(Object::new()));
        }
        loop {
            if !self.next().is_some_and(|byte| self.is_quote(byte)) {
                return Err(self.unexpected(Problem::NoName));
            }
            let name = self.string()?;
            if self.next() != Some(b':') {
                return Err(self.unexpected(Problem::NoColon));
            }
            self.step();
            members.push((name, self.value()?));
            match self.next() {
                Some(b',') => self.step(),
                Some(b'}') => break self.step(),
                _ => return Err(self.unexpected(Problem::InObject)),
            }
            if self.lenient && self.next() == Some(b'}') {
                break self.step();
            }
        }
        Ok(Value::Object(Object::of(members)))
    }

    /// `-`, digits without a leading zero, a fraction, an exponent.
    fn number(&mut self) -> Result<Value, ParseError> {
        let start = self.at;
        if self.byte() == Some(b'-') {
            self.step();
        }
        if self.byte() == Some(b'0') && !self.lenient {
            self.step();
        } else {
            self.digits()?;
        }
        if self.byte() == Some(b'.') {
            self.step();
            self.digits_after_sign()?;
        }
        if let Some(b'e' | b'E') = self.byte() {
            self.step();
            if let Some(b'+' | b'-') = self.byte() {
                self.step();
            }
            self.digits_after_sign()?;
        }
        if let Some(b'0'..=b'9') = self.byte() {
            return Err(self.error(Problem::Number));
        }
        let text = self.text.get(start..self.at).unwrap_or_default();
        Ok(Value::Number(Number::of_text(text)))
    }

    /// The digits of a fraction or an exponent, at least one.
    fn digits_after_sign(&mut self) -> Result<(), ParseError> {
        match self.byte() {
            Some(b'0'..=b'9') => self.digits(),
            _ if self.lenient => Ok(()),
            _ => Err(self.unexpected(Problem::Number)),
        }
    }

    /// At least one digit.
    fn digits(&mut self) -> Result<(), ParseError> {
        let start = self.at;
        while let Some(b'0'..=b'9') = self.byte() {
            self.step();
        }
        if self.at == start {
            Err(self.unexpected(Problem::Number))
        } else {
            Ok(())
        }
    }

    fn string(&mut self) -> Result<String, ParseError> {
        let quote = self.byte();
        self.step();
        let mut string = String::new();
        loop {
            let start = self.at;
            while let Some(byte) = self.byte()
                && Some(byte) != quote
                && byte != b'\\'
                && (byte >= b' ' || self.lenient)
            {
                self.step();
            }
            string.push_str(self.text.get(start..self.at).unwrap_or_default());
            match self.byte() {
                Some(byte) if Some(byte) == quote => break self.step(),
                Some(b'\\') if self.lenient => raw_text::push(&mut string, self.escaped()?),
                Some(b'\\') => string.push(self.escaped()?),
                _ => return Err(self.unexpected(Problem::Control)),
            }
        }
        Ok(string)
    }

    /// The character that an escape stands for.
    fn escaped(&mut self) -> Result<char, ParseError> {
        self.step();
        let c = match self.byte() {
            Some(c @ (b'"' | b'\\' | b'/')) => char::from(c),
            Some(b'b') => '\u{8}',
            Some(b'f') => '\u{c}',
            Some(b'n') => '\n',
            Some(b'r') => '\r',
            Some(b't') => '\t',
            Some(b'u') => {
                self.step();
                return self.unicode();
            }
            _ => return Err(self.unexpected(Problem::Escape)),
        };
        self.step();
        Ok(c)
    }

    /// The character of one `\u` escape, or of two for a surrogate pair.
    fn unicode(&mut self) -> Result<char, ParseError> {
        let start = self.at;
        match self.pair() {
            Err(ParseError {
                problem: Problem::Surrogate,
                ..
            }) if self.lenient => {
                // What follows the half is read again.
                self.at = start.saturating_add(4);
                Ok(char::REPLACEMENT_CHARACTER)
            }
            read => read,
        }
    }

    fn pair(&mut self) -> Result<char, ParseError> {
        let mut units = [self.four_digits()?, 0];
        if let [0xd800..=0xdbff, second] = &mut units {
            for byte in [b'\\', b'u'] {
                if self.byte() != Some(byte) {
                    return Err(self.unexpected(Problem::Surrogate));
                }
                self.step();
            }
            *second = self.four_digits()?;
        }
        match char::decode_utf16(units).next() {
            Some(Ok(c)) => Ok(c),
            _ => Err(self.error(Problem::Surrogate)),
        }
    }

    fn four_digits(&mut self) -> Result<u16, ParseError> {
        let end = self.at.saturating_add(4);
        let digits = self.text.get(self.at..end).unwrap_or_default();
        let hexadecimal = digits.bytes().all(|byte| byte.is_ascii_hexdigit());
        let unit = u16::from_str_radix(digits, 16).ok().filter(|_| hexadecimal);
        let unit = unit.ok_or_else(|| self.error(Problem::Escape))?;
        self.at = end;
        Ok(unit)
    }
}

/// A number that JSON cannot say. Its text is kept.
fn not_finite(text: &str) -> Value {
    Value::Number(Number::of_text(text))
}
