//! The secrets of a libvirt: lists them with their users, defines them, and removes those that
//! nothing needs.

use std::path::Path;

use luksmith_formats::json::{Value, json};
use uuid::Uuid;

use crate::libvirt::xml::{SecretRef, SecretXml, Usage, UsageType};
use crate::libvirt::{Connection, LibvirtError, UserKind, users};
use crate::secret::Passphrase;
use crate::task::emulator::is_encrypted;
use crate::task::{Advice, Error, Kind, Note, Watch};

/// A secret, and what uses it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Listed {
    /// Its UUID.
    pub uuid: Uuid,
    /// Its usage.
    pub usage: Option<Usage>,
    /// Its definition.
    pub definition: SecretXml,
    /// Whether it has a value. `None` if libvirt does not tell: it is private, or the connection
    /// is read-only.
    pub has_value: Option<bool>,
    /// What uses it.
    pub users: Vec<UserKind>,
}

/// The secrets of a libvirt, in the order of their usages. Domains and volumes whose XML cannot be
/// read are reported as notes.
///
/// # Errors
/// Failures of libvirt, and a definition that cannot be read.
pub fn list(connection: &Connection, watch: &dyn Watch) -> Result<Vec<Listed>, Error> {
    let users = users(connection)?;
    for (what, error) in &users.unread {
        watch.notes(Note::Unread { what, error });
    }
    let mut listed = Vec::new();
    for secret in connection.secrets()? {
        let uuid = secret.uuid()?;
        let definition = SecretXml::parse(secret.xml()?.as_bytes())
            .map_err(|error| Error::from(error).about(format_args!("secret {uuid}")))?;
        let usage = secret.usage()?;
        let has_value = match secret.value() {
            Ok(_) => Some(true),
            Err(LibvirtError::NoValue(_)) => Some(false),
            Err(LibvirtError::Private(_) | LibvirtError::Denied(_)) => None,
            Err(error) => return Err(error.into()),
        };
        let users = users.of(&uuid, usage.as_ref());
        listed.push(Listed {
            uuid,
            users: users.into_iter().cloned().collect(),
            usage,
            definition,
            has_value,
        });
    }
    listed.sort_by(|a, b| (&a.usage, a.uuid).cmp(&(&b.usage, b.uuid)));
    Ok(listed)
}

impl Listed {
    /// The element of the member `secrets`.
    #[must_use]
    pub fn json(&self) -> Value {
        let (mut domains, mut volumes) = (Vec::new(), Vec::new());
        for user in &self.users {
            match user {
                UserKind::Domain { name, by } => domains.push(json!({ "name": name, "by": by })),
                UserKind::Volume { pool, path } => {
                    volumes.push(json!({ "pool": pool, "path": path }));
                }
            }
        }
        let usage = self.usage.as_ref();
        json!({
            "secret": self.uuid.to_string(),
            "usage": usage.map(|usage| json!({ "type": usage.kind.name(), "id": usage.id })),
            "description": self.definition.description,
            "private": self.definition.private,
            "ephemeral": self.definition.ephemeral,
            "has_value": self.has_value,
            "domains": domains,
            "volumes": volumes,
        })
    }
}

/// Defines a secret, without a value or with 256 random bits in base64. Returns its UUID.
///
/// # Errors
/// [`Kind::Busy`] if there is a secret with this UUID, which libvirt would change, and failures of
/// libvirt. A secret that got no value is removed again.
pub fn define(
    connection: &Connection,
    definition: &SecretXml,
    generate: bool,
) -> Result<Uuid, Error> {
    let uuid = definition.uuid.as_deref();
    if let Some(uuid) = uuid.and_then(|uuid| Uuid::try_parse(uuid).ok()) {
        match connection.secret(&uuid) {
            Err(LibvirtError::NoSecret(_)) => {}
            Ok(_) => {
                let message = format!("secret {uuid} exists already");
                return Err(Error::new(Kind::Busy, message));
            }
            Err(error) => return Err(error.into()),
        }
    }
    let generated = generate.then(Passphrase::generate).transpose()?;
    let secret = connection.define_secret(&definition.to_xml()?)?;
    let uuid = secret.uuid()?;
    if let Some(generated) = generated
        && let Err(error) = secret.store(&generated)
    {
        let stays = secret.undefine().is_err();
        return Err(Error::from(error).advise_if(stays, Advice::RemoveWithoutValue(uuid)));
    }
    Ok(uuid)
}

/// Removes a secret and its value. Returns its UUID.
///
/// # Errors
/// [`Kind::Busy`], unless `even_used`: a domain or a volume refers to the secret, or may do so, or
/// there is an encrypted image on this host at the path of its usage. Failures of libvirt.
pub fn remove(
    connection: &Connection,
    reference: &SecretRef,
    even_used: bool,
) -> Result<Uuid, Error> {
    let about = |error: LibvirtError| Error::from(error).about(reference);
    let secret = connection.find_secret(reference).map_err(about)?;
    let uuid = secret.uuid().map_err(about)?;
    if !even_used {
        let usage = secret.usage()?;
        refuse_used(connection, reference, uuid, usage.as_ref())?;
    }
    secret.undefine().map_err(about)?;
    Ok(uuid)
}

fn refuse_used(
    connection: &Connection,
    reference: &SecretRef,
    uuid: Uuid,
    usage: Option<&Usage>,
) -> Result<(), Error> {
    let in_use = |what: String| {
        let message = format!("{reference} is in use: {what}");
        Err(Error::new(Kind::Busy, message).advise(Advice::RemoveUsedSecret))
    };
    let users = users(connection)?;
    let named: Vec<_> = (users.of(&uuid, usage).iter())
        .map(ToString::to_string)
        .collect();
    if !named.is_empty() {
        return in_use(named.join(", "));
    }
    // libvirt does not know an image that is in no pool and that no domain uses yet.
    let image = usage.filter(|usage| usage.kind == UsageType::Volume);
    if let Some(usage) = image.filter(|usage| is_encrypted(Path::new(&usage.id))) {
        return in_use(format!("the encrypted image {}", usage.id));
    }
    if let Some((what, error)) = users.unread.into_iter().next() {
        let about = format!("{what} cannot be read, and may use {reference}");
        let error = Error::new(Kind::Busy, error).about(about);
        return Err(error.advise(Advice::RemoveUsedSecret));
    }
    Ok(())
}
