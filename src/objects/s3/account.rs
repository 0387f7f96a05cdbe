//! The access key and the region of a URI: from its parameters, the environment, and the profiles
//! of `~/.aws`, in the order of AWS's own programs.
//!
//! Keys that AWS's services give to machines and containers are not asked for.

use std::io::ErrorKind;
use std::path::PathBuf;

use luksmith_formats::objects::uri::Uri;
use secrecy::zeroize::Zeroizing;

use super::credentials::{Credentials, settings};
use super::error::S3Error;

/// The region, unless something names one.
const REGION: &str = "us-east-1";

/// Reads a variable of the environment.
type Variable<'a> = dyn Fn(&str) -> Option<String> + 'a;

/// An access key, and the region of its requests.
#[derive(Debug)]
pub struct Account {
    pub(super) credentials: Credentials,
    pub(super) region: String,
}

impl Account {
    /// This access key, and this region.
    #[must_use]
    pub fn new(credentials: Credentials, region: &str) -> Self {
        let region = region.to_owned();
        Self {
            credentials,
            region,
        }
    }

    /// Finds the account for a URI.
    ///
    /// # Errors
    /// [`S3Error::NoKey`] and [`S3Error::NoProfile`]; a file that cannot be read.
    pub fn find(uri: &Uri) -> Result<Self, S3Error> {
        Self::find_in(uri, &|name| {
            std::env::var(name).ok().filter(|value| !value.is_empty())
        })
    }

    fn find_in(uri: &Uri, variable: &Variable<'_>) -> Result<Self, S3Error> {
        let named = uri.profile.clone().or_else(|| variable("AWS_PROFILE"));
        let profile = named.as_deref().unwrap_or("default");
        let files = [
            file("AWS_SHARED_CREDENTIALS_FILE", "credentials", variable)?,
            file("AWS_CONFIG_FILE", "config", variable)?,
        ];
        let of_profile = || {
            files
                .iter()
                .find_map(|text| Credentials::of_profile(text, profile))
        };
        let of_environment = || {
            let secret = Zeroizing::new(variable("AWS_SECRET_ACCESS_KEY")?);
            let token = variable("AWS_SESSION_TOKEN").map(Zeroizing::new);
            let token = token.as_ref().map(|token| token.as_str());
            Some(Credentials::new(
                &variable("AWS_ACCESS_KEY_ID")?,
                &secret,
                token,
            ))
        };
        let found = match &uri.profile {
            Some(_) => of_profile(),
            None => of_environment().or_else(of_profile),
        };
        let credentials = found.ok_or_else(|| match &named {
            Some(profile) => S3Error::NoProfile {
                profile: profile.clone(),
            },
            None => S3Error::NoKey,
        })?;
        let of_environment = || variable("AWS_REGION").or_else(|| variable("AWS_DEFAULT_REGION"));
        let of_profile = || {
            let mut all = files
                .iter()
                .filter_map(|text| settings(text, profile).get("region").copied());
            all.next().map(str::to_owned)
        };
        let region = uri
            .region
            .clone()
            .or_else(of_environment)
            .or_else(of_profile);
        Ok(Self {
            credentials,
            region: region.unwrap_or_else(|| REGION.to_owned()),
        })
    }
}

/// The text of a file in `~/.aws`, or of the one that a variable names. A missing one is empty.
fn file(by: &str, usual: &str, variable: &Variable<'_>) -> Result<Zeroizing<String>, S3Error> {
    let path = match (variable(by), variable("HOME")) {
        (Some(path), _) => PathBuf::from(path),
        (None, Some(home)) => PathBuf::from(home).join(".aws").join(usual),
        (None, None) => return Ok(Zeroizing::default()),
    };
    match std::fs::read_to_string(&path) {
        Ok(text) => Ok(Zeroizing::new(text)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(Zeroizing::default()),
        Err(source) => Err(S3Error::Profiles { path, source }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn find(uri: &str, variables: &[(&str, &str)]) -> Result<Account, S3Error> {
        let uri = Uri::parse(uri).unwrap();
        Account::find_in(&uri, &|name| {
            let mut all = variables.iter().filter(|(known, _)| *known == name);
            all.next().map(|(_, value)| (*value).to_owned())
        })
    }

    #[test]
    fn the_order_is_that_of_the_programs_of_aws() {
        let folder = tempfile::tempdir().unwrap();
        let aws = folder.path().join(".aws");
        std::fs::create_dir(&aws).unwrap();
        let keys = |id: &str| format!("aws_access_key_id = {id}\naws_secret_access_key = s\n");
        let text = format!("[default]\n{}[p]\n{}", keys("D"), keys("P"));
        std::fs::write(aws.join("credentials"), text).unwrap();
        let text = format!(
            "[default]\nregion = r0\n[profile p]\nregion = r1\n[profile c]\n{}",
            keys("C")
        );
        std::fs::write(aws.join("config"), text).unwrap();
        let home = ("HOME", folder.path().to_str().unwrap());
        let key = [
            ("AWS_ACCESS_KEY_ID", "E"),
            ("AWS_SECRET_ACCESS_KEY", "e"),
            home,
        ];
        let found = |uri: &str, variables: &[(&str, &str)]| {
            let account = find(uri, variables).unwrap();
            (account.credentials.id().to_owned(), account.region)
        };
        let expect = |id: &str, region: &str| (id.to_owned(), region.to_owned());
        let uri = "s3://bucket/x";
        assert_eq!(found(uri, &[home]), expect("D", "r0"));
        assert_eq!(found(uri, &key), expect("E", "r0"));
        assert_eq!(found(uri, &[home, ("AWS_PROFILE", "p")]), expect("P", "r1"));
        assert_eq!(found("s3://bucket/x?profile=p", &key), expect("P", "r1"));
        assert_eq!(found("s3://bucket/x?profile=c", &key), expect("C", REGION));
        let named = [home, ("AWS_REGION", "r2")];
        assert_eq!(found(uri, &named), expect("D", "r2"));
        assert_eq!(found("s3://bucket/x?region=r3", &named), expect("D", "r3"));
        assert!(matches!(find(uri, &[]), Err(S3Error::NoKey)));
        let absent = find("s3://bucket/x?profile=q", &key);
        assert!(matches!(absent, Err(S3Error::NoProfile { profile }) if profile == "q"));
    }
}
