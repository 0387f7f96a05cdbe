//! The output, the progress and the signals of a subcommand while it runs.

use std::path::Path;

use luksmith::Interrupt;
use luksmith::task::outcome::Outcome;
use luksmith::task::{MadeFile, Note, Watch, Work};

use super::advice;
use super::error::CommandError;
use super::output::{self, Output};
use super::progress::{ProgressMode, Running};
use super::signals::Signals;
use super::terminal;

/// Output, progress and signals. Tasks of the library report to it as their [`Watch`].
pub(crate) struct Session {
    pub(crate) output: Output,
    pub(crate) signals: Signals,
    /// Whether the result is JSON.
    pub(crate) json: bool,
    running: Running,
}

impl Session {
    /// The session of a command, such as `key add`.
    pub(crate) fn new(
        command: String,
        json: bool,
        progress: ProgressMode,
    ) -> Result<Self, CommandError> {
        Ok(Self {
            output: Output::new(command),
            signals: Signals::catch()?,
            json,
            running: Running::new(progress),
        })
    }

    /// Prints what the command did: a line, unless the user wants none, or a JSON document.
    pub(crate) fn done(&self, outcome: &dyn Outcome) {
        match self.json {
            true => self.output.json(&outcome.members().into()),
            false if terminal::is_quiet() => {}
            false => self.output.line(outcome),
        }
    }

    /// The same for a command that wrote data to `file`. If that is `-`, the line goes to stderr.
    pub(crate) fn wrote(&self, file: &Path, outcome: &dyn Outcome) {
        match file == Path::new("-") {
            true => output::note(outcome),
            false => self.done(outcome),
        }
    }

    /// Refuses `--json` if `file` is `-`: the data goes to stdout.
    pub(crate) fn refuse_json_beside(&self, file: &Path) -> Result<(), CommandError> {
        if self.json && file == Path::new("-") {
            return Err(
                CommandError::parameters("--json: the data itself goes to stdout")
                    .hint("name a file, or leave --json out"),
            );
        }
        Ok(())
    }

    /// Prints while the progress is hidden.
    pub(crate) fn aside<T>(&self, print: impl FnOnce() -> T) -> T {
        self.running.aside(print)
    }
}

impl Watch for Session {
    fn interrupt(&self) -> &Interrupt {
        self.signals.interrupt()
    }

    fn begins(&self, work: Work, total: Option<u64>) {
        self.running.begin(work, total);
    }

    fn resumes(&self, done: u64) {
        self.running.resume(done);
    }

    fn advances(&self, by: u64) {
        self.running.advance(by);
    }

    fn ends(&self, _work: Work, whole: bool) {
        self.running.end(whole);
    }

    fn notes(&self, note: Note<'_>) {
        let text = advice::note(&note);
        self.aside(|| match note.is_warning() {
            true => output::warning(text),
            false => output::note(text),
        });
    }

    fn unfinished(&self, file: &MadeFile, begun: bool) {
        match begun {
            true => self.signals.begin(file),
            false => self.signals.end(file),
        }
    }
}
