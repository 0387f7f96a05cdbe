//! Output: results on stdout, all else on stderr.

use std::fmt::Display;
use std::io::{self, Write};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use luksmith::task::outcome::SCHEMA;
use luksmith::task::printable;
use luksmith_formats::json::{Object, Value, json};
use luksmith_formats::text::Shown;

use super::error::{CommandError, stdout_failed};
use super::terminal;

/// Whether what goes to stderr is JSON, one object in each line.
static EVENTS: AtomicBool = AtomicBool::new(false);

/// From now on, what goes to stderr is JSON, one object in each line.
pub(crate) fn write_events() {
    EVENTS.store(true, Ordering::Relaxed);
}

/// Whether what goes to stderr is JSON.
pub(crate) fn are_events() -> bool {
    EVENTS.load(Ordering::Relaxed)
}

/// Buffered stdout. If its reader exits, the command ends without a message.
pub(crate) struct Output {
    /// The words of the command, such as `key add`.
    command: String,
    buffer: Mutex<Vec<u8>>,
}

impl Output {
    pub(crate) fn new(command: String) -> Self {
        Self {
            command,
            buffer: Mutex::new(Vec::new()),
        }
    }

    /// One line of result. What it contains of names and images is made safe to show.
    pub(crate) fn line(&self, line: impl Display) {
        self.bytes(format!("{}\n", printable(&line.to_string())).as_bytes());
    }

    /// Lines of result, such as a table or XML. Only their control characters are escaped: a text
    /// from outside that may have line ends has to be made safe before.
    pub(crate) fn lines(&self, lines: impl Display) {
        for line in lines.to_string().split('\n') {
            self.bytes(format!("{}\n", Shown(line)).as_bytes());
        }
    }

    /// Writes one line of result immediately, for work that takes long.
    pub(crate) fn now(&self, line: impl Display) -> Result<(), CommandError> {
        self.line(line);
        self.finish()
    }

    /// The result as one JSON document, with the members `schema` and `command` before its own.
    pub(crate) fn json(&self, value: &Value) {
        self.json_of_others(&self.document(value));
    }

    /// The same in one line, written at once.
    pub(crate) fn json_now(&self, value: &Value) -> Result<(), CommandError> {
        self.bytes(format!("{}\n", self.document(value).shown()).as_bytes());
        self.finish()
    }

    /// JSON whose vocabulary is not ours.
    pub(crate) fn json_of_others(&self, value: &Value) {
        self.bytes(format!("{:#}\n", value.shown()).as_bytes());
    }

    fn document(&self, value: &Value) -> Value {
        let mut document = Object::new();
        document.insert("schema", SCHEMA);
        document.insert("command", self.command.as_str());
        for (name, member) in value.as_object().into_iter().flat_map(Object::iter) {
            document.insert(name, member);
        }
        document.into()
    }

    pub(crate) fn bytes(&self, bytes: &[u8]) {
        self.buffer
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
            .extend_from_slice(bytes);
    }

    /// Writes the buffer.
    pub(crate) fn finish(&self) -> Result<(), CommandError> {
        let mut buffer = self
            .buffer
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        let bytes = std::mem::take(&mut *buffer);
        if !bytes.is_empty() {
            refuse_closed_stdout()?;
        }
        let mut stdout = io::stdout().lock();
        stdout
            .write_all(&bytes)
            .and_then(|()| stdout.flush())
            .map_err(stdout_failed)
    }
}

/// Fails if stdout was closed when the program started: everything would be lost.
pub(crate) fn refuse_closed_stdout() -> Result<(), CommandError> {
    match luksmith::sys::stdout_was_closed() {
        true => Err(stdout_failed(io::Error::other("it is closed"))),
        false => Ok(()),
    }
}

/// Prints why a command failed, with its hints.
pub(crate) fn report(failed: &CommandError) {
    if failed.is_silent() {
        return;
    }
    if are_events() {
        let error = json!({
            "kind": failed.name(),
            "message": failed.line(),
            "hints": failed.hints(),
            "exit_code": failed.exit_code(),
        });
        event("error", &error);
        return;
    }
    error(&failed.line());
    for line in failed.hints() {
        hint(line);
    }
}

/// Writes text to stdout.
pub(crate) fn stdout_raw(text: &str) -> Result<(), CommandError> {
    refuse_closed_stdout()?;
    let mut stdout = io::stdout().lock();
    let written = stdout.write_all(text.as_bytes());
    written.and_then(|()| stdout.flush()).map_err(stdout_failed)
}

/// Writes help to stderr, unless that is JSON.
pub(crate) fn help(text: &str) {
    if !EVENTS.load(Ordering::Relaxed) {
        raw(text);
    }
}

/// Writes an event to stderr: a JSON object in one line.
pub(crate) fn event(name: &str, members: &Value) {
    let mut event = Object::new();
    event.insert("schema", SCHEMA);
    event.insert("event", name);
    for (name, member) in members.as_object().into_iter().flat_map(Object::iter) {
        event.insert(name, member);
    }
    raw(&format!("{}\n", Value::from(event).shown()));
}

/// Prints a fact that the user should know.
pub(crate) fn note(message: impl Display) {
    if !terminal::is_quiet() {
        stderr_line("note", &message.to_string());
    }
}

pub(crate) fn warning(message: impl Display) {
    stderr_line("warning", &message.to_string());
}

pub(crate) fn error(message: &str) {
    stderr_line("error", message);
}

pub(crate) fn hint(message: &str) {
    stderr_line("hint", message);
}

/// Writes text to stderr as it is (questions, JSON lines of progress).
pub(crate) fn raw(text: &str) {
    let mut stderr = io::stderr().lock();
    // A failure to write to stderr cannot be reported.
    let _ = stderr
        .write_all(text.as_bytes())
        .and_then(|()| stderr.flush());
}

/// A line of the library's log, or a message of the program.
pub(crate) fn stderr_line(word: &str, message: &str) {
    if are_events() {
        event(word, &json!({ "message": message }));
        return;
    }
    let colour = match word {
        "error" => "1;31",
        "warning" => "1;33",
        _ => "1;36",
    };
    let word = match terminal::is_coloured(&io::stderr()) {
        true => format!("\u{1b}[{colour}m{word}\u{1b}[0m"),
        false => word.to_owned(),
    };
    raw(&format!("luksmith: {word}: {}\n", printable(message)));
}

/// Disables core dumps and ptrace by other processes. Only warns if the system cannot.
pub(crate) fn harden() {
    if let Err(error) = luksmith::sys::harden() {
        warning(format_args!("core dumps are still possible: {error}"));
    }
}
