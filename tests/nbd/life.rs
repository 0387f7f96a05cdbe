//! Starting and stopping a server, and killing it.

use std::io::Write;
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::time::Duration;

use luksmith_formats::nbd::{
    BASE_ALLOCATION, Command, CommandFlags, ErrorNumber, MetaContextRequest, OptionType, Request,
};
use rustix::net::RecvFlags;
use rustix::process::Signal;

use support::peers::run;

use crate::served::{Folder, SIZE, Served, content, until};
use crate::wire::Handshake;

fn request(command: Command, cookie: u64, offset: u64, len: u64) -> Request {
    Request {
        flags: CommandFlags::NONE,
        command,
        cookie,
        offset,
        len,
    }
}

#[test]
fn requests_before_a_stop_are_replied_and_stored() {
    for signal in [Signal::TERM, Signal::INT] {
        let folder = Folder::with_volume();
        let mut served = folder.serve(&[]);
        let mut client = served.client();
        let writes: Vec<_> = (0..10)
            .map(|n| request(Command::Write, n, n * 10_000, 9_999))
            .collect();
        for write in &writes {
            client
                .send(*write, &vec![u8::try_from(write.cookie).unwrap(); 9_999])
                .unwrap();
        }
        served.signal(signal);
        // Replies come in any order, since the storage may look slow on a busy machine.
        let mut answered = Vec::new();
        while let Ok((cookie, ErrorNumber::None)) = client.next_simple() {
            answered.push(cookie);
        }
        answered.sort_unstable();
        assert_eq!(answered, (0..10).collect::<Vec<_>>());
        assert!(client.is_ended());
        let (status, said) = served.ended();
        assert!(status.success(), "{said}");
        assert!(!folder.path("s.sock").exists());
        let decrypted = folder.decrypted();
        for write in &writes {
            let start = usize::try_from(write.offset).unwrap();
            let byte = u8::try_from(write.cookie).unwrap();
            assert!(decrypted[start..start + 9_999].iter().all(|&b| b == byte));
        }
    }
}

#[test]
fn a_signal_a_second_after_the_first_stops_at_once() {
    stops_at_once(Signal::TERM, Duration::from_millis(1100));
}

#[test]
fn a_second_sigint_stops_at_once() {
    stops_at_once(Signal::INT, Duration::ZERO);
}

fn stops_at_once(signal: Signal, after: Duration) {
    let folder = Folder::with_volume();
    let mut served = folder.serve(&[]);
    // After the first signal the server waits for a client that receives no replies.
    let mut client = served.client();
    client.stream.set_nonblocking(true).unwrap();
    while client.send(request(Command::Read, 0, 0, SIZE), &[]).is_ok() {}
    until("the first answer is on its way", || {
        rustix::net::recv(&client.stream, &mut [0][..], RecvFlags::PEEK).is_ok_and(|got| got.1 == 1)
    });
    served.signal(signal);
    until("new clients are refused", || {
        UnixStream::connect(folder.path("s.sock")).is_err()
    });
    std::thread::sleep(after);
    served.signal(signal);
    let (status, said) = served.ended();
    assert_eq!(status.code(), Some(130), "{said}");
    assert!(said.contains("stopped at once"), "{said}");
    assert!(!folder.path("s.sock").exists());
}

/// systemd with SendSIGHUP=yes, `timeout` and a closing terminal send two signals at once. Writes
/// that the server has replied to have to be stored, even in an image whose tables are in memory.
#[test]
fn signals_that_come_together_are_one_request_to_stop() {
    for second in [Signal::HUP, Signal::TERM] {
        let folder = crate::qcow2::with_image();
        let mut served = crate::qcow2::serve(&folder, &[]);
        let mut client = served.client();
        assert_eq!(client.write(1 << 20, &[b'A'; 1 << 20]), ErrorNumber::None);
        served.signal(Signal::TERM);
        served.signal(second);
        let (status, said) = served.ended();
        assert!(status.success(), "{said}");
        let decrypt = ["decrypt", "disk.qcow2", "plain", "--format", "qcow2"];
        run(&mut folder.luksmith(decrypt.iter().chain(&["--key-file", "key"])));
        let plain = std::fs::read(folder.path("plain")).unwrap();
        assert!(plain[1 << 20..2 << 20].iter().all(|&byte| byte == b'A'));
    }
}

/// A client can ask for terabytes with one request. Such requests end soon after the signal.
#[test]
fn requests_for_huge_ranges_do_not_keep_the_server() {
    let folder = Folder::new();
    let create = "create disk.img --size 7T --key-file key --pbkdf pbkdf2 \
                  --pbkdf-force-iterations 1000";
    run(&mut folder.luksmith(create.split_whitespace()));
    let mut served = folder.serve(&[]);
    let clients = [Command::Cache, Command::BlockStatus].map(|command| {
        let mut handshake = Handshake::greeted(served.connect());
        handshake.acked(OptionType::ExtendedHeaders, &[]);
        let contexts = MetaContextRequest {
            export: String::new(),
            queries: vec![BASE_ALLOCATION.into()],
        };
        handshake.acked(OptionType::SetMetaContext, &contexts.to_bytes());
        let mut client = handshake.go("");
        client.extended = true;
        for cookie in 0..100 {
            client
                .send(request(command, cookie, 0, client.size), &[])
                .unwrap();
        }
        client
    });
    served.signal(Signal::TERM);
    until("the server ends", || {
        UnixStream::connect(folder.path("s.sock")).is_err()
    });
    let child = std::cell::RefCell::new(&mut served.child);
    until("it ends", || {
        child.borrow_mut().try_wait().unwrap().is_some()
    });
    let (status, said) = served.ended();
    assert!(status.success(), "{said}");
    drop(clients);
}

#[test]
fn the_server_can_end_with_its_last_client() {
    let folder = Folder::with_volume();
    let mut served = folder.serve(&["--exit-when-idle"]);
    // A connection that never had an export does not count.
    drop(Handshake::greeted(served.connect()));
    let mut first = served.client();
    let mut second = served.client();
    drop(first.read(0, 512));
    drop(first);
    assert_eq!(second.write(0, b"kept"), ErrorNumber::None);
    second
        .send(request(Command::Disconnect, 0, 0, 0), &[])
        .unwrap();
    let (status, said) = served.ended();
    assert!(status.success(), "{said}");
    assert!(folder.decrypted().starts_with(b"kept"));
}

#[test]
fn the_server_tells_when_it_is_ready() {
    let folder = Folder::with_volume();
    let notify = UnixDatagram::bind(folder.path("notify")).unwrap();
    notify
        .set_read_timeout(Some(Duration::from_secs(30)))
        .unwrap();
    let heard = || {
        let mut message = [0; 64];
        let len = notify.recv(&mut message).unwrap();
        String::from_utf8(message[..len].to_vec()).unwrap()
    };
    let script =
        r#"exec "$0" serve --json disk.img --key-file key --socket s.sock --ready-fd 3 3>ready"#;
    let mut command = folder.program("sh", ["-c", script, env!("CARGO_BIN_EXE_luksmith")]);
    command.env("NOTIFY_SOCKET", folder.path("notify"));
    let served = Served::start(&folder, command);
    assert_eq!(heard().trim(), "READY=1");
    let uri = format!("nbd+unix:///?socket={}", folder.path("s.sock").display());
    let ready = std::fs::read_to_string(folder.path("ready")).unwrap();
    assert_eq!(ready, format!("{uri}\n"));
    assert_eq!(served.uri(), uri);
    let said = served.stop();
    assert!(said.contains(&format!("serving 8 MiB: {uri}")), "{said}");
    assert_eq!(heard().trim(), "STOPPING=1");
}

#[test]
fn an_idle_server_waits_for_another_client() {
    let folder = Folder::with_volume();
    let mut served = folder.serve(&["--exit-when-idle=3600"]);
    drop(served.client());
    drop(served.client());
    assert!(served.child.try_wait().unwrap().is_none());
    drop(served);
    let folder = Folder::with_volume();
    let mut served = folder.serve(&["--exit-when-idle=1"]);
    drop(served.client());
    let (status, said) = served.ended();
    assert!(status.success(), "{said}");
}

#[test]
fn a_command_runs_while_the_server_serves() {
    let folder = Folder::with_volume();
    let serve = |command: &str, more: &[&str]| {
        let args = ["serve", "disk.img", "--key-file", "key", "--run", command];
        let mut program = folder.luksmith(args.iter().chain(more));
        program.env("XDG_RUNTIME_DIR", folder.path("."));
        program.output().unwrap()
    };
    // A client of its own socket, which only this user can reach.
    let script = "test -S \"$unixsocket\" && stat -c %a \"$(dirname \"$unixsocket\")\" && echo \"$uri\"; exit 7";
    let output = serve(script, &["--name", "a b"]);
    let said = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(7), "{said}");
    let lines: Vec<_> = said.lines().collect();
    assert_eq!(lines.len(), 2, "{said}");
    assert_eq!(lines[0], "700");
    assert!(lines[1].starts_with("nbd+unix:///a%20b?socket="), "{said}");
    let left = std::fs::read_dir(folder.path(".")).unwrap();
    let left = left.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    assert!(!left.into_iter().any(|name| name.starts_with("luksmith-")));

    // With JSON, the first line is the server's.
    let output = serve("echo \"$uri\"; echo more", &["--json"]);
    let said = String::from_utf8(output.stdout).unwrap();
    let (first, rest) = said.split_once('\n').unwrap();
    let told: serde_json::Value = serde_json::from_str(first).unwrap();
    assert_eq!(rest, format!("{}\nmore\n", told["uri"].as_str().unwrap()));

    let output = serve("kill -TERM $$", &["--socket", "s.sock"]);
    assert_eq!(output.status.code(), Some(128 + 15));
    let output = serve("true", &["--socket", "s.sock"]);
    assert!(output.status.success() && !folder.path("s.sock").exists());
}

#[test]
fn a_signal_ends_the_command_too() {
    let folder = Folder::with_volume();
    let mut served = folder.serve(&["--run", "echo $$ > pid; exec sleep 1000"]);
    until("the command runs", || {
        std::fs::read_to_string(folder.path("pid")).is_ok_and(|pid| pid.ends_with('\n'))
    });
    served.signal(Signal::TERM);
    let (status, said) = served.ended();
    assert_eq!(status.code(), Some(128 + 15), "{said}");
}

#[test]
fn a_pid_file_is_there_while_the_server_serves() {
    let folder = Folder::with_volume();
    folder.write("a.pid", b"4194305\n");
    let served = folder.serve(&["--pid-file", "a.pid"]);
    let number = std::fs::read_to_string(folder.path("a.pid")).unwrap();
    assert_eq!(number, format!("{}\n", served.child.id()));
    served.stop();
    assert!(!folder.path("a.pid").exists());
    folder.write("a.pid", b"not a number");
    let args = [
        "serve",
        "disk.img",
        "--key-file",
        "key",
        "--socket",
        "s.sock",
    ];
    let output = folder
        .luksmith(args.iter().chain(&["--pid-file", "a.pid"]))
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(5));
    assert!(folder.path("a.pid").exists() && !folder.path("s.sock").exists());
}

#[test]
fn a_server_ends_with_its_parent() {
    let folder = Folder::with_volume();
    let script = r#""$0" serve disk.img --key-file key --socket s.sock --exit-with-parent & wait"#;
    let mut parent = folder
        .program("sh", ["-c", script, env!("CARGO_BIN_EXE_luksmith")])
        .spawn()
        .unwrap();
    until("the server listens", || folder.path("s.sock").exists());
    parent.kill().unwrap();
    parent.wait().unwrap();
    until("the server has ended", || !folder.path("s.sock").exists());
}

#[test]
fn flushed_data_survives_a_kill_at_any_moment() {
    const BLOCK: usize = 10_000;
    let folder = Folder::with_volume();
    let mut expected = content();
    for round in 0..6u8 {
        let mut served = folder.serve(&[]);
        let mut client = served.client();
        let mut writer = client.stream.try_clone().unwrap();
        // Each write has FUA, so a replied one is on stable storage.
        let sending = std::thread::spawn(move || {
            for n in 0..700 {
                let mut write = request(Command::Write, n, n % 700 * 10_100, BLOCK as u64);
                write.flags = CommandFlags::FUA;
                let bytes = vec![round ^ n.to_le_bytes()[0]; BLOCK];
                let message = [&write.to_compact()[..], &bytes].concat();
                if writer.write_all(&message).is_err() {
                    return;
                }
            }
        });
        // Replies come in any order.
        let mut answered = Vec::new();
        let most = 20 + usize::from(round) * 37;
        while answered.len() < most {
            let (cookie, error) = client.next_simple().unwrap();
            assert_eq!(error, ErrorNumber::None);
            answered.push(cookie);
        }
        served.child.kill().unwrap();
        served.child.wait().unwrap();
        // Replies that were sent before the kill count too.
        while let Ok((cookie, ErrorNumber::None)) = client.next_simple() {
            answered.push(cookie);
        }
        sending.join().unwrap();
        let decrypted = folder.decrypted();
        for n in 0..700 {
            let start = usize::try_from(n % 700 * 10_100).unwrap();
            let block = start..start + BLOCK;
            if answered.contains(&n) {
                expected[block].fill(round ^ n.to_le_bytes()[0]);
            } else {
                // It may be written, or not, or in part.
                expected[block.clone()].copy_from_slice(&decrypted[block]);
            }
        }
        assert!(decrypted == expected, "round {round}");
        assert!(answered.iter().all(|&n| n < 700));
    }
}

#[test]
fn images_are_locked_while_they_are_served() {
    let folder = Folder::with_volume();
    let served = folder.serve(&[]);
    let args = [
        "serve",
        "disk.img",
        "--socket",
        "t.sock",
        "--key-file",
        "key",
    ];
    let second = folder.luksmith(args).output().unwrap();
    assert_eq!(second.status.code(), Some(5));
    served.stop();
    let served = folder.serve(&[]);
    served.stop();
}

#[test]
fn invalid_arguments_are_refused_before_a_passphrase_is_asked_for() {
    let folder = Folder::with_volume();
    for (args, said) in [
        ("--socket s.sock --export nonsense", "NAME=IMAGE"),
        ("--socket s.sock --export a=disk.img,keyslot=x", "keyslot="),
        (
            "--socket s.sock --export a=disk.img,discard=maybe,key=file:key",
            "deny, zeroes or pass",
        ),
        (
            "--socket s.sock --listen 127.0.0.1:1",
            "cannot be used with",
        ),
        ("disk.img", "no socket to listen on"),
        ("--socket s.sock", "IMAGE"),
    ] {
        let args = ["serve"].into_iter().chain(args.split(' '));
        let ran = folder.luksmith(args).output().unwrap();
        let stderr = String::from_utf8(ran.stderr).unwrap();
        assert_eq!(ran.status.code(), Some(1), "{stderr}");
        assert!(stderr.contains(said), "{said:?} not in:\n{stderr}");
    }
    folder.make_volume("other.img", &[]);
    let args = [
        "serve",
        "disk.img",
        "--key-file",
        "key",
        "--socket",
        "s.sock",
        "--export",
        "=other.img,key=file:key",
    ];
    let ran = folder.luksmith(args).output().unwrap();
    let stderr = String::from_utf8(ran.stderr).unwrap();
    assert_eq!(ran.status.code(), Some(1), "{stderr}");
    assert!(stderr.contains("two exports are named"), "{stderr}");
}

#[test]
fn an_image_can_be_served_twice_only_for_reading() {
    let folder = Folder::with_volume();
    std::fs::hard_link(folder.path("disk.img"), folder.path("same.img")).unwrap();
    let twice = |more: &str| {
        let args =
            format!("serve disk.img --key-file key --socket s.sock --export b=same.img{more}");
        folder.luksmith(args.split(' ')).output().unwrap()
    };
    for more in ["", ",read-only"] {
        let ran = twice(more);
        let stderr = String::from_utf8(ran.stderr).unwrap();
        assert_eq!(ran.status.code(), Some(1), "{stderr}");
        assert!(stderr.contains("same.img is named twice"), "{stderr}");
    }
    let args = ["disk.img", "--key-file", "key", "--socket", "s.sock", "-r"];
    let served = folder.serve_with(&args, &["--export", "b=same.img"]);
    assert!(served.client().read(0, 512) == content()[..512]);
    served.stop();
}

/// If the server has no descriptors left, clients wait. That is logged once.
#[test]
fn clients_beyond_the_descriptors_wait() {
    let folder = Folder::with_volume();
    let script = r#"ulimit -n 32; exec "$0" serve --json disk.img --key-file key --socket s.sock"#;
    let command = folder.program("sh", ["-c", script, env!("CARGO_BIN_EXE_luksmith")]);
    let served = Served::start(&folder, command);
    let clients: Vec<_> = (0..40).map(|_| served.connect()).collect();
    std::thread::sleep(Duration::from_millis(400));
    drop(clients);
    assert!(served.client().read(0, 512) == content()[..512]);
    let said = served.stop();
    assert_eq!(said.matches("cannot accept clients").count(), 1, "{said}");
}

#[test]
fn a_truncated_image_is_a_failure_of_the_storage() {
    let folder = Folder::with_volume();
    let served = folder.serve(&[]);
    let file = std::fs::OpenOptions::new()
        .write(true)
        .open(folder.path("disk.img"));
    file.unwrap().set_len(17 << 20).unwrap();
    let mut client = served.client();
    for _ in 0..3 {
        let answer = client.ask(Command::Read, CommandFlags::NONE, 4 << 20, 4096, &[]);
        assert_eq!(answer.error, ErrorNumber::Io);
    }
    assert!(client.read(0, 4096) == content()[..4096]);
    let said = served.stop();
    assert_eq!(
        said.matches("the file was cut to 17825792 bytes").count(),
        1,
        "{said}"
    );
    assert!(said.contains("the storage answers again"), "{said}");
}
