//! Opened volumes.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use luksmith::backend::{IoError, Operation};
use luksmith::formats::json::Value;
use luksmith::secret::Purpose;
use luksmith::task::new_volume::{Extent, Plan};
use luksmith::task::open_volume::{Force, Named, OpenVolume, Removal, Task};
use luksmith::task::{Error, Kind, Watch};
use luksmith::volume::Volume;
use pyo3::buffer::PyBuffer;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict, PyTuple};

use crate::buffer;
use crate::documents::loaded;
use crate::error::{closed, contradiction, raise};
use crate::keys::key as key_of;
use crate::options::{location, named};
use crate::server::PyServer;
use crate::work::{Watching, drop_detached};

/// Opens the volume in a file, on a block device or on an NBD export (a path or a URI), and unlocks
/// it if there is a key.
///
/// It is open for reading, and with `write` for writing, when no other program may have it open.
/// Options: format, header, force_share, keyslot (the only one that the key is tried with), trust
/// (the folder of the pin with which the header is compared).
#[pyfunction]
#[pyo3(signature = (image, *, key=None, write=false, keyslot=None, progress=None, **options))]
pub(crate) fn open(
    py: Python<'_>,
    image: PathBuf,
    key: Option<Bound<'_, PyAny>>,
    write: bool,
    keyslot: Option<u32>,
    progress: Option<Py<PyAny>>,
    options: Option<&Bound<'_, PyDict>>,
) -> PyResult<PyVolume> {
    let options = named(py, options, Task::Open)?;
    if options.text("read-only").is_some() && options.flag("read-only").map_err(raise(py))? == write
    {
        return Err(contradiction(
            py,
            "read_only and write contradict each other",
        ));
    }
    let location = location(py, &image)?;
    let (image, file) = options
        .image(location)
        .and_then(|image| Ok((image, options.file()?)))
        .map_err(raise(py))?;
    let watching = Watching::waiting(progress.as_ref().map(|it| it.clone_ref(py)));
    let opened = watching.run(py, |watch| OpenVolume::open(image, !write, file, watch))?;
    let volume = PyVolume::of(opened);
    if let Some(key) = key {
        volume.unlock(py, &key, keyslot, progress)?;
    }
    Ok(volume)
}

/// Makes a volume of `size` bytes of plaintext in a new file, on a block device or on an NBD
/// export, and opens it for writing. Without a size it has that of the device or export.
///
/// What would be overwritten raises `Exists`, unless force="overwrite". Options: cipher,
/// cluster_size, force, format, hash, header, iter_time (in ms), key_size (in bits), keyslot,
/// label, pbkdf, pbkdf_force_iterations, pbkdf_memory (in KiB), pbkdf_parallel, preallocate,
/// sector_size, subsystem, type, uuid.
#[pyfunction]
#[pyo3(signature = (image, size=None, *, key, progress=None, **options))]
pub(crate) fn create(
    py: Python<'_>,
    image: PathBuf,
    size: Option<u64>,
    key: &Bound<'_, PyAny>,
    progress: Option<Py<PyAny>>,
    options: Option<&Bound<'_, PyDict>>,
) -> PyResult<PyVolume> {
    let options = named(py, options, Task::Create)?;
    let location = location(py, &image)?;
    let watching = Watching::waiting(progress);
    let key = key_of(key, &watching)?;
    let made = watching.run(py, |watch| {
        let extent = size.map_or(Extent::AllThereIs, Extent::Exactly);
        let plan = Plan::look(options.new_volume()?, &location, extent)?;
        if let (Some(loss), false) = (plan.losses().first(), options.permits(Force::Overwrite)) {
            let loss = loss.to_string();
            return Err(Named::refused(Kind::Exists, loss, Force::Overwrite));
        }
        let label = location.to_string();
        let passphrase = key.read(Purpose::new_secret(&label, watch.interrupt()))?;
        let made = plan.make(&passphrase, watch)?;
        OpenVolume::made(made, options.image(location)?, watch)
    })?;
    Ok(PyVolume::of(made))
}

/// A volume: a disk of bytes. Closing it, or leaving its `with`, flushes it.
#[pyclass(name = "Volume", module = "luksmith", frozen)]
pub(crate) struct PyVolume(Mutex<Option<Arc<OpenVolume>>>);

impl PyVolume {
    fn of(volume: OpenVolume) -> Self {
        Self(Mutex::new(Some(Arc::new(volume))))
    }

    fn held(&self) -> Option<Arc<OpenVolume>> {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    fn get(&self) -> PyResult<Arc<OpenVolume>> {
        self.held().ok_or_else(|| closed("volume"))
    }

    fn plaintext(&self, py: Python<'_>) -> PyResult<Arc<Volume>> {
        let volume = self.get()?;
        py.detach(|| volume.volume()).map_err(raise(py))
    }
}

#[pymethods]
impl PyVolume {
    /// The size in bytes. None if it is not known: for a detached header, while it is locked.
    #[getter]
    fn size(&self, py: Python<'_>) -> PyResult<Option<u64>> {
        let volume = self.get()?;
        Ok(py.detach(|| volume.size()))
    }

    /// The size of a sector in bytes.
    #[getter]
    fn sector_size(&self, py: Python<'_>) -> PyResult<u32> {
        Ok(self.plaintext(py)?.sector_size())
    }

    /// Whether it was opened for reading.
    #[getter]
    fn read_only(&self) -> PyResult<bool> {
        Ok(self.get()?.is_read_only())
    }

    /// Whether it is locked: `unlock` opens its plaintext.
    #[getter]
    fn locked(&self, py: Python<'_>) -> PyResult<bool> {
        let volume = self.get()?;
        Ok(py.detach(|| !volume.is_unlocked()))
    }

    /// Whether it is closed.
    #[getter]
    fn closed(&self) -> bool {
        self.held().is_none()
    }

    /// Unlocks it, and returns the number of the keyslot that the key opens.
    #[pyo3(signature = (key, *, keyslot=None, progress=None))]
    fn unlock(
        &self,
        py: Python<'_>,
        key: &Bound<'_, PyAny>,
        keyslot: Option<u32>,
        progress: Option<Py<PyAny>>,
    ) -> PyResult<Option<u32>> {
        let (volume, watching) = (self.get()?, Watching::new(progress));
        let key = key_of(key, &watching)?;
        let which = keyslot.map_or(luksmith::container::Which::Any, |slot| {
            luksmith::container::Which::Slot(slot)
        });
        watching.run(py, |watch| {
            let label = volume.image().location.to_string();
            let passphrase = key.read(Purpose::unlock(&label, watch.interrupt()))?;
            volume.unlock(&passphrase, which, watch)
        })
    }

    /// Reads `size` bytes from `offset` on.
    fn pread<'py>(
        &self,
        py: Python<'py>,
        size: usize,
        offset: u64,
    ) -> PyResult<Bound<'py, PyBytes>> {
        let volume = self.plaintext(py)?;
        // Before memory is allocated.
        check_range(&volume, offset, size as u64).map_err(raise(py))?;
        // Only this thread knows the new object.
        PyBytes::new_with(py, size, |bytes| {
            py.detach(|| volume.read_at(offset, bytes))
                .map_err(raise(py))
        })
    }

    /// Fills all of a writable, contiguous buffer of bytes with those from `offset` on, and returns
    /// how many they are.
    fn preadinto(&self, py: Python<'_>, buffer: PyBuffer<u8>, offset: u64) -> PyResult<usize> {
        buffer::read(py, &*self.plaintext(py)?, &buffer, offset)
    }

    /// Writes all bytes of a contiguous buffer at `offset`, and returns how many they are. They are
    /// durable after `flush`.
    fn pwrite(&self, py: Python<'_>, buffer: PyBuffer<u8>, offset: u64) -> PyResult<usize> {
        buffer::write(py, &*self.plaintext(py)?, &buffer, offset)
    }

    /// Makes everything durable that was written before.
    fn flush(&self, py: Python<'_>) -> PyResult<()> {
        let volume = self.plaintext(py)?;
        py.detach(|| volume.flush()).map_err(raise(py))
    }

    /// Lets the storage free whole sectors in this range. They read as random bytes then, and in a
    /// qcow2 image as zeroes.
    fn discard(&self, py: Python<'_>, offset: u64, size: u64) -> PyResult<()> {
        let volume = self.plaintext(py)?;
        let end = end(py, offset, size)?;
        py.detach(|| volume.discard(offset..end)).map_err(raise(py))
    }

    /// Makes the bytes of this range read as zeroes. Encrypted zeroes are stored.
    fn write_zeroes(&self, py: Python<'_>, offset: u64, size: u64) -> PyResult<()> {
        let volume = self.plaintext(py)?;
        let end = end(py, offset, size)?;
        py.detach(|| volume.write_zeroes(offset..end))
            .map_err(raise(py))
    }

    /// Changes the size. Cutting off the end raises `PermissionDenied`, unless `shrink`.
    #[pyo3(signature = (size, *, shrink=false))]
    fn resize(&self, py: Python<'_>, size: u64, shrink: bool) -> PyResult<()> {
        let volume = self.get()?;
        py.detach(|| volume.resize(size, shrink)).map_err(raise(py))
    }

    /// What the header says, with the keyslots: the document of `luksmith info --json`.
    fn info<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        let volume = self.get()?;
        let described = py.detach(|| Value::from(volume.describe()));
        loaded(py, &described)
    }

    /// The plaintext as a seekable file object, an `io.RawIOBase`.
    fn file(this: Bound<'_, Self>) -> PyResult<Bound<'_, PyAny>> {
        let module = this.py().import("luksmith._file")?;
        module.getattr("VolumeFile")?.call1((this,))
    }

    /// Adds a keyslot for another key, and returns its number. Options: iter_time, pbkdf,
    /// pbkdf_force_iterations, pbkdf_memory, pbkdf_parallel.
    #[pyo3(signature = (new_key, *, keyslot=None, progress=None, **options))]
    fn add_key(
        &self,
        py: Python<'_>,
        new_key: &Bound<'_, PyAny>,
        keyslot: Option<u32>,
        progress: Option<Py<PyAny>>,
        options: Option<&Bound<'_, PyDict>>,
    ) -> PyResult<u32> {
        let (volume, watching) = (self.get()?, Watching::new(progress));
        let cost = named(py, options, Task::Keyslot)?
            .cost()
            .map_err(raise(py))?;
        let new_key = key_of(new_key, &watching)?;
        watching.run(py, |watch| {
            volume.volume()?;
            let label = format!("a new keyslot of {}", volume.image().location);
            let new = new_key.read(Purpose::new_secret(&label, watch.interrupt()))?;
            volume.add_keyslot(&new, keyslot, &cost, watch)
        })
    }

    /// Replaces a key, and returns the number of the keyslot of the new one. `keyslot` is that of
    /// the old one. Options: as `add_key`.
    #[pyo3(signature = (old_key, new_key, *, keyslot=None, progress=None, **options))]
    fn change_key(
        &self,
        py: Python<'_>,
        old_key: &Bound<'_, PyAny>,
        new_key: &Bound<'_, PyAny>,
        keyslot: Option<u32>,
        progress: Option<Py<PyAny>>,
        options: Option<&Bound<'_, PyDict>>,
    ) -> PyResult<u32> {
        let (volume, watching) = (self.get()?, Watching::new(progress));
        let cost = named(py, options, Task::Keyslot)?
            .cost()
            .map_err(raise(py))?;
        let old_key = key_of(old_key, &watching)?;
        let new_key = key_of(new_key, &watching)?;
        watching.run(py, |watch| {
            let label = volume.image().location.to_string();
            let old = old_key.read(Purpose::unlock(&label, watch.interrupt()))?;
            let new = new_key.read(Purpose::new_secret(&label, watch.interrupt()))?;
            volume.change_keyslot(&old, keyslot, &new, &cost, watch)
        })
    }

    /// Removes a keyslot, and returns how many others open the volume. The last one raises
    /// `PermissionDenied`, unless `last`. So does the one that has unlocked the volume, unless
    /// `unproven`: nothing has shown that another one opens it.
    #[pyo3(signature = (keyslot, *, last=false, unproven=false))]
    fn remove_keyslot(
        &self,
        py: Python<'_>,
        keyslot: u32,
        last: bool,
        unproven: bool,
    ) -> PyResult<usize> {
        let volume = self.get()?;
        let mut removal = Removal::of(keyslot);
        (removal.last, removal.unproven) = (last, unproven);
        py.detach(|| volume.remove_keyslot(removal))
            .map_err(raise(py))
    }

    /// Serves it over NBD on a new Unix socket, until the server is stopped. Only this user can
    /// connect by default. Options: description, discard, max_connections, name, read_only,
    /// socket_group (a number), socket_mode (such as "660").
    #[pyo3(signature = (socket, **options))]
    fn serve(
        &self,
        py: Python<'_>,
        socket: PathBuf,
        options: Option<&Bound<'_, PyDict>>,
    ) -> PyResult<PyServer> {
        let options = named(py, options, Task::Serve)?;
        PyServer::start(py, &*self.get()?, socket, &options)
    }

    /// Flushes and closes it. A server goes on.
    fn close(&self, py: Python<'_>) -> PyResult<()> {
        let held = self.0.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some(held) = held else {
            return Ok(());
        };
        let flushed = py.detach(move || match held.volume() {
            Ok(volume) => volume.flush().map_err(Error::from),
            Err(_) => Ok(()), // it is locked
        });
        flushed.map_err(raise(py))
    }

    fn __enter__(this: Py<Self>) -> Py<Self> {
        this
    }

    #[pyo3(signature = (*_exception))]
    fn __exit__(&self, py: Python<'_>, _exception: &Bound<'_, PyTuple>) -> PyResult<()> {
        self.close(py)
    }
}

impl Drop for PyVolume {
    fn drop(&mut self) {
        let held = self.0.get_mut().unwrap_or_else(PoisonError::into_inner);
        drop_detached(held.take());
    }
}

/// Checks that a range is inside of the volume.
fn check_range(volume: &Volume, offset: u64, len: u64) -> Result<(), IoError> {
    let size = volume.size();
    match offset.checked_add(len) {
        Some(end) if end <= size => Ok(()),
        _ => Err(IoError::OutOfRange {
            operation: Operation::Read,
            offset,
            len,
            size,
        }),
    }
}

/// The end of a range.
fn end(py: Python<'_>, offset: u64, size: u64) -> PyResult<u64> {
    let end = offset.checked_add(size);
    let end = end.ok_or_else(|| Error::parameters("offset and size are 2^64 bytes or more"));
    end.map_err(raise(py))
}
