//! What both charts need: their measures, and their figures in words.

pub(super) const WIDTH: i32 = 960;
pub(super) const MARGIN: i32 = 24;
pub(super) const INSIDE: i32 = WIDTH - 2 * MARGIN;
/// The space between two panels.
pub(super) const GAP: i32 = 28;

/// MiB a second, as `cryptsetup benchmark` prints them.
pub(super) fn mib(rate: u64) -> f64 {
    rate as f64 / f64::from(1 << 20)
}

/// The mark of a figure that other work of the machine may have changed.
pub(super) fn mark(busy: bool) -> &'static str {
    if busy { "*" } else { "" }
}

pub(super) fn threads(count: usize) -> String {
    let plural = if count == 1 { "" } else { "s" };
    format!("{count} thread{plural}")
}

/// Each value once, in the order of the first occurrences.
pub(super) fn distinct<T: PartialEq>(values: impl Iterator<Item = T>) -> Vec<T> {
    let mut distinct = Vec::new();
    for value in values {
        if !distinct.contains(&value) {
            distinct.push(value);
        }
    }
    distinct
}
