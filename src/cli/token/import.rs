//! `luksmith token import`: stores a token in the header.

use std::io::Read;
use std::path::{Path, PathBuf};

use luksmith::task::outcome::{Change, Changed};
use luksmith_formats::json::Value;

use crate::cli::Session;
use crate::cli::args::{ImageArgs, LocalFile, UndoArgs};
use crate::cli::error::{CommandError, Kind, failed};

/// The size of the largest metadata area of LUKS2, in bytes: no token is longer.
const LONGEST: u64 = 4 << 20;

/// Store a token, which is JSON, in the header
///
/// The object needs "type" and "keyslots" (which may be empty); all other members are for the
/// program that uses the token.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    #[command(flatten)]
    image: ImageArgs,

    /// Read the token from FILE; - is stdin
    #[arg(long, value_name = "FILE", default_value = "-", value_parser = LocalFile)]
    json_file: PathBuf,

    /// The number of the token [default: the first free one]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(0..32))]
    token_id: Option<u32>,

    /// Replace the token with that number
    #[arg(long, requires = "token_id")]
    token_replace: bool,

    /// Also assign the token to keyslot N
    #[arg(short = 'S', long, alias = "key-slot", value_name = "N")]
    keyslot: Option<u32>,

    #[command(flatten)]
    undo: UndoArgs,
}

const EXAMPLES: &str = "\
Examples:
  luksmith token import disk.img --json-file token.json
  luksmith token import disk.img --token-id 0 --token-replace < token.json";

impl Args {
    pub(crate) fn run(self, session: &Session) -> Result<(), CommandError> {
        let mut token = session.signals.ending(|| self.read())??;
        if let Some(slot) = self.keyslot {
            assign(&mut token, slot)?;
        }
        let mut container = self.image.to_change(&self.undo, session)?;
        let id = container.add_token(self.token_id, token, self.token_replace)?;
        let change = Change::TokenImported { token: id };
        session.done(&Changed::new(&self.image.image, change));
        Ok(())
    }

    fn read(&self) -> Result<Value, CommandError> {
        let mut text = String::new();
        let is_stdin = self.json_file == Path::new("-");
        let name = if is_stdin {
            Path::new("stdin")
        } else {
            &*self.json_file
        };
        let read = if is_stdin {
            std::io::stdin()
                .lock()
                .take(LONGEST + 1)
                .read_to_string(&mut text)
        } else {
            std::fs::File::open(&self.json_file)
                .and_then(|file| file.take(LONGEST + 1).read_to_string(&mut text))
        };
        read.map_err(|error| failed("read", name, error))?;
        if text.len() as u64 > LONGEST {
            return Err(CommandError::new(
                Kind::Parameters,
                format!("{} is too long for a token", name.display()),
            ));
        }
        text.parse().map_err(|error| {
            CommandError::new(Kind::Parameters, error)
                .about(format_args!("{} is not JSON", name.display()))
        })
    }
}

/// Adds a keyslot to the token's list before it is stored, so that one write is enough.
fn assign(token: &mut Value, slot: u32) -> Result<(), CommandError> {
    let Some(slots) = token.get_mut("keyslots").and_then(Value::as_array_mut) else {
        return Err(CommandError::parameters(
            "the token has no list \"keyslots\"",
        ));
    };
    let slot = Value::String(slot.to_string());
    if !slots.contains(&slot) {
        slots.push(slot);
    }
    Ok(())
}
