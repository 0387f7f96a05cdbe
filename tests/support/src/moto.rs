//! An S3 service: moto, a server for tests, which is in `target/peers/moto`.

use std::net::{TcpListener, TcpStream};
use std::process::{Command, Stdio};
use std::sync::{OnceLock, mpsc};
use std::time::{Duration, Instant};

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
        let free = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr());
        let address = free.expect("a free port");
        let mut server = Command::new(setpriv);
        server.args(["--pdeathsig", "KILL"]).arg(python);
        server.args(["-m", "moto.server", "-H", "127.0.0.1", "-p"]);
        server.arg(address.port().to_string());
        server.stdin(Stdio::null());
        server.stdout(Stdio::null()).stderr(Stdio::null());
        let (sender, receiver) = mpsc::channel();
        std::thread::spawn(move || {
            let mut child = server.spawn().expect("moto starts");
            sender.send(()).expect("the caller waits");
            // The kernel kills the child when this thread ends, with the process.
            child.wait().expect("moto is a child");
        });
        receiver.recv().expect("moto starts");
        let until = Instant::now() + Duration::from_secs(60);
        while TcpStream::connect(address).is_err() {
            assert!(Instant::now() < until, "moto does not listen");
            std::thread::sleep(Duration::from_millis(100));
        }
        let endpoint = format!("http://{address}");
        let mut bucket = Command::new(curl);
        bucket.args(["--fail", "-sS", "-X", "PUT"]);
        peers::run(bucket.arg(format!("{endpoint}/{BUCKET}")));
        Some(Self { endpoint })
    }
}
