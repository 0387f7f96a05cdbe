//! Volumes on web servers that admins use.

use std::net::{TcpListener, TcpStream};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use support::{certificates, peers};

use crate::program::{Running, Site};

fn free_port() -> u16 {
    let free = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr());
    free.expect("a free port").port()
}

fn wait_for(port: u16) {
    let until = Instant::now() + Duration::from_secs(20);
    while TcpStream::connect(("127.0.0.1", port)).is_err() {
        assert!(Instant::now() < until, "the server does not listen");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Every command that takes a file on a web server.
fn is_read(site: &Site, url: &str) {
    site.luksmith(&format!("decrypt {url} out --key-file key"));
    assert!(site.read("out") == site.read("plain"));
    std::fs::remove_file(site.path("out")).unwrap();
    assert!(site.luksmith(&format!("info {url}")).contains("LUKS2"));
    site.luksmith(&format!("key test {url} --key-file key"));
    site.luksmith(&format!("inspect --format luks {url}"));
    site.luksmith(&format!("verify-ciphertext {url}"));
    let (code, said) = site.refused(&format!("config {url} --label x"));
    assert!(
        code == 2 && said.contains("a file on a web server is read-only"),
        "{said}"
    );
    let (_, said) = site.refused(&format!("encrypt {url} new.img --key-file key"));
    assert!(
        said.contains("plain data is not read from a web server"),
        "{said}"
    );
    let (_, said) = site.refused(&format!("info {url}-absent"));
    assert!(said.contains("no such file"), "{said}");
}

#[test]
fn busybox_serves_a_volume() {
    let Some(busybox) = peers::find("busybox") else {
        return;
    };
    let site = Site::new();
    let port = free_port();
    let mut server = Command::new(busybox);
    server
        .args(["httpd", "-f", "-p", &format!("127.0.0.1:{port}"), "-h"])
        .arg(site.folder.path());
    let _server = Running(server.stderr(Stdio::null()).spawn().unwrap());
    wait_for(port);
    is_read(&site, &format!("http://127.0.0.1:{port}/disk.img"));
}

/// Starts nginx, in front of the folder of a site.
fn nginx(site: &Site, listen: &str, port: u16) -> Option<Running> {
    let nginx = peers::find("nginx")?;
    let root = site.folder.path().display();
    let user = if rustix::process::getuid().is_root() {
        "user root;"
    } else {
        ""
    };
    // A file that is served without TLS.
    let file = site.read("disk.img");
    let away = crate::double::start(move |asked| crate::double::part_of(&file, "\"1\"", asked));
    let conf = format!(
        "daemon off; master_process off; {user} pid {root}/nginx.pid; error_log /dev/null;\n\
         events {{}}\n\
         http {{ access_log off; client_body_temp_path {root}/t; proxy_temp_path {root}/t;\n\
         fastcgi_temp_path {root}/t; uwsgi_temp_path {root}/t; scgi_temp_path {root}/t;\n\
         server {{ listen 127.0.0.1:{port} {listen};\n\
         location / {{ root {root}; }}\n\
         location /old/ {{ rewrite ^/old/(.*)$ $scheme://$http_host/$1 redirect; }}\n\
         location /far/ {{ return 302 http://$http_host/disk.img; }}\n\
         location /out/ {{ return 302 {away}; }} }} }}\n"
    );
    site.write("nginx.conf", conf.as_bytes());
    let mut server = Command::new(nginx);
    server
        .arg("-c")
        .arg(site.path("nginx.conf"))
        .arg("-p")
        .arg(site.folder.path());
    let server = server
        .stderr(Stdio::null())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    wait_for(port);
    Some(Running(server))
}

#[test]
fn nginx_serves_a_volume_also_after_a_redirect() {
    let site = Site::new();
    let port = free_port();
    let Some(_server) = nginx(&site, "", port) else {
        return;
    };
    is_read(&site, &format!("http://127.0.0.1:{port}/disk.img"));
    let moved = format!("http://127.0.0.1:{port}/old/disk.img");
    site.luksmith(&format!(
        "decrypt {moved} out --key-file key --connections 3"
    ));
    assert!(site.read("out") == site.read("plain"));

    // The plaintext is served over NBD.
    let Some(nbdcopy) = peers::find("nbdcopy") else {
        return;
    };
    let line =
        format!("serve http://127.0.0.1:{port}/disk.img --read-only --socket s --key-file key");
    let _serving = Running(site.command(&line).stderr(Stdio::null()).spawn().unwrap());
    while !site.path("s").exists() {
        std::thread::sleep(Duration::from_millis(20));
    }
    let uri = format!("nbd+unix:///?socket={}", site.path("s").display());
    peers::run(Command::new(nbdcopy).arg(uri).arg(site.path("served")));
    assert!(site.read("served") == site.read("plain"));
}

#[test]
fn a_server_with_tls_needs_a_certificate_of_a_trusted_authority() {
    let Some(certtool) = peers::find("certtool") else {
        return;
    };
    let certificates = certificates::make(&certtool, "ecdsa");
    let folder = certificates.path().display();
    let site = Site::new();
    let port = free_port();
    let tls = format!(
        "ssl; ssl_certificate {folder}/server-cert.pem; ssl_certificate_key {folder}/server-key.pem"
    );
    let Some(_server) = nginx(&site, &tls, port) else {
        return;
    };
    let url = format!("https://localhost:{port}/disk.img");
    let trusted = |path: &str| format!("https://localhost:{port}/{path}#tls-certificates={folder}");
    site.luksmith(&format!("key test {} --key-file key", trusted("disk.img")));
    let (_, said) = site.refused(&format!("info {url}"));
    assert!(said.contains("#tls-certificates=DIR"), "{said}");
    // A redirect never leads to a connection without TLS.
    let (_, said) = site.refused(&format!("info {}", trusted("far/")));
    assert!(said.contains("redirect from https to http"), "{said}");
    // It may lead to one with TLS, to a server that is trusted.
    let place = format!("location: {url}\r\ncontent-length: 0\r\n");
    let upgrade = crate::double::start(move |_| (302, place.clone(), Vec::new()));
    site.luksmith(&format!(
        "key test {upgrade}#tls-certificates={folder} --key-file key"
    ));
    let (_, said) = site.refused(&format!("info {upgrade}"));
    assert!(said.contains("#tls-certificates=DIR"), "{said}");
    // Nor does one that first led to TLS lead away from it again.
    let place = format!("location: https://localhost:{port}/out/\r\ncontent-length: 0\r\n");
    let round = crate::double::start(move |_| (302, place.clone(), Vec::new()));
    let (_, said) = site.refused(&format!("info {round}#tls-certificates={folder}"));
    assert!(said.contains("redirect from https to http"), "{said}");
}
