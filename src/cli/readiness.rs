//! Tells others when a server is ready and when it stops: a descriptor, systemd, and the user.

use std::fs::OpenOptions;
use std::io::Write as _;
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::time::Duration;

use sd_notify::NotifyState;

use super::error::{CommandError, Kind};
use super::{Session, output};

/// After this time, the program says why the server has not stopped yet.
const LONG_WAIT: Duration = Duration::from_secs(2);

/// Tells systemd that the server is ready, and writes `place` to the descriptor `ready_fd`.
pub(crate) fn ready(
    session: &Session,
    ready_fd: Option<u32>,
    place: &str,
) -> Result<(), CommandError> {
    if let Some(number) = ready_fd {
        let path = format!("/proc/self/fd/{number}");
        let told = session.signals.ending(|| {
            let mut ready = OpenOptions::new().write(true).open(&path)?;
            ready.write_all(format!("{place}\n").as_bytes())
        });
        told?.map_err(|error| {
            CommandError::new(Kind::Parameters, error)
                .about(format!("cannot write to descriptor {number}"))
                .hint("--ready-fd takes a descriptor that is open for writing")
        })?;
    }
    notify(NotifyState::Ready);
    Ok(())
}

/// Tells systemd that the server ends.
pub(crate) fn stopping() {
    notify(NotifyState::Stopping);
}

/// Notifies systemd, if that has started the program.
fn notify(state: NotifyState<'_>) {
    if let Err(error) = sd_notify::notify(&[state]) {
        tracing::warn!(%error, "cannot notify systemd");
    }
}

/// A server that has not stopped yet. Dropping this says that it has, and waits until what stopped
/// it has said what it found.
pub(crate) struct Serving {
    #[expect(dead_code, reason = "it is dropped")]
    ended: mpsc::Sender<()>,
    /// Locked while the server is stopped.
    stops: Arc<Mutex<()>>,
}

impl Serving {
    /// Calls `stop` at the first signal, and says what the program waits for if the server has not
    /// stopped after a while.
    pub(crate) fn until_signal(
        session: &Session,
        waits_for: &'static str,
        stop: impl Fn() + Send + 'static,
    ) -> Self {
        let (ended, end) = mpsc::channel();
        let end = Mutex::new(Some(end));
        let stops = Arc::new(Mutex::new(()));
        let stopped = Arc::clone(&stops);
        session.signals.at_first(move || {
            let stops = stopped.lock().unwrap_or_else(PoisonError::into_inner);
            stopping();
            stop();
            drop(stops);
            let end = end.lock().unwrap_or_else(PoisonError::into_inner).take();
            end.into_iter().for_each(|end| explain_wait(end, waits_for));
        });
        Self { ended, stops }
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        drop(self.stops.lock());
    }
}

fn explain_wait(end: mpsc::Receiver<()>, waits_for: &'static str) {
    let waiting = move || {
        if end.recv_timeout(LONG_WAIT) == Err(mpsc::RecvTimeoutError::Timeout) {
            output::note(format_args!(
                "stopping: {waits_for}; a second signal stops at once, and data that was not \
                 flushed may be lost"
            ));
        }
    };
    // If the thread cannot be started, nothing is printed.
    drop(
        std::thread::Builder::new()
            .name("stopping".to_owned())
            .spawn(waiting),
    );
}
