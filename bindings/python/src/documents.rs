//! What the program prints as JSON, as dicts: the header of a volume, an inspection, an audit.

use std::path::PathBuf;

use luksmith::audit::{Inventory, Severity};
use luksmith::formats::json::{Object, Value};
use luksmith::formats::limits::Limits;
use luksmith::task::audit::{add_host, add_images, read_document, read_policy};
use luksmith::task::open_volume::{Task, inspect as inspect_image};
use luksmith::task::outcome::{self, Described};
use pyo3::prelude::*;
use pyo3::types::PyDict;

use crate::options::{location, named};
use crate::work::Watching;

/// A document as a dict.
pub(crate) fn loaded<'py>(py: Python<'py>, document: &Value) -> PyResult<Bound<'py, PyAny>> {
    py.import("json")?
        .call_method1("loads", (document.to_string(),))
}

fn dict<'py>(py: Python<'py>, members: Object) -> PyResult<Bound<'py, PyAny>> {
    loaded(py, &members.into())
}

/// What the header of a volume says, with its keyslots, without a key and also while another
/// program writes to it: the document of `luksmith info --json`. Options: format, header,
/// force_share, trust.
#[pyfunction]
#[pyo3(signature = (image, **options))]
pub(crate) fn info<'py>(
    py: Python<'py>,
    image: PathBuf,
    options: Option<&Bound<'py, PyDict>>,
) -> PyResult<Bound<'py, PyAny>> {
    let options = named(py, options, Task::Open)?;
    let location = location(py, &image)?;
    let members = Watching::new(None).run(py, |watch| {
        let (image, file) = (options.image(location)?, options.file()?);
        let (container, data) = image.open_data_to_look(file, Limits::default(), watch)?;
        Ok(Described::new(&image, &container, &data).members())
    })?;
    dict(py, members)
}

/// Checks an image of unknown origin in its declared format ("qcow2", "raw", "luks", …), without a
/// key: the document of `luksmith inspect --json`. Its "verdict" is "accept", "reject" or "policy".
/// A symbolic link is not followed by default. Options: follow_symlinks, force_share, max_size,
/// policy (a path).
#[pyfunction]
#[pyo3(signature = (image, format, **options))]
pub(crate) fn inspect<'py>(
    py: Python<'py>,
    image: PathBuf,
    format: &str,
    options: Option<&Bound<'py, PyDict>>,
) -> PyResult<Bound<'py, PyAny>> {
    let options = named(py, options, Task::Inspect)?;
    let location = location(py, &image)?;
    let members = Watching::new(None).run(py, |watch| {
        inspect_image(&location, format, &options, watch)
    })?;
    dict(py, members)
}

/// Audits the use of libvirt, from files with XML of domains, pools, volumes and secrets, and with
/// `host` the settings of the host whose root is `root`: the document of `luksmith audit --json`.
/// `images` says whether the images are opened that the XML names. Its "verdict" is "accept" if
/// nothing is worse than a note.
#[pyfunction]
#[pyo3(signature = (documents, *, host=false, root=PathBuf::from("/"), images=true, policy=None))]
pub(crate) fn audit<'py>(
    py: Python<'py>,
    documents: Vec<PathBuf>,
    host: bool,
    root: PathBuf,
    images: bool,
    policy: Option<PathBuf>,
) -> PyResult<Bound<'py, PyAny>> {
    let members = Watching::new(None).run(py, |watch| {
        let policy = policy.as_deref().map(read_policy).transpose()?;
        let mut inventory = Inventory::default();
        for path in &documents {
            inventory.documents.push(read_document(path)?);
        }
        if host {
            add_host(&root, &mut inventory)?;
        }
        if images {
            add_images(&mut inventory, watch)?;
        }
        let report = luksmith::audit::audit(&inventory, &policy.unwrap_or_default());
        let accepted = report.from_severity(Severity::Warning) == 0;
        Ok(outcome::audited(&report, accepted))
    })?;
    dict(py, members)
}
