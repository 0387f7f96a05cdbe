//! `luksmith token export`: prints a token.

use std::path::PathBuf;

use luksmith::container::{Header, HeaderError};
use luksmith::task::outcome::{Change, Changed};

use crate::cli::Session;
use crate::cli::args::{ImageArgs, LocalFile};
use crate::cli::error::CommandError;
use crate::cli::open::ReadArgs;
use crate::cli::streams::write_secret;

/// Print a token as JSON
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    #[command(flatten)]
    image: ImageArgs,

    #[command(flatten)]
    read: ReadArgs,

    /// The token
    #[arg(long, value_name = "N")]
    token_id: u32,

    /// Write it to FILE, which is new and gets mode 0600, instead of to stdout (-)
    #[arg(long, value_name = "FILE", value_parser = LocalFile)]
    json_file: Option<PathBuf>,
}

const EXAMPLES: &str = "\
Examples:
  luksmith token export disk.img --token-id 0
  luksmith token export disk.img --token-id 0 --json-file token.json";

impl Args {
    pub(crate) fn run(self, session: &Session) -> Result<(), CommandError> {
        let container = self.image.to_look(&self.read, session)?;
        let token = match container.header() {
            Header::Luks1(_) => None,
            Header::Luks2(header) => header
                .metadata
                .value()
                .get("tokens")
                .and_then(|all| all.get(&self.token_id.to_string())),
        };
        let token = token.ok_or(HeaderError::NoSuchToken(self.token_id))?;
        match &self.json_file {
            Some(path) if path.as_os_str() != "-" => {
                write_secret(path, format!("{:#}\n", token.shown()).as_bytes(), session)?;
                let change = Change::TokenExported {
                    token: self.token_id,
                    file: path.clone(),
                };
                session.done(&Changed::new(&self.image.image, change));
            }
            _ => {
                session.refuse_json_beside("-".as_ref())?;
                session.output.json_of_others(token);
            }
        }
        Ok(())
    }
}
