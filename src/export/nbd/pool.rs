//! Threads for requests that wait: for storage that lets them wait, and for those that take long.
//!
//! A thread is started when there is more to do than threads that have nothing to do, and ends after a while without
//! work. Nobody waits for a place: a request that finds none is done by who brought it.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

/// A thread without work ends after this time.
const IDLE: Duration = Duration::from_secs(10);

pub(super) type Job = Box<dyn FnOnce() + Send>;

/// The threads and what they have to do.
pub(super) struct Pool {
    shared: Arc<Shared>,
    most: usize,
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    jobs: VecDeque<Job>,
    idle: usize,
    threads: usize,
    closed: bool,
    handles: Vec<JoinHandle<()>>,
}

impl Pool {
    /// At most so many threads; none is started yet.
    pub(super) fn new(most: usize) -> Self {
        Self {
            shared: Arc::default(),
            most,
        }
    }

    /// Has `job` done by a thread.
    ///
    /// # Errors
    /// The job, where all threads are busy.
    pub(super) fn run(&self, job: Job) -> Result<(), Job> {
        let mut state = self.shared.state();
        if state.closed {
            return Err(job);
        }
        if state.idle <= state.jobs.len() {
            if state.threads >= self.most {
                return Err(job);
            }
            let shared = self.shared.clone();
            let spawned = std::thread::Builder::new()
                .name("nbd-waits".to_owned())
                .spawn(move || shared.work());
            match spawned {
                Ok(handle) => state.handles.push(handle),
                Err(_) => return Err(job),
            }
            state.threads += 1;
            // It counts as idle from the beginning, so that the next job does not count on it too.
            state.idle += 1;
            state.handles.retain(|handle| !handle.is_finished());
        }
        state.jobs.push_back(job);
        drop(state);
        self.shared.changed.notify_one();
        Ok(())
    }

    /// Waits until everything is done, and for the threads to end.
    pub(super) fn close(&self) {
        let mut state = self.shared.state();
        state.closed = true;
        let handles = std::mem::take(&mut state.handles);
        drop(state);
        self.shared.changed.notify_all();
        for handle in handles {
            let _ = handle.join();
        }
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn work(&self) {
        let mut state = self.state();
        loop {
            if let Some(job) = state.jobs.pop_front() {
                state.idle -= 1;
                drop(state);
                // What a job breaks is its own: the connection sees it, the thread goes on.
                let _ = std::panic::catch_unwind(std::panic::AssertUnwindSafe(job));
                state = self.state();
                state.idle += 1;
                continue;
            }
            if state.closed {
                break;
            }
            let (woken, wait) = self
                .changed
                .wait_timeout(state, IDLE)
                .unwrap_or_else(PoisonError::into_inner);
            state = woken;
            if wait.timed_out() && state.jobs.is_empty() {
                break;
            }
        }
        state.idle -= 1;
        state.threads -= 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;

    #[test]
    fn jobs_that_wait_run_at_once_and_no_more_than_allowed() {
        let pool = Pool::new(2);
        let (go, gate) = mpsc::channel::<()>();
        let gate = Arc::new(Mutex::new(gate));
        let (done, answers) = mpsc::channel();
        let job = |n: i32| -> Job {
            let (gate, done) = (gate.clone(), done.clone());
            Box::new(move || {
                gate.lock().unwrap().recv().unwrap();
                done.send(n).unwrap();
            })
        };
        assert!(pool.run(job(1)).is_ok());
        assert!(pool.run(job(2)).is_ok());
        assert!(pool.run(job(3)).is_err());
        go.send(()).unwrap();
        go.send(()).unwrap();
        let mut answered: Vec<i32> = answers.iter().take(2).collect();
        answered.sort_unstable();
        assert_eq!(answered, [1, 2]);
        pool.close();
        assert!(pool.run(job(4)).is_err());
    }

    #[test]
    fn a_job_that_panics_takes_no_thread_with_it() {
        let pool = Pool::new(1);
        let (done, answers) = mpsc::channel();
        assert!(pool.run(Box::new(|| panic!("on purpose"))).is_ok());
        let mut job: Job = Box::new(move || done.send(()).unwrap());
        while let Err(back) = pool.run(job) {
            job = back;
            std::thread::yield_now();
        }
        answers.recv().unwrap();
        pool.close();
    }
}
