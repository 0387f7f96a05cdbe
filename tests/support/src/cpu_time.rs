//! Processor time, which does not depend on other programs that run meanwhile.

use std::time::Duration;

/// Runs `work`; returns its result and how long this thread was on a processor meanwhile.
///
/// # Panics
///
/// If `/proc/thread-self/schedstat` cannot be read.
pub fn time_of<T>(work: impl FnOnce() -> T) -> (T, Duration) {
    let before = so_far();
    let result = work();
    (result, so_far() - before)
}

/// The time on a processor since the thread began: the first number of `schedstat` (proc(5)), in
/// nanoseconds.
fn so_far() -> Duration {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").expect("schedstat");
    let nanoseconds = text.split(' ').next().and_then(|first| first.parse().ok());
    Duration::from_nanos(nanoseconds.expect("a number"))
}

#[test]
fn work_takes_its_time_and_a_wait_takes_none() {
    let ((), slept) = time_of(|| std::thread::sleep(Duration::from_millis(50)));
    assert!(slept < Duration::from_millis(50), "{slept:?}");
    let mut sum = 1u64;
    let start = std::time::Instant::now();
    let (_, worked) = time_of(|| {
        while start.elapsed() < Duration::from_millis(200) {
            sum = std::hint::black_box(sum).wrapping_mul(3);
        }
    });
    assert!(worked > Duration::ZERO, "{worked:?}");
}
