//! The output, the progress and the signals of a subcommand while it runs.

use luksmith::Interrupt;
use luksmith::task::{MadeFile, Note, Watch, Work};

use super::advice;
use super::error::CommandError;
use super::output::{self, Output};
use super::progress::{ProgressMode, Running};
use super::signals::Signals;

/// Output, progress and signals. Tasks of the library report to it as their [`Watch`].
pub(crate) struct Session {
    pub(crate) output: Output,
    pub(crate) signals: Signals,
    running: Running,
}

impl Session {
    pub(crate) fn new(progress: ProgressMode) -> Result<Self, CommandError> {
        Ok(Self {
            output: Output::new(),
            signals: Signals::catch()?,
            running: Running::new(progress),
        })
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
