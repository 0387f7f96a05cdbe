//! Access keys of an S3 service.

use std::collections::BTreeMap;

use secrecy::zeroize::Zeroizing;

/// An access key. Its secret part is wiped when it is dropped.
#[derive(Clone)]
pub struct Credentials {
    id: String,
    secret: Zeroizing<String>,
    token: Option<Zeroizing<String>>,
}

impl Credentials {
    /// An access key, with a session token if it is one for some time only.
    #[must_use]
    pub fn new(id: &str, secret: &str, token: Option<&str>) -> Self {
        Self {
            id: id.to_owned(),
            secret: Zeroizing::new(secret.to_owned()),
            token: token.map(|token| Zeroizing::new(token.to_owned())),
        }
    }

    /// The access key of a profile in the text of a file as `~/.aws/credentials`. `None` if there
    /// is no such profile, or if it has no access key.
    #[must_use]
    pub fn of_profile(text: &str, profile: &str) -> Option<Self> {
        let settings = settings(text, profile);
        let setting = |name| settings.get(name).copied();
        Some(Self::new(
            setting("aws_access_key_id")?,
            setting("aws_secret_access_key")?,
            setting("aws_session_token"),
        ))
    }

    pub(super) fn id(&self) -> &str {
        &self.id
    }

    pub(super) fn token(&self) -> Option<&str> {
        self.token.as_ref().map(|token| token.as_str())
    }

    /// The secret part.
    pub(super) fn secret(&self) -> &str {
        &self.secret
    }
}

/// The settings of a profile in the text of a file as `~/.aws/credentials` or `~/.aws/config`.
pub(super) fn settings<'a>(text: &'a str, profile: &str) -> BTreeMap<&'a str, &'a str> {
    let mut here = false;
    let mut settings = BTreeMap::new();
    for line in text.lines().map(str::trim) {
        let section = line
            .strip_prefix('[')
            .and_then(|rest| rest.strip_suffix(']'));
        if let Some(name) = section.map(str::trim) {
            here = name.strip_prefix("profile ").unwrap_or(name).trim() == profile;
        } else if let Some((name, value)) = line.split_once('=').filter(|_| here) {
            settings.entry(name.trim()).or_insert(value.trim());
        }
    }
    settings
}

/// Without the secret parts.
impl std::fmt::Debug for Credentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Credentials")
            .field("id", &self.id)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_profile_is_found_by_its_name() {
        let text = "[default]\naws_access_key_id = A\naws_secret_access_key=a/+=\n\n[other]\n\
                    region = x\n aws_access_key_id=B\naws_secret_access_key = b\n\
                    aws_session_token = t\n[empty]\naws_access_key_id = C\n";
        let find = |name| Credentials::of_profile(text, name);
        let default = find("default").unwrap();
        assert_eq!(
            (default.id(), default.secret.as_str(), default.token()),
            ("A", "a/+=", None)
        );
        let other = find("other").unwrap();
        assert_eq!(
            (other.id(), other.secret.as_str(), other.token()),
            ("B", "b", Some("t"))
        );
        assert!(find("empty").is_none() && find("absent").is_none());
        let shown = format!("{other:?}");
        assert!(shown.contains('B') && !shown.contains("\"b\"") && !shown.contains("\"t\""));
    }
}
