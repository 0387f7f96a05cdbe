//! The log of the library on stderr, in the same form as notes and warnings.

use std::fmt::{self, Write as _};
use std::io;

use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

use super::output;

/// Starts the log. It shows warnings, and says when a problem is over. With `-v` it shows more, and
/// the filter in LUKSMITH_LOG selects what it shows.
pub(crate) fn start(verbose: u8) {
    let level = match verbose {
        0 => "luksmith=warn,luksmith::state=info",
        1 => "luksmith=info",
        _ => "luksmith=debug",
    };
    let filter = EnvFilter::try_from_env("LUKSMITH_LOG").unwrap_or_else(|_| EnvFilter::new(level));
    let log = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(io::stderr);
    // This runs once, so there is no other subscriber.
    let _ = log.event_format(Line).try_init();
}

/// `luksmith: warning: message (field: value)`.
struct Line;

impl<S, N> FormatEvent<S, N> for Line
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        _: &FmtContext<'_, S, N>,
        // The same stderr, which `output` writes to.
        _: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let word = match *event.metadata().level() {
            Level::ERROR => "error",
            Level::WARN => "warning",
            Level::INFO => "note",
            _ => "debug",
        };
        let mut parts = Parts::default();
        event.record(&mut parts);
        let fields = if parts.fields.is_empty() {
            String::new()
        } else {
            format!(" ({})", parts.fields.join(", "))
        };
        output::stderr_line(word, &format!("{}{fields}", parts.message));
        Ok(())
    }
}

#[derive(Default)]
struct Parts {
    message: String,
    fields: Vec<String>,
}

impl Parts {
    fn take(&mut self, field: &Field, value: fmt::Arguments<'_>) {
        if field.name() == "message" {
            // Writing to a String does not fail.
            let _ = write!(self.message, "{value}");
        } else {
            self.fields.push(format!("{}: {value}", field.name()));
        }
    }
}

impl Visit for Parts {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.take(field, format_args!("{value}"));
    }

    /// Also numbers, and values that are recorded by their `Display`.
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.take(field, format_args!("{value:?}"));
    }
}
