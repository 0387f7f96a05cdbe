//! Confirmation of what would be lost: a question on a terminal, or `--force WHAT`.

use std::io::{self, BufRead, IsTerminal};

use clap::ValueEnum;
use clap::builder::{PossibleValuesParser, TypedValueParser};

use luksmith::task::plain::PlainAccess;

use super::args::RemoteArgs;
use super::error::{CommandError, Kind};
use super::{output, signals};

/// What can be forced. A command accepts only the names that apply to it, and says what each of
/// them permits there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Force {
    Overwrite,
    Erase,
    LastKeyslot,
    Unproven,
    Restore,
    OtherUuid,
    OtherKey,
    Rollback,
    Fresh,
    Shrink,
    Convert,
    SectorSize,
    UnverifiedBlocks,
    AsItIs,
    Uuid,
    VolumeKey,
    InUse,
    JournalLost,
    Unfenced,
    PlaintextOverNetwork,
    NotText,
}

impl Force {
    fn name(self) -> String {
        self.to_possible_value()
            .map(|value| value.get_name().to_owned())
            .unwrap_or_default()
    }

    fn flag(self) -> String {
        format!("--force {}", self.name())
    }
}

/// A parser of only these names, with what each of them permits, for `--help`.
pub(crate) fn only(
    names: &'static [(Force, &'static str)],
) -> impl TypedValueParser<Value = Force> {
    let value = |(name, help): &(Force, &'static str)| Some(name.to_possible_value()?.help(*help));
    let values = names.iter().filter_map(value).collect::<Vec<_>>();
    PossibleValuesParser::new(values).try_map(|name| Force::from_str(&name, false))
}

/// How an export with plain data is reached.
pub(crate) fn access(remote: &RemoteArgs, forced: &[Force]) -> PlainAccess {
    let mut access = PlainAccess::default();
    access.remote = remote.get();
    access.over_network = forced.contains(&Force::PlaintextOverNetwork);
    access
}

/// Returns if `what` was forced or the user agrees. `loss` says what would be lost, as a sentence
/// without a full stop.
pub(crate) fn confirm(forced: &[Force], what: Force, loss: &str) -> Result<(), CommandError> {
    confirm_all(forced, &[(what, loss.to_owned())])
}

/// As [`confirm`], for several losses: all that are not forced are named at once.
pub(crate) fn confirm_all(
    forced: &[Force],
    losses: &[(Force, String)],
) -> Result<(), CommandError> {
    let (agreed, open): (Vec<_>, Vec<_>) =
        losses.iter().partition(|(what, _)| forced.contains(what));
    for (_, loss) in agreed {
        tracing::info!("{loss}: forced");
    }
    if open.is_empty() {
        return Ok(());
    }
    if !io::stdin().is_terminal() || output::are_events() {
        let all = |one: Force| open.iter().all(|(what, _)| *what == one);
        let kind = match () {
            () if all(Force::Overwrite) => Kind::Exists,
            () if all(Force::Rollback) => Kind::NotTrusted,
            () => Kind::Parameters,
        };
        let mut flags: Vec<_> = open.iter().map(|(what, _)| what.flag()).collect();
        flags.dedup();
        let losses: Vec<_> = open.iter().map(|(_, loss)| loss.as_str()).collect();
        let hint = format!("{} goes on without asking", flags.join(" "));
        return Err(CommandError::new(kind, losses.join("; ")).hint(hint));
    }
    for (what, loss) in open {
        ask(&what.name(), loss)?;
    }
    Ok(())
}

/// Shows a warning, and returns if the user types `name`.
pub(crate) fn ask(name: &str, loss: &str) -> Result<(), CommandError> {
    output::warning(loss);
    output::raw(&format!("Type {name} to go on, anything else to stop: "));
    let mut answer = String::new();
    signals::ending(|| io::stdin().lock().read_line(&mut answer))?
        .map_err(|error| CommandError::parameters(format!("cannot read the answer: {error}")))?;
    if answer.trim() == name {
        Ok(())
    } else {
        Err(CommandError::parameters("stopped; nothing was changed"))
    }
}
