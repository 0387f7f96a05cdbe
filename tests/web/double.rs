//! A web server that answers as a test wants.

use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// A request for a part of the file.
pub(crate) struct Asked {
    /// From 1 on.
    pub(crate) number: u64,
    /// The first byte, and the one after the last.
    pub(crate) part: Option<(usize, usize)>,
    pub(crate) validator: Option<String>,
}

/// An answer: the status, header lines that each end with CRLF, and the body.
pub(crate) type Answer = (u16, String, Vec<u8>);

/// Starts a server, which runs until the process ends, and returns the URL of its file.
pub(crate) fn start(answer: impl Fn(&Asked) -> Answer + Send + Sync + 'static) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/disk.img", listener.local_addr().unwrap());
    let (answer, numbers) = (Arc::new(answer), Arc::new(AtomicU64::new(0)));
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let (answer, numbers) = (answer.clone(), numbers.clone());
            std::thread::spawn(move || serve(&stream, &*answer, &numbers));
        }
    });
    url
}

fn serve(stream: &TcpStream, answer: &dyn Fn(&Asked) -> Answer, numbers: &AtomicU64) -> Option<()> {
    let mut reader = BufReader::new(stream);
    loop {
        let (mut part, mut validator) = (None, None);
        loop {
            let mut line = String::new();
            if reader.read_line(&mut line).ok()? == 0 {
                return None;
            }
            let lower = line.trim_end().to_ascii_lowercase();
            if lower.is_empty() {
                break;
            }
            if let Some(range) = lower.strip_prefix("range: bytes=") {
                let (first, last) = range.split_once('-')?;
                part = Some((first.parse().ok()?, last.parse::<usize>().ok()? + 1));
            }
            if lower.starts_with("if-range: ") {
                validator = Some(line.trim_end()[10..].to_owned());
            }
        }
        let number = numbers.fetch_add(1, Ordering::SeqCst) + 1;
        let (status, headers, body) = answer(&Asked {
            number,
            part,
            validator,
        });
        let head = format!("HTTP/1.1 {status} X\r\n{headers}\r\n");
        let mut stream = stream;
        stream.write_all(&[head.as_bytes(), &body].concat()).ok()?;
        if headers.to_ascii_lowercase().contains("connection: close") {
            return None;
        }
    }
}

/// The part of a file that was asked for, of a version.
pub(crate) fn part_of(file: &[u8], version: &str, asked: &Asked) -> Answer {
    part_with(file, &format!("etag: {version}\r\n"), asked)
}

/// The part of a file that was asked for, with these header lines.
pub(crate) fn part_with(file: &[u8], lines: &str, asked: &Asked) -> Answer {
    let (first, end) = asked.part.unwrap_or((0, file.len()));
    let end = end.min(file.len());
    let body = file[first..end].to_vec();
    let (last, size, length) = (end - 1, file.len(), body.len());
    let headers = format!(
        "content-range: bytes {first}-{last}/{size}\r\n{lines}content-length: {length}\r\n"
    );
    (206, headers, body)
}
