//! How fast a volume on a web server is read, beside curl: `cargo bench --bench web`.
//!
//! nginx serves a volume of 1 GiB on the loopback interface, from memory. curl reads the file, and
//! `luksmith decrypt` reads and decrypts it, in turns, so that a busy machine slows both. Printed
//! are medians of seven rounds. The output is Markdown; dated results are in `benches/record/`.

#![allow(missing_docs, clippy::print_stdout)]

use std::fs::{self, File};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use support::bench::{Arguments, Better, cpu_model, median, program, record, report};
use support::peers;

/// The size of the volume, in MiB.
const SIZE: u64 = 1024;
/// The size with `--quick`.
const QUICK: u64 = 64;
const ROUNDS: usize = 7;

/// A server, killed at the end.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn luksmith(folder: &Path, line: &str) -> Command {
    let mut command = Command::new(program(env!("CARGO_BIN_EXE_luksmith")));
    command.current_dir(folder).args(line.split(' '));
    command
}

/// Starts nginx in front of a folder, and returns its port.
fn serve(nginx: &Path, folder: &Path) -> (Running, u16) {
    let free = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr());
    let port = free.unwrap().port();
    let root = folder.display();
    let user = match rustix::process::getuid().is_root() {
        true => "user root;",
        false => "",
    };
    let conf = format!(
        "daemon off; master_process off; {user} pid {root}/nginx.pid; error_log /dev/null;\n\
         events {{}}\n\
         http {{ access_log off; sendfile on; tcp_nopush on; client_body_temp_path {root}/t;\n\
         proxy_temp_path {root}/t; fastcgi_temp_path {root}/t; uwsgi_temp_path {root}/t;\n\
         scgi_temp_path {root}/t; server {{ listen 127.0.0.1:{port}; root {root}; }} }}\n"
    );
    fs::write(folder.join("nginx.conf"), conf).unwrap();
    let mut server = Command::new(nginx);
    server.arg("-c").arg(folder.join("nginx.conf"));
    server.arg("-p").arg(folder);
    server.stdout(Stdio::null()).stderr(Stdio::null());
    let running = Running(server.spawn().unwrap());
    let until = Instant::now() + Duration::from_secs(20);
    while TcpStream::connect(("127.0.0.1", port)).is_err() {
        assert!(Instant::now() < until, "nginx does not listen");
        std::thread::sleep(Duration::from_millis(20));
    }
    (running, port)
}

/// MiB a second of a program that reads everything.
fn rate(command: &mut Command, size: u64) -> f64 {
    let begin = Instant::now();
    peers::run(command);
    size as f64 / begin.elapsed().as_secs_f64()
}

fn main() {
    let Some(arguments) = Arguments::read() else {
        return;
    };
    let (Some(nginx), Some(curl)) = (peers::find("nginx"), peers::find("curl")) else {
        return;
    };
    let (size, rounds) = match arguments.quick {
        true => (QUICK, 1),
        false => (SIZE, ROUNDS),
    };
    let memory = Path::new("/dev/shm");
    let parent = match memory.is_dir() {
        true => memory.to_owned(),
        false => std::env::temp_dir(),
    };
    let folder = tempfile::tempdir_in(parent).unwrap();
    let folder: PathBuf = folder.path().to_owned();
    fs::write(folder.join("key"), "a passphrase").unwrap();
    // Zeroes take no room, and their ciphertext looks random.
    File::create(folder.join("plain"))
        .and_then(|file| file.set_len(size << 20))
        .unwrap();
    let cheap = "--pbkdf pbkdf2 --pbkdf-force-iterations 1000";
    peers::run(&mut luksmith(
        &folder,
        &format!("encrypt plain disk.img --key-file key {cheap}"),
    ));
    let (_server, port) = serve(&nginx, &folder);
    let url = format!("http://127.0.0.1:{port}/disk.img");

    let (mut curls, mut ours) = (Vec::new(), Vec::new());
    for _ in 0..rounds {
        if !arguments.compare {
            let mut command = Command::new(&curl);
            command.args(["--fail", "-s", "-o", "/dev/null", &url]);
            curls.push(rate(&mut command, size));
        }
        let mut command = luksmith(&folder, &format!("decrypt {url} - --key-file key"));
        ours.push(rate(command.stdout(Stdio::null()), size));
    }
    let row = "a volume on a web server, MiB/s";
    if arguments.compare {
        return report(row, median(ours.into_iter()), Better::More);
    }
    for (way, rates) in [("curl", &curls), ("luksmith", &ours)] {
        for rate in rates {
            record(row, way, *rate);
        }
    }
    let ratios = curls.iter().zip(&ours).map(|(curl, ours)| ours / curl);
    println!("{}\n\n| | curl | luksmith | ratio | goal |", cpu_model());
    println!("|---|---|---|---|---|");
    println!(
        "| {row} | {:.0} | {:.0} | {:.2} | ≥ 0.8 |",
        median(curls.iter().copied()),
        median(ours.iter().copied()),
        median(ratios),
    );
}
