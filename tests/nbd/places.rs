//! Many clients at once: places for handshakes and for clients, and warnings of refused ones.

use std::io::{self, Read};
use std::time::Duration;

use luksmith_formats::nbd::{Command, CommandFlags, InfoRequest, OptionReply, OptionType, Request};

use crate::access::certificates;
use crate::served::{Folder, SIZE, content};
use crate::wire::{Handshake, is_ended};
use support::peers::{find, output};

/// The time for a handshake is so long that no test waits for its end.
const ENDLESS: [&str; 2] = ["--handshake-time", "3600"];

#[test]
fn silent_connections_keep_no_client_out() {
    let folder = Folder::with_volume();
    let served = folder.serve(&ENDLESS);
    let mut silent: Vec<_> = (0..200).map(|_| served.connect()).collect();
    let mut client = served.client();
    assert!(client.read(0, 4096) == content()[..4096]);
    // Those that were silent longest had to go.
    silent[0]
        .set_read_timeout(Some(Duration::from_secs(30)))
        .unwrap();
    let greeted = silent[0].read_to_end(&mut Vec::new()).unwrap();
    assert!(greeted <= 18, "it was closed");
    let said = served.stop();
    assert!(said.contains("silent longest"), "{said}");
    let me = format!("process {}", std::process::id());
    assert!(said.contains(&me), "{said}");
}

#[test]
fn a_process_does_not_get_the_places_of_others() {
    let Some(nbdinfo) = find("nbdinfo") else {
        return;
    };
    let folder = Folder::with_volume();
    let served = folder.serve(&["--max-connections", "2"]);
    let mut first = served.client();
    assert!(first.read(0, 512) == content()[..512]);
    // The second connection of this process waits, although there is a place.
    let mut second = Handshake::greeted(served.connect()).go("");
    let read = Request {
        flags: CommandFlags::NONE,
        command: Command::Read,
        cookie: 7,
        offset: 0,
        len: 512,
    };
    second.send(read, &[]).unwrap();
    let size = output(&mut folder.program(nbdinfo, ["--size", &served.uri()]));
    assert_eq!(size.stdout.trim_ascii(), SIZE.to_string().as_bytes());
    second.stream.set_nonblocking(true).unwrap();
    let early = second.next_simple().map_err(|error| error.kind());
    assert_eq!(early.unwrap_err(), io::ErrorKind::WouldBlock);
    second.stream.set_nonblocking(false).unwrap();
    drop(first);
    let answer = second.answer(&read).unwrap();
    assert!(answer.data == content()[..512]);
    served.stop();

    let served = folder.serve(&["--max-connections", "2", "--clients-per-peer", "2"]);
    let mut clients = [served.client(), served.client()];
    for client in &mut clients {
        assert!(client.read(0, 512) == content()[..512]);
    }
    served.stop();
}

#[test]
fn there_is_not_a_line_for_each_refused_client() {
    let folder = Folder::with_volume();
    let stranger = (rustix::process::geteuid().as_raw() + 1).to_string();
    let served = folder.serve(&["--allow-uid", &stranger]);
    for _ in 0..60 {
        assert!(is_ended(&mut served.connect()));
    }
    all_are_counted(&served.stop(), "not one of the allowed users", 60);
}

#[test]
fn there_is_not_a_line_for_each_client_without_tls_or_a_certificate() {
    let folder = Folder::with_volume();
    certificates(&folder, "tls");
    certificates(&folder, "others");
    let served = folder.serve(&["--tls-dir", "tls"]);
    for _ in 0..60 {
        let mut handshake = Handshake::greeted(served.connect());
        let (_, answer) = handshake.ask(OptionType::Go, &InfoRequest::default().to_bytes());
        assert_eq!(answer, OptionReply::ErrTlsRequired);
    }
    let said = served.stop();
    let me = format!("process {}", std::process::id());
    assert!(said.contains(&me), "{said}");
    all_are_counted(&said, "refused a client without TLS", 60);

    let Some(nbdinfo) = find("nbdinfo") else {
        return;
    };
    let args = ["disk.img", "--key-file", "key", "--listen", "127.0.0.1:0"];
    let served = folder.serve_with(&args, &["--tls-dir", "tls"]);
    // It trusts the server, and has a certificate that the server does not know.
    std::fs::copy(
        folder.path("tls/ca-cert.pem"),
        folder.path("others/ca-cert.pem"),
    )
    .unwrap();
    let others = folder.path("others");
    let uri = format!("{}?tls-certificates={}", served.uri(), others.display());
    let refused = output(
        folder
            .program(nbdinfo, ["--size", &uri])
            .env("HOME", folder.path("")),
    );
    assert!(!refused.status.success());
    let said = served.stop();
    assert!(said.contains("a client has no access: "), "{said}");
    assert!(said.contains("127.0.0.1"), "its address: {said}");
}

/// Checks that some of the refused clients have a line, and that the lines give the number of all.
#[track_caller]
fn all_are_counted(said: &str, what: &str, clients: usize) {
    let lines = said.matches(what).count();
    let more = said.lines().filter_map(|line| {
        let before = line.split(" more clients were refused").next()?;
        let number = before.rsplit(|c: char| !c.is_ascii_digit()).next()?;
        line.contains(" more clients were refused")
            .then(|| number.parse::<usize>().unwrap())
    });
    assert_eq!(lines + more.sum::<usize>(), clients, "{said}");
    assert!(lines > 0 && lines < clients / 2, "{said}");
}
