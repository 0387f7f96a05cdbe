//! An S3 service: moto, a server for tests, which is in `target/peers/moto`.

use std::io::{BufRead as _, BufReader};
use std::process::{Command, Stdio};
use std::sync::{OnceLock, mpsc};
use std::time::Duration;

use crate::peers;
use crate::rgw::BUCKET;

/// A running service. It checks no signature.
#[derive(Debug)]
pub struct Moto {
    /// Its URL.
    pub endpoint: String,
}

impl Moto {
    /// The service of this process, which the first call starts. `None` after saying that the test
    /// is skipped, if it is missing.
    ///
    /// # Panics
    ///
    /// If it does not start, or if it is missing and `CI=true`.
    pub fn running() -> Option<&'static Self> {
        static RUNNING: OnceLock<Option<Moto>> = OnceLock::new();
        RUNNING.get_or_init(Self::start).as_ref()
    }

    fn start() -> Option<Self> {
        let python = peers::unpacked("moto/bin/python3");
        let (setpriv, curl) = (peers::find("setpriv")?, peers::find("curl")?);
        if !python.exists() {
            peers::skip("moto");
            return None;
        }
        let mut server = Command::new(setpriv);
        server.args(["--pdeathsig", "KILL"]).arg(python);
        // The system chooses the port, which the server writes to its log once it listens.
        server.args(["-m", "moto.server", "-H", "127.0.0.1", "-p", "0"]);
        server.stdin(Stdio::null());
        server.stdout(Stdio::null()).stderr(Stdio::piped());
        let (sender, receiver) = mpsc::channel();
        std::thread::spawn(move || {
            let mut child = server.spawn().expect("moto starts");
            let log = BufReader::new(child.stderr.take().expect("its log"));
            for line in log.lines().map_while(Result::ok) {
                if let Some((_, port)) = line.split_once("Running on http://127.0.0.1:") {
                    let port: String = port.chars().take_while(char::is_ascii_digit).collect();
                    // Only the first line has a receiver.
                    let _ = sender.send(port);
                }
            }
            // The kernel kills the child when this thread ends, with the process.
            child.wait().expect("moto is a child");
        });
        let port = receiver.recv_timeout(Duration::from_secs(60));
        let endpoint = format!("http://127.0.0.1:{}", port.expect("moto listens"));
        let mut bucket = Command::new(curl);
        bucket.args(["--fail", "-sS", "-X", "PUT"]);
        peers::run(bucket.arg(format!("{endpoint}/{BUCKET}")));
        Some(Self { endpoint })
    }
}
