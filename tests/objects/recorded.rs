//! Every byte that goes to an object store and comes from it is recorded: no piece of the
//! plaintext, of the passphrase or of the volume key is there.

use luksmith::task::outcome::hex;
use support::peers;
use support::recorder::Recorder;
use support::rgw::KEY;
use support::s3_double::Service;
use support::secret_search::SecretSearch;

use crate::program::{CHEAP, Site, content};

const MIB: usize = 1 << 20;

fn records(site: Site) {
    if peers::find("nbdsh").is_none() {
        return;
    }
    let server = site.endpoint().trim_start_matches("http://").to_owned();
    let recorder = Recorder::start(&server);
    let site = site.behind(format!("http://{}", recorder.address));
    let (passphrase, other) = (content(21, 64), content(22, 64));
    // A short piece again and again: the search is slow for many pieces.
    let (volume_key, canary) = (content(23, 64), content(24, 251));
    let plain: Vec<u8> = canary.iter().copied().cycle().take(MIB).collect();
    for (name, bytes) in [
        ("key", &passphrase),
        ("other", &other),
        ("volume-key", &volume_key),
        ("plain", &plain),
    ] {
        site.write(name, bytes);
    }
    let journal = site.path("journal").display().to_string();
    let cache = site.path("cache").display().to_string();
    let journaled = format!("{{journaled}}&journal={journal}&cache={cache}");
    let mut files = Vec::new();
    let mut guest = |volume: &str, program: &str| {
        let serving = site.serve(volume);
        let data = site.path("plain").display().to_string();
        let program = format!("data = open('{data}', 'rb').read()\n{program}\nh.flush()");
        assert!(serving.client(&program));
        files.extend(std::fs::read(&journal));
        serving.stop();
    };
    let mut caches = Vec::new();
    for volume in ["{v}", &journaled] {
        site.luksmith(&format!(
            "create {volume} --size 4M --volume-key-file volume-key --key-file key {CHEAP}"
        ));
        let line = format!("key add {volume} --key-file key --new-key-file other {CHEAP}");
        site.luksmith(&line);
        guest(volume, "h.pwrite(data, 0)");
        site.luksmith(&format!("objects snapshot create {volume} monday"));
        // Parts of sectors and blocks too.
        guest(
            volume,
            "for at in range(0, len(data), 3000): h.pwrite(data[at:at + 700], at + 1)",
        );
        site.luksmith(&format!("objects gc {volume}"));
        site.luksmith(&format!(
            "decrypt {volume} out --key-file other --force overwrite"
        ));
        caches.extend(std::fs::read(&cache));
        site.luksmith(&format!(
            "objects snapshot delete {volume} monday --force erase"
        ));
        site.luksmith(&format!("objects gc {volume}"));
        site.luksmith(&format!("objects verify {volume}"));
    }
    site.luksmith("resize {v} --size 3M --force shrink");
    site.luksmith("verify-ciphertext {v}");

    let texts = [&passphrase, &volume_key].map(|secret| hex(secret).into_bytes());
    let search = SecretSearch::new(vec![
        ("the plaintext", &plain[..2 * canary.len()]),
        ("a passphrase", &passphrase),
        ("a passphrase", &other),
        ("a passphrase", &texts[0]),
        ("the volume key", &volume_key),
        ("the volume key", &texts[1]),
    ]);
    let streams = recorder.streams();
    for bytes in streams.iter().chain(&files).chain(&caches) {
        assert_eq!(search.found_in(bytes), [""; 0]);
        let key = KEY.1.as_bytes();
        assert!(!bytes.windows(key.len()).any(|part| part == key));
    }
    // The record has the requests and the ciphertext, and a piece of plaintext would be found.
    let all: usize = streams.iter().map(Vec::len).sum();
    assert!(all > 8 * MIB, "{all}");
    assert!(files[0].len() > MIB && caches[0].len() > MIB);
    let names = |name: &[u8]| {
        streams
            .iter()
            .any(|it| it.windows(name.len()).any(|part| part == name))
    };
    assert!(names(b"If-None-Match") || names(b"if-none-match"));
    let mut stream = streams.concat();
    stream.truncate(MIB);
    stream[1000..1016].copy_from_slice(&plain[777..793]);
    assert_eq!(search.found_in(&stream), ["the plaintext"]);
}

#[test]
fn no_secret_is_on_the_wire_to_a_real_service() {
    if let Some(site) = Site::real("recorded") {
        records(site);
    }
}

#[test]
fn no_secret_is_on_the_wire_to_a_service_in_memory() {
    records(Site::double(Service::default()).0);
}
