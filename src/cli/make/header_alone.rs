//! A header without its data.

use std::path::Path;
use std::sync::Arc;

use luksmith::backend::memory::MemoryBackend;
use luksmith::container::{self, Container, Undo};
use luksmith::secret::Passphrase;

use super::{Extent, Target, check_size, measure, options, too_large};
use crate::cli::Session;
use crate::cli::args::NewVolumeArgs;
use crate::cli::error::CommandError;

/// The header of a volume whose data lies where others write it, and the volume has its size from: made in memory.
pub(crate) struct HeaderAlone {
    pub(crate) container: Container,
    pub(crate) storage: Arc<MemoryBackend>,
    /// Where the data begins, in bytes; the header has all that is before.
    pub(crate) offset: u64,
}

impl HeaderAlone {
    /// Measures the key derivation and makes the header of a volume of `size` bytes.
    pub(crate) fn make(
        session: &Session,
        args: &NewVolumeArgs,
        size: u64,
        passphrase: &Passphrase,
    ) -> Result<Self, CommandError> {
        let extent = Extent::Size(size);
        let nothing_yet = Target::New(Path::new(""));
        let (mut options, layout) = options(session, args, extent, &nothing_yet, None)?;
        check_size(extent, options.sector_size)?;
        measure(session, args, &mut options)?;
        let offset = layout.data_offset;
        let storage = Arc::new(MemoryBackend::new(
            usize::try_from(offset).map_err(|_| too_large())?,
        ));
        let open = container::OpenOptions::new(Undo::NotLookedFor).limits(args.limits.limits());
        let (container, _) = Container::create(
            storage.clone(),
            options,
            open,
            passphrase,
            session.signals.interrupt(),
        )?;
        Ok(Self {
            container,
            storage,
            offset,
        })
    }
}
