//! How much of a terminal the output uses: colour, movement, width, and whether notes are wanted.

use std::ffi::OsString;
use std::io::{self, IsTerminal};
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};

use clap::ValueEnum;

/// When words are coloured.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Color {
    /// On a terminal, as NO_COLOR, CLICOLOR_FORCE, TERM and CLICOLOR say
    #[default]
    Auto,
    /// Also if the output is no terminal
    Always,
    /// Never
    Never,
}

static COLOR: AtomicU8 = AtomicU8::new(Color::Auto as u8);
static QUIET: AtomicBool = AtomicBool::new(false);

/// Sets what the options say, for the whole program.
pub(crate) fn choose(color: Color, quiet: bool) {
    COLOR.store(color as u8, Ordering::Relaxed);
    QUIET.store(quiet, Ordering::Relaxed);
}

/// Sets the colour that these arguments state, which may be wrong otherwise.
pub(crate) fn choose_from(args: &[OsString]) {
    let mut words = args.iter().filter_map(|arg| arg.to_str());
    let stated = words.find_map(|word| word.strip_prefix("--color"));
    let value = match stated {
        Some("") => words.next(),
        other => other.and_then(|rest| rest.strip_prefix('=')),
    };
    let color = value.and_then(|value| Color::from_str(value, false).ok());
    choose(color.unwrap_or_default(), false);
}

/// Whether only results, warnings and errors are printed.
pub(crate) fn is_quiet() -> bool {
    QUIET.load(Ordering::Relaxed)
}

/// Whether words on this stream are coloured.
pub(crate) fn is_coloured(stream: &impl IsTerminal) -> bool {
    let chosen = COLOR.load(Ordering::Relaxed);
    if chosen != Color::Auto as u8 {
        return chosen == Color::Always as u8;
    }
    decided(|name| std::env::var(name).ok()).unwrap_or_else(|| stream.is_terminal())
}

/// What the environment says of colour, whatever the stream is. A stream that is no terminal is
/// coloured only by force.
fn decided(variable: impl Fn(&str) -> Option<String>) -> Option<bool> {
    let set = |name| variable(name).filter(|value| !value.is_empty());
    if set("NO_COLOR").is_some() {
        return Some(false);
    }
    if set("CLICOLOR_FORCE").is_some_and(|value| value != "0") {
        return Some(true);
    }
    let off = set("TERM").is_some_and(|term| term == "dumb")
        || set("CLICOLOR").is_some_and(|value| value == "0");
    off.then_some(false)
}

/// Whether bars and spinners can be drawn: stderr is a terminal on which a line can be replaced.
pub(crate) fn is_animated() -> bool {
    let dumb = std::env::var_os("TERM").is_some_and(|term| term == "dumb");
    !dumb && !is_quiet() && io::stderr().is_terminal()
}

/// The columns of the output: those of COLUMNS, or else of the terminal that stdout is.
pub(crate) fn columns() -> Option<u16> {
    let stated = std::env::var("COLUMNS").ok();
    let stated = stated.and_then(|text| text.trim().parse().ok());
    let size = || rustix::termios::tcgetwinsize(io::stdout()).ok();
    let columns = stated.or_else(|| size().map(|size| size.ws_col));
    columns.filter(|&columns| columns > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_environment_decides_before_the_stream() {
        type Case = (&'static [(&'static str, &'static str)], Option<bool>);
        let cases: [Case; 9] = [
            (&[], None),
            (&[("NO_COLOR", "")], None),
            (&[("NO_COLOR", "1"), ("CLICOLOR_FORCE", "1")], Some(false)),
            (&[("CLICOLOR_FORCE", "1"), ("TERM", "dumb")], Some(true)),
            (&[("CLICOLOR_FORCE", "0")], None),
            (&[("TERM", "dumb")], Some(false)),
            (&[("TERM", "xterm")], None),
            (&[("CLICOLOR", "0")], Some(false)),
            (&[("CLICOLOR", "1")], None),
        ];
        for (set, expected) in cases {
            let variable = |name: &str| {
                let found = set.iter().find(|(known, _)| *known == name);
                found.map(|(_, value)| (*value).to_owned())
            };
            assert_eq!(decided(variable), expected, "{set:?}");
        }
    }
}
