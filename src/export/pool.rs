//! Threads for requests that wait for the storage or take long.
//!
//! A thread is started when there are more jobs than idle threads, and ends after some time without
//! a job. Submitting never waits: if all threads are busy, the caller gets its job back and runs it
//! itself.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

/// After this time without a job a thread ends.
const IDLE_TIME: Duration = Duration::from_secs(10);

/// A piece of work for a thread.
pub(super) type Job = Box<dyn FnOnce() + Send>;

/// The threads and the queue of their jobs.
pub(super) struct Pool {
    shared: Arc<Shared>,
    name: &'static str,
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
    /// A pool of at most `most` threads with this name. None is started yet.
    pub(super) fn new(name: &'static str, most: usize) -> Self {
        Self {
            shared: Arc::default(),
            name,
            most,
        }
    }

    /// Gives `job` to a thread.
    ///
    /// # Errors
    /// The job, if all threads are busy, no thread can be started, or the pool is closed.
    pub(super) fn submit(&self, job: Job) -> Result<(), Job> {
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
                .name(self.name.to_owned())
                .spawn(move || shared.work());
            match spawned {
                Ok(handle) => state.handles.push(handle),
                Err(_) => return Err(job),
            }
            state.threads += 1;
            // It counts as idle until it takes a job. The comparison above allows for queued jobs.
            state.idle += 1;
            state.handles.retain(|handle| !handle.is_finished());
        }
        state.jobs.push_back(job);
        drop(state);
        self.shared.changed.notify_one();
        Ok(())
    }

    /// Runs the jobs that were submitted, and waits for the threads to end.
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
                // A panic concerns only the job's own connection, which notices it.
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
                .wait_timeout(state, IDLE_TIME)
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
    fn waiting_jobs_run_at_the_same_time_up_to_the_limit() {
        let pool = Pool::new("test", 2);
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
        assert!(pool.submit(job(1)).is_ok());
        assert!(pool.submit(job(2)).is_ok());
        assert!(pool.submit(job(3)).is_err());
        go.send(()).unwrap();
        go.send(()).unwrap();
        let mut answered: Vec<i32> = answers.iter().take(2).collect();
        answered.sort_unstable();
        assert_eq!(answered, [1, 2]);
        pool.close();
        assert!(pool.submit(job(4)).is_err());
    }

    #[test]
    fn a_panicking_job_does_not_end_its_thread() {
        let pool = Pool::new("test", 1);
        let (done, answers) = mpsc::channel();
        assert!(pool.submit(Box::new(|| panic!("on purpose"))).is_ok());
        let mut job: Job = Box::new(move || done.send(()).unwrap());
        while let Err(back) = pool.submit(job) {
            job = back;
            std::thread::yield_now();
        }
        answers.recv().unwrap();
        pool.close();
    }
}
