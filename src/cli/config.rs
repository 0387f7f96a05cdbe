//! `luksmith config`: sets the label, the subsystem and the UUID in the header.

use clap::ArgGroup;
use luksmith::container::{Configure, Header};
use luksmith::task::outcome::{Change, Changed};
use uuid::Uuid;

use super::Session;
use super::args::{ImageArgs, UndoArgs, parse_label};
use super::error::CommandError;
use super::force::{Force, confirm, only};

/// Set the label, the subsystem or the UUID
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES, group = ArgGroup::new("change").required(true).multiple(true))]
pub(crate) struct Args {
    #[command(flatten)]
    image: ImageArgs,

    /// The label; an empty text removes it (LUKS2)
    #[arg(long, value_name = "TEXT", group = "change", value_parser = parse_label)]
    label: Option<String>,

    /// The subsystem; an empty text removes it (LUKS2)
    #[arg(long, value_name = "TEXT", group = "change", value_parser = parse_label)]
    subsystem: Option<String>,

    /// The UUID
    #[arg(long, value_name = "UUID", group = "change")]
    uuid: Option<Uuid>,

    /// Go on without asking: uuid
    #[arg(long, value_name = "WHAT", value_parser = only(&[(Force::Uuid, "change the UUID by which other programs find the volume")]))]
    force: Vec<Force>,

    #[command(flatten)]
    undo: UndoArgs,
}

const EXAMPLES: &str = "\
Examples:
  luksmith config disk.img --label backups
  luksmith config disk.img --uuid 7a1b2c3d-0000-4000-8000-0123456789ab";

impl Args {
    pub(crate) fn run(self, session: &Session) -> Result<(), CommandError> {
        let mut container = self.image.to_change(&self.undo, session)?;
        if let Some(uuid) = &self.uuid {
            let loss = format!(
                "{} would be volume {uuid} instead of {}: programs that look for its UUID \
                 (crypttab, fstab, libvirt) would not find it",
                self.image.header_location(),
                container.uuid()
            );
            confirm(&self.force, Force::Uuid, &loss)?;
        }
        container.configure(
            &Configure::new()
                .label(self.label)
                .subsystem(self.subsystem)
                .uuid(self.uuid),
        )?;
        let (label, subsystem) = match container.header() {
            Header::Luks1(_) => (None, None),
            Header::Luks2(header) => (Some(&header.label), Some(&header.subsystem)),
        };
        let change = Change::Configured {
            uuid: container.uuid().to_owned(),
            label: label.cloned(),
            subsystem: subsystem.cloned(),
        };
        session.done(&Changed::new(&self.image.image, change));
        Ok(())
    }
}
