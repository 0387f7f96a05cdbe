//! Commands with the tags of a volume: what was changed behind their back is an error, whatever
//! happens to the server.

use std::fs;
use std::os::unix::fs::DirBuilderExt as _;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use support::peers;

use crate::site::{NOT_TRUSTED, Site};

/// Where the data of a LUKS2 volume begins.
const DATA: usize = 16 << 20;

fn tagged(how: &str) -> Site {
    let site = Site::new();
    site.create("disk.img", "luks2");
    site.ok(&format!(
        "trust init disk.img --trust pins {how} --key-file key"
    ));
    site
}

fn flip(site: &Site, at: usize) {
    let mut image = site.read("disk.img");
    image[at] ^= 1;
    site.write("disk.img", &image);
}

#[test]
fn data_that_was_changed_is_an_error_and_without_tags_it_is_believed() {
    let site = tagged("--tags");
    site.ok("decrypt disk.img before --trust pins --key-file key");
    let said = site.ok("trust verify disk.img --trust pins --key-file key");
    assert!(
        said.contains("1 MiB of data are as they were written"),
        "{said}"
    );
    flip(&site, DATA + 5 * 4096 + 7);
    let said = site.fails(
        NOT_TRUSTED,
        "decrypt disk.img after --trust pins --key-file key",
    );
    assert!(
        said.contains(&format!("byte {}", DATA + 5 * 4096)),
        "{said}"
    );
    let said = site.fails(
        NOT_TRUSTED,
        "trust verify disk.img --trust pins --key-file key",
    );
    assert!(
        said.contains(&format!(
            "the block of data at byte {} is not as it was written",
            DATA + 5 * 4096
        )),
        "{said}"
    );
    // Without a passphrase it says what it did not do.
    let said = site.ok("trust verify disk.img --trust pins");
    assert!(
        said.contains("the data is not compared with its tags"),
        "{said}"
    );
    // The positive control.
    site.ok("decrypt disk.img after --key-file key");
    assert_ne!(site.read("before"), site.read("after"));
    flip(&site, DATA + 5 * 4096 + 7);
    site.ok("trust verify disk.img --trust pins --key-file key");
    // The data is cut off.
    let image = site.read("disk.img");
    site.write("disk.img", &image[..image.len() - 4096]);
    let said = site.fails(
        NOT_TRUSTED,
        "decrypt disk.img cut --trust pins --key-file key",
    );
    assert!(said.contains("truncated"), "{said}");
}

#[test]
fn a_fresh_volume_reads_as_zeroes_whatever_the_storage_has() {
    let site = tagged("--tags=fresh");
    let mut image = site.read("disk.img");
    image[DATA..].fill(0x5a);
    site.write("disk.img", &image);
    site.ok("decrypt disk.img plain --trust pins --key-file key");
    assert!(site.read("plain").iter().all(|byte| *byte == 0));
}

#[test]
fn data_does_not_become_zeroes_unless_that_is_forced() {
    let site = Site::new();
    site.create("disk.img", "luks2");
    flip(&site, DATA + (1 << 19));
    let init = "trust init disk.img --trust pins --tags=fresh --key-file key";
    let said = site.fails(1, init);
    let found = format!("there is data at byte {}", DATA);
    assert!(
        said.contains(&found) && said.contains("--force fresh"),
        "{said}"
    );
    assert!(site.ok("trust status pins").contains("nothing is pinned"));
    site.ok(&format!("{init} --force fresh"));
    site.ok("trust verify disk.img --trust pins --key-file key");
}

/// A file that is gone must not mean that nothing is compared any more.
#[test]
fn tags_of_which_a_file_is_missing_are_refused() {
    let site = tagged("--tags");
    let folder = site.path("pins").join(site.uuid("disk.img"));
    for name in ["tags", "tags.0", "tags.1"] {
        fs::rename(folder.join(name), site.path("kept")).unwrap();
        for command in ["decrypt disk.img plain", "trust init disk.img --tags"] {
            let said = site.fails(4, &format!("{command} --trust pins --key-file key"));
            assert!(said.contains(&format!("{name}: a file of tags")), "{said}");
            assert!(said.contains("restore DIR from its backup"), "{said}");
        }
        fs::rename(site.path("kept"), folder.join(name)).unwrap();
    }
    site.ok("decrypt disk.img plain --trust pins --key-file key");
}

/// Options that say how tags are used need tags.
#[test]
fn a_server_without_tags_does_not_pretend_to_use_them() {
    let site = Site::new();
    site.create("disk.img", "luks2");
    for option in ["--on-tamper stop", "--tags-relaxed"] {
        let serve = format!("serve disk.img --key-file key {option}");
        let said = site.fails(1, &format!("{serve} --run true"));
        assert!(
            said.contains(&format!("{option} is for volumes with tags")),
            "{said}"
        );
    }
    site.ok("trust init disk.img --trust pins --key-file key");
    for option in ["--on-tamper stop", "--tags-relaxed"] {
        let serve = format!("serve disk.img --key-file key --trust pins {option}");
        let said = site.fails(1, &format!("{serve} --run true"));
        assert!(
            said.contains("trust init IMAGE --trust DIR --tags"),
            "{said}"
        );
    }
}

/// A server of `disk.img` on `s/nbd.sock`.
fn serve(site: &Site, more: &str) -> Child {
    let folder = fs::DirBuilder::new().mode(0o700).create(site.path("s"));
    assert!(folder.is_ok() || site.path("s").is_dir());
    let _ = fs::remove_file(site.path("s/nbd.sock"));
    let line = format!("serve disk.img --trust pins --key-file key --socket s/nbd.sock{more}");
    let mut command = site.command(&line);
    let child = command.stdout(Stdio::null()).stderr(Stdio::piped());
    let child = child.spawn().unwrap();
    let until = Instant::now() + Duration::from_secs(20);
    while std::os::unix::net::UnixStream::connect(site.path("s/nbd.sock")).is_err() {
        assert!(Instant::now() < until, "the server does not listen");
        std::thread::sleep(Duration::from_millis(5));
    }
    child
}

/// fio as a client, with several connections.
fn fio(site: &Site, more: &str) -> Option<Child> {
    let fio = peers::find("fio")?;
    let uri = format!("nbd+unix:///?socket={}", site.path("s/nbd.sock").display());
    let mut command = site.of(
        &fio,
        &format!(
            "--name=x --ioengine=nbd --uri={uri} --bs=1536 --rw=randrw --iodepth=8 --fsync=20 {more}"
        ),
    );
    let child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn();
    Some(child.unwrap())
}

#[test]
fn a_server_that_is_killed_leaves_no_false_alarm() {
    for more in ["", " --tags-relaxed"] {
        let site = tagged("--tags=fresh");
        for round in 0..4_u64 {
            let mut server = serve(&site, more);
            let clients = ["0", "512k"].map(|offset| {
                fio(
                    &site,
                    &format!("--offset={offset} --size=512k --time_based --runtime=20"),
                )
            });
            let [Some(mut one), Some(mut other)] = clients else {
                server.kill().unwrap();
                server.wait().unwrap();
                return;
            };
            std::thread::sleep(Duration::from_millis(150 + 70 * round));
            server.kill().unwrap();
            server.wait().unwrap();
            one.wait().unwrap();
            other.wait().unwrap();
            let said = site.ok("trust verify disk.img --trust pins --key-file key");
            assert!(said.contains("as they were written"), "{said}");
        }
        // Every byte is what fio has written.
        let server = serve(&site, more);
        let verified = fio(&site, "--size=1M --verify=crc32c --verify_fatal=1")
            .unwrap()
            .wait();
        assert!(verified.unwrap().success());
        drop(server_stopped(server));
    }
}

fn server_stopped(mut server: Child) -> Child {
    let pid = rustix::process::Pid::from_child(&server);
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    assert!(server.wait().unwrap().success());
    server
}

#[test]
fn a_server_can_stop_when_data_is_not_as_it_was_written() {
    let site = tagged("--tags");
    flip(&site, DATA);
    // The server that stops ends its command too.
    let read = "fio --name=x --ioengine=nbd --uri=$uri --rw=read --bs=4k --size=64k";
    let waits = format!("{read}; exec sleep 1000");
    for (more, code, read) in [("", 1, read), (" --on-tamper stop", NOT_TRUSTED, &waits)] {
        let line = format!("serve disk.img --trust pins --key-file key{more} --run");
        let mut command = site.command(&line);
        let output = command.arg(read).output().unwrap();
        if peers::find("fio").is_none() {
            return;
        }
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{more}: {said}");
        assert!(said.contains("not what was written"), "{said}");
    }
}
