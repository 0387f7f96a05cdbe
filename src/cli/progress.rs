//! Progress of long work on stderr: a bar on a terminal, JSON lines for programs, or nothing.

use std::fmt::Display;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::{Mutex, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use clap::ValueEnum;
use indicatif::{BinaryBytes, HumanDuration, ProgressBar, ProgressDrawTarget, ProgressStyle};
use luksmith::task::{Pace, Unit, Work};

use super::{output, terminal};

/// Work shorter than this shows nothing on a terminal.
const WORTH_SHOWING: Duration = Duration::from_secs(1);
/// When the spinner of work whose length is unknown appears.
const APPEARS_AFTER: Duration = Duration::from_millis(300);
/// How often a JSON line is written.
const LINE_EVERY: Duration = Duration::from_millis(500);

/// How progress is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum ProgressMode {
    /// a bar on a terminal, for work that takes over a second
    Auto,
    /// events on stderr, a JSON object in each line: start, phase, progress, end
    Json,
    /// nothing
    None,
}

/// The milliseconds since then.
pub(crate) fn elapsed_ms(since: Instant) -> u64 {
    u64::try_from(since.elapsed().as_millis()).unwrap_or(u64::MAX)
}

/// The progress of the work that tasks of the library announced: a stack, since work may begin
/// within other work.
pub(crate) struct Running {
    mode: ProgressMode,
    stack: RwLock<Vec<Showing>>,
}

/// How one piece of work is shown.
enum Showing {
    Counted(Counted),
    Waiting { _spinner: Waiting },
}

impl Running {
    pub(crate) fn new(mode: ProgressMode) -> Self {
        let stack = RwLock::default();
        Self { mode, stack }
    }

    pub(crate) fn begin(&self, work: Work, total: Option<u64>) {
        if self.mode == ProgressMode::Json {
            output::event("phase", &Pace::phase(work, total));
        }
        let showing = match work.unit() {
            Unit::Bytes => Showing::Counted(Counted::start(self.mode, work, total)),
            Unit::Steps => {
                let total = total.or(Some(0));
                Showing::Counted(Counted::start(self.mode, work, total))
            }
            _ => Showing::Waiting {
                _spinner: Waiting::start(self.mode, work),
            },
        };
        self.change().push(showing);
    }

    /// The innermost work advanced by this many bytes or steps.
    pub(crate) fn advance(&self, by: u64) {
        if let Some(Showing::Counted(counted)) = self.look().last() {
            counted.advance(by);
        }
    }

    /// This much of the innermost work was done before it began.
    pub(crate) fn resume(&self, done: u64) {
        if let Some(Showing::Counted(counted)) = self.look().last() {
            counted.pace.resume(done);
        }
    }

    /// The innermost work ended.
    pub(crate) fn end(&self, whole: bool) {
        let ended = self.change().pop();
        if let (Some(Showing::Counted(counted)), true) = (ended, whole) {
            counted.finish();
        }
    }

    /// Prints while the bar of steps is hidden.
    pub(crate) fn aside<T>(&self, print: impl FnOnce() -> T) -> T {
        let stack = self.look();
        let steps = stack.iter().find_map(|showing| match showing {
            Showing::Counted(counted) if counted.is_steps() => counted.bar(),
            _ => None,
        });
        match steps {
            Some(bar) => bar.suspend(print),
            None => print(),
        }
    }

    fn look(&self) -> RwLockReadGuard<'_, Vec<Showing>> {
        self.stack.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn change(&self) -> RwLockWriteGuard<'_, Vec<Showing>> {
        self.stack.write().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The progress of one piece of work that is counted in bytes or in steps.
struct Counted {
    pace: Pace,
    shown: Shown,
}

enum Shown {
    Nothing,
    /// The bar of bytes appears after a while.
    Bar(Mutex<Option<ProgressBar>>),
    /// The time of the last line.
    Lines(Mutex<Instant>),
}

impl Counted {
    /// `total` is absent if it is unknown, as for stdin.
    fn start(mode: ProgressMode, work: Work, total: Option<u64>) -> Self {
        let pace = Pace::start(work, total);
        let shown = match (mode, work.unit()) {
            (ProgressMode::Json, _) => Shown::Lines(Mutex::new(Instant::now())),
            (ProgressMode::None, _) => Shown::Nothing,
            (ProgressMode::Auto, _) if !terminal::is_animated() => Shown::Nothing,
            (ProgressMode::Auto, Unit::Steps) if total <= Some(1) => Shown::Nothing,
            (ProgressMode::Auto, Unit::Steps) => {
                let bar = new_bar(&pace, "{prefix} {bar:30} {pos}/{len} {elapsed}");
                bar.enable_steady_tick(Duration::from_millis(200));
                Shown::Bar(Mutex::new(Some(bar)))
            }
            (ProgressMode::Auto, _) => Shown::Bar(Mutex::new(None)),
        };
        Self { pace, shown }
    }

    fn is_steps(&self) -> bool {
        self.pace.work().unit() == Unit::Steps
    }

    /// Records that this many more bytes or steps are done.
    fn advance(&self, by: u64) {
        let done = self.pace.advance(by);
        match &self.shown {
            Shown::Nothing => {}
            Shown::Bar(bar) => {
                let Ok(mut bar) = bar.try_lock() else {
                    return;
                };
                if self.is_steps() {
                    bar.iter().for_each(|bar| bar.set_position(done));
                } else if self.pace.elapsed() >= WORTH_SHOWING {
                    let bar = bar.get_or_insert_with(|| self.bar_of_bytes());
                    bar.set_message(self.text());
                    bar.set_position(done);
                }
            }
            Shown::Lines(_) if self.is_steps() => self.line(),
            Shown::Lines(last) => {
                if let Ok(mut last) = last.try_lock()
                    && last.elapsed() >= LINE_EVERY
                {
                    *last = Instant::now();
                    self.line();
                }
            }
        }
    }

    /// Records that everything is done, and writes the last line. Dropping removes the bar.
    fn finish(self) {
        if let (Shown::Lines(_), false) = (&self.shown, self.is_steps()) {
            self.line();
        }
    }

    /// The bar that is shown, if there is one.
    fn bar(&self) -> Option<ProgressBar> {
        match &self.shown {
            Shown::Bar(bar) => bar.lock().unwrap_or_else(PoisonError::into_inner).clone(),
            _ => None,
        }
    }

    /// Rate and remaining time are counted from the start of the work, not from the appearance of
    /// the bar.
    fn bar_of_bytes(&self) -> ProgressBar {
        let template = match self.pace.total() {
            Some(_) => {
                "{prefix} {bar:12} {percent:>3}% {binary_bytes}/{binary_total_bytes} {wide_msg}"
            }
            None => "{prefix} {spinner} {binary_bytes} {wide_msg}",
        };
        new_bar(&self.pace, template)
    }

    fn text(&self) -> String {
        let left = self.pace.left().map(|left| {
            let seconds = left.as_secs() + u64::from(left.subsec_nanos() > 0);
            let left = HumanDuration(Duration::from_secs(seconds));
            format!(", {left:#} left")
        });
        let rate = BinaryBytes(self.pace.rate().unwrap_or(0));
        format!("{rate}/s{}", left.unwrap_or_default())
    }

    fn line(&self) {
        output::event("progress", &self.pace.json());
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        if let Some(bar) = self.bar() {
            bar.finish_and_clear();
        }
    }
}

fn new_bar(pace: &Pace, template: &str) -> ProgressBar {
    let bar = match pace.total() {
        Some(total) => ProgressBar::new(total),
        None => ProgressBar::no_length(),
    };
    bar.set_draw_target(ProgressDrawTarget::stderr());
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style);
    }
    bar.set_prefix(pace.work().to_string());
    bar
}

/// A spinner on a terminal, for work whose progress is unknown. It appears after a while.
struct Waiting(Option<(ProgressBar, mpsc::Sender<()>, JoinHandle<()>)>);

impl Waiting {
    fn start(mode: ProgressMode, what: impl Display) -> Self {
        if mode != ProgressMode::Auto || !terminal::is_animated() {
            return Self(None);
        }
        let spinner = ProgressBar::new_spinner();
        spinner.set_draw_target(ProgressDrawTarget::hidden());
        spinner.set_message(format!("{what} …"));
        let shown = spinner.clone();
        let (end, ended) = mpsc::channel();
        let appear = move || {
            if ended.recv_timeout(APPEARS_AFTER) == Err(RecvTimeoutError::Timeout) {
                shown.set_draw_target(ProgressDrawTarget::stderr());
                shown.enable_steady_tick(Duration::from_millis(100));
            }
        };
        let thread = std::thread::Builder::new().spawn(appear).ok();
        Self(thread.map(|thread| (spinner, end, thread)))
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        if let Some((spinner, end, thread)) = self.0.take() {
            drop(end);
            let _ = thread.join();
            spinner.finish_and_clear();
        }
    }
}
