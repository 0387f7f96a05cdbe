//! Encrypts a plain disk image into a new volume in a file, and shows its progress. The new file
//! gets its name when it is complete: `cargo run --example encrypt -- plain.img disk.luks`

#![allow(clippy::print_stderr)] // a program, not the library

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use luksmith::Interrupt;
use luksmith::location::Location;
use luksmith::secret::{Passphrase, Purpose, SecretSource, Source};
use luksmith::task::new_volume::{Extent, NewVolume, Plan};
use luksmith::task::plain::PlainSource;
use luksmith::task::{self, Kind, Note, Watch, copy};

/// Shows how many MiB are done. A signal handler may set the interrupt.
#[derive(Default)]
pub(crate) struct Progress(pub(crate) Interrupt, pub(crate) AtomicU64);

impl Watch for Progress {
    fn interrupt(&self) -> &Interrupt {
        &self.0
    }
    fn advances(&self, by: u64) {
        let done = self.1.fetch_add(by, Ordering::Relaxed) + by;
        eprint!("\r{} MiB", done >> 20);
    }
    fn notes(&self, note: Note<'_>) {
        eprintln!("{note}");
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    luksmith::sys::harden()?;
    let [plain, image] = [1, 2].map(|n| std::env::args_os().nth(n).unwrap_or_default());
    let watch = Progress::default();
    let purpose = Purpose::new_secret("the new volume", &watch.0);
    let passphrase = "prompt".parse::<Source>()?.read(purpose)?;
    let image = Location::parse(&image)?;
    Ok(encrypt(plain.as_ref(), &image, &passphrase, &watch)?)
}

pub(crate) fn encrypt(
    plain: &Path,
    image: &Location,
    passphrase: &Passphrase,
    watch: &dyn Watch,
) -> Result<(), task::Error> {
    let mut source = PlainSource::open(plain)?;
    let size = Extent::AtLeast(source.size().unwrap_or(0));
    let plan = Plan::look(NewVolume::default(), image, size)?;
    // An existing file is not overwritten without asking.
    if let Some(loss) = plan.losses().first() {
        return Err(task::Error::new(Kind::Exists, loss.to_string()));
    }
    let made = plan.make(passphrase, watch)?;
    copy::encrypt(&made.volume()?, made.fill(), &mut source, watch)?;
    made.keep()?;
    Ok(())
}
