//! What a judgement costs in processor time, which does not depend on who else runs tests meanwhile.

use std::time::Duration;

/// What `work` returns, and how long this thread had a processor for it.
pub(crate) fn time_of<T>(work: impl FnOnce() -> T) -> (T, Duration) {
    let before = had();
    let result = work();
    (result, had() - before)
}

/// The first number of proc(5)'s `schedstat`, in nanoseconds.
fn had() -> Duration {
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
