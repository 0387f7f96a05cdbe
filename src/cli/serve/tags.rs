//! What the server does with volumes whose data has tags.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use clap::Args;
use luksmith::trust::tags::TagsOptions;

use crate::cli::args::{Choice, choice};
use crate::cli::error::{CommandError, Kind};

/// What happens when data is not as it was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum OnTamper {
    Error,
    Stop,
}

const ON_TAMPER: &[Choice<OnTamper>] = &[
    (
        "error",
        "The request fails, and the server goes on",
        OnTamper::Error,
    ),
    (
        "stop",
        "The request fails, and the server stops with exit code 7",
        OnTamper::Stop,
    ),
];

/// How tags of the data are used.
#[derive(Debug, Args)]
pub(super) struct TagsArgs {
    /// What happens when data is not as it was written, by the tags in DIR of --trust
    #[arg(long, value_name = "WHAT", help_heading = None::<&str>, default_value = "error", value_parser = choice(ON_TAMPER))]
    on_tamper: OnTamper,

    /// A write does not wait until its tag is on the disk of this host, but only a flush does: if
    /// this host fails, what was written since the last flush may be errors
    #[arg(long, help_heading = None::<&str>)]
    tags_relaxed: bool,
}

impl TagsArgs {
    /// How the tags of each export are used, and what stops the server. `is_pinned`: whether an
    /// export has a pin.
    pub(super) fn options(&self, is_pinned: bool) -> Result<(TagsOptions, Tamper), CommandError> {
        let flag = match self {
            Self {
                tags_relaxed: true, ..
            } => Some("--tags-relaxed"),
            Self {
                on_tamper: OnTamper::Stop,
                ..
            } => Some("--on-tamper stop"),
            _ => None,
        };
        if let (Some(flag), false) = (flag, is_pinned) {
            let message = format!("{flag} is for volumes with tags");
            let hint = "--trust DIR names the folder of the tags";
            return Err(CommandError::parameters(message).hint(hint));
        }
        let options = TagsOptions::new().relaxed(self.tags_relaxed);
        let tamper = Tamper::default();
        let options = match self.on_tamper {
            OnTamper::Error => options,
            OnTamper::Stop => {
                let found = tamper.0.clone();
                options.on_tamper(Some(Arc::new(move || found.stop())))
            }
        };
        Ok((options, tamper))
    }
}

/// Whether data was found that is not as it was written, for a server that stops then.
#[derive(Default)]
pub(super) struct Tamper(Arc<Found>);

#[derive(Default)]
struct Found {
    is_found: AtomicBool,
    stop: OnceLock<Box<dyn Fn() + Send + Sync>>,
}

impl Found {
    fn stop(&self) {
        self.is_found.store(true, Ordering::SeqCst);
        if let Some(stop) = self.stop.get() {
            stop();
        }
    }
}

impl Tamper {
    /// Calls this when such data is found, also if that was before.
    pub(super) fn stops(&self, stop: impl Fn() + Send + Sync + 'static) {
        let _ = self.0.stop.set(Box::new(stop));
        if self.0.is_found.load(Ordering::SeqCst) {
            self.0.stop();
        }
    }

    /// Fails if such data was found.
    pub(super) fn check(&self) -> Result<(), CommandError> {
        match self.0.is_found.load(Ordering::SeqCst) {
            false => Ok(()),
            true => {
                let message = "the server has stopped, since data is not as it was written";
                let hint = "`luksmith trust verify IMAGE --trust DIR` says which blocks, with a source \
                            of the passphrase such as --key-file";
                Err(CommandError::new(Kind::NotTrusted, message).hint(hint))
            }
        }
    }
}
