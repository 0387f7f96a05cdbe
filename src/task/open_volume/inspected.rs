//! Inspects an image of unknown origin, with options by their names.

use std::path::Path;

use luksmith_formats::json::Object;

use super::named::{Named, Task};
use crate::location::Location;
use crate::task::inspect::read_policy;
use crate::task::storage::{Remote, Storage};
use crate::task::{Error, Watch, outcome};
use crate::vet::{self, Format, Policy};

/// Inspects an image in its stated format: the document of `luksmith inspect --json`. Its member
/// `verdict` is `accept`, `reject` or `policy`. A symbolic link is not followed by default.
///
/// # Errors
/// Options that contradict, and what the storage reports. What is wrong with the image is in the
/// document.
pub fn inspect(
    location: &Location,
    format: &str,
    named: &Named,
    watch: &dyn Watch,
) -> Result<Object, Error> {
    named.check(Task::Inspect)?;
    let format = Format::by_name(format).ok_or_else(|| {
        let names = Format::ALL.map(Format::name).join(", ");
        Error::parameters(format!("format: it is one of {names}"))
    })?;
    let mut policy = match named.text("policy") {
        Some(path) => read_policy(Path::new(path))?,
        None => Policy::default(),
    };
    policy.max_size = named.number("max-size")?.unwrap_or(policy.max_size);
    let file = named.file()?.no_follow(!named.flag("follow-symlinks")?);
    let image = Storage::open(location, Remote::default(), file, watch.interrupt())?;
    let report = vet::inspect(&*image.backend, format, &policy);
    let report = report.map_err(|error| Error::from(error).about(location))?;
    Ok(outcome::inspected(location, &report, None))
}
