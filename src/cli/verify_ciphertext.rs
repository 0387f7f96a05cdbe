//! `luksmith verify-ciphertext`: searches a storage for data that is not encrypted, without a key.

use comfy_table::CellAlignment;
use luksmith::task::outcome;
use luksmith::task::search::{HeaderPlace, Search, random_seed};
use luksmith::vet::ciphertext::{AreaReport, Report, Sample};

use super::Session;
use super::args::ImageArgs;
use super::error::{CommandError, Exit};
use super::open::ReadArgs;
use super::size;
use super::table;

/// Search an image for data that is not encrypted
///
/// This reads IMAGE and reports the regions that do not look like ciphertext: those where byte
/// values occur too often or too evenly, and those with the signature of a file system or file. The
/// header is left out. Keyslots and unused space may be zero or look random. Zero regions of the
/// data are not a finding: they were discarded, or never written. They show which parts are unused.
/// Holes, for which the storage has no data, are counted apart and not read. Of a qcow2 image only
/// the clusters with data of the disk and its snapshots are judged.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    #[command(flatten)]
    image: ImageArgs,

    #[command(flatten)]
    read: ReadArgs,

    /// All of IMAGE is data: do not read a header
    #[arg(long, conflicts_with = "header")]
    no_header: bool,

    /// Read only N pieces of 64 KiB at random places of the data
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=4_000_000))]
    sample: Option<u32>,

    /// The seed of the places of --sample [default: a random one, which is printed]
    #[arg(long, value_name = "SEED", requires = "sample")]
    seed: Option<u64>,
}

const EXAMPLES: &str = "\
Examples:
  luksmith verify-ciphertext disk.img
  luksmith verify-ciphertext disk.img --sample 10000
  luksmith verify-ciphertext 'nbd+unix:///?socket=/run/remote.sock' --json | jq .suspicious
  luksmith verify-ciphertext data.img --header data.header
  luksmith verify-ciphertext disk.qcow2 --format qcow2

The search can show that data is not ciphertext. Each sector of 512 bytes and each block of 4096
bytes is tested by chi-square. The limits are so far out that the probability of a false alarm in
256 TiB of ciphertext is less than one in a million (2^-59 for each sector, whatever the number of
sectors). If only a part of a sector was ever written, the rest is still zero in the image: groups
of 16 zero bytes are left out of the test, and reported as zero.

The search cannot show that data is ciphertext, or of which key. It does not find:
  - compressed or random plaintext, the ciphertext of another key or of a weak passphrase, or that
    of a cipher that is used in an insecure way
  - a few bytes of plaintext in a sector that is otherwise ciphertext
  - up to about 64 bytes of plaintext in a sector that is otherwise zero, if they begin and end at
    multiples of 16
  - plaintext in the area of the header, which is left out
  - rare plaintext, with --sample
An image without a header is searched as a whole.

In a qcow2 image, offsets are those of the image. Compressed clusters are always a finding: QEMU
does not encrypt them. Tables, and clusters that are not in use, are not judged. No backing file is
opened.

Holes are found where the file system, or the NBD server (base:allocation), knows them; over NBD,
from 64 KiB on. A sample reads its places in any case.

Exit code: 0 all data looks like ciphertext or is zero, 11 there are regions that do not, 4 IMAGE or
its header cannot be read.";

impl Args {
    pub(crate) fn run(self, session: &Session) -> Result<(), CommandError> {
        let header = match (&self.image.header, self.no_header) {
            (_, true) => HeaderPlace::Nowhere,
            (Some(header), false) => HeaderPlace::Detached(header),
            (None, false) => HeaderPlace::Inside,
        };
        if self.image.trust.dir().is_some() {
            self.image.to_look(&self.read, session)?;
        }
        let (remote, options) = (self.image.remote.get(), self.read.options());
        let format = self.image.format;
        let search = Search::open(&self.image.image, header, format, remote, options, session)?;
        let sample = self.sample()?;
        let report = search.run(sample, session)?;
        let (image, layout) = (&self.image.image, search.layout());
        if session.json {
            let members = outcome::searched(image, &search, &report, sample);
            session.output.json(&members.into());
        } else {
            let header = match layout.version {
                Some(version) => format!("{version} header"),
                None => "no header; all of it is searched as data".to_owned(),
            };
            session.output.line(format_args!("{image}: {header}"));
            session.output.lines(table(&report.areas));
            for line in outcome::searched_lines(&report, sample) {
                session.output.line(line);
            }
        }
        self.verdict(session, &report)
    }

    fn sample(&self) -> Result<Option<Sample>, CommandError> {
        let Some(pieces) = self.sample else {
            return Ok(None);
        };
        let seed = match self.seed {
            Some(seed) => seed,
            None => random_seed()?,
        };
        Ok(Some(Sample { pieces, seed }))
    }

    fn verdict(&self, session: &Session, report: &Report) -> Result<(), CommandError> {
        let found = &report.suspicious;
        if found.count == 0 {
            return Ok(());
        }
        let regions = if found.count == 1 {
            "region does"
        } else {
            "regions do"
        };
        let message = format!(
            "{}: {} {regions} not look like ciphertext, {} in all",
            self.image.image,
            found.count,
            size::both(found.bytes)
        );
        let failure = CommandError::new(Exit::Findings, message);
        Err(match session.json {
            true => failure,
            false => failure
                .hint("--json lists the regions; the data there was written without encryption"),
        })
    }
}

fn table(areas: &[AreaReport]) -> String {
    let mut table = table::table();
    let has_holes = areas.iter().any(|area| area.tally.hole > 0);
    let mut header = vec!["area", "offset", "size", "ciphertext", "zero"];
    header.extend(has_holes.then_some("hole"));
    header.push("suspicious");
    table.set_header(header);
    for AreaReport { area, tally, .. } in areas {
        let mut row = vec![
            area.purpose.to_string(),
            area.range.start.to_string(),
            size::human(area.size()),
        ];
        if area.purpose.is_judged() {
            row.extend([tally.random, tally.zero].map(size::human));
            row.extend(has_holes.then(|| size::human(tally.hole)));
            row.push(size::human(tally.suspicious));
        } else {
            row.push("not judged".to_owned());
        }
        table.add_row(row);
    }
    if let Some(column) = table.column_mut(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table::trimmed(&table)
}
