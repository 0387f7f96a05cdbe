//! What becomes of the lock of a writer that is killed or stopped.

use std::io::{BufRead as _, BufReader, Write as _};
use std::process::Stdio;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use support::peers;

use crate::program::Site;

/// A client with librbd's automatic lock, such as QEMU, hands it over when it is asked, and would
/// get errors from then on.
#[test]
fn a_client_that_would_hand_over_its_lock_is_not_asked() {
    let Some(site) = Site::new() else { return };
    site.create("running", "4M", "");
    let program = "image.write(b'3' * 4096, 16 << 20)\n\
                   print('written', flush=True)\n\
                   sys.stdin.readline()\n\
                   image.write(b'4' * 4096, 16 << 20)\n\
                   image.flush()";
    let mut guest = site.ceph.python_command("running", program);
    let guest = guest.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn();
    let mut guest = guest.unwrap();
    let mut line = String::new();
    let output = guest.stdout.take().unwrap();
    BufReader::new(output).read_line(&mut line).unwrap();
    assert_eq!(line, "written\n");
    let (code, said) = site.refused("config {running} --label x");
    assert_eq!(code, 5, "{said}");
    assert!(
        said.contains("another client has it open: 127.0.0.1:"),
        "{said}"
    );
    site.luksmith("key list {running}");
    guest.stdin.take().unwrap().write_all(b"go on\n").unwrap();
    assert!(guest.wait().unwrap().success());
    site.luksmith("config {running} --label x");
}

/// Ceph takes a client for dead after 30 seconds of silence, whether it was killed or stopped.
#[test]
fn a_silent_writer_loses_the_image_and_notices() {
    let Some(site) = Site::new() else { return };
    if peers::find("nbdsh").is_none() {
        return;
    }
    for image in ["killed", "stopped"] {
        site.create(image, "4M", "");
    }
    let (killed, stopped) = (site.serve("killed"), site.serve("stopped"));
    let write = "h.pwrite(b'1' * 4096, 0); h.flush()";
    assert!(killed.client(write) && stopped.client(write));
    // A second writer is refused, with the address of the first. Readers need no lock.
    let (code, said) = site.refused("config {killed} --label second");
    assert_eq!(code, 5, "{said}");
    assert!(
        said.contains("another client has it open: 127.0.0.1:"),
        "{said}"
    );
    site.luksmith("info {killed}");
    site.luksmith("key test {killed} --key-file key");

    killed.signal(Signal::KILL);
    stopped.signal(Signal::STOP);
    let until = Instant::now() + Duration::from_secs(120);
    for image in ["killed", "stopped"] {
        let label = format!("config {{{image}}} --label second");
        while !site.output(&label).status.success() {
            assert!(Instant::now() < until, "{image} stays locked");
            std::thread::sleep(Duration::from_millis(500));
        }
    }
    stopped.signal(Signal::CONT);
    // Nothing that it writes counts any more, and a flush never confirms it.
    assert!(!stopped.client("h.pwrite(b'2' * 4096, 0); h.flush()"));
    assert!(!stopped.client("h.flush()"));
    assert!(!stopped.client("h.pread(4096, 0)"));
    assert!(site.luksmith("info {stopped}").contains("second"));
    site.luksmith("decrypt {stopped} plain --key-file key");
    assert!(site.read("plain")[..4096].iter().all(|byte| *byte == b'1'));
}
