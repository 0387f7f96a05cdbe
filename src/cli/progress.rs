//! Progress of long work on stderr: a bar on a terminal, JSON lines for programs, or nothing.

use std::fmt::Display;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::{Mutex, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use clap::ValueEnum;
use indicatif::{BinaryBytes, HumanDuration, ProgressBar, ProgressDrawTarget, ProgressStyle};
use luksmith::task::{Unit, Work};
use luksmith_formats::json::json;

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
    Bytes(Progress),
    Steps(Steps),
    Waiting { _spinner: Waiting },
}

impl Running {
    pub(crate) fn new(mode: ProgressMode) -> Self {
        let stack = RwLock::default();
        Self { mode, stack }
    }

    pub(crate) fn begin(&self, work: Work, total: Option<u64>) {
        if self.mode == ProgressMode::Json {
            let phase = json!({
                "phase": work.phase(),
                "unit": work.unit().name(),
                "total": total,
            });
            output::event("phase", &phase);
        }
        let showing = match work.unit() {
            Unit::Bytes => Showing::Bytes(Progress::start(self.mode, work, total)),
            Unit::Steps => Showing::Steps(Steps::start(self.mode, work, total.unwrap_or(0))),
            _ => Showing::Waiting {
                _spinner: Waiting::start(self.mode, work),
            },
        };
        self.change().push(showing);
    }

    /// The innermost work advanced by this many bytes or steps.
    pub(crate) fn advance(&self, by: u64) {
        match self.look().last() {
            Some(Showing::Bytes(progress)) => progress.advance(by),
            Some(Showing::Steps(steps)) => steps.advance(by),
            Some(Showing::Waiting { .. }) | None => {}
        }
    }

    /// The innermost work ended.
    pub(crate) fn end(&self, whole: bool) {
        let ended = self.change().pop();
        if let (Some(Showing::Bytes(progress)), true) = (ended, whole) {
            progress.finish();
        }
    }

    /// Prints while the bar of steps is hidden.
    pub(crate) fn aside<T>(&self, print: impl FnOnce() -> T) -> T {
        let stack = self.look();
        let steps = stack.iter().find_map(|showing| match showing {
            Showing::Steps(steps) => Some(steps),
            _ => None,
        });
        match steps {
            Some(steps) => steps.aside(print),
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

/// The progress of one piece of work, counted in bytes.
struct Progress {
    work: Work,
    total: Option<u64>,
    done: AtomicU64,
    started: Instant,
    shown: Shown,
}

enum Shown {
    Nothing,
    Bar(Mutex<Option<ProgressBar>>),
    Lines(Mutex<Instant>),
}

impl Progress {
    /// `total` is absent if it is unknown, as for stdin.
    pub(crate) fn start(mode: ProgressMode, work: Work, total: Option<u64>) -> Self {
        let started = Instant::now();
        let shown = match mode {
            ProgressMode::Json => Shown::Lines(Mutex::new(started)),
            ProgressMode::Auto if terminal::is_animated() => Shown::Bar(Mutex::new(None)),
            ProgressMode::Auto | ProgressMode::None => Shown::Nothing,
        };
        Self {
            work,
            total,
            done: AtomicU64::new(0),
            started,
            shown,
        }
    }

    /// Records that this many more bytes are done.
    pub(crate) fn advance(&self, bytes: u64) {
        let done = self.done.fetch_add(bytes, Ordering::Relaxed) + bytes;
        match &self.shown {
            Shown::Nothing => {}
            Shown::Bar(bar) => {
                if self.started.elapsed() >= WORTH_SHOWING
                    && let Ok(mut bar) = bar.try_lock()
                {
                    let bar = bar.get_or_insert_with(|| self.bar());
                    bar.set_message(self.pace_text(done));
                    bar.set_position(done);
                }
            }
            Shown::Lines(last) => {
                if let Ok(mut last) = last.try_lock()
                    && last.elapsed() >= LINE_EVERY
                {
                    *last = Instant::now();
                    self.line(done);
                }
            }
        }
    }

    /// Records that everything is done, and writes the last line. Dropping removes the bar.
    pub(crate) fn finish(self) {
        if let Shown::Lines(_) = self.shown {
            self.line(self.done.load(Ordering::Relaxed));
        }
    }

    /// Rate and remaining time are counted from the start of the work, not from the appearance of
    /// the bar.
    fn bar(&self) -> ProgressBar {
        let (bar, template) = match self.total {
            Some(total) => (
                ProgressBar::new(total),
                "{prefix} {bar:30} {percent:>3}% {binary_bytes}/{binary_total_bytes} {msg}",
            ),
            None => (
                ProgressBar::no_length(),
                "{prefix} {spinner} {binary_bytes} {msg}",
            ),
        };
        bar.set_draw_target(ProgressDrawTarget::stderr());
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style);
        }
        bar.set_prefix(self.work.to_string());
        bar
    }

    /// Bytes per second so far, and the milliseconds that remain at that rate.
    fn pace(&self, done: u64) -> (u64, Option<u64>) {
        let elapsed = self.started.elapsed().as_millis().max(1);
        let per_second = u64::try_from(u128::from(done) * 1000 / elapsed).unwrap_or(u64::MAX);
        let eta_ms = match self.total {
            Some(total) if per_second > 0 => {
                let left = u128::from(total.saturating_sub(done));
                u64::try_from(left * 1000 / u128::from(per_second)).ok()
            }
            _ => None,
        };
        (per_second, eta_ms)
    }

    fn pace_text(&self, done: u64) -> String {
        let (per_second, eta_ms) = self.pace(done);
        let eta = eta_ms.map(|ms| {
            let left = HumanDuration(Duration::from_secs(ms.div_ceil(1000)));
            format!(", {left:#} left")
        });
        format!("{}/s{}", BinaryBytes(per_second), eta.unwrap_or_default())
    }

    fn line(&self, done: u64) {
        let (per_second, eta_ms) = self.pace(done);
        let progress = json!({
            "phase": self.work.phase(),
            "unit": "bytes",
            "done": done,
            "total": self.total,
            "rate": per_second,
            "eta_ms": eta_ms,
            "elapsed_ms": elapsed_ms(self.started),
        });
        output::event("progress", &progress);
    }
}

/// The progress of work that is counted in steps.
struct Steps {
    work: Work,
    total: u64,
    started: Instant,
    done: AtomicU64,
    mode: ProgressMode,
    bar: Option<ProgressBar>,
}

impl Steps {
    fn start(mode: ProgressMode, work: Work, total: u64) -> Self {
        let shown = mode == ProgressMode::Auto && terminal::is_animated() && total > 1;
        let bar = shown.then(|| {
            let bar = ProgressBar::new(total);
            bar.set_draw_target(ProgressDrawTarget::stderr());
            if let Ok(style) =
                ProgressStyle::with_template("{prefix} {bar:30} {pos}/{len} {elapsed}")
            {
                bar.set_style(style);
            }
            bar.set_prefix(work.to_string());
            bar.enable_steady_tick(Duration::from_millis(200));
            bar
        });
        Self {
            work,
            total,
            started: Instant::now(),
            done: AtomicU64::new(0),
            mode,
            bar,
        }
    }

    /// Records that this many more steps are done.
    fn advance(&self, by: u64) {
        let done = self.done.fetch_add(by, Ordering::Relaxed) + by;
        if let Some(bar) = &self.bar {
            bar.set_position(done);
        }
        if self.mode == ProgressMode::Json {
            let progress = json!({
                "phase": self.work.phase(),
                "unit": "steps",
                "done": done,
                "total": self.total,
                "rate": null,
                "eta_ms": null,
                "elapsed_ms": elapsed_ms(self.started),
            });
            output::event("progress", &progress);
        }
    }

    /// Prints while the bar is hidden.
    fn aside<T>(&self, write: impl FnOnce() -> T) -> T {
        match &self.bar {
            Some(bar) => bar.suspend(write),
            None => write(),
        }
    }
}

impl Drop for Steps {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
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

impl Drop for Progress {
    fn drop(&mut self) {
        if let Shown::Bar(bar) = &self.shown
            && let Ok(bar) = bar.lock()
            && let Some(bar) = bar.as_ref()
        {
            bar.finish_and_clear();
        }
    }
}
