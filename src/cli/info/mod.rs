//! `luksmith info`: shows the header of an image.

pub(crate) mod keyslots;

use luksmith::container::Header;
use luksmith::task::outcome::Described;
use luksmith_formats::limits::Limits;
use luksmith_formats::luks2;

use super::Session;
use super::args::ImageArgs;
use super::error::CommandError;
use super::open::ReadArgs;
use super::output::Output;
use super::token::shown;

/// Show the header: cipher, sizes, keyslots, tokens, health
///
/// This needs no passphrase.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    #[command(flatten)]
    image: ImageArgs,

    #[command(flatten)]
    read: ReadArgs,

    /// Print the JSON metadata of a LUKS2 header as it is stored
    #[arg(long, conflicts_with = "json")]
    dump_json_metadata: bool,
}

const EXAMPLES: &str = "\
Examples:
  luksmith info disk.img
  luksmith info disk.img --json | jq .uuid
  luksmith info data.img --header data.header
  luksmith info disk.qcow2 --format qcow2";

impl Args {
    pub(crate) fn run(self, session: &Session) -> Result<(), CommandError> {
        let image = self.image.get();
        let (container, data) =
            image.open_data_to_look(self.read.options(), Limits::default(), session)?;
        if self.dump_json_metadata {
            let Header::Luks2(header) = container.header() else {
                return Err(CommandError::parameters("LUKS1 has no JSON metadata")
                    .hint("--json describes both formats"));
            };
            session.output.lines(header.metadata.to_pretty_text());
            return Ok(());
        }
        let described = Described::new(&image, &container, &data);
        match session.json {
            true => session.output.json(&described.members().into()),
            false => print(&session.output, &described),
        }
        Ok(())
    }
}

fn print(output: &Output, described: &Described<'_>) {
    let container = described.container;
    let (image, version) = (&described.image.location, container.version());
    output.line(format_args!("{image}: {version} volume"));
    let goes_on = matches!(container.reencryption(), Ok(Some(_)));
    for (name, text) in described.rows() {
        let hint = match goes_on && name == "reencryption" {
            true => "; `luksmith reencrypt` goes on",
            false => "",
        };
        output.line(format_args!("  {name:<14} {text}{hint}"));
    }
    output.line("");
    output.lines(keyslots::table(&container.keyslots()));
    if let Header::Luks2(header) = container.header() {
        for (id, keyslot) in header.metadata.keyslots() {
            if keyslot.kind() != luks2::Keyslot::LUKS2 {
                output.line(format_args!(
                    "keyslot {id} belongs to a reencryption or to a newer feature, and opens \
                     nothing"
                ));
            }
        }
    }
    if let Some(tokens) = shown::table(container) {
        output.line("");
        output.lines(tokens);
    }
}
