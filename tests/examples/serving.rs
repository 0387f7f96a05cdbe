//! The examples that serve volumes, with this library's NBD client.

use std::path::Path;
use std::thread;

use luksmith::backend::Backend;
use luksmith::backend::nbd::{ConnectOptions, NbdBackend, NbdError};
use luksmith::export::nbd::{Options, Server};
use luksmith::formats::nbd::uri::{Transport, Uri};
use luksmith::secret::{Passphrase, Source};
use luksmith::sectors::{Cipher, Sectors};
use luksmith::task::Silent;
use luksmith::task::listen::{Listen, Place};
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    KeyUsagePurpose,
};

use crate::{fat, key_file, serve_socket, serve_tls};

/// A directory with an authority and certificates for a server and a client.
fn certificates() -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    let write = |name: &str, text: String| {
        let path = directory.path().join(name);
        std::fs::write(&path, text).unwrap();
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o600);
        std::fs::set_permissions(&path, mode).unwrap();
    };
    let mut params = CertificateParams::new([]).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    let authority = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
    write("ca-cert.pem", authority.pem());
    for (role, usage) in [
        ("server", ExtendedKeyUsagePurpose::ServerAuth),
        ("client", ExtendedKeyUsagePurpose::ClientAuth),
    ] {
        let mut params = CertificateParams::new(["127.0.0.1".to_owned()]).unwrap();
        params.extended_key_usages = vec![usage];
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &authority).unwrap();
        write(&format!("{role}-cert.pem"), certificate.pem());
        write(&format!("{role}-key.pem"), key.serialize_pem());
    }
    directory
}

fn first_sector(storage: &NbdBackend) -> Vec<u8> {
    let mut sectors = Sectors::<Cipher>::with_len(512);
    storage.read_at(0, &mut sectors).unwrap();
    sectors.as_slice().to_vec()
}

#[test]
fn a_volume_is_served_over_tls_to_clients_with_a_certificate() {
    let folder = tempfile::tempdir().unwrap();
    let image = folder.path().join("fat.luks");
    fat::make(&image, &Passphrase::copy_from(b"passphrase").unwrap()).unwrap();
    let (image, source) = (image.to_str().unwrap(), Source::file(key_file(&folder)));
    let certificates = certificates();

    let watch = Silent::default();
    let (server, sockets) =
        serve_tls::prepare(image, &source, "127.0.0.1:0", &certificates, &watch).unwrap();
    let uri = sockets.uri("");
    let Transport::Tcp { host, port } = &uri.transport else {
        panic!("{uri}");
    };
    let connect = |certificates: &Path| -> Result<NbdBackend, NbdError> {
        let certificates = certificates.display();
        let uri = format!("nbds://{host}:{port}/?tls-certificates={certificates}");
        NbdBackend::connect(&Uri::parse(&uri).unwrap(), ConnectOptions::new())
    };
    let stopper = server.stopper();
    thread::scope(|scope| {
        let serving = scope.spawn(|| sockets.serve(&server));
        // The first byte of every FAT filesystem is that of a jump.
        assert_eq!(
            first_sector(&connect(certificates.path()).unwrap())[0],
            0xeb
        );

        let unknown = tempfile::tempdir().unwrap();
        let authority = certificates.path().join("ca-cert.pem");
        std::fs::copy(authority, unknown.path().join("ca-cert.pem")).unwrap();
        assert!(connect(unknown.path()).is_err(), "without a certificate");
        stopper.stop();
        serving.join().unwrap().unwrap();
    });
}

#[test]
fn a_scratch_disk_is_served_on_a_socket() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("new/disk.sock");
    let watch = Silent::default();
    let listen = Listen::new(Place::unix(&path), &Options::default()).unwrap();
    let sockets = listen.start(&watch).unwrap();
    let uri = sockets.uri("scratch");
    let server = Server::new([serve_socket::scratch().unwrap()], Options::default()).unwrap();
    let stopper = server.stopper();
    thread::scope(|scope| {
        let serving = scope.spawn(|| sockets.serve(&server));
        let storage = NbdBackend::connect(&uri, ConnectOptions::new().write(true)).unwrap();
        let mut bytes = Sectors::<Cipher>::zeroed(512);
        bytes.as_mut_slice().fill(7);
        storage.write_at(0, &bytes).unwrap();
        assert_eq!(first_sector(&storage), [7; 512]);
        storage.discard(0..4096).unwrap();
        assert_ne!(first_sector(&storage), [7; 512]);
        drop(storage);
        stopper.stop();
        serving.join().unwrap().unwrap();
    });
    assert!(!path.exists());
}
