//! `luksmith info`: shows the header of an image.

pub(crate) mod keyslots;

use luksmith::backend::Backend;
use luksmith::container::{Container, Header};
use luksmith::task::chain;
use luksmith::task::open::ImageFormat;
use luksmith::task::outcome::Described;
use luksmith::task::reencrypt;
use luksmith_formats::limits::Limits;
use luksmith_formats::luks2;

use super::Session;
use super::args::ImageArgs;
use super::error::CommandError;
use super::open::ReadArgs;
use super::output::Output;
use super::size;
use super::token::shown;
use luksmith::task::storage::Storage;

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
        let (container, data) =
            self.image
                .get()
                .open_data_to_look(self.read.options(), Limits::default(), session)?;
        let volume_size = self.image.get().data_size(&container, &data);
        if self.dump_json_metadata {
            let Header::Luks2(header) = container.header() else {
                return Err(CommandError::parameters("LUKS1 has no JSON metadata")
                    .hint("--json describes both formats"));
            };
            session.output.lines(header.metadata.to_pretty_text());
        } else if session.json {
            let mut described = Described::new(&self.image.image, &container, &data);
            described.size = volume_size;
            described.detached = self.is_detached(&container);
            session.output.json(&described.members().into());
        } else {
            self.print(&session.output, &container, &data, volume_size);
        }
        Ok(())
    }

    fn is_detached(&self, container: &Container) -> bool {
        self.image.header.is_some()
            || self.image.format == ImageFormat::Raw
                && container
                    .data_segment()
                    .is_ok_and(|segment| segment.offset == 0)
    }

    fn print(
        &self,
        output: &Output,
        container: &Container,
        data: &Storage,
        volume_size: Option<u64>,
    ) {
        let row = |name: &str, value: &str| output.line(format_args!("  {name:<14} {value}"));
        output.line(format_args!(
            "{}: {} volume",
            self.image.image,
            container.version()
        ));
        if let Some(image) = &data.qcow2_header {
            let snapshots = match image.snapshots() {
                0 => String::new(),
                count => format!(", snapshots: {count}"),
            };
            let text = format!(
                "qcow2 version {}, clusters of {}{snapshots}",
                image.version(),
                size::human(image.cluster_size())
            );
            row("format", &text);
            for (name, file) in [
                ("backing file", image.backing_file()),
                ("data file", image.data_file()),
            ] {
                if let Some(file) = file {
                    row(name, &format!("{file} (not opened)"));
                }
            }
        }
        row("UUID", container.uuid());
        if let Header::Luks2(header) = container.header() {
            for (name, text) in [("label", &header.label), ("subsystem", &header.subsystem)] {
                if !text.is_empty() {
                    row(name, text);
                }
            }
        }
        match container.data_segment() {
            Ok(segment) => {
                let key = container
                    .volume_key_size()
                    .map(|bytes| format!(", {}-bit key", bytes * 8))
                    .unwrap_or_default();
                row("cipher", &format!("{}{key}", segment.cipher));
                row("sector size", &format!("{} bytes", segment.sector_size));
                let until = if segment.fixed_size.is_some() {
                    "of fixed size"
                } else {
                    "to the end of the storage"
                };
                if data.qcow2_header.is_none() {
                    row("data", &format!("from byte {} {until}", segment.offset));
                }
            }
            Err(error) => row("data", &format!("cannot be opened: {}", chain(&error))),
        }
        match volume_size {
            Some(size) => row("size", &format!("{} for the guest", size::both(size))),
            None if self.is_detached(container) => {
                row("size", "the data is stored elsewhere (detached header)")
            }
            None => row(
                "size",
                &format!(
                    "unknown; the storage has {} bytes",
                    data.backend.geometry().size
                ),
            ),
        }
        if let Some(header) = &self.image.header {
            row("header", &format!("detached, in {header}"));
        }
        if let Header::Luks2(header) = container.header() {
            let area = header.metadata.keyslots_area();
            row(
                "metadata",
                &format!(
                    "two copies of {}, sequence {}",
                    size::human(header.hdr_size),
                    header.seqid
                ),
            );
            row(
                "keyslots area",
                &format!(
                    "{} from byte {}",
                    size::human(area.end - area.start),
                    area.start
                ),
            );
            if !header.metadata.config().flags.is_empty() {
                row("flags", &header.metadata.config().flags.join(", "));
            }
        }
        row("health", &container.health().to_string());
        if !container.requirements().is_empty() {
            row("requirements", &container.requirements().join(", "));
        }
        match container.reencryption() {
            Ok(Some(found)) => {
                let size = reencrypt::data_size(&found, &*data.backend);
                let done = reencrypt::converted(&found, size);
                let text = format!(
                    "{} of {} converted to {}, sectors of {} bytes; `luksmith reencrypt` goes on",
                    size::human(done),
                    size::human(size),
                    found.following.encryption,
                    found.following.sector_size
                );
                row("reencryption", &text);
            }
            Ok(None) => {}
            Err(error) => row("reencryption", &format!("not supported: {}", chain(&error))),
        }
        for refusal in container.not_supported() {
            row("not supported", &refusal.to_string());
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
        let tokens = shown::table(container);
        if let Some(tokens) = tokens {
            output.line("");
            output.lines(tokens);
        }
    }
}
