//! Images in Ceph as disks of domains: their monitors, and the secret with which a client logs in.

use luksmith_formats::rbd::{USER, Uri, UriError};

use crate::libvirt::xml::{Auth, Host, Network, SecretRef};
use crate::libvirt::{Connection, ParseSecretError};
use crate::task::{Error, Kind};

/// The image of a disk. `here` says whether the libvirt is on this host, where the path of a
/// configuration file counts. The key of a login is in a secret of the same libvirt.
pub(super) fn image(
    connection: &Connection,
    network: &Network,
    auth: Option<&Auth>,
    here: bool,
) -> Result<Uri, UriError> {
    let name = network.name.as_deref().unwrap_or_default();
    let monitors: Vec<String> = network.hosts.iter().filter_map(text).collect();
    let monitors = (!monitors.is_empty()).then(|| monitors.join(","));
    let secret = auth.map(|auth| auth.secret.to_string());
    let parameters = [
        ("id", auth.map(|auth| auth.username.as_str())),
        ("conf", network.config.as_deref().filter(|_| here)),
        ("mon", monitors.as_deref()),
        ("secret", secret.as_deref()),
    ];
    let image = Uri::new(name, network.snapshot.as_deref(), &parameters)?;
    Ok(image.with_libvirt(connection.uri().ok()))
}

/// The monitors that a URI names.
pub(super) fn monitors(image: &Uri) -> Vec<Host> {
    let names = image.monitors.iter().flat_map(|names| names.split(','));
    names.map(host).collect()
}

/// The login of the user whose key is in the secret that a URI names.
pub(super) fn login(image: &Uri) -> Result<Option<Auth>, Error> {
    let Some(secret) = &image.secret else {
        return Ok(None);
    };
    let secret: Result<SecretRef, ParseSecretError> = secret.parse();
    let secret = secret.map_err(|error| Error::new(Kind::Parameters, error).about(image))?;
    let user = image.id.as_deref().unwrap_or(USER);
    Ok(Some(Auth::new(user, "ceph", secret)))
}

/// A monitor as Ceph writes it: `HOST[:PORT]`.
fn text(host: &Host) -> Option<String> {
    let Host::Tcp { name, port } = host else {
        return None;
    };
    let name = match name.contains(':') {
        true => format!("[{name}]"),
        false => name.clone(),
    };
    Some(match port {
        Some(port) => format!("{name}:{port}"),
        None => name,
    })
}

fn host(text: &str) -> Host {
    let (name, port) = match text.rsplit_once(':') {
        Some((name, port)) if !name.contains(':') || name.ends_with(']') => {
            (name, port.parse().ok())
        }
        _ => (text, None),
    };
    Host::Tcp {
        name: name.trim_matches(['[', ']']).to_owned(),
        port,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn monitors_and_logins_go_into_xml_and_back() {
        let text_of = "rbd://p/i?id=vm&mon=a%2Cb:6789%2C[::1]:3300&secret=usage=ceph:client.vm";
        let image = Uri::parse(text_of).unwrap();
        let hosts = monitors(&image);
        let names: Vec<_> = hosts.iter().filter_map(text).collect();
        assert_eq!(names, ["a", "b:6789", "[::1]:3300"]);
        let login = login(&image).unwrap().unwrap();
        assert_eq!((&*login.username, &*login.kind), ("vm", "ceph"));
        assert_eq!(login.secret.to_string(), "usage=ceph:client.vm");
        let odd = Uri::parse("rbd://p/i?secret=vm").unwrap();
        assert_eq!(super::login(&odd).unwrap_err().kind(), Kind::Parameters);
    }
}
