//! Confirmation of what would be lost: a question on a terminal, or `--force WHAT`.

use std::io::{self, BufRead, IsTerminal};

use clap::ValueEnum;
use clap::builder::{PossibleValuesParser, TypedValueParser};

use super::error::{CommandError, Kind};
use super::output;

/// What can be forced. A command accepts only the names that apply to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Force {
    /// replace a file, or overwrite a device
    Overwrite,
    /// destroy all keyslots
    Erase,
    /// remove the last keyslot that opens the volume
    LastKeyslot,
    /// remove a keyslot without proof that a passphrase opens another one
    Unproven,
    /// replace the keyslots with those of a backup
    Restore,
    /// restore the header of another volume, or over an unreadable header
    OtherUuid,
    /// cut off the end of the volume
    Shrink,
    /// change between LUKS1 and LUKS2
    Convert,
    /// change the UUID by which other programs find the volume
    Uuid,
    /// write the volume key to a file
    VolumeKey,
    /// remove a secret that domains or volumes use
    InUse,
    /// store a value that QEMU does not accept
    NotText,
}

impl Force {
    fn name(self) -> String {
        self.to_possible_value()
            .map(|value| value.get_name().to_owned())
            .unwrap_or_default()
    }
}

/// A parser of only these names.
pub(crate) fn only(names: &'static [Force]) -> impl TypedValueParser<Value = Force> {
    let values = names
        .iter()
        .filter_map(ValueEnum::to_possible_value)
        .collect::<Vec<_>>();
    PossibleValuesParser::new(values).try_map(|name| Force::from_str(&name, false))
}

/// Returns if `what` was forced or the user agrees. `loss` says what would be lost, as a sentence
/// without a full stop.
pub(crate) fn confirm(forced: &[Force], what: Force, loss: &str) -> Result<(), CommandError> {
    if forced.contains(&what) {
        tracing::info!("{loss}: forced");
        return Ok(());
    }
    let name = what.name();
    if !io::stdin().is_terminal() {
        // Overwriting is refused as "exists", all else as a missing argument.
        let kind = if what == Force::Overwrite {
            Kind::Exists
        } else {
            Kind::Parameters
        };
        return Err(
            CommandError::new(kind, loss).hint(format!("--force {name} goes on without asking"))
        );
    }
    output::warning(loss);
    output::raw(&format!("Type {name} to go on, anything else to stop: "));
    let mut answer = String::new();
    io::stdin()
        .lock()
        .read_line(&mut answer)
        .map_err(|error| CommandError::parameters(format!("cannot read the answer: {error}")))?;
    if answer.trim() == name {
        Ok(())
    } else {
        Err(CommandError::parameters("stopped; nothing was changed"))
    }
}
