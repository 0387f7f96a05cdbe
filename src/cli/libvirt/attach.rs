//! `luksmith libvirt attach` and `detach`: disks of a running domain and of its definition.

use std::time::{Duration, Instant};

use luksmith::libvirt::xml::{Disk, DomainXml};
use luksmith::libvirt::{self, Affect, Domain, LibvirtError};
use luksmith::location::Location;
use luksmith::task::libvirt::{attach, disk};
use luksmith_formats::json::json;

use super::connect::ConnectArgs;
use super::disk::{DiskArgs, OpenArgs, hints};
use crate::cli::Session;
use crate::cli::args::{FORMS, LocationParser, RemoteArgs};
use crate::cli::error::{CommandError, Kind};
use crate::cli::output;

/// The interval at which a running domain is polled.
const PAUSE: Duration = Duration::from_millis(50);

/// Attach a volume to a domain as a disk
///
/// A running domain gets the disk at once, and the definition of a domain gets it for its next
/// start, unless --live or --config limits it to one of them. The secret that opens the volume has
/// to exist and have a value. With --json: {"domain", "target", "live", "config", "xml"}.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct AttachArgs {
    /// The domain, by its name or UUID
    #[arg(value_name = "DOMAIN")]
    domain: String,

    #[arg(value_name = "IMAGE", value_parser = LocationParser::Any, help = format!("The encrypted volume: a file, a block device, or {FORMS}"))]
    image: Location,

    #[command(flatten)]
    when: When,

    /// Print JSON
    #[arg(long)]
    json: bool,

    #[command(flatten)]
    connect: ConnectArgs,

    #[command(flatten)]
    open: OpenArgs,

    #[command(flatten)]
    disk: DiskArgs,

    #[command(flatten)]
    remote: RemoteArgs,
}

/// Detach a disk from a domain
///
/// The volume and its secret are kept. A running guest has to release the disk. With --json:
/// {"domain", "target", "live", "config"}.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct DetachArgs {
    /// The domain, by its name or UUID
    #[arg(value_name = "DOMAIN")]
    domain: String,

    /// The disk, by its target, such as vdb, or the path of its file or device
    #[arg(value_name = "DISK")]
    disk: String,

    #[command(flatten)]
    when: When,

    /// How long the guest may take to release it, in seconds
    #[arg(
        long,
        value_name = "SECONDS",
        default_value_t = 20,
        value_parser = clap::value_parser!(u64).range(1..=3600)
    )]
    timeout: u64,

    /// Print JSON
    #[arg(long)]
    json: bool,

    #[command(flatten)]
    connect: ConnectArgs,
}

const EXAMPLES: &str = "\
Examples:
  luksmith libvirt attach vm1 /vm/data.img
  luksmith libvirt attach vm1 volume:default/data.luks --secret usage=volume:/vm/data.luks --target vdc
  luksmith libvirt detach vm1 vdb
  luksmith libvirt detach vm1 /vm/data.img --config";

/// Whether the running domain or its definition changes.
#[derive(Debug, clap::Args)]
struct When {
    /// Change only the running domain
    #[arg(long, conflicts_with = "config")]
    live: bool,

    /// Change only the definition, with which the domain starts the next time
    #[arg(long)]
    config: bool,
}

impl When {
    /// What is changed, which by default depends on the state of the domain.
    fn affect(&self, domain: &Domain) -> Result<Affect, CommandError> {
        Ok(match (self.live, self.config) {
            (false, false) => Affect::new()
                .live(domain.is_active()?)
                .config(domain.is_persistent()?),
            (live, config) => Affect::new().live(live).config(config),
        })
    }
}

/// The state of a running domain, or with `inactive` its definition. They are the same if it does
/// not run, or is not persistent.
fn described(domain: &Domain, inactive: bool) -> Result<DomainXml, CommandError> {
    let xml = domain.xml(libvirt::DomainView::new().inactive(inactive))?;
    DomainXml::parse(xml.as_bytes()).map_err(|error| CommandError::new(Kind::Storage, error))
}

fn both(affect: Affect) -> &'static str {
    match (affect.live, affect.config) {
        (true, true) => "at once and at the next start",
        (true, false) => "at once",
        _ => "at the next start",
    }
}

impl AttachArgs {
    pub(crate) fn run(self, session: &Session) -> Result<(), CommandError> {
        let connection = self.connect.open()?;
        let domain = connection.domain(&self.domain)?;
        let affect = self.when.affect(&domain)?;
        let there = [described(&domain, false)?, described(&domain, true)?];
        let target = match self.disk.target() {
            Some(target) => target.to_owned(),
            None => attach::free_target(&there).ok_or_else(|| {
                CommandError::parameters("the domain has vda to vdz already")
                    .hint("--target NAME takes another, such as sda")
            })?,
        };
        let options = self.open.options(&self.disk, &self.remote);
        let described = disk::describe(&self.image, &target, &options)?;
        for (affected, now) in [(affect.live, &there[0]), (affect.config, &there[1])] {
            if affected && let Some(twin) = attach::twin(now, &described.disk) {
                return Err(self.is_there(twin));
            }
        }
        attach::check_secrets(&connection, &described.disk)?;
        let xml = described.disk.to_xml()?;
        for hint in hints(&described.needs) {
            output::hint(&hint);
        }
        domain
            .attach(&xml, affect)
            .map_err(|error| self.refused(error, &target))?;
        if self.json {
            session.output.json(&json!({
                "domain": domain.name()?,
                "target": target,
                "live": affect.live,
                "config": affect.config,
                "xml": xml,
            }));
        } else {
            session.output.line(format_args!(
                "{}: {} is {target}, {}",
                self.domain,
                self.image,
                both(affect)
            ));
        }
        Ok(())
    }

    fn is_there(&self, disk: &Disk) -> CommandError {
        let target = &disk.target.dev;
        let message = format!(
            "{}: {} is its disk {target} already",
            self.domain, self.image
        );
        CommandError::new(Kind::Busy, message).hint(format!(
            "`luksmith libvirt detach {} {target}` takes it away",
            self.domain
        ))
    }

    /// Adds advice to a failure that QEMU reports in its own words.
    fn refused(&self, error: LibvirtError, target: &str) -> CommandError {
        let says = error.reply().map_or("", |reply| &reply.message);
        let locked = says.contains("Failed to get ") && says.contains(" lock");
        if locked {
            let message = format!("{}: {} is in use", self.domain, self.image);
            return CommandError::new(Kind::Busy, message)
                .hint("another domain or program has it open; end that, or --shareable for a cluster filesystem");
        }
        let rigid = "the domain takes no disk of this bus while it runs; --config adds it for the next start";
        let rigid = says.contains("hotplug").then(|| rigid.to_owned());
        CommandError::from(error)
            .about(format_args!("{}: {target}", self.domain))
            .hint_if(rigid)
    }
}

impl DetachArgs {
    pub(crate) fn run(self, session: &Session) -> Result<(), CommandError> {
        let connection = self.connect.open()?;
        let domain = connection.domain(&self.domain)?;
        let mut affect = self.when.affect(&domain)?;
        let (live, config) = (described(&domain, false)?, described(&domain, true)?);
        let found = [(affect.live, &live), (affect.config, &config)]
            .into_iter()
            .filter(|(wanted, _)| *wanted)
            .find_map(|(_, domain)| self.find(domain));
        let Some(disk) = found else {
            return Err(CommandError::parameters(format!(
                "{} has no disk {}",
                self.domain, self.disk
            ))
            .hint_if(list(&live)));
        };
        let target = disk.target.dev.clone();
        if self.when.live == self.when.config {
            // It may be in only one of them.
            affect.live &= live.disk(&target).is_some();
            affect.config &= config.disk(&target).is_some();
        }
        let xml = disk.to_xml()?;
        domain.detach(&xml, affect).map_err(|error| {
            CommandError::from(error).about(format_args!("{}: {target}", self.domain))
        })?;
        if affect.live {
            self.wait_until_gone(session, &domain, &target)?;
        }
        if self.json {
            session.output.json(&json!({
                "domain": domain.name()?,
                "target": target,
                "live": affect.live,
                "config": affect.config,
            }));
        } else {
            session.output.line(format_args!(
                "{}: {target} is gone, {}",
                self.domain,
                both(affect)
            ));
        }
        Ok(())
    }

    /// The disk with this target, or else with this path.
    fn find<'a>(&self, domain: &'a DomainXml) -> Option<&'a Disk> {
        domain.disk(&self.disk).or_else(|| {
            let path = std::path::absolute(&self.disk).ok()?;
            domain.disk(path.to_str()?)
        })
    }

    /// Waits until the guest has released the disk, as libvirt asked it to.
    fn wait_until_gone(
        &self,
        session: &Session,
        domain: &Domain,
        target: &str,
    ) -> Result<(), CommandError> {
        let begun = Instant::now();
        while described(domain, false)?.disk(target).is_some() {
            session.signals.check()?;
            if begun.elapsed() > Duration::from_secs(self.timeout) {
                let message = format!(
                    "{}: the guest has not released {target} within {} s, and still may",
                    self.domain, self.timeout
                );
                return Err(CommandError::new(Kind::Busy, message).hint(
                    "unmount it in the guest; `luksmith libvirt detach` asks again, --timeout SECONDS waits longer",
                ));
            }
            std::thread::sleep(PAUSE);
        }
        Ok(())
    }
}

/// The disks of the domain, for a hint.
fn list(domain: &DomainXml) -> Option<String> {
    let targets: Vec<_> = domain
        .disks
        .iter()
        .map(|disk| disk.target.dev.as_str())
        .collect();
    (!targets.is_empty()).then(|| format!("its disks are {}", targets.join(", ")))
}
