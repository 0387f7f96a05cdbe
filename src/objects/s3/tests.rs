use std::io::{BufRead as _, BufReader, Write as _};
use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Instant;

use super::*;

/// A service that answers the requests in turn, each on its own connection, until a write fails or
/// the answer ends. Returns its store, and counts the bytes of answers that it could send.
fn service(
    answer: impl Fn(u64, &mut dyn FnMut(&[u8]) -> Option<()>) -> Option<()> + Send + 'static,
) -> (S3Store, Arc<AtomicU64>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    let sent = Arc::new(AtomicU64::new(0));
    let counted = sent.clone();
    std::thread::spawn(move || {
        for (number, stream) in listener.incoming().flatten().enumerate() {
            let mut lines = BufReader::new(&stream).lines();
            while lines
                .next()
                .is_some_and(|line| line.is_ok_and(|it| !it.is_empty()))
            {}
            let _ = answer(number as u64, &mut |bytes| {
                (&stream).write_all(bytes).ok()?;
                counted.fetch_add(bytes.len() as u64, Ordering::SeqCst);
                Some(())
            });
        }
    });
    let account = Account::new(Credentials::new("id", "secret", None), "r");
    let uri = Uri::parse(&format!("s3://bucket/v?endpoint={endpoint}")).unwrap();
    let store = S3Store::new(&uri, account, Duration::from_secs(1)).unwrap();
    (store, sent)
}

fn head(status: u16, length: usize) -> String {
    format!("HTTP/1.1 {status} X\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n")
}

/// The answers to a list, of which the one after the last is the last again.
fn listed(pages: &[&str]) -> Result<Vec<(String, u64)>, StoreError> {
    let pages: Vec<String> = pages.iter().map(ToString::to_string).collect();
    let (store, _) = service(move |number, send| {
        let page = &pages[usize::try_from(number).unwrap().min(pages.len() - 1)];
        let page = format!("<R><Contents><Key>v/{number}</Key><Size>1</Size></Contents>{page}</R>");
        send((head(200, page.len()) + &page).as_bytes())
    });
    store.list("")
}

#[test]
fn a_list_ends() {
    let names = |answer: Result<Vec<(String, u64)>, StoreError>| answer.unwrap().len();
    let next = "<NextContinuationToken>a</NextContinuationToken>";
    let more = "<IsTruncated>true</IsTruncated><NextContinuationToken>a</NextContinuationToken>";
    let last = "<IsTruncated>false</IsTruncated><NextContinuationToken>b</NextContinuationToken>";
    assert_eq!(names(listed(&[""])), 1);
    assert_eq!(names(listed(&[next, ""])), 2);
    assert_eq!(names(listed(&[more, last])), 2);
    assert_eq!(
        names(listed(&["<NextContinuationToken></NextContinuationToken>"])),
        1
    );
    for endless in [&[next][..], &[more]] {
        let error = listed(endless).unwrap_err();
        assert!(error.to_string().contains("does not end"), "{error}");
    }
    for strange in [
        "<IsTruncated>true</IsTruncated>",
        "<IsTruncated>x</IsTruncated>",
    ] {
        let error = listed(&[strange]).unwrap_err();
        assert!(error.to_string().contains("cannot be read"), "{error}");
    }
}

#[test]
fn a_list_that_drips_is_given_up() {
    let (store, _) = service(|number, send| {
        std::thread::sleep(Duration::from_millis(200));
        let page = format!(
            "<R><Contents><Key>v/{number}</Key><Size>1</Size></Contents>\
             <NextContinuationToken>{number}</NextContinuationToken></R>"
        );
        send((head(200, page.len()) + &page).as_bytes())
    });
    let began = Instant::now();
    let error = store.list("").unwrap_err();
    assert!(error.is_temporary(), "{error:?}");
    assert!(began.elapsed() < Duration::from_secs(10));
}

#[test]
fn a_part_takes_no_more_than_its_length() {
    let (store, sent) = service(|_, send| {
        send(head(206, 1 << 30).as_bytes())?;
        loop {
            send(&[0; 1 << 16])?;
        }
    });
    let error = store.read("x", 100..200).unwrap_err();
    assert!(matches!(error, StoreError::Answer(_)), "{error:?}");
    assert!(!error.is_temporary());
    // What the sockets hold.
    assert!(sent.load(Ordering::SeqCst) < 32 << 20);
}

#[test]
fn an_answer_that_drips_is_given_up() {
    let (store, _) = service(|_, send| {
        send(head(206, 1000).as_bytes())?;
        loop {
            std::thread::sleep(Duration::from_millis(200));
            send(b"x")?;
        }
    });
    let began = Instant::now();
    let error = store.read("x", 0..1000).unwrap_err();
    assert!(error.is_temporary(), "{error:?}");
    assert!(began.elapsed() < Duration::from_secs(10));
}

#[test]
fn a_session_token_is_not_sent_in_clear() {
    let open = |endpoint: &str, token| {
        let account = Account::new(Credentials::new("id", "secret", token), "r");
        let uri = Uri::parse(&format!("s3://bucket/v?endpoint={endpoint}")).unwrap();
        S3Store::new(&uri, account, Duration::MAX).map(drop)
    };
    for endpoint in [
        "http://s3.example",
        "http://192.0.2.1:9000",
        "http://[2001:db8::1]:9000",
    ] {
        let refused = open(endpoint, Some("token"));
        assert!(matches!(refused, Err(S3Error::TokenInClear)), "{endpoint}");
        open(endpoint, None).unwrap();
    }
    for here in [
        "http://localhost",
        "http://localhost:9000",
        "http://127.0.0.1:1",
        "http://[::1]",
    ] {
        open(here, Some("token")).unwrap();
    }
}
