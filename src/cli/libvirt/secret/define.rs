//! `luksmith libvirt secret define`: defines a secret.

use luksmith::libvirt::xml::{SecretXml, Usage};
use luksmith::task::libvirt::secrets;
use luksmith::task::outcome::SecretChange;
use uuid::Uuid;

use crate::cli::Session;
use crate::cli::error::CommandError;
use crate::cli::libvirt::connect::ConnectArgs;

/// Define a secret
///
/// The secret has no value, unless --generate makes one. Prints its UUID.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// The usage of the secret: volume:PATH, ceph:NAME, iscsi:NAME, tls:NAME or vtpm:NAME; no two
    /// secrets have the same usage
    #[arg(long, value_name = "TYPE:ID")]
    usage: Usage,

    /// The UUID of the secret [default: a random one]
    #[arg(long, value_name = "UUID")]
    uuid: Option<Uuid>,

    /// A description for people
    #[arg(long, value_name = "TEXT")]
    description: Option<String>,

    /// Keep the secret only in the memory of libvirt's daemon, which loses it when it ends
    #[arg(long)]
    ephemeral: bool,

    /// libvirt does not return the value to any client; this cannot be changed later
    #[arg(long)]
    private: bool,

    /// Set the value to 256 random bits in base64, which are not shown
    #[arg(long)]
    generate: bool,

    #[command(flatten)]
    connect: ConnectArgs,
}

const EXAMPLES: &str = "\
Examples:
  luksmith libvirt secret define --usage volume:/pool/vm.img --generate
  luksmith libvirt secret define --usage tls:migration --ephemeral --private
  luksmith create /pool/vm.img --size 10G --type luks1 --key libvirt:usage=volume:/pool/vm.img";

impl Args {
    pub(crate) fn run(self, session: &Session) -> Result<(), CommandError> {
        let connection = self.connect.open()?;
        let definition = SecretXml::new(Some(self.usage))
            .uuid(self.uuid.map(|uuid| uuid.to_string()))
            .description(self.description)
            .ephemeral(self.ephemeral)
            .private(self.private);
        let secret = secrets::define(&connection, &definition, self.generate)?;
        session.done(&SecretChange::Defined {
            secret,
            has_value: self.generate,
        });
        Ok(())
    }
}
