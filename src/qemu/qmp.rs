//! A client of QEMU's monitor: JSON, one document in each line, over a Unix socket (*QMP protocol
//! specification*).
//!
//! A monitor serves one client at a time. QEMU may log commands, so a secret is only sent wrapped.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use luksmith_formats::json::{Value, json};

/// The longest line that is read.
const MOST_BYTES: u64 = 16 << 20;
/// The interval at which a job is polled.
const PAUSE: Duration = Duration::from_millis(20);

/// A connection to a monitor, with its capabilities negotiated.
#[derive(Debug)]
pub struct Qmp {
    reader: BufReader<UnixStream>,
    version: String,
    patience: Duration,
}

/// Why a monitor command failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum QmpError {
    /// The socket does not exist, or refuses the connection.
    #[error("cannot connect to the monitor {path}")]
    Connect {
        /// The path of the socket.
        path: PathBuf,
        /// The error of the operating system.
        source: io::Error,
    },
    /// The monitor did not answer in this time.
    #[error("the monitor was silent for {} s", .0.as_secs_f32())]
    Silent(Duration),
    /// The monitor closed the connection.
    #[error("the monitor closed the connection")]
    Closed,
    /// The connection failed.
    #[error("the connection to the monitor failed")]
    Io(#[source] io::Error),
    /// The other end does not follow the QMP protocol.
    #[error("the socket is not one of QEMU's monitors: {0}")]
    NotQmp(&'static str),
    /// This QEMU does not know the command.
    #[error("this QEMU has no {0}")]
    NoCommand(String),
    /// A QEMU of this version aborts, and its guest with it, when it is told to change keyslots.
    #[error("QEMU {0} aborts when it is told to change keyslots")]
    Aborts(String),
    /// QEMU has a job or migration under way that has to end before keyslots change.
    #[error("QEMU is busy with {0}")]
    Occupied(String),
    /// QEMU refused a command.
    #[error("QEMU refused {command}: {reason}")]
    Refused {
        /// The command.
        command: String,
        /// QEMU's message.
        reason: String,
    },
    /// A job failed after it was started.
    #[error("QEMU's {command} failed: {reason}")]
    Job {
        /// The command that started the job.
        command: String,
        /// QEMU's message.
        reason: String,
    },
    /// The transport to the monitor failed.
    #[error("the monitor cannot be reached")]
    Carrier(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The reply is not in the documented form.
    #[error("QEMU's answer to {0} is malformed")]
    Malformed(String),
}

/// A transport of commands to QEMU.
pub trait Monitor {
    /// Executes a command and returns its reply. Events are ignored.
    ///
    /// # Errors
    /// [`QmpError`].
    fn execute(&mut self, command: &str, arguments: &Value) -> Result<Value, QmpError>;

    /// The longest time that a job may take.
    fn patience(&self) -> Duration;

    /// Executes a command that starts a job, and waits until the job ends.
    ///
    /// # Errors
    /// [`QmpError::Job`] when the job failed, and those of [`execute`](Self::execute).
    fn run_job(&mut self, command: &str, mut arguments: Value) -> Result<(), QmpError> {
        let id = format!("luksmith-{}", std::process::id());
        arguments["job-id"] = json!(id);
        self.execute(command, &arguments)?;
        let begun = Instant::now();
        let failure = loop {
            let jobs = self.execute("query-jobs", &json!({}))?;
            let job = jobs
                .as_array()
                .and_then(|jobs| jobs.iter().find(|job| job["id"] == id.as_str()))
                .ok_or_else(|| QmpError::Malformed("query-jobs".to_owned()))?;
            if job["status"] == "concluded" {
                break job["error"].as_str().map(str::to_owned);
            }
            if begun.elapsed() > self.patience() {
                return Err(QmpError::Silent(self.patience()));
            }
            std::thread::sleep(PAUSE);
        };
        self.execute("job-dismiss", &json!({"id": id}))?;
        match failure {
            None => Ok(()),
            Some(reason) => Err(QmpError::Job {
                command: command.to_owned(),
                reason,
            }),
        }
    }
}

/// The result in the reply to a command.
///
/// # Errors
/// [`QmpError::Refused`] or [`QmpError::NoCommand`] for an error reply, or [`QmpError::Malformed`].
pub fn outcome(command: &str, mut answer: Value) -> Result<Value, QmpError> {
    if let Some(result) = answer.get_mut("return") {
        return Ok(std::mem::take(result));
    }
    match answer.get("error") {
        Some(error) => Err(refusal(command, error)),
        None => Err(QmpError::Malformed(command.to_owned())),
    }
}

impl Monitor for Qmp {
    fn execute(&mut self, command: &str, arguments: &Value) -> Result<Value, QmpError> {
        let begun = Instant::now();
        let mut text = json!({"execute": command, "arguments": arguments}).to_string();
        text.push('\n');
        let stream = self.reader.get_mut();
        let patience = Some(self.patience);
        stream
            .set_write_timeout(patience)
            .and_then(|()| stream.write_all(text.as_bytes()))
            .map_err(|error| self.broken(error))?;
        loop {
            let answer = self.line(begun)?;
            if answer.get("event").is_none() {
                return outcome(command, answer);
            }
        }
    }

    fn patience(&self) -> Duration {
        self.patience
    }
}

impl Qmp {
    /// Connects to the monitor at `path`. `patience` is the longest time that a reply or a job may
    /// take.
    ///
    /// # Errors
    /// [`QmpError`]; [`QmpError::Silent`] when another client is connected to the monitor.
    pub fn connect(path: &Path, patience: Duration) -> Result<Self, QmpError> {
        let stream = UnixStream::connect(path).map_err(|source| QmpError::Connect {
            path: path.to_owned(),
            source,
        })?;
        let mut qmp = Self {
            reader: BufReader::new(stream),
            version: String::new(),
            patience,
        };
        let greeting = qmp.line(Instant::now())?;
        let version = &greeting["QMP"]["version"]["qemu"];
        let number = |name: &str| version[name].as_u64();
        let (Some(major), Some(minor), Some(micro)) =
            (number("major"), number("minor"), number("micro"))
        else {
            return Err(QmpError::NotQmp("it does not greet as one"));
        };
        qmp.version = format!("{major}.{minor}.{micro}");
        qmp.execute("qmp_capabilities", &json!({}))?;
        Ok(qmp)
    }

    /// QEMU's version.
    #[must_use]
    pub fn version(&self) -> &str {
        &self.version
    }

    /// The user ID and group ID as which QEMU runs.
    ///
    /// # Errors
    /// [`QmpError::Io`].
    pub fn peer(&self) -> Result<(u32, u32), QmpError> {
        let peer = rustix::net::sockopt::socket_peercred(self.reader.get_ref())
            .map_err(|error| QmpError::Io(error.into()))?;
        Ok((peer.uid.as_raw(), peer.gid.as_raw()))
    }

    /// Reads the next document, which has to arrive within the patience, counted from `begun`.
    fn line(&mut self, begun: Instant) -> Result<Value, QmpError> {
        let left = self.patience.saturating_sub(begun.elapsed());
        if left.is_zero() {
            return Err(QmpError::Silent(self.patience));
        }
        let stream = self.reader.get_ref();
        stream.set_read_timeout(Some(left)).map_err(QmpError::Io)?;
        let mut line = Vec::new();
        let mut bounded = Read::take(&mut self.reader, MOST_BYTES);
        let read = bounded.read_until(b'\n', &mut line);
        match read {
            Ok(0) => Err(QmpError::Closed),
            Ok(_) if line.last() != Some(&b'\n') => Err(QmpError::NotQmp("a line has no end")),
            Ok(_) => Value::parse(&line).map_err(|_| QmpError::NotQmp("it does not speak JSON")),
            Err(error) => Err(self.broken(error)),
        }
    }

    fn broken(&self, error: io::Error) -> QmpError {
        match error.kind() {
            io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => QmpError::Silent(self.patience),
            io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset => QmpError::Closed,
            _ => QmpError::Io(error),
        }
    }
}

fn refusal(command: &str, error: &Value) -> QmpError {
    let text = |name: &str| error[name].as_str().unwrap_or_default();
    if text("class") == "CommandNotFound" {
        return QmpError::NoCommand(command.to_owned());
    }
    QmpError::Refused {
        command: command.to_owned(),
        reason: text("desc").to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixListener;

    const GREETING: &str = r#"{"QMP": {"version": {"qemu": {"micro": 1, "minor": 2, "major": 7}, "package": ""}, "capabilities": []}}"#;

    /// A monitor that sends the first of `lines` as its greeting, and one more for each line it
    /// receives.
    fn monitor(lines: &[&str]) -> (tempfile::TempDir, PathBuf) {
        let lines: Vec<_> = lines.iter().map(|line| line.to_string()).collect();
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("qmp");
        let listener = UnixListener::bind(&path).unwrap();
        std::thread::spawn(move || {
            let (stream, _) = listener.accept().unwrap();
            let mut reader = BufReader::new(stream);
            for line in lines {
                let _ = reader.get_mut().write_all(line.as_bytes());
                let _ = reader.read_line(&mut String::new());
            }
        });
        (folder, path)
    }

    fn answered(lines: &[&str]) -> Result<Value, QmpError> {
        let (_folder, path) = monitor(lines);
        let mut qmp = Qmp::connect(&path, Duration::from_millis(300))?;
        qmp.execute("query-x", &json!({}))
    }

    #[test]
    fn an_answer_is_found_among_events() {
        let lines: &[&str] = &[
            concat!(
                r#"{"QMP": {"version": {"qemu": {"micro": 1, "minor": 2, "major": 7}}}}"#,
                "\n"
            ),
            "{\"return\": {}}\n",
            "{\"event\": \"STOP\"}\n{\"return\": [1]}\n",
        ];
        assert_eq!(answered(lines).unwrap(), json!([1]));
        let (_folder, path) = monitor(lines);
        let qmp = Qmp::connect(&path, Duration::from_secs(5)).unwrap();
        assert_eq!(qmp.version(), "7.2.1");
        assert_eq!(qmp.peer().unwrap().0, rustix::process::getuid().as_raw());
    }

    #[test]
    fn each_failure_has_an_error_of_its_own() {
        let fails = |lines: &[&str]| answered(lines).unwrap_err().to_string();
        assert_eq!(fails(&[]), "the monitor closed the connection");
        assert_eq!(
            fails(&["SSH-2.0-x\n"]),
            "the socket is not one of QEMU's monitors: it does not speak JSON"
        );
        assert_eq!(
            fails(&["{}\n"]),
            "the socket is not one of QEMU's monitors: it does not greet as one"
        );
        let greeting = format!("{GREETING}\n");
        let answers = |answer: &str| fails(&[&greeting, "{\"return\": {}}\n", answer]);
        assert_eq!(answers(""), "the monitor was silent for 0.3 s");
        assert_eq!(answers("[1]\n"), "QEMU's answer to query-x is malformed");
        assert_eq!(
            answers("{\"error\": {\"class\": \"CommandNotFound\", \"desc\": \"?\"}}\n"),
            "this QEMU has no query-x"
        );
        assert_eq!(
            answers("{\"error\": {\"class\": \"GenericError\", \"desc\": \"no such thing\"}}\n"),
            "QEMU refused query-x: no such thing"
        );
    }

    #[test]
    fn a_missing_monitor_is_named_by_its_path() {
        let error = Qmp::connect(Path::new("/nowhere/qmp"), Duration::from_secs(1)).unwrap_err();
        assert_eq!(
            error.to_string(),
            "cannot connect to the monitor /nowhere/qmp"
        );
    }
}
