//! libvirt's configuration files (`virconf.c`): `name = value` lines with comments. A value is a
//! number, a string in one of three kinds of quotes, or a list in brackets. A file that libvirt
//! does not accept is not accepted here either.

/// The most bytes of a file, which is libvirt's limit.
pub const MOST_BYTES: usize = 10 << 20;
/// The most values of a file, including those in lists. libvirt has about a hundred settings.
const MOST_VALUES: usize = 10_000;
/// The most lists inside of one another. libvirt's settings have one.
const MOST_DEPTH: usize = 4;

/// A value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    /// A number.
    Number(i64),
    /// A string.
    Text(String),
    /// A list.
    List(Vec<Self>),
}

/// Why a file cannot be read: the line, and what is wrong there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {what}")]
#[non_exhaustive]
pub struct ConfError {
    /// The line, counted from 1.
    pub line: usize,
    /// What is wrong.
    pub what: &'static str,
}

/// A setting.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Entry {
    /// Its name.
    pub name: String,
    /// The line of the name, counted from 1.
    pub line: usize,
    /// Its value.
    pub value: Value,
}

/// A file that was read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Conf {
    entries: Vec<Entry>,
}

impl Conf {
    /// Reads a file.
    ///
    /// # Errors
    /// Returns an error if libvirt would not accept the file, or if it is too large.
    pub fn parse(text: &[u8]) -> Result<Self, ConfError> {
        let mut reader = Reader {
            text,
            at: 0,
            line: 1,
            values: 0,
        };
        if text.len() > MOST_BYTES {
            return Err(reader.error("the file has more than 10 MiB"));
        }
        let mut conf = Self::default();
        loop {
            reader.skip_lines();
            match reader.peek() {
                None => return Ok(conf),
                Some(b'#') => reader.skip_comment(),
                Some(_) => conf.entries.push(reader.entry()?),
            }
            reader.separator()?;
        }
    }

    /// The setting with this name. If there are several, the first one counts, as for libvirt.
    pub fn get(&self, name: &str) -> Option<&Entry> {
        self.entries.iter().find(|entry| entry.name == name)
    }
}

struct Reader<'a> {
    text: &'a [u8],
    at: usize,
    line: usize,
    /// The number of values so far.
    values: usize,
}

impl Reader<'_> {
    fn error(&self, what: &'static str) -> ConfError {
        let line = self.line;
        ConfError { line, what }
    }

    fn peek(&self) -> Option<u8> {
        self.text.get(self.at).copied()
    }

    fn is_at_end_of_line(&self) -> bool {
        matches!(self.peek(), None | Some(b'\n' | b'\r'))
    }

    fn skip_blanks(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\t')) {
            self.at += 1;
        }
    }

    /// Skips spaces and line ends.
    fn skip_lines(&mut self) {
        while let Some(byte @ (b' ' | b'\t' | b'\n' | b'\r')) = self.peek() {
            self.line += usize::from(byte == b'\n');
            self.at += 1;
        }
    }

    fn skip_comment(&mut self) {
        while !self.is_at_end_of_line() {
            self.at += 1;
        }
    }

    /// Reads what separates two settings: the end of a line, or a semicolon.
    fn separator(&mut self) -> Result<(), ConfError> {
        self.skip_blanks();
        match self.peek() {
            None | Some(b'\n' | b'\r') => Ok(()),
            Some(b';') => {
                self.at += 1;
                Ok(())
            }
            Some(_) => Err(self.error("there is something after the value")),
        }
    }

    fn entry(&mut self) -> Result<Entry, ConfError> {
        let line = self.line;
        if !self.peek().is_some_and(|byte| byte.is_ascii_alphabetic()) {
            return Err(self.error("this is not the name of a setting"));
        }
        let name = self.take_while(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
        self.skip_blanks();
        if self.peek() != Some(b'=') {
            return Err(self.error("there is no = after the name"));
        }
        self.at += 1;
        let value = self.value(0)?;
        self.skip_blanks();
        if self.peek() == Some(b'#') {
            self.skip_comment();
        }
        Ok(Entry { name, line, value })
    }

    fn value(&mut self, depth: usize) -> Result<Value, ConfError> {
        self.values += 1;
        if self.values > MOST_VALUES {
            return Err(self.error("there are too many values"));
        }
        self.skip_blanks();
        match self.peek() {
            Some(b'\'') => self.string(b"'"),
            Some(b'"') if self.rest().starts_with(b"\"\"\"") && self.rest().len() > 6 => {
                self.string(b"\"\"\"")
            }
            Some(b'"') => self.string(b"\""),
            Some(b'[') if depth < MOST_DEPTH => self.list(depth),
            Some(b'0'..=b'9' | b'-' | b'+') => self.number(),
            _ => Err(self.error("a number, a string in quotes or a list is missing")),
        }
    }

    fn rest(&self) -> &[u8] {
        self.text.get(self.at..).unwrap_or_default()
    }

    fn take_while(&mut self, wanted: impl Fn(u8) -> bool) -> String {
        let rest = self.rest();
        let length = rest
            .iter()
            .position(|byte| !wanted(*byte))
            .unwrap_or(rest.len());
        let taken = rest.get(..length).unwrap_or_default();
        let taken = String::from_utf8_lossy(taken).into_owned();
        self.at += length;
        taken
    }

    /// Reads a string between quotes. Only one in three quotes may contain line ends. There are no
    /// escapes.
    fn string(&mut self, quote: &[u8]) -> Result<Value, ConfError> {
        self.at += quote.len();
        let rest = self.rest();
        let Some(length) = rest.windows(quote.len()).position(|window| window == quote) else {
            return Err(self.error("the string is not closed"));
        };
        let inside = rest.get(..length).unwrap_or_default();
        let lines = inside.iter().filter(|byte| **byte == b'\n').count();
        if quote.len() == 1 && inside.iter().any(|byte| matches!(byte, b'\n' | b'\r')) {
            return Err(self.error("the string is not closed"));
        }
        let text = String::from_utf8_lossy(inside).into_owned();
        self.at += length + quote.len();
        self.line += lines;
        Ok(Value::Text(text))
    }

    fn number(&mut self) -> Result<Value, ConfError> {
        let negative = self.peek() == Some(b'-');
        if matches!(self.peek(), Some(b'-' | b'+')) {
            self.at += 1;
        }
        let digits = self.take_while(|byte| byte.is_ascii_digit());
        match digits.parse::<i64>() {
            Ok(number) => Ok(Value::Number(if negative { -number } else { number })),
            Err(_) => Err(self.error("this is not a number")),
        }
    }

    fn list(&mut self, depth: usize) -> Result<Value, ConfError> {
        let mut values = Vec::new();
        self.at += 1;
        loop {
            self.skip_lines();
            match self.peek() {
                Some(b']') => break,
                Some(_) => {}
                None => return Err(self.error("the list is not closed with ]")),
            }
            values.push(self.value(depth + 1)?);
            self.skip_lines();
            match self.peek() {
                Some(b',') => self.at += 1,
                Some(b']') => break,
                _ => return Err(self.error("a comma is missing between the values of a list")),
            }
        }
        self.at += 1;
        Ok(Value::List(values))
    }
}
