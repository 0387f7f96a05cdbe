//! The `--state-dir` option.

use std::path::PathBuf;

use clap::Args;

use crate::cli::error::CommandError;

/// The directory of the journals.
#[derive(Debug, Args)]
pub(crate) struct StateArgs {
    /// The directory of the journals [default: XDG_STATE_HOME/luksmith; else /var/lib/luksmith for
    /// root, ~/.local/state/luksmith for others]
    #[arg(long, value_name = "DIR")]
    state_dir: Option<PathBuf>,
}

impl StateArgs {
    /// The directory of the journals: the system's state for root, and the user's for others.
    pub(crate) fn journals(&self) -> Result<PathBuf, CommandError> {
        let named = |variable| {
            std::env::var_os(variable)
                .map(PathBuf::from)
                .filter(|path| path.is_absolute())
        };
        if let Some(directory) = &self.state_dir {
            return Ok(directory.clone());
        }
        if let Some(state) = named("XDG_STATE_HOME") {
            return Ok(state.join("luksmith"));
        }
        if rustix::process::geteuid().is_root() {
            return Ok("/var/lib/luksmith".into());
        }
        let home = named("HOME").ok_or_else(|| {
            CommandError::parameters(
                "there is no directory for the journal: neither XDG_STATE_HOME nor HOME is set",
            )
            .hint("--state-dir DIR names one")
        })?;
        Ok(home.join(".local/state/luksmith"))
    }
}
