//! How an export with plain data is reached.

use luksmith_formats::nbd::uri::{Transport, Uri};

use crate::task::storage::Remote;
use crate::task::{Advice, Error};

/// How an export with plain data is reached.
#[derive(Debug, Clone, Copy, Default)]
#[non_exhaustive]
pub struct PlainAccess {
    /// How its server is reached.
    pub remote: Remote,
    /// Whether plaintext may cross a network without TLS, where others can read and change it.
    pub over_network: bool,
}

impl PlainAccess {
    /// Refuses a URI over which plaintext would cross a network without TLS: anything but a Unix
    /// socket, or TCP with TLS.
    pub(in crate::task) fn check(self, uri: &Uri) -> Result<(), Error> {
        let protected = uri.tls.is_some() || matches!(uri.transport, Transport::Unix(_));
        if protected || self.over_network {
            return Ok(());
        }
        let message = format!("{uri}: the plaintext would cross the network without TLS");
        Err(Error::parameters(message).advise(Advice::PlaintextOverNetwork))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plaintext_needs_a_socket_or_tls() {
        let check = |text: &str, over_network| {
            let access = PlainAccess {
                over_network,
                ..PlainAccess::default()
            };
            access.check(&Uri::parse(text).unwrap())
        };
        check("nbd+unix:///x?socket=/s", false).unwrap();
        check("nbds://host/x", false).unwrap();
        check("nbds+unix:///x?socket=/s", false).unwrap();
        for exposed in ["nbd://host/x", "nbd://localhost/x", "nbd://[::1]:1/x"] {
            let error = check(exposed, false).unwrap_err();
            assert_eq!(error.advice(), [Advice::PlaintextOverNetwork]);
            check(exposed, true).unwrap();
        }
    }
}
