//! Tests of the source language and of reading.

use std::io::Write;
use std::os::fd::AsRawFd;

use super::*;
use crate::secret::ParseSourceError as Bad;

fn read(source: &Source, what: Wanted) -> Result<Vec<u8>, SecretError> {
    let purpose = Purpose {
        what,
        name: "passphrase",
        label: "a volume",
        volume: None,
        interrupt: &Interrupt::new(),
    };
    Ok(source.read(purpose)?.as_bytes().to_vec())
}

fn key_file(bytes: &[u8]) -> tempfile::NamedTempFile {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(bytes).unwrap();
    file
}

#[test]
fn every_form_parses_and_shows_itself_again() {
    let file = |path: &str, offset, size| Source::File {
        path: path.into(),
        offset,
        size,
    };
    let forms = [
        ("prompt", Source::Terminal),
        ("stdin", Source::Stdin),
        ("fd:7", Source::Fd(7)),
        ("credential:disk.key", Source::Credential("disk.key".into())),
        ("command:/a b,c", Source::Command("/a b,c".into())),
        ("file:/a/b", file("/a/b", 0, None)),
        ("file:a,b:c", file("a,b:c", 0, None)),
        ("file:k,offset=5", file("k", 5, None)),
        ("file:k,offset=5,size=64", file("k", 5, Some(64))),
    ];
    for form in Source::FORMS {
        assert!(
            forms.iter().any(|(text, _)| text.starts_with(form)),
            "{form}"
        );
    }
    for (text, source) in forms {
        assert!(
            Source::FORMS.iter().any(|form| text.starts_with(form)),
            "{text}"
        );
        assert_eq!(text.parse(), Ok(source.clone()), "{text}");
        assert_eq!(source.to_string(), text);
    }
    assert_eq!(
        "file:k,size=64,offset=5".parse(),
        Ok(file("k", 5, Some(64)))
    );
}

#[test]
fn what_is_no_form_says_why() {
    let bad = [
        ("", Bad::Unknown),
        ("Prompt", Bad::Unknown),
        ("prompt:", Bad::Unknown),
        ("/a/path", Bad::Unknown),
        ("env:PASSWORD", Bad::Unknown),
        ("file:", Bad::NoPath),
        ("file:,size=3", Bad::NoPath),
        ("file:k,size=3M", Bad::NotBytes { option: "size" }),
        ("file:k,offset=-1", Bad::NotBytes { option: "offset" }),
        ("file:k,size=1,size=2", Bad::Twice { option: "size" }),
        ("fd:", Bad::NotDescriptor),
        ("fd:-1", Bad::NotDescriptor),
        ("fd:99999999999", Bad::NotDescriptor),
        ("credential:", Bad::NotName),
        ("credential:..", Bad::NotName),
        ("credential:a/b", Bad::NotName),
        ("command:", Bad::NotProgram),
        ("command:program", Bad::NotProgram),
    ];
    for (text, error) in bad {
        assert_eq!(text.parse::<Source>(), Err(error), "{text}");
    }
}

#[test]
fn a_file_gives_its_bytes_as_they_are() {
    let file = key_file(b"line\n\0\xffmore\n");
    let whole = read(&Source::file(file.path()), Wanted::New).unwrap();
    assert_eq!(whole, b"line\n\0\xffmore\n");
    let part = Source::File {
        path: file.path().into(),
        offset: 5,
        size: Some(3),
    };
    assert_eq!(read(&part, Wanted::Unlock).unwrap(), b"\0\xffm");
}

#[test]
fn a_range_past_the_end_is_an_error() {
    let file = key_file(b"0123456789");
    for (offset, size, wanted) in [
        (5, 6, 11),
        (20, 1, 21),
        (u64::MAX >> 1, 1, (u64::MAX >> 1) + 1),
    ] {
        let source = Source::File {
            path: file.path().into(),
            offset,
            size: Some(size),
        };
        match read(&source, Wanted::Unlock) {
            Err(SecretError::Short { wanted: end, .. }) => assert_eq!(end, wanted),
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn nothing_too_much_and_absent_are_errors() {
    let empty = key_file(b"");
    let result = read(&Source::file(empty.path()), Wanted::Unlock);
    assert!(matches!(result, Err(SecretError::Nothing { .. })));

    let huge = key_file(b"");
    huge.as_file().set_len(MAX_KEY_FILE as u64 + 1).unwrap();
    let result = read(&Source::file(huge.path()), Wanted::Unlock);
    assert!(matches!(
        result,
        Err(SecretError::TooLong {
            limit: MAX_KEY_FILE,
            ..
        })
    ));

    let result = read(&Source::file("/nonexistent/key"), Wanted::Unlock);
    assert!(matches!(result, Err(SecretError::Io { .. })));
    let result = read(&Source::Fd(i32::MAX), Wanted::Unlock);
    assert!(matches!(result, Err(SecretError::Io { .. })));
    let result = read(&Source::file("/"), Wanted::Unlock);
    assert!(matches!(result, Err(SecretError::Io { .. })));
}

#[test]
fn an_endless_device_gives_what_was_asked_and_no_more() {
    let part = Source::File {
        path: "/dev/zero".into(),
        offset: 5000,
        size: Some(40),
    };
    assert_eq!(read(&part, Wanted::Unlock).unwrap(), [0; 40]);
}

#[test]
fn a_descriptor_gives_all_up_to_the_end() {
    for len in [1, 511, 512, 513, 20_000] {
        let (reader, mut writer) = std::io::pipe().unwrap();
        writer.write_all(&vec![b'x'; len]).unwrap();
        drop(writer);
        let got = read(&Source::Fd(reader.as_raw_fd()), Wanted::New).unwrap();
        assert_eq!(got, vec![b'x'; len]);
    }
}

#[test]
fn lines_follow_each_other_on_one_input() {
    let (reader, mut writer) = std::io::pipe().unwrap();
    let long = "y".repeat(600);
    writer
        .write_all(format!("first \n\n{long}\r\nlast").as_bytes())
        .unwrap();
    drop(writer);
    let interrupt = Interrupt::new();
    let input = Input {
        fd: reader.as_fd(),
        from: "a pipe",
        interrupt: &interrupt,
    };
    assert_eq!(input.line(1000).unwrap()[..], *b"first ");
    assert_eq!(input.line(1000).unwrap()[..], *b"");
    assert_eq!(
        input.line(1000).unwrap()[..],
        *format!("{long}\r").as_bytes()
    );
    assert_eq!(input.line(1000).unwrap()[..], *b"last");
    assert!(matches!(input.line(1000), Err(SecretError::Nothing { .. })));
}

#[test]
fn a_limit_is_the_most_that_is_taken() {
    for (len, fits) in [(9, true), (10, true), (11, false)] {
        let (reader, mut writer) = std::io::pipe().unwrap();
        writer.write_all(&vec![b'x'; len]).unwrap();
        writer.write_all(b"\n").unwrap();
        let interrupt = Interrupt::new();
        let input = Input {
            fd: reader.as_fd(),
            from: "a pipe",
            interrupt: &interrupt,
        };
        assert_eq!(input.line(10).is_ok(), fits, "{len}");
    }
}

#[test]
fn waiting_can_be_interrupted() {
    let (reader, _writer) = std::io::pipe().unwrap();
    let interrupt = Interrupt::new();
    std::thread::scope(|scope| {
        let waiting = scope
            .spawn(|| Source::Fd(reader.as_raw_fd()).read(Purpose::unlock("a volume", &interrupt)));
        std::thread::sleep(std::time::Duration::from_millis(30));
        interrupt.trigger();
        assert!(matches!(
            waiting.join().unwrap(),
            Err(SecretError::Interrupted)
        ));
    });
}

#[test]
fn stdin_with_data_takes_no_secret() {
    let beside = Source::beside_data_on_stdin;
    assert_eq!(beside(Source::Prompt).unwrap(), Source::Terminal);
    assert_eq!(beside(Source::Fd(3)).unwrap(), Source::Fd(3));
    assert!(matches!(
        beside(Source::Stdin),
        Err(SecretError::StdinTaken)
    ));
    assert!(matches!(
        beside(Source::Fd(0)),
        Err(SecretError::StdinTaken)
    ));
}

fn fifo() -> (tempfile::TempDir, Source) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("fifo");
    rustix::fs::mknodat(
        rustix::fs::CWD,
        &path,
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR,
        0,
    )
    .unwrap();
    let source = Source::File {
        path,
        offset: 0,
        size: None,
    };
    (folder, source)
}

#[test]
fn a_fifo_is_read_once_it_has_a_writer() {
    let (folder, source) = fifo();
    let path = folder.path().join("fifo");
    let writer = std::thread::spawn(move || std::fs::write(path, b"secret").unwrap());
    assert_eq!(read(&source, Wanted::Unlock).unwrap(), b"secret");
    writer.join().unwrap();
}

#[test]
fn the_interrupt_ends_the_wait_for_a_writer() {
    let (_folder, source) = fifo();
    let interrupt = Interrupt::new();
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| {
            source.read(Purpose {
                what: Wanted::Unlock,
                name: "passphrase",
                label: "a volume",
                volume: None,
                interrupt: &interrupt,
            })
        });
        std::thread::sleep(std::time::Duration::from_millis(50));
        interrupt.trigger();
        let outcome = waiting.join().unwrap();
        assert!(matches!(outcome, Err(SecretError::Interrupted)));
    });
}
