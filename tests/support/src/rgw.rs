//! An S3 service: Ceph's gateway, on the [cluster](crate::ceph) of the process.

use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use crate::ceph::Ceph;
use crate::peers;

/// The access key, and its secret part.
pub const KEY: (&str, &str) = ("testkey", "testsecret");

/// The bucket that is there.
pub const BUCKET: &str = "volumes";

const PROGRAMS: [&str; 3] = ["radosgw", "radosgw-admin", "curl"];

/// The pools of a gateway, made with few placement groups.
const POOLS: [&str; 7] = [
    ".rgw.root",
    "default.rgw.log",
    "default.rgw.control",
    "default.rgw.meta",
    "default.rgw.buckets.index",
    "default.rgw.buckets.data",
    "default.rgw.buckets.non-ec",
];

/// A running gateway.
#[derive(Debug)]
pub struct Rgw {
    /// Its URL.
    pub endpoint: String,
}

impl Rgw {
    /// The gateway of this process, which the first call starts, with its cluster below `parent`.
    /// `None` after saying that the test is skipped, if a program is missing.
    ///
    /// # Panics
    ///
    /// If it does not start, or if a program is missing and `CI=true`.
    pub fn running(parent: &Path) -> Option<&'static Self> {
        static RUNNING: OnceLock<Option<Rgw>> = OnceLock::new();
        let running = RUNNING.get_or_init(|| {
            let missing = PROGRAMS.iter().filter(|name| peers::find(name).is_none());
            if missing.count() > 0 {
                peers::skip("radosgw");
                return None;
            }
            Some(Self::start(Ceph::running(parent)?))
        });
        running.as_ref()
    }

    fn start(ceph: &'static Ceph) -> Self {
        std::thread::scope(|scope| {
            for pool in POOLS {
                scope.spawn(move || {
                    peers::run(
                        ceph.client("ceph")
                            .args(["osd", "pool", "create", pool, "1", "1"]),
                    )
                });
            }
        });
        let free = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr());
        let address = free.expect("a free port");
        let endpoint = format!("http://{address}");
        let (sender, receiver) = mpsc::channel();
        std::thread::spawn(move || {
            let setpriv = peers::find("setpriv").expect("the cluster uses it");
            let mut gateway = Command::new(setpriv);
            gateway.args(["--pdeathsig", "KILL"]);
            gateway.arg(peers::find("radosgw").expect("it was found before"));
            gateway
                .args(["-f", "-n", "client.admin", "--conf"])
                .arg(ceph.conf());
            gateway.arg(format!(
                "--rgw_frontends=beast endpoint={address} tcp_nodelay=1"
            ));
            for option in [
                "--rgw_run_sync_thread=false",
                "--rgw_enable_gc_threads=false",
                "--rgw_enable_lc_threads=false",
                "--rgw_gc_max_objs=2",
                "--rgw_lc_max_objs=1",
                "--rgw_thread_pool_size=64",
            ] {
                gateway.arg(option);
            }
            gateway
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(Stdio::null());
            let mut child = gateway.spawn().expect("radosgw starts");
            sender.send(()).expect("the caller waits");
            // The kernel kills the child when this thread ends, with the process.
            child.wait().expect("radosgw is a child");
        });
        receiver.recv().expect("radosgw starts");
        let until = Instant::now() + Duration::from_secs(60);
        while TcpStream::connect(address).is_err() {
            assert!(Instant::now() < until, "radosgw does not listen");
            std::thread::sleep(Duration::from_millis(100));
        }
        let (id, secret) = KEY;
        let mut user = ceph.client("radosgw-admin");
        user.args(["user", "create", "--uid", "t", "--display-name", "t"]);
        peers::run(user.args(["--access-key", id, "--secret-key", secret]));
        let mut bucket = Command::new(peers::find("curl").expect("it was found before"));
        bucket.args([
            "--fail",
            "-sS",
            "--aws-sigv4",
            "aws:amz:us-east-1:s3",
            "--user",
        ]);
        bucket.arg(format!("{id}:{secret}"));
        bucket.args(["-H", "x-amz-content-sha256: UNSIGNED-PAYLOAD", "-X", "PUT"]);
        peers::run(bucket.arg(format!("{endpoint}/{BUCKET}")));
        Self { endpoint }
    }
}
