//! Any bytes of a server, to a client: each of its calls ends, with data or an error.
//!
//! If the first byte is odd, the rest comes after a valid handshake, so that it is read as replies.
#![no_main]

use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::{LazyLock, Mutex};
use std::time::Duration;

use libfuzzer_sys::fuzz_target;
use luksmith::backend::Backend;
use luksmith::backend::nbd::{ConnectOptions, NbdBackend};
use luksmith::formats::nbd::uri::Uri;
use luksmith::sectors::{Cipher, Sectors};

/// What the server sends on the next connection.
static INPUT: Mutex<Vec<u8>> = Mutex::new(Vec::new());

static SERVER: LazyLock<Uri> = LazyLock::new(|| {
    let path = std::env::temp_dir().join(format!("luksmith-fuzz-{}", std::process::id()));
    let _ = std::fs::remove_file(&path);
    let listener = UnixListener::bind(&path).unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let input = INPUT.lock().unwrap().clone();
            let _ = serve(stream.unwrap(), &input);
        }
    });
    Uri::parse(&format!("nbd+unix:///?socket={}", path.display())).unwrap()
});

fn serve(mut stream: UnixStream, input: &[u8]) -> std::io::Result<()> {
    stream.set_read_timeout(Some(Duration::from_millis(20)))?;
    stream.set_write_timeout(Some(Duration::from_millis(20)))?;
    let Some((first, rest)) = input.split_first() else {
        return Ok(());
    };
    if first & 1 == 1 {
        shake_hands(&mut stream)?;
        let_look(&mut stream)?;
    }
    stream.write_all(rest)?;
    // The content of the requests does not matter. The server waits for them.
    let mut asked = [0; 4096];
    while stream.read(&mut asked)? > 0 {}
    Ok(())
}

/// Acknowledges each option until one chooses the export: of 1 MiB, writable, with flush, trim and
/// zeroes.
fn shake_hands(stream: &mut UnixStream) -> std::io::Result<()> {
    stream.write_all(b"NBDMAGICIHAVEOPT\0\x03")?;
    stream.read_exact(&mut [0; 4])?;
    loop {
        let mut option = [0; 16];
        stream.read_exact(&mut option)?;
        let number = &option[8..12];
        let len = u32::from_be_bytes([option[12], option[13], option[14], option[15]]);
        stream.read_exact(&mut vec![0; len.min(65_536) as usize])?;
        let reply = |kind: u8, data: &[u8]| {
            let len = u32::try_from(data.len()).unwrap_or(0).to_be_bytes();
            let magic = 0x0003_e889_0455_65a9_u64.to_be_bytes();
            [&magic[..], number, &[0, 0, 0, kind], &len, data].concat()
        };
        let chooses = number == [0, 0, 0, 7];
        if chooses {
            stream.write_all(&reply(3, b"\0\0\0\0\0\0\0\x10\0\0\0\x6d"))?;
        }
        stream.write_all(&reply(1, &[]))?;
        if chooses {
            return Ok(());
        }
    }
}

/// Answers the client's first read, which is of the beginning, with extended headers.
fn let_look(stream: &mut UnixStream) -> std::io::Result<()> {
    let mut request = [0; 32];
    stream.read_exact(&mut request)?;
    let mut answer = b"\x6e\x8a\x27\x8c\0\x01\0\x01".to_vec();
    answer.extend(&request[8..16]);
    answer.extend(0_u64.to_be_bytes());
    answer.extend((8 + 4096_u64).to_be_bytes());
    answer.extend([0; 8 + 4096]);
    stream.write_all(&answer)
}

fuzz_target!(|input: &[u8]| {
    *INPUT.lock().unwrap() = input.to_vec();
    let options = ConnectOptions::new().write(true).timeout(Duration::from_millis(5)).connections(1);
    let Ok(storage) = NbdBackend::connect(&SERVER, options) else {
        return;
    };
    let mut sectors = Sectors::<Cipher>::zeroed(4096);
    let _ = storage.read_at(0, &mut sectors);
    let _ = storage.write_at(4096, &sectors);
    let _ = storage.write_zeroes(8192..12_288);
    let _ = storage.flush();
});
